"""What trust.toml asks for: bundles, identities, attestations, and how many of them."""
