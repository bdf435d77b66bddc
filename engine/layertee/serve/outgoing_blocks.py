"""Blocks on their way out, each checked before it leaves: while one is sent, the next one is read.

A client that is slow does not keep blocks in memory that others wait for: they are given up, and read again,
and checked again, once the client has taken the small piece that it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from ..aio import until_done
from ..errors import SourceUnreadable
from .blocks import BLOCK
from .outgoing import Outgoing
from .turns import TURN_S

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .blocks import CheckedBlocks
    from .turns import Turns

# Bytes of memory that a client has while it waits, or is waited for: small ones cost CPU, large ones room.
_SMALL: Final = 16 << 10  # of one that has yet to show that it is quick
_LARGE: Final = 128 << 10


class OutgoingBlocks(Outgoing):
    """Bytes ``start`` to ``stop`` of a blob, out of ``blocks``, which it owns.

    ``begin`` it with one of ``turns``, which it takes over. It has two blocks in memory while it has a turn.
    ``when_closed`` is called once.
    """

    file = None

    def __init__(
        self,
        blocks: CheckedBlocks,
        start: int,
        stop: int,
        threads: Executor,
        turns: Turns,
        *,
        when_closed: Callable[[], None],
    ) -> None:
        self._blocks = blocks
        self._at, self._stop = start, stop
        self._threads = threads
        self._turns = turns
        self._when_closed = when_closed
        self._since: float | None = None  # when the turn began
        self._rooms: list[memoryview] = []
        self._block: memoryview | None = None
        self._number = -1  # of that block
        self._ahead: asyncio.Future[memoryview] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_slow = False  # the client, with its last piece
        self._is_closed = False

    async def begin(self) -> None:
        """Take over a turn, and see that the first block is right.

        Raises SourceUnreadable, DigestMismatch; ``close`` it then as well.
        """
        self._begin_turn()
        if self._at < self._stop:
            await self._read_block(self._at // BLOCK)
        self._now_idle_soon()

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        self._now_busy()
        room = memoryview(bytearray(min(_SMALL, self._stop - self._at)))
        n_quick = 0
        while self._at < self._stop:
            block = await self._block_at(self._at // BLOCK)
            first = self._at % BLOCK
            piece = room[: min(len(block) - first, self._stop - self._at)]
            piece[:] = block[first : first + len(piece)]
            self._at += len(piece)
            del block
            self._now_idle_soon()
            n_quick += len(piece)
            self._is_slow = False
            yield piece
            self._now_busy()
            if self._is_slow:
                n_quick = 0
            if (nbytes := _SMALL if n_quick < BLOCK else _LARGE) != len(room):
                del piece
                room = memoryview(bytearray(nbytes))

    def check(self) -> None:
        """Each block was right when it left."""

    def make_way(self) -> None:
        if self._ahead is None or self._ahead.done():
            self._end_turn()
        else:
            self._ahead.add_done_callback(lambda _: self._end_turn())

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._now_busy()
        try:
            if self._ahead is not None:
                await until_done(self._ahead)
        finally:
            self._end_turn()
            self._blocks.close()
            self._when_closed()

    # --- a turn -----------------------------------------------------------------

    def _begin_turn(self) -> None:
        self._since = asyncio.get_running_loop().time()
        nbytes = min(BLOCK, self._blocks.nbytes)
        self._rooms = [memoryview(bytearray(nbytes)) for _ in range(2)]

    def _end_turn(self) -> None:
        """Nothing is being read then. Harmless when there is no turn."""
        if self._ahead is not None and self._ahead.done() and not self._ahead.cancelled():
            self._ahead.exception()  # retrieved: what is wrong is found again when it is read again
        self._ahead = self._block = None
        self._number = -1
        self._rooms = []
        if self._since is not None:
            self._since = None
            self._blocks.pause()
            self._turns.give_back()

    def _now_idle_soon(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._turns.idle_s, self._now_idle)

    def _now_idle(self) -> None:
        self._is_slow = True
        if self._since is not None:
            self._turns.idle(self)

    def _now_busy(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._turns.busy(self)

    # --- what is read in it -------------------------------------------------------

    async def _block_at(self, number: int) -> memoryview:
        if self._block is not None and self._number == number and self._since is not None:
            return self._block
        if self._since is not None and self._turns.is_wanted and self._has_had_its_turn(self._since):
            if self._ahead is not None:
                await asyncio.wait([self._ahead])
            self._end_turn()
        if self._since is None:
            await self._turns.take()
            if self._is_closed:
                self._turns.give_back()
                raise SourceUnreadable("closed while it was sent")
            self._begin_turn()
        return await self._read_block(number)

    def _has_had_its_turn(self, since: float) -> bool:
        return asyncio.get_running_loop().time() - since > TURN_S

    async def _read_block(self, number: int) -> memoryview:
        ahead = self._ahead or self._read(number)
        block = await asyncio.shield(ahead)
        if self._since is None:  # the turn went while this was read
            return block
        self._ahead = None
        self._block, self._number = block, number
        if (number + 1) * BLOCK < self._stop and not self._is_closed:
            self._read(number + 1)
        return block

    def _read(self, number: int) -> asyncio.Future[memoryview]:
        self._rooms.reverse()
        loop = asyncio.get_running_loop()
        self._ahead = loop.run_in_executor(self._threads, self._blocks.read, number, self._rooms[0])
        return self._ahead
