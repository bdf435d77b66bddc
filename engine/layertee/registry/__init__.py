"""Asking a registry: HTTP, credentials, redirects, documents."""
