"""Where a registry's own certificates are kept: containers-certs.d(5)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .home import User

log = logging.getLogger(__name__)

SYSTEM: Final = (
    Path("/etc/containers/certs.d"),
    Path("/usr/share/containers/certs.d"),
    Path("/etc/docker/certs.d"),
)


def find_cert_dir(host: str, *, user: User | None = None, system: Sequence[Path] = SYSTEM) -> Path | None:
    """The first directory there is for ``host[:port]``, the user's own before those of the ``system``.

    One that this user may not list is passed over, as is one behind a directory of somebody else. Blocks.
    """
    config = (user or User.of()).config
    own = [config / "containers/certs.d"] if config else []
    for base in (*own, *system):
        if _is_open(base / host):
            return base / host
    return None


def _is_open(directory: Path) -> bool:
    try:
        with os.scandir(directory):
            return True
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as exc:
        log.debug("%s is passed over: %s", directory, exc)
        return False
