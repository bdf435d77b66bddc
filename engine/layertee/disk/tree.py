"""Files in a tree of somebody else, opened without ever leaving it.

The names come from images and from other tools' records. Each component is opened relative to the
one above, and none is left to the kernel to follow: a directory that is a symlink is read, and walked
from the top of the tree as if that were /, which is how the tool that wrote the file came there. So no
name, and nothing that is swapped in while it is walked, leads outside. (openat2 would do it in one call,
but not on every kernel and not from Python; a tar goes through its directories in order, so those on the
way to the last file are kept open instead.)

Only regular files are opened. What is there is looked at before it is opened, because a layer may
hold device nodes, and for some of them opening alone has an effect.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from ..errors import SourceUnreadable
from ..image.strictjson import printable
from .files import close

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAX_DEPTH: Final = 128  # directories kept open; no image is nested as deep
_MAX_LINKS: Final = 40  # as Linux has it
_NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})  # what a symlink is, if it is not followed


class Tree:
    """A directory and what is beneath it. Every method raises SourceUnreadable; one thread at a time."""

    def __init__(self, fd: int, shown: str) -> None:
        """Use ``open`` or ``sub``. Takes ``fd`` over; ``shown`` names the directory in messages."""
        self._fd = fd
        self._shown = shown
        self._way: list[tuple[bytes, int]] = []
        self._by_links: tuple[list[bytes], int] = ([], -1)  # the last directory that took following some

    @classmethod
    def open(cls, top: Path) -> Tree:
        """The directory ``top``. That path is the administrator's: symlinks in it are followed."""
        try:
            real = os.path.realpath(top)
            return cls(os.open(real, _DIRECTORY), str(top))
        except OSError as exc:
            _refuse(str(top), exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory; harmless when repeated."""
        self._back_to(0)
        self._keep([], -1)
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """The descriptor of the directory, which stays the tree's."""
        return self._fd

    def sub(self, name: str) -> Tree:
        """The directory called ``name``, which may have several components."""
        directory = self._directory(split(os.fsencode(name), self._shown))
        try:
            return Tree(os.dup(directory), f"{self._shown}/{name}")
        except OSError as exc:
            _refuse(f"{self._shown}/{name}", exc)

    def size(self, name: bytes) -> int:
        """The size in bytes of a regular file."""
        *above, base = split(name, self._shown)
        return self._look(self._directory(above), base, name).st_size

    def file(self, name: bytes) -> tuple[int, int]:
        """A descriptor for reading the regular file ``name``, and its size in bytes."""
        *above, base = split(name, self._shown)
        directory = self._directory(above)
        seen = self._look(directory, base, name)
        try:
            fd = os.open(base, _FILE, dir_fd=directory)
        except OSError as exc:
            _refuse(self._named(name), exc)
        try:
            found = os.fstat(fd)
        except OSError as exc:
            close(fd)
            _refuse(self._named(name), exc)
        if not os.path.samestat(seen, found):
            close(fd)
            raise SourceUnreadable(f"{self._named(name)}: was replaced just now")
        return fd, found.st_size

    def read(self, name: bytes, limit: int) -> bytes:
        """All of a regular file of at most ``limit`` bytes."""
        fd, size = self.file(name)
        try:
            with os.fdopen(fd, "rb", closefd=False) as file:
                raw = b"" if size > limit else file.read(limit + 1)
        except OSError as exc:
            _refuse(self._named(name), exc)
        finally:
            close(fd)
        if size > limit or len(raw) > limit:
            raise SourceUnreadable(f"{self._named(name)}: larger than {limit} bytes")
        return raw

    def _look(self, directory: int, base: bytes, name: bytes) -> os.stat_result:
        try:
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
        except OSError as exc:
            _refuse(self._named(name), exc)
        if not stat.S_ISREG(found.st_mode):
            raise SourceUnreadable(f"{self._named(name)}: not a regular file")
        return found

    def _directory(self, parts: list[bytes]) -> int:
        """A descriptor of the directory under ``parts``, which stays the tree's."""
        if parts and parts == self._by_links[0]:
            return self._by_links[1]
        n_same = 0
        for (part, _), wanted in zip(self._way, parts, strict=False):
            if part != wanted:
                break
            n_same += 1
        self._back_to(n_same)
        fd = self._way[-1][1] if self._way else self._fd
        for part in parts[n_same:]:
            try:
                fd = os.open(part, _DIRECTORY, dir_fd=fd)
            except OSError as exc:
                if exc.errno not in _NO_DIRECTORY:
                    _refuse(self._named(b"/".join(parts)), exc)
                fd = self._follow(parts)
                self._keep(parts, fd)
                return fd
            self._way.append((part, fd))
        return fd

    def _follow(self, parts: list[bytes]) -> int:
        """A descriptor of the directory under ``parts``, whose symlinks are followed within the tree."""
        way: list[int] = []  # of directories only, each in the one before it
        todo = list(reversed(parts))
        n_links = 0
        try:
            while todo:
                part = todo.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":
                    if way:
                        close(way.pop())
                    continue
                above = way[-1] if way else self._fd
                try:
                    way.append(os.open(part, _DIRECTORY, dir_fd=above))
                except OSError as exc:
                    if exc.errno not in _NO_DIRECTORY:
                        raise
                    target = os.readlink(part, dir_fd=above)
                    n_links += 1
                    if n_links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from exc
                    if target.startswith(b"/"):
                        while way:
                            close(way.pop())
                    todo += reversed(target.split(b"/"))
                if len(way) + len(todo) > _MAX_DEPTH:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            return way.pop() if way else os.dup(self._fd)
        except OSError as exc:
            _refuse(self._named(b"/".join(parts)), exc)
        finally:
            for fd in way:
                close(fd)

    def _keep(self, parts: list[bytes], fd: int) -> None:
        if self._by_links[1] >= 0:
            close(self._by_links[1])
        self._by_links = (parts, fd)

    def _back_to(self, depth: int) -> None:
        while len(self._way) > depth:
            close(self._way.pop()[1])

    def _named(self, name: bytes) -> str:
        return f"{self._shown}/{printable(name.decode('utf-8', 'replace'))}"


def split(name: bytes, where: str) -> list[bytes]:
    """The components of ``name``, which never begins above its tree: ``/a``, ``./a`` and ``a`` are one.

    Raises SourceUnreadable for ``..``, which no name needs, for names of nothing, and beyond all depth.
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if not parts or b".." in parts or b"\0" in name or len(parts) > _MAX_DEPTH:
        shown = printable(name.decode("utf-8", "replace"))
        raise SourceUnreadable(f"{where}: {shown!r} is not a name to look for")
    return parts


def _refuse(what: str, exc: OSError) -> NoReturn:
    raise SourceUnreadable(f"{what}: {exc.strerror or exc}") from exc
