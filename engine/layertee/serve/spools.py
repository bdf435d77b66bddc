"""A layer that more clients want than it can be put together for at once: put together for all of them.

It is a file without a name (disk/spool.py), which is there as long as it is sent to somebody: each use is
counted, on the event loop's thread, and with the last one the file is no longer found, and only then closed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ..aio import in_thread_of
from ..disk.blob_file import Extent
from ..disk.spool import spool
from ..errors import NoSpace, SourceUnreadable
from .blocks import read_whole
from .flights import Flights
from .outgoing import OpenPiece

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..disk.blob_file import OpenFile
    from ..image.document import Digest
    from .offer import Sendable

log = logging.getLogger(__name__)

SPOOLS_LIMIT: Final = 16 << 30  # bytes of all that are there at a time


class Spooled:
    """A blob that is or will be in a file of its own. ``Spools`` counts its ``users`` and closes ``file``."""

    def __init__(self, blob: Sendable) -> None:
        self.digest = blob.digest
        self.size = blob.size
        self.users = 0
        self.file: OpenFile | None = None
        self._what = f"{blob.place}: {blob.digest}"

    def piece(self) -> OpenPiece:
        """To be sent, for one of its users. Blocks. Raises LocalError, SourceUnreadable."""
        if self.file is None:
            raise SourceUnreadable(f"{self._what}: is in no file")
        return OpenPiece(Extent(self.file.descriptor(), 0, self.size), self._what)


class Spools:
    """``passes`` bounds how many are made at once, in ``threads``. All is called from one event loop.

    What ``use`` and ``make`` return is the caller's until it calls ``give_back``.
    """

    def __init__(self, threads: Executor, passes: asyncio.Semaphore, *, limit: int = SPOOLS_LIMIT) -> None:
        self._threads = threads
        self._passes = passes
        self._limit = limit
        self._there: dict[Digest, Spooled] = {}
        self._nbytes = 0  # of all that are made or being made, found or not
        self._flights: Flights[Spooled, None] = Flights()
        self._closing: set[asyncio.Future[None]] = set()

    def use(self, digest: Digest) -> Spooled | None:
        """The blob ``digest``, while somebody uses it."""
        found = self._there.get(digest)
        if found is None or found.file is None:
            return None
        found.users += 1
        return found

    async def make(self, blob: Sendable) -> Spooled:
        """``blob``, for all who ask meanwhile.

        Raises SourceUnreadable, DigestMismatch; LocalError and NoSpace where it cannot be kept.
        """
        spooled = self._there.setdefault(blob.digest, Spooled(blob))
        spooled.users += 1
        try:
            if spooled.file is None:
                await self._flights.join(spooled, lambda: self._make(blob, spooled))
        except BaseException:
            self.give_back(spooled)
            raise
        return spooled

    def give_back(self, spooled: Spooled) -> None:
        """One use less; with the last one the file goes."""
        spooled.users -= 1
        if spooled.users:
            return
        self.forget(spooled)
        if spooled.file is not None:
            # In a thread: to free the blocks of a large file takes time.
            closing = asyncio.ensure_future(in_thread_of(self._threads, spooled.file.close))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            closing.add_done_callback(lambda _: self._took(-spooled.size))

    def forget(self, spooled: Spooled) -> None:
        """Nobody else is to use it; who does already still gives it back."""
        if self._there.get(spooled.digest) is spooled:
            del self._there[spooled.digest]

    async def close(self) -> None:
        """End what is being made, and wait until what was given back is closed."""
        await self._flights.close()
        await asyncio.gather(*self._closing)

    async def _make(self, blob: Sendable, spooled: Spooled) -> None:
        if spooled.file is not None:
            return
        async with self._passes:
            if self._nbytes + blob.size > self._limit:
                raise NoSpace(f"{self._nbytes} bytes of layers are being sent from temporary files")
            log.info("%s: %s is wanted by several; put together for all", blob.place, blob.digest)
            self._took(blob.size)
            made: list[OpenFile] = []
            try:
                await in_thread_of(self._threads, lambda: made.append(_spool(blob)))
            except BaseException:
                for file in made:
                    file.close()
                self._took(-blob.size)
                raise
        spooled.file = made[0]

    def _took(self, nbytes: int) -> None:
        self._nbytes += nbytes


def _spool(blob: Sendable) -> OpenFile:
    return spool(read_whole(blob), f"{blob.place}: {blob.digest}", limit=blob.size)
