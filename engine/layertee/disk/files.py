"""Files and directories of this machine, opened, made and synced; what fails is said in our words.

Foreign errors end here: every OSError leaves as LocalError or NoSpace (SourceUnreadable, for what is
somebody else's), with the path.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import LocalError, NoSpace, SourceUnreadable

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def disk_error(exc: OSError, doing: str, path: Path | str, *, elsewhere: bool = False) -> LocalError:
    """``exc`` as a typed error that says what was being done, where, and what would help.

    ``elsewhere``: the path is of no store, and room in a store would be no help.
    """
    reason = exc.strerror or str(exc)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if exc.errno == errno.ENOSPC else "the disk quota is used up"
        full = NoSpace(f"{doing} {path}: {what}; free some space and run again", path=str(path))
        return full.with_hint(LocalError.hint) if elsewhere else full
    if exc.errno == errno.EROFS:
        reason = "the filesystem is read-only"
    return LocalError(f"{doing} {path}: {reason}", path=str(path))


def close(fd: int) -> None:
    """Close ``fd``. What matters was settled by a sync before; Linux frees the number whatever it answers."""
    with suppress(OSError):
        os.close(fd)


def open_directory(path: Path) -> int:
    """A descriptor for the directory ``path``, which may not be a symlink. Raises LocalError."""
    try:
        return os.open(path, DIRECTORY_FLAGS)
    except OSError as exc:
        raise disk_error(exc, "opening the directory", path) from exc


def open_regular(path: Path) -> int:
    """A descriptor for reading ``path``, which must be a regular file and not a symlink.

    Other tools own the places this package reads from, so what a name leads to is looked at, not
    believed. Raises SourceUnreadable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise SourceUnreadable(f"{path}: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceUnreadable(f"{path}: not a regular file")
    return fd


def reopen(fd: int) -> int:
    """Another descriptor of the file that ``fd`` is of: for reading only, with an offset of its own.

    No name of the file is looked up, so it is the same file whatever became of its names. Raises OSError.
    """
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def check_path(path: Path) -> None:
    """Raise LocalError for a path that no system call takes: one with a NUL character."""
    if "\0" in str(path):
        raise LocalError(f"{str(path)!r:.200} is no path: there is a NUL character in it", path=str(path))


def real_path(path: Path) -> Path:
    """``path`` from ``/`` on, without symlinks, as far as it is there. Raises LocalError.

    What fails is a relative path in a current directory that has been removed, and one that is no path.
    """
    check_path(path)
    try:
        return Path(os.path.realpath(path))
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc


def is_directory(path: Path) -> bool:
    """Whether there is a directory. Raises LocalError where that cannot be told."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable. Raises LocalError."""
    fd = open_directory(path)
    try:
        os.fsync(fd)
    except OSError as exc:
        raise disk_error(exc, "syncing the directory", path) from exc
    finally:
        close(fd)


def make_directory(path: Path, mode: int) -> None:
    """Make ``path`` (with ``mode``, and parents with 0777, less the umask) durably. Raises LocalError.

    What exists stays as it is, but must be a directory and not a symlink.
    """
    try:
        if path.parent != path and not os.path.isdir(path.parent):  # may well be a symlink to one
            make_directory(path.parent, 0o777)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
            sync_directory(Path(os.path.realpath(path.parent)))
        found = os.stat(path, follow_symlinks=False)
    except OSError as exc:
        raise disk_error(exc, "creating the directory", path) from exc
    if not stat.S_ISDIR(found.st_mode):
        raise LocalError(f"{path} is not a directory", path=str(path))
