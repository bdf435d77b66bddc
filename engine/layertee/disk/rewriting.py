"""A file of the user's that other programs read and write too: what it says is changed, all at once.

Whoever reads it finds the old text or the new one, also after a crash in between. Our own writers take turns
by a lock on the directory; other programs know nothing of it, and the last one to rename wins, as among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .files import close, disk_error, make_directory, open_directory, real_path
from .locks import lock_directory
from .part import replace_elsewhere
from .trusted import refuse_reachable

_WAIT_S: Final = 10.0
_SUFFIX: Final = ".layertee-new"  # one name: what a killed process left is found by the next
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def rewrite(path: Path, edit: Callable[[bytes | None], bytes | None], *, limit: int) -> bool:
    """Put what ``edit`` makes of the file's bytes in its place, for this user alone (0600), durably.

    ``edit`` gets at most ``limit`` + 1 bytes, or None where there is no file, and returns the new ones, or
    None for no change; then False is returned. Directories that are missing are made for this user alone. A
    symlink stays one: what it leads to is changed. Raises what ``edit`` raises; UnsafePath where another user
    could change the file or the way to it, StoreBusy, LocalError, NoSpace. Blocks.
    """
    refuse_reachable(path, absent=True)
    target = real_path(path)
    make_directory_for_one(target.parent)
    with lock_directory(target.parent, timeout=_WAIT_S):
        fresh = edit(_read(target, limit))
        if fresh is None:
            return False
        _replace(target, fresh)
    return True


def make_directory_for_one(path: Path) -> None:
    """``path``, and the parents that are missing, with mode 0700. Raises LocalError."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        make_directory(each, 0o700)


def _read(path: Path, limit: int) -> bytes | None:
    try:
        fd = os.open(path, _OLD)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)


def _replace(path: Path, content: bytes) -> None:
    directory = open_directory(path.parent)
    try:
        replace_elsewhere(directory, path, content, mode=0o600, part=path.name + _SUFFIX)
    finally:
        close(directory)
