"""Bytes on their way out: a piece of a file of this program's, or blocks that were checked just now.

An ``Outgoing`` owns what it has open. The server that sends it asks ``check`` before the answer's last bytes
leave, and ``close``s it in any case. What goes wrong on the way is an exception: the connection is then cut,
so that no client takes what it has got for the whole.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from ..aio import in_thread_of
from ..disk.blob_file import Extent
from ..disk.files import close
from ..errors import SourceUnreadable

if TYPE_CHECKING:
    from concurrent.futures import Executor

_CHUNK: Final = 256 << 10


class Outgoing(Protocol):
    """Some bytes of a blob, which are right as far as they come."""

    @property
    def file(self) -> FilePiece | None:
        """A plain file whose bytes may be sent as they are, from its ``offset`` on; None if there is none."""

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """The bytes, also where there is a file. A chunk is valid until the next one is asked for.

        Raises SourceUnreadable, DigestMismatch.
        """

    def check(self) -> None:
        """Call it when all but the last bytes were sent: raises SourceUnreadable if a file has another size.

        A few microseconds; on the event loop.
        """

    async def close(self) -> None:
        """Give up what is open. Harmless when repeated, and while a chunk is being waited for."""


class FileIdentity(NamedTuple):
    """What stays the same as long as nobody writes to a file or replaces it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int) -> Self:
        """Raises OSError."""
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class OpenPiece:
    """An extent of a plain file, as it was when it was opened. Owns the descriptor; ``what`` names it."""

    fd = -1

    def __init__(self, extent: Extent, what: str) -> None:
        self.fd, self.offset, self.size = extent
        self.what = what
        self.identity = self._now_or_close()

    @property
    def path(self) -> None:
        """As content of a blob, it has no name."""
        return None

    def open(self) -> PieceReader:
        """Read it from its first byte, by a descriptor of its own. Raises SourceUnreadable."""
        return PieceReader(self.duplicate())

    def duplicate(self) -> OpenPiece:
        """The same with a descriptor of its own. Raises SourceUnreadable."""
        try:
            fd = os.dup(self.fd)
        except OSError as exc:
            raise SourceUnreadable(f"{self.what}: {exc.strerror}") from exc
        return OpenPiece(Extent(fd, self.offset, self.size), self.what)

    def check(self) -> None:
        """Raise SourceUnreadable unless the file has the size that it had."""
        if self._now().size != self.identity.size:
            raise SourceUnreadable(f"{self.what}: became another while it was sent")

    def read(self, view: memoryview, at: int) -> int:
        """Fill ``view`` from byte ``at`` of the piece on; less than all of it only at its end. Blocks.

        Raises SourceUnreadable, also where the file ends before the piece does.
        """
        want = max(0, min(len(view), self.size - at))
        done = 0
        while done < want:
            try:
                n = os.preadv(self.fd, [view[done:want]], self.offset + at + done)
            except OSError as exc:
                raise SourceUnreadable(f"{self.what}: {exc.strerror}") from exc
            if n == 0:
                raise SourceUnreadable(f"{self.what}: became shorter while it was read")
            done += n
        return done

    def close(self) -> None:
        """Harmless when repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close(fd)

    def __del__(self) -> None:
        self.close()

    def _now(self) -> FileIdentity:
        try:
            return FileIdentity.of(self.fd)
        except OSError as exc:
            raise SourceUnreadable(f"{self.what}: {exc.strerror}") from exc

    def _now_or_close(self) -> FileIdentity:
        try:
            return self._now()
        except SourceUnreadable:
            self.close()
            raise


class PieceReader:
    """Reads ``piece``, which it owns, in order. A BlobReader."""

    def __init__(self, piece: OpenPiece) -> None:
        self._piece = piece
        self._at = 0

    def readinto(self, view: memoryview) -> int:
        """Raises SourceUnreadable, also where the file has another size by now."""
        self._piece.check()
        n = self._piece.read(view, self._at)
        self._at += n
        return n

    def skip(self, nbytes: int) -> None:
        """Go on ``nbytes`` bytes further."""
        self._at += nbytes

    def close(self) -> None:
        """Harmless when repeated."""
        self._piece.close()


class FilePiece:
    """What ``sendfile`` takes."""

    def __init__(self, piece: OpenPiece, offset: int) -> None:
        self._piece = piece
        self.offset = offset

    def fileno(self) -> int:
        """The descriptor, which stays the Outgoing's. ValueError once that is closed."""
        if self._piece.fd < 0:
            raise ValueError("the file is closed")
        return self._piece.fd


class OutgoingFile(Outgoing):
    """Bytes ``start`` to ``stop`` of ``piece``, which this program hashed and wrote, and which it owns.

    ``when_closed`` is called once.
    """

    def __init__(
        self,
        piece: OpenPiece,
        start: int,
        stop: int,
        threads: Executor,
        *,
        when_closed: Callable[[], None] | None = None,
    ) -> None:
        self._piece = piece
        self._at, self._stop = start, stop
        self._threads = threads
        self._when_closed = when_closed
        self._file = FilePiece(piece, piece.offset + start)

    @property
    def file(self) -> FilePiece:
        return self._file

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        room = memoryview(bytearray(min(_CHUNK, self._stop - self._at)))
        while self._at < self._stop:
            n = await in_thread_of(self._threads, self._piece.read, room[: self._stop - self._at], self._at)
            self._at += n
            yield room[:n]

    def check(self) -> None:
        self._piece.check()

    async def close(self) -> None:
        self._piece.close()
        when_closed, self._when_closed = self._when_closed, None
        if when_closed is not None:
            when_closed()
