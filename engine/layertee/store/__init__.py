"""The store: an OCI image layout, its catalog, its blobs and images, and what is swept from it."""
