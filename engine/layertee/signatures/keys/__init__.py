"""Signatures by keys and certificates (sigstoreSigned): what Cosign puts beside an image, and who made it."""
