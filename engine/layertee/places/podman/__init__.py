"""containers-storage, the store of podman, buildah and skopeo."""
