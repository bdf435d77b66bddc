"""A blob that is a file of its own: by its name, as the content of a holding, or by its descriptor.

What a name leads to can be another file each time that it is looked up. Who has to know that the bytes which
were checked are the bytes which are used keeps the descriptor (OpenFile).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Protocol, Self, runtime_checkable

from ..errors import SourceUnreadable
from ..record import dataclass
from .files import close, disk_error, open_regular, reopen


class Extent(NamedTuple):
    """``size`` bytes of the plain file that ``fd`` is of, from byte ``offset`` on."""

    fd: int
    offset: int
    size: int


@runtime_checkable
class InFile(Protocol):
    """Content that lies in one piece in a plain file, which may hold other things besides."""

    def extent(self) -> Extent:
        """Where; the descriptor is the caller's. Raises SourceUnreadable."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """The bytes of the plain file ``path``."""

    path: Path

    def extent(self) -> Extent:
        """All of the file. Raises SourceUnreadable."""
        fd = open_regular(self.path)
        return Extent(fd, 0, os.fstat(fd).st_size)

    def open(self) -> FileReader:
        """Raises SourceUnreadable."""
        return FileReader(open_regular(self.path), self.path)


class OpenFile:
    """The plain file behind a descriptor, which it owns; ``close`` it. ``path`` is for messages.

    Can be opened to be read like the content of a holding.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def at(cls, path: Path) -> Self:
        """The file that ``path`` leads to now, which must be a regular one. Raises SourceUnreadable."""
        return cls(open_regular(path), path)

    @classmethod
    def of(cls, fd: int, path: Path) -> Self:
        """The file that ``fd`` is of, for reading only; ``fd`` stays the caller's. Raises LocalError."""
        try:
            return cls(reopen(fd), path)
        except OSError as exc:
            raise disk_error(exc, "opening again", path) from exc

    @property
    def size(self) -> int:
        """Of the file now, in bytes."""
        return os.fstat(self._fd).st_size

    def descriptor(self) -> int:
        """One more descriptor of this very file, the caller's: for reading only, from the first byte.

        Raises LocalError.
        """
        try:
            return reopen(self._fd)
        except OSError as exc:
            raise disk_error(exc, "opening again", self.path) from exc

    def open(self) -> FileReader:
        """Begin to read this very file. Raises LocalError."""
        return FileReader(self.descriptor(), self.path)

    def close(self) -> None:
        """Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)


class FileReader:
    """Reads the plain file of the descriptor ``fd``, which it owns, from the first byte. A BlobReader."""

    def __init__(self, fd: int, path: Path) -> None:
        self._path = path
        self._pos = 0
        self._fd = fd
        try:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError:
            pass  # advice only
        except BaseException:
            self.close()
            raise

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; less than all of it only at the end of the file, then 0. Blocks."""
        done = 0
        while done < len(view):
            try:
                n = os.preadv(self._fd, [view[done:]], self._pos)
            except OSError as exc:
                raise SourceUnreadable(f"{self._path}: {exc.strerror}") from exc
            if n == 0:
                break
            done += n
            self._pos += n
        return done

    def close(self) -> None:
        """Harmless when repeated."""
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1
