"""The bytes of a blob as they go to a client: nothing ends normally that does not hash to its name.

What this machine's own store holds was hashed when it came in, and goes as it is. A plain file of somebody
else is read once before its first byte leaves, and each block is checked again when it is sent (blocks.py):
who has the file mapped can write to it at any time, and no time stamp says so. A layer that has no file is
put together while it is sent, and checked on the way in the same manner: for a few clients each for itself,
for more of them once for all, into a file (spools.py). With a cache (cache.py) that file stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from ..aio import in_thread_of
from ..disk.blob_file import InFile
from ..errors import LocalError, ServerBusy, SourceUnreadable
from .blocks import BLOCK, BlockLists, CheckedBlocks, list_blocks
from .cache import Caching
from .flights import Flights
from .outgoing import OpenPiece, Outgoing, OutgoingFile
from .outgoing_blocks import OutgoingBlocks
from .spools import SPOOLS_LIMIT, Spooled, Spools
from .turns import IDLE_S, Turns

if TYPE_CHECKING:
    from ..core.chain import Chain
    from .cache import Cache
    from .offer import Sendable

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
FILES_AT_ONCE: Final = 8
BLOCKS_LIMIT: Final = 16 << 20  # bytes of memory: the lists of 50 GB of layers
PATIENCE_S: Final = 0.5
WAIT_S: Final = 60.0
_PASSES: Final = 2  # at once, of blobs that are hashed before they are sent
_SHORT_JOBS: Final = 4  # threads beside those: to open files, and for clients that TLS is spoken with


class _Closable(Protocol):
    def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class Sending:
    """Opens blobs for a server. One event loop; ``close`` it after the last Outgoing.

    ``at_once``: so many layers are put together at a time, of which each takes 2 MiB of memory, as each of
    FILES_AT_ONCE files of others does. A client that takes nothing for ``idle_s`` seconds keeps nobody out
    (turns.py). Other clients of layers wait, after ``patience_s`` seconds for a file in which one is put
    together for all of them (as long as these files have no more than ``spools_limit`` bytes), else up to
    ``wait_s``. ``blocks_limit``: bytes of memory for what is known of blocks. ``cache``, which is taken over,
    keeps what is asked for again.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        blocks_limit: int = BLOCKS_LIMIT,
        spools_limit: int = SPOOLS_LIMIT,
        patience_s: float = PATIENCE_S,
        wait_s: float = WAIT_S,
        idle_s: float = IDLE_S,
        cache: Cache | None = None,
    ) -> None:
        self._threads = ThreadPoolExecutor(at_once + FILES_AT_ONCE + _PASSES + _SHORT_JOBS, "layertee-send")
        self._patience_s = patience_s
        self._wait_s = wait_s
        self._turns = Turns(at_once, idle_s)
        self._file_turns = Turns(FILES_AT_ONCE, idle_s)
        passes = asyncio.Semaphore(_PASSES)
        self._passes = passes
        self._cache = Caching(cache, self._threads, passes) if cache is not None else None
        self._spools = Spools(self._threads, passes, limit=spools_limit)
        self._lists = BlockLists(blocks_limit)
        self._listing: Flights[Hashable, Chain] = Flights()

    async def open(self, blob: Sendable, start: int, stop: int) -> Outgoing:
        """Bytes ``start`` to ``stop`` of ``blob``, the first of which can be sent at once.

        May take as long as reading all of the blob. Raises NotFound, SourceUnreadable, DigestMismatch,
        ServerBusy.
        """
        if not 0 <= start <= stop <= blob.size:
            raise ValueError(f"there are no bytes {start} to {stop} in {blob.size}")
        if isinstance(blob.content, InFile):
            return await self._file(blob, blob.content, start, stop)
        return await self._assembled(blob, start, stop)

    async def close(self) -> None:
        """End what is being read, and the threads."""
        for part in (self._spools, self._listing, self._cache):
            if part is not None:
                await part.close()
        await asyncio.to_thread(self._threads.shutdown)

    # --- what lies in a file --------------------------------------------------

    async def _file(self, blob: Sendable, content: InFile, start: int, stop: int) -> Outgoing:
        piece = await self._opened(partial(_open_piece, blob, content))
        try:
            if blob.size == 0:
                blob.digest.check(b"", blob.place)
            if blob.is_checked or blob.size == 0:
                return OutgoingFile(piece, start, stop, self._threads)
            blob = replace(blob, content=piece)
            known = self._lists.get(blob.digest) or await self._listed_file(blob, piece)
            await self._wait_for(self._file_turns)
        except BaseException:
            piece.close()
            raise
        return await self._checked(blob, start, stop, known, self._file_turns, piece.close)

    async def _listed_file(self, blob: Sendable, piece: OpenPiece) -> Chain:
        """One pass for all who ask meanwhile, of whom any may leave: it has a descriptor of its own."""
        key = (blob.digest, piece.identity, piece.offset)
        if key in self._listing:
            return await self._listing.join(key, partial(self._list, blob))
        own = piece.duplicate()
        return await self._listing.join(key, partial(self._list, replace(blob, content=own), own))

    # --- what is put together --------------------------------------------------

    async def _assembled(self, blob: Sendable, start: int, stop: int) -> Outgoing:
        if blob.size == 0:
            blob.digest.check(b"", blob.place)
        if (spooled := self._spools.use(blob.digest)) is not None:
            try:
                return await self._spooled(spooled, start, stop)
            except LocalError as exc:
                log.warning("%s; the layer is put together again", exc)
        if self._cache is not None and (piece := await self._cache.get(blob)) is not None:
            return OutgoingFile(piece, start, stop, self._threads)
        known = self._lists.get(blob.digest)
        if self._cache is not None and known is not None:
            self._cache.keep_soon(blob)
        if known is None and stop - start < blob.size and blob.size > BLOCK:
            known = await self._listing.join(blob.digest, lambda: self._list(blob))
        try:
            async with asyncio.timeout(self._patience_s):
                await self._turns.take()
        except TimeoutError:
            if (shared := await self._shared(blob, start, stop)) is not None:
                return shared
            await self._wait_for(self._turns)
        return await self._checked(blob, start, stop, known, self._turns)

    async def _shared(self, blob: Sendable, start: int, stop: int) -> Outgoing | None:
        """From a file that is made for all who want the same; None where there is no room for one."""
        kept = self._cache is not None and await self._cache.keep(blob)
        if self._cache is not None and kept and (piece := await self._cache.get(blob)) is not None:
            return OutgoingFile(piece, start, stop, self._threads)
        try:
            return await self._spooled(await self._spools.make(blob), start, stop)
        except LocalError as exc:
            log.info("%s; clients wait for each other", exc)
            return None

    async def _wait_for(self, turns: Turns) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await turns.take()
        except TimeoutError:
            message = "as many layers are read and checked as may be at a time"
            raise ServerBusy(message, retry_after=self._wait_s) from None

    async def _checked(
        self,
        blob: Sendable,
        start: int,
        stop: int,
        known: Chain | None,
        turns: Turns,
        when_closed: Callable[[], None] = lambda: None,
    ) -> Outgoing:
        """Takes over one of ``turns``."""
        blocks = CheckedBlocks(blob, known)

        def closed() -> None:
            when_closed()
            if blocks.made is not None:
                self._lists.put(blob.digest, blocks.made)

        outgoing = OutgoingBlocks(blocks, start, stop, self._threads, turns, when_closed=closed)
        try:
            await outgoing.begin()
        except BaseException:
            await outgoing.close()
            raise
        return outgoing

    async def _list(self, blob: Sendable, own: OpenPiece | None = None) -> Chain:
        """``own`` is closed at the end."""
        try:
            async with self._passes:
                made = await in_thread_of(self._threads, list_blocks, blob)
        finally:
            if own is not None:
                own.close()
        self._lists.put(blob.digest, made)
        return made

    async def _spooled(self, spooled: Spooled, start: int, stop: int) -> Outgoing:
        """Gives ``spooled`` back. Raises LocalError, after which it is not used again."""
        try:
            piece = await self._opened(spooled.piece)
        except BaseException as exc:
            if isinstance(exc, LocalError):
                self._spools.forget(spooled)
            self._spools.give_back(spooled)
            raise
        give_back = partial(self._spools.give_back, spooled)
        return OutgoingFile(piece, start, stop, self._threads, when_closed=give_back)

    # --- inside ----------------------------------------------------------------

    async def _opened(self, make: Callable[[], _C]) -> _C:
        """What ``make`` opens in a thread; nothing stays open for a caller who is cancelled."""
        made: list[_C] = []
        try:
            await in_thread_of(self._threads, lambda: made.append(make()))
        except BaseException:
            for one in made:
                one.close()
            raise
        return made[0]


def _open_piece(blob: Sendable, content: InFile) -> OpenPiece:
    """Raises SourceUnreadable, also where there are more or fewer bytes than the blob has."""
    what = f"{blob.place}: {blob.digest}"
    piece = OpenPiece(content.extent(), what)
    if piece.size != blob.size:
        piece.close()
        raise SourceUnreadable(f"{what}: has {piece.size} bytes, not {blob.size}")
    return piece
