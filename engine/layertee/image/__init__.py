"""What an image is: digests, documents, references, pairs and holdings. No I/O."""
