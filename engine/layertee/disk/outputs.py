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

What is judged is what is written to: each name is opened in the directory that was opened before it, and the
file is made and named in the last one by its descriptor. Who owns a directory on the way can put a link in
the place of a name at any moment, and changes nothing by it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import LocalError, UnsafePath
from .files import check_path, close, disk_error
from .trusted import trusted_users

_LINKS: Final = 40  # as many as the kernel follows
_DESCRIPTOR: Final = re.compile(r"/proc/([0-9]+)/(?:task/[0-9]+/)?fd/([0-9]+)")
_MODE: Final = 0o777
_NAME: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})


class Output(NamedTuple):
    """What a path leads to: ``target`` has no symlinks in it.

    ``old``: the file that is there. ``descriptor``: that of this process which the path names. ``is_stream``:
    it is written to as it is, and not replaced.
    """

    target: Path
    old: os.stat_result | None
    descriptor: int | None
    is_stream: bool

    @property
    def mode(self) -> int | None:
        """That of the old file, which the one in its place has too."""
        return self.old.st_mode & _MODE if self.old is not None else None

    def keep_owner(self, fd: int) -> None:
        """Give the file that will replace the old one its owner, as far as that is possible."""
        if self.old is not None and (self.old.st_uid, self.old.st_gid) != (os.geteuid(), os.getegid()):
            with suppress(OSError):
                os.fchown(fd, self.old.st_uid, self.old.st_gid)


class OpenOutput(NamedTuple):
    """An output, and descriptors (``O_PATH``) of what was judged: its directory and, where there is one, the
    file itself; else -1.
    """

    output: Output
    directory: int
    file: int

    def open_file(self, flags: int) -> int:
        """A descriptor of the very file that was judged. Raises OSError, UnsafePath."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(self.output.target.name, flags, dir_fd=self.directory)
        if not os.path.samestat(os.fstat(fd), os.fstat(self.file)):
            close(fd)
            path = self.output.target
            raise UnsafePath(f"{path} became another file while it was looked at", path=str(path))
        os.set_blocking(fd, True)
        return fd


def output_at(path: Path, *, outside: Iterable[Path] = (), streams: bool = False) -> Output:
    """What is to be written where ``path`` says, which the rule above allows.

    ``outside``: stores that it may not be in. ``streams``: the writer can do with what is no plain file.
    Raises UnsafePath, LocalError. Blocks.
    """
    with open_output(path, outside=outside, streams=streams) as found:
        return found.output


@contextmanager
def open_output(path: Path, *, outside: Iterable[Path] = (), streams: bool = False) -> Iterator[OpenOutput]:
    """``output_at``, and the means to write to that and nothing else, as long as the context lasts."""
    way = _looked_at(path)
    try:
        if way.descriptor is not None:
            _check_descriptor(path, way.descriptor, streams=streams)
            yield OpenOutput(Output(way.path, None, way.descriptor, is_stream=True), -1, -1)
            return
        _refuse_inside(path, way, outside)
        is_stream = _check_kind(path, way, streams=streams)
        yield OpenOutput(Output(way.path, way.old, None, is_stream), way.directories[-1], way.file)
    finally:
        way.close()


def output_directory_at(path: Path, *, outside: Iterable[Path] = ()) -> Path:
    """As ``output_at`` for a directory, which need not be there, nor its parents: where it is, or will be.

    Raises UnsafePath, LocalError. Blocks.
    """
    way = _looked_at(path)
    try:
        if way.descriptor is not None:
            raise LocalError(f"{path} is no directory by name", path=str(path))
        _refuse_inside(path, way, outside)
        return way.path
    finally:
        way.close()


# --- inside ---------------------------------------------------------------------------------------


class _Way:
    """Where a path leads: the directories from ``/`` on, open, and what has the last name in the last one.

    ``missing``: the names that nothing has. ``descriptor``: that of this process which the path names.
    """

    def __init__(self) -> None:
        self.directories = [os.open("/", _NAME)]
        self.names: list[str] = []  # of the directories beneath "/", and of the file
        self.file = -1
        self.old: os.stat_result | None = None
        self.missing: list[str] = []
        self.descriptor: int | None = None

    @property
    def path(self) -> Path:
        return Path("/", *self.names, *self.missing)

    @property
    def is_directory(self) -> bool:
        return self.file < 0 and not self.missing

    def follow(self, path: str) -> None:
        """Go where ``path`` leads from ``/``. Raises UnsafePath, OSError."""
        trusted = trusted_users()
        todo = _names(path)
        n_links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                self._up()
                continue
            try:
                fd = _open_name(name, self.directories[-1])
            except FileNotFoundError:
                if ".." in todo:
                    raise
                self.missing = [name, *reversed(todo)]
                return
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                self.directories.append(fd)
                self.names.append(name)
                continue
            if not stat.S_ISLNK(found.st_mode):
                self.file, self.old = fd, found
                self.names.append(name)
                if todo:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                return
            try:
                there = os.path.join("/", *self.names, name)
                if (named := _DESCRIPTOR.fullmatch(there)) and not todo and int(named[1]) == os.getpid():
                    self.names.append(name)
                    self.descriptor = int(named[2])
                    return
                self._judge(there, found, trusted)
                n_links += 1
                if n_links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink("", dir_fd=fd)
            finally:
                close(fd)
            todo += _names(target)
            if target.startswith("/"):
                while self.names:
                    self._up()

    def close(self) -> None:
        """Close what is open. May be called again."""
        for fd in (*self.directories, self.file):
            if fd >= 0:
                close(fd)
        self.directories, self.file = [], -1

    def _up(self) -> None:
        """To the directory that this one was found in, and not to where it has been moved since."""
        if self.names:
            self.names.pop()
            close(self.directories.pop())

    def _judge(self, there: str, link: os.stat_result, trusted: frozenset[int]) -> None:
        """Raises UnsafePath."""
        directory = os.fstat(self.directories[-1]).st_uid
        for uid, whose in ((link.st_uid, "it"), (directory, f"its directory {os.path.dirname(there)}")):
            if uid not in trusted:
                raise UnsafePath(
                    f"the symlink {there} is not followed: {whose} belongs to user {uid}, who could have it"
                    " lead elsewhere; name the place itself",
                    path=there,
                )


def _open_name(name: str, directory: int) -> int:
    """A descriptor (``O_PATH``) of what has ``name``, a symlink itself. Raises OSError."""
    try:
        return os.open(name, _NAME | os.O_DIRECTORY, dir_fd=directory)  # so that autofs mounts what is there
    except OSError as exc:
        if exc.errno not in _NO_DIRECTORY:
            raise
    return os.open(name, _NAME, dir_fd=directory)


def _looked_at(path: Path) -> _Way:
    """Where ``path`` leads, to be closed. Raises UnsafePath, LocalError."""
    check_path(path)
    try:
        way = _Way()
        try:
            way.follow(str(path) if path.is_absolute() else os.path.join(os.getcwd(), path))
        except BaseException:
            way.close()
            raise
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc
    return way


def _names(path: str) -> list[str]:
    """The names in ``path``, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _refuse_inside(path: Path, way: _Way, stores: Iterable[Path]) -> None:
    """Raise LocalError if it leads to one of ``stores``, or into one."""
    for store in stores:
        try:
            root = os.stat(store)
        except OSError:
            continue  # it is not there yet: nothing is in it
        if any(os.path.samestat(os.fstat(each), root) for each in way.directories):
            message = f"{path} is in the store {store}, which has only files of its own"
            raise LocalError(f"{message}; name another place", path=str(path))


def _check_kind(path: Path, way: _Way, *, streams: bool) -> bool:
    """Whether what is there is written to as a stream. Raises UnsafePath, LocalError."""
    target = way.path
    if way.is_directory:
        raise LocalError(f"{path} is a directory, and was to be a file", path=str(path))
    if len(way.missing) > 1:
        raise LocalError(f"{path}: there is no directory {target.parent}", path=str(path))
    is_stream = False
    if way.old is not None:
        is_stream = streams and stat.S_ISCHR(way.old.st_mode)
        if not is_stream and not stat.S_ISREG(way.old.st_mode):
            raise LocalError(f"{path} is no plain file, and is left as it is; name another", path=str(path))
        if not is_stream:
            _check_owner(path, way, way.old)
    shown = target if is_stream else target.parent
    if not os.access(target.name if is_stream else ".", os.W_OK, dir_fd=way.directories[-1]):
        raise LocalError(f"{path} cannot be written: {shown} may not be", path=str(path))
    return is_stream


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


def _check_owner(path: Path, way: _Way, old: os.stat_result) -> None:
    """Raises UnsafePath for a file that another user has laid where every user can. LocalError."""
    if old.st_uid == os.geteuid():
        return
    if os.fstat(way.directories[-1]).st_mode & stat.S_IWOTH:
        raise UnsafePath(
            f"{path} belongs to user {old.st_uid}, in a directory that every user may write to; name another",
            path=str(way.path),
        )
