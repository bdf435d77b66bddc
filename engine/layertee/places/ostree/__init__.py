"""ostree repositories that container images are imported into, as bootc does."""
