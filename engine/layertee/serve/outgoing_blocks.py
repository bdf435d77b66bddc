"""Blocks on their way out, each checked before it leaves: while one is sent, the next one is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from ..aio import until_done
from .blocks import BLOCK
from .outgoing import Outgoing

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .blocks import CheckedBlocks


class OutgoingBlocks(Outgoing):
    """Bytes ``start`` to ``stop`` of a blob, from ``blocks`` that begin with the one that ``start`` is in.

    Owns ``blocks``, and two of them in memory. ``when_closed`` is called once.
    """

    file = None

    def __init__(
        self,
        blocks: CheckedBlocks,
        start: int,
        stop: int,
        threads: Executor,
        *,
        when_closed: Callable[[], None],
    ) -> None:
        self._blocks = blocks
        self._at, self._stop = start, stop
        self._threads = threads
        self._when_closed = when_closed
        self._rooms = [memoryview(bytearray(BLOCK)) for _ in range(2)]
        self._ahead: asyncio.Future[memoryview] | None = None
        self._is_closed = False

    async def begin(self) -> None:
        """See that the first block is right. Raises SourceUnreadable, DigestMismatch."""
        self._read_ahead()
        if self._ahead is not None:
            await asyncio.shield(self._ahead)

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        while (ahead := self._ahead) is not None:
            block = await asyncio.shield(ahead)
            first = self._at % BLOCK
            piece = block[first : first + self._stop - self._at]
            self._at += len(piece)
            self._ahead = None
            self._read_ahead()
            yield piece

    def check(self) -> None:
        """Each block was right when it left."""

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._ahead is not None:
                await until_done(self._ahead)
        finally:
            if self._ahead is not None and not self._ahead.cancelled():
                self._ahead.exception()  # retrieved: the answer has ended anyway
            self._ahead = None
            self._blocks.close()
            self._when_closed()

    def _read_ahead(self) -> None:
        if self._at < self._stop and not self._is_closed:
            self._rooms.reverse()
            loop = asyncio.get_running_loop()
            self._ahead = loop.run_in_executor(self._threads, self._blocks.read, self._rooms[0])
