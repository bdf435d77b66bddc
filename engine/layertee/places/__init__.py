"""What other owners on this machine hold: layouts, archives, podman, ostree, composefs."""
