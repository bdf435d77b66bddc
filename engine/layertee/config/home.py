"""Who the user is, and where that user keeps things: asked of the environment and passwd in one place.

XDG Base Directory Specification 0.8. A directory that is not absolute is ignored, as the specification wants:
it would be another one tomorrow. HOME counts where it is absolute, else the user's entry in passwd, as for a
service that systemd starts without a HOME. A user may have neither (a container that runs as some number):
then there is no home, which matters only to what cannot do without one.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from ..errors import NoHome
from ..record import dataclass


def passwd_home(uid: int) -> str | None:
    """The home that the user database has for ``uid``. May ask a directory service: blocks."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None


def uid_outside(environ: Mapping[str, str], uid: int) -> int:
    """Who ``uid`` is outside of a user namespace: podman notes that for what it starts in one."""
    noted = environ.get("_CONTAINERS_ROOTLESS_UID")
    if not noted:
        return uid
    return int(noted) if noted.isascii() and noted.isdigit() and len(noted) < 12 else 0


@dataclass(frozen=True, slots=True)
class User:
    """One user's directories: absolute, and None where the user has none. They need not exist.

    ``config``, ``data`` and ``cache`` are beneath ``home`` unless the environment names others; ``runtime``
    is only where the environment names one.
    """

    uid: int
    home: Path | None
    config: Path | None
    data: Path | None
    cache: Path | None
    runtime: Path | None

    @classmethod
    def of(
        cls,
        environ: Mapping[str, str] = os.environ,
        uid: int | None = None,
        passwd: Callable[[int], str | None] = passwd_home,
    ) -> Self:
        """The user ``uid``, the effective one if None, with the environment ``environ``.

        Root of a user namespace that podman made (``podman unshare``) is the user who made it: it has that
        user's files, and none of the machine's root.

        ``passwd`` answers the home of a user, and is asked only where the environment has none. Blocks.
        """
        if uid is None:
            uid = os.geteuid()
            if uid == 0:
                uid = uid_outside(environ, uid)
        home = _absolute(environ.get("HOME")) or _absolute(passwd(uid))

        def directory(name: str, beneath_home: str) -> Path | None:
            return _absolute(environ.get(name)) or (home / beneath_home if home else None)

        return cls(
            uid,
            home,
            directory("XDG_CONFIG_HOME", ".config"),
            directory("XDG_DATA_HOME", ".local/share"),
            directory("XDG_CACHE_HOME", ".cache"),
            _absolute(environ.get("XDG_RUNTIME_DIR")),
        )

    def data_for(self, what: str) -> Path:
        """``data``, where ``what`` would be kept. Raises NoHome, which says that, and what to set."""
        if self.data is None:
            raise NoHome(
                f"user {self.uid} has no home directory, neither from HOME nor from passwd, and so no usual"
                f" place for {what}; set HOME or XDG_DATA_HOME, or name the place"
            )
        return self.data


def _absolute(value: str | None) -> Path | None:
    return Path(value) if value and os.path.isabs(value) and "\0" not in value else None
