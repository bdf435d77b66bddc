"""Docker Hub, the one registry that is not found under its name, and has several."""

from __future__ import annotations

NAME = "docker.io"
NAMES = frozenset({NAME, "index.docker.io"})  # what images may call it
API_HOST = "registry-1.docker.io"
API_HOSTS = frozenset({API_HOST, "index.docker.io", "registry.hub.docker.com"})
TOKEN_HOST = "auth.docker.io"
LOGIN_KEY = "https://index.docker.io/v1/"  # what `docker login` stores for it
