"""Which skopeo is meant: the one that comes first, and whether that is our shim or the real one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NAME: Final = "skopeo"
SHIM_MARKER: Final = "# layertee: skopeo shim"
"""The second line of every shim."""


def find_skopeo(given: Path | None = None, path: str | None = None) -> Path | None:
    """``given``, else the first on ``path``, by default PATH; None if that is no program, or is our shim.

    Whether somebody else could change it is not looked at: that is for whoever runs it. Blocks.
    """
    if given is None:
        return first_on_path(search_path() if path is None else path, shims=False)
    return Path(os.path.abspath(given)) if is_executable(given) and not is_shim(given) else None


def first_on_path(path: str, *, shims: bool) -> Path | None:
    """The program ``skopeo`` that comes first on ``path``; without ``shims``, the first not ours.

    Directories that are not absolute are left out: they would be others tomorrow. Those that this user may
    not look into have nothing for it.
    """
    for directory in path.split(os.pathsep):
        file = Path(directory, NAME)
        if os.path.isabs(directory) and is_executable(file) and (shims or not is_shim(file)):
            return file
    return None


def search_path() -> str:
    """PATH, or the system's usual one where there is none."""
    return os.environ.get("PATH", os.defpath)


def is_executable(path: Path) -> bool:
    """Whether this user can run what is there. What cannot be looked at is not for this user."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_shim(path: Path) -> bool:
    """Whether the file there, or where the symlink leads, is one of ours. What cannot be read is not."""
    try:
        with path.open("rb") as file:
            return file.read(512).split(b"\n")[1:2] == [SHIM_MARKER.encode()]
    except (OSError, ValueError):
        return False
