"""A file that the user named for a result: what may be made, replaced or written to under that name.

One rule for all of them:

- A symlink is followed, the last one too, if it and the directory that it is in belong to root or to this
  user. That of another user is refused, wherever it is: the kernel's rule (``fs.protected_symlinks``) does
  not hold for a path that a program resolves, and is off on some machines.
- A plain file is replaced in one step, and the new one has its mode and, where that may be, its owner. In a
  directory that every user may write to, as /tmp is, the file has to be this user's.
- A descriptor that this process was given (/dev/stdout, /dev/fd/3) and a character device (/dev/null) are
  written to, by what can do with a stream. Nothing else that is no plain file is touched: a named pipe might
  have no reader ever, and a device is not to become a file.
- What is in a store is the store's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import LocalError, UnsafePath
from .files import check_path, disk_error, is_directory, real_path
from .trusted import trusted_users

_LINKS: Final = 40  # as many as the kernel follows
_DESCRIPTOR: Final = re.compile(r"/proc/([0-9]+)/(?:task/[0-9]+/)?fd/([0-9]+)")
_MODE: Final = 0o777


class Output(NamedTuple):
    """What a path leads to: ``target`` has no symlinks in it.

    ``old``: the file that is there. ``descriptor``: that of this process which the path names. ``is_stream``:
    it is written to as it is, and not replaced.
    """

    target: Path
    old: os.stat_result | None
    descriptor: int | None
    is_stream: bool

    def keep_mode(self, fd: int) -> None:
        """Give the file that will replace the old one its owner, as far as that is possible, and its mode.

        Raises OSError.
        """
        if self.old is None:
            return
        if (self.old.st_uid, self.old.st_gid) != (os.geteuid(), os.getegid()):
            with suppress(OSError):
                os.fchown(fd, self.old.st_uid, self.old.st_gid)
        os.fchmod(fd, self.old.st_mode & _MODE)


def output_at(path: Path, *, outside: Iterable[Path] = (), streams: bool = False) -> Output:
    """What is to be written where ``path`` says, which the rule above allows.

    ``outside``: stores that it may not be in. ``streams``: the writer can do with what is no plain file.
    Raises UnsafePath, LocalError. Blocks.
    """
    target, old, descriptor = _looked_at(path)
    if descriptor is not None:
        _check_descriptor(path, descriptor, streams=streams)
        return Output(target, None, descriptor, is_stream=True)
    refuse_inside(target, outside, shown=path)
    is_stream = False
    if old is None and not is_directory(target.parent):
        raise LocalError(f"{path}: there is no directory {target.parent}", path=str(path))
    if old is not None:
        if stat.S_ISDIR(old.st_mode):
            raise LocalError(f"{path} is a directory, and was to be a file", path=str(path))
        is_stream = streams and stat.S_ISCHR(old.st_mode)
        if not is_stream and not stat.S_ISREG(old.st_mode):
            raise LocalError(f"{path} is no plain file, and is left as it is; name another", path=str(path))
        if not is_stream:
            _check_owner(path, target, old)
    writes_to = target if is_stream else target.parent
    if not os.access(writes_to, os.W_OK):
        raise LocalError(f"{path} cannot be written: {writes_to} may not be", path=str(path))
    return Output(target, old, None, is_stream)


def output_directory_at(path: Path, *, outside: Iterable[Path] = ()) -> Path:
    """As ``output_at`` for a directory, which need not be there, nor its parents: where it is, or will be.

    Raises UnsafePath, LocalError. Blocks.
    """
    target, _, descriptor = _looked_at(path)
    if descriptor is not None:
        raise LocalError(f"{path} is no directory by name", path=str(path))
    refuse_inside(target, outside, shown=path)
    return target


def refuse_inside(path: Path, stores: Iterable[Path], *, shown: Path | None = None) -> None:
    """Raise LocalError if ``path`` is one of ``stores``, or in one, by whatever way."""
    target = real_path(path)
    for store in stores:
        try:
            root = os.stat(store)
        except OSError:
            continue  # it is not there yet: nothing is in it
        for each in (target, *target.parents):
            with suppress(OSError):
                if os.path.samestat(os.stat(each), root):
                    message = f"{shown or path} is in the store {store}, which has only files of its own"
                    raise LocalError(f"{message}; name another place", path=str(shown or path))


def _looked_at(path: Path) -> tuple[Path, os.stat_result | None, int | None]:
    """``_followed``. Raises UnsafePath, LocalError."""
    check_path(path)
    try:
        return _followed(path)
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc


def _followed(path: Path) -> tuple[Path, os.stat_result | None, int | None]:
    """Where ``path`` ends, or will when it is made; what is there; the descriptor that it names.

    Raises UnsafePath, OSError.
    """
    trusted = trusted_users()
    at, found = "/", os.lstat("/")
    todo = _names(os.path.join(os.getcwd(), path) if not path.is_absolute() else str(path))
    n_links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            at = os.path.dirname(at)
            found = os.lstat(at)
            continue
        there = os.path.join(at, name)
        try:
            here = os.lstat(there)
        except FileNotFoundError:
            if ".." in todo:
                raise
            return Path(there, *reversed(todo)), None, None
        if not stat.S_ISLNK(here.st_mode):
            at, found = there, here
            continue
        if (named := _DESCRIPTOR.fullmatch(there)) and not todo and int(named[1]) == os.getpid():
            return Path(there), None, int(named[2])
        for uid, whose in ((here.st_uid, "it"), (found.st_uid, f"its directory {at}")):
            if uid not in trusted:
                raise UnsafePath(
                    f"the symlink {there} is not followed: {whose} belongs to user {uid}, who could have it"
                    " lead elsewhere; name the place itself",
                    path=there,
                )
        n_links += 1
        if n_links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(there)
        todo += _names(target)
        if target.startswith("/"):
            at, found = "/", os.lstat("/")
    return Path(at), found, None


def _names(path: str) -> list[str]:
    """The names in ``path``, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _check_descriptor(path: Path, fd: int, *, streams: bool) -> None:
    """Raises LocalError."""
    if not streams:
        raise LocalError(
            f"{path} is no file by name, and only such a file is written; name one", path=str(path)
        )
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise LocalError(f"{path} is open for reading only", path=str(path))


def _check_owner(path: Path, target: Path, old: os.stat_result) -> None:
    """Raises UnsafePath for a file that another user has laid where every user can. LocalError."""
    if old.st_uid == os.geteuid():
        return
    try:
        mode = os.stat(target.parent).st_mode
    except OSError as exc:
        raise disk_error(exc, "looking at", target.parent) from exc
    if mode & stat.S_IWOTH:
        raise UnsafePath(
            f"{path} belongs to user {old.st_uid}, in a directory that every user may write to; name another",
            path=str(target),
        )
