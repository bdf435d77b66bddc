"""Everything about the real skopeo: finding it, standing in for it, having it judge signatures."""
