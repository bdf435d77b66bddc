"""The bytes of a blob as they go to a client: nothing ends normally that does not hash to its name.

What this machine's own store holds was hashed when it came in, and goes as it is. A plain file of somebody
else is hashed once before its first byte leaves, and again when it has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from ..aio import in_thread_of
from ..disk.blob_file import InFile
from ..errors import SourceUnreadable
from .filehashes import FileHashes
from .outgoing import OpenPiece, Outgoing, OutgoingFile

if TYPE_CHECKING:
    from .offer import Sendable

AT_ONCE: Final = 4
_PASSES: Final = 2  # of files that are hashed before they are sent
_SHORT_JOBS: Final = 4  # threads beside those: to open files, and for clients that TLS is spoken with


class Sending:
    """Opens blobs for a server. One event loop; ``close`` it after the last Outgoing.

    ``at_once``: so many layers are put together at a time.
    """

    def __init__(self, *, at_once: int = AT_ONCE) -> None:
        self._threads = ThreadPoolExecutor(at_once + _PASSES + _SHORT_JOBS, "layertee-send")
        self._hashes = FileHashes(self._threads, asyncio.Semaphore(_PASSES))

    async def open(self, blob: Sendable, start: int, stop: int) -> Outgoing:
        """Bytes ``start`` to ``stop`` of ``blob``, the first of which can be sent at once.

        May take as long as reading all of the blob. Raises NotFound, SourceUnreadable, DigestMismatch,
        ServerBusy.
        """
        if not 0 <= start <= stop <= blob.size:
            raise ValueError(f"there are no bytes {start} to {stop} in {blob.size}")
        content = blob.content
        if not isinstance(content, InFile):
            raise SourceUnreadable(f"{blob.place}: {blob.digest} is not in a file")
        piece = await self._opened(lambda: _open_piece(blob, content))
        try:
            if not blob.is_checked:
                await self._hashes.check(piece, blob.digest)
        except BaseException:
            piece.close()
            raise
        return OutgoingFile(piece, start, stop, self._threads)

    async def close(self) -> None:
        """End what is being read, and the threads."""
        await self._hashes.close()
        await asyncio.to_thread(self._threads.shutdown)

    async def _opened(self, make: Callable[[], OpenPiece]) -> OpenPiece:
        """What ``make`` opens in a thread; nothing stays open for a caller who is cancelled."""
        made: list[OpenPiece] = []
        try:
            await in_thread_of(self._threads, lambda: made.append(make()))
        except BaseException:
            for piece in made:
                piece.close()
            raise
        return made[0]


def _open_piece(blob: Sendable, content: InFile) -> OpenPiece:
    """Raises SourceUnreadable, also where there are more or fewer bytes than the blob has."""
    what = f"{blob.place}: {blob.digest}"
    piece = OpenPiece(content.extent(), what, is_ours=blob.is_checked)
    if piece.size != blob.size:
        piece.close()
        raise SourceUnreadable(f"{what}: has {piece.size} bytes, not {blob.size}")
    return piece
