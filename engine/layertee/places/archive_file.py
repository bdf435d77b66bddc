"""A tar file as archives of images come: plain, compressed as a whole, or through a pipe.

A plain one is read in place. What is compressed, or can be read only once, is unpacked first: into a file
without a name (disk/spool.py), which is there as long as somebody holds what was found in it.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from ..aio import is_given_up
from ..disk.blob_file import Extent
from ..disk.files import close, disk_error, open_regular, real_path
from ..disk.spool import spool, spool_directory
from ..errors import DecodeError, LocalError, NotFound, SourceUnreadable, StoreCorrupt
from ..record import dataclass
from .decompressed import MAGIC_NBYTES, Packing, decompressed, packing_of

if TYPE_CHECKING:
    from ..disk.blob_file import OpenFile
    from .tarindex import Member

log = logging.getLogger(__name__)

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_AT_ONCE: Final = 256 << 10
_LOOK_EVERY_MS: Final = 200  # whether a pipe's reader has been given up meanwhile


class Stamp(NamedTuple):
    """What tells a file from the one that replaced it."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, fd: int) -> Stamp:
        """Raises OSError."""
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class ArchiveFile(Protocol):
    """A plain tar that can be opened any number of times. ``path`` is what messages call it."""

    @property
    def path(self) -> Path: ...

    def open(self) -> int:
        """A descriptor for reading, the caller's. Raises SourceUnreadable."""


@dataclass(frozen=True, slots=True)
class _InPlace:
    """The file ``path`` as it was when it had ``stamp``."""

    path: Path
    stamp: Stamp

    def open(self) -> int:
        fd = open_regular(self.path)
        if Stamp.of(fd) != self.stamp:
            close(fd)
            raise SourceUnreadable(f"{self.path}: was replaced or written to since it was looked at")
        return fd


class _Unpacked:
    """What came out of ``path``, in a file that is gone with the last who holds this."""

    def __init__(self, path: Path, file: OpenFile) -> None:
        self.path = path
        self._file = file

    def open(self) -> int:
        try:
            return self._file.descriptor()
        except LocalError as exc:
            raise SourceUnreadable(str(exc)) from exc

    def __del__(self) -> None:
        self._file.close()


# What is in use: an archive that is looked into twice is unpacked once.
_unpacked: WeakValueDictionary[tuple[Path, Stamp], _Unpacked] = WeakValueDictionary()
_mutex = threading.Lock()


def open_archive(path: Path) -> ArchiveFile:
    """The tar in ``path``, which may be compressed, and may be a pipe that the process was given: /dev/stdin.

    Raises NotFound, StoreCorrupt (no file that can be read, or damaged), LocalError, NoSpace,
    SourceUnreadable. Blocks, for a pipe as long as its other end likes.
    """
    real = real_path(path)
    try:
        fd = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} is not there") from None
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a socket
            raise StoreCorrupt(f"{path} is not a file or a pipe", path=str(path)) from exc
        raise disk_error(exc, "opening", path) from exc
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) and not _is_same(real, Stamp.of(fd)):
            return _of_pipe(path, fd)
        if stat.S_ISFIFO(mode):  # nobody may ever open its other end
            message = f"{path} is not a plain file but a named pipe; read it as /dev/stdin"
            raise StoreCorrupt(message, path=str(path))
        if not stat.S_ISREG(mode):
            raise StoreCorrupt(f"{path} is not a plain file", path=str(path))
        stamp = Stamp.of(fd)
        packing = packing_of(os.pread(fd, MAGIC_NBYTES, 0))
        if packing is None and _is_same(real, stamp):
            return _InPlace(real, stamp)
        # A file without a name, such as a shell's here-document on /dev/stdin, is copied as it is.
        return _kept(path, stamp, fd, packing)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)


def _of_pipe(path: Path, fd: int) -> ArchiveFile:
    stamp = Stamp.of(fd)._replace(size=0, mtime_ns=0)  # which change while it is read
    with _mutex:
        if (known := _unpacked.get((path, stamp))) is not None:
            return known
        blocks = _blocks_of_pipe(path, fd)
        first = b""
        while len(first) < MAGIC_NBYTES and (block := next(blocks, b"")):
            first += block
        return _unpack(path, stamp, _again(first, blocks), packing_of(first))


def _kept(path: Path, stamp: Stamp, fd: int, packing: Packing | None) -> ArchiveFile:
    with _mutex:
        if (known := _unpacked.get((path, stamp))) is not None:
            return known
        made = _unpack(path, stamp, _blocks_of_file(path, fd), packing)
        if Stamp.of(fd) != stamp:
            raise SourceUnreadable(f"{path}: was written to while it was read")
        return made


def _unpack(path: Path, stamp: Stamp, blocks: Iterator[bytes], packing: Packing | None) -> _Unpacked:
    how = f"{packing.value}, unpacked" if packing is not None else "copied"
    log.info("%s: %s into a temporary file in %s", path, how, spool_directory())
    try:
        file = spool(decompressed(blocks, packing) if packing is not None else blocks, str(path))
    except DecodeError as exc:
        raise StoreCorrupt(f"{path} cannot be unpacked: {exc}", path=str(path)) from exc
    made = _Unpacked(path, file)
    _unpacked[path, stamp] = made
    return made


def _is_same(path: Path, stamp: Stamp) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (stamp.device, stamp.inode)


def _again(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks


def _blocks_of_file(path: Path, fd: int) -> Iterator[bytes]:
    at = 0
    while block := os.pread(fd, _AT_ONCE, at):
        _go_on(path)
        at += len(block)
        yield block


def _blocks_of_pipe(path: Path, fd: int) -> Iterator[bytes]:
    """Until the other end closes it."""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while True:
        _go_on(path)
        if not waiting.poll(_LOOK_EVERY_MS):
            continue
        try:
            block = os.read(fd, _AT_ONCE)
        except BlockingIOError:
            continue
        if not block:
            return
        yield block


def _go_on(path: Path) -> None:
    if is_given_up():
        raise SourceUnreadable(f"{path}: nobody waits for it any more")


# --- its members ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """The content of one member of ``archive``. A BlobContent."""

    archive: ArchiveFile
    member: Member

    @property
    def path(self) -> None:
        """It is no file of its own."""
        return None

    def open(self) -> _MemberReader:
        """Raises SourceUnreadable."""
        return _MemberReader(self.archive, self.member)

    def extent(self) -> Extent:
        """Where it lies in the archive. Raises SourceUnreadable."""
        return Extent(self.archive.open(), self.member.offset, self.member.size)

    def read(self, limit: int) -> bytes:
        """As far as ``limit`` + 1 bytes. Raises SourceUnreadable."""
        room = bytearray(min(self.member.size, limit + 1))
        reader = self.open()
        try:
            reader.readinto(memoryview(room))
        finally:
            reader.close()
        return bytes(room)


class _MemberReader:
    """The content of one member. Raises SourceUnreadable, also when the archive is another file by now."""

    def __init__(self, archive: ArchiveFile, member: Member) -> None:
        self._path = archive.path
        self._pos = member.offset
        self._end = member.offset + member.size
        self._fd = archive.open()

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; less than all of it only at the end, then 0. Blocks."""
        want = min(len(view), self._end - self._pos)
        done = 0
        while done < want:
            try:
                n = os.preadv(self._fd, [view[done:want]], self._pos)
            except OSError as exc:
                raise SourceUnreadable(f"{self._path}: {exc.strerror}") from exc
            if n == 0:
                raise SourceUnreadable(f"{self._path}: became shorter while it was read")
            done += n
            self._pos += n
        return done

    def close(self) -> None:
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1
