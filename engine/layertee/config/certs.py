"""Where a registry's own certificates are kept: containers-certs.d(5)."""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = (
    Path("/etc/containers/certs.d"),
    Path("/usr/share/containers/certs.d"),
    Path("/etc/docker/certs.d"),
)


def find_cert_dir(host: str) -> Path | None:
    """The first directory there is for ``host[:port]``, the user's own before the system's."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    user = Path(config) if os.path.isabs(config) else Path.home() / ".config"
    for base in (user / "containers/certs.d", *_SYSTEM):
        if (base / host).is_dir():
            return base / host
    return None
