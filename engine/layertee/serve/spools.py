"""A layer that more clients want than it can be put together for at once: put together for all of them.

It is a file without a name (disk/spool.py), which is there as long as it is sent to somebody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, WeakValueDictionary

from ..aio import in_thread_of
from ..disk.blob_file import Extent
from ..disk.spool import spool
from ..errors import NoSpace
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
    """A blob that was put together and checked; gone with the last who holds this."""

    def __init__(self, file: OpenFile, blob: Sendable) -> None:
        self._file = file
        self._what = f"{blob.place}: {blob.digest}"
        self.size = blob.size

    def piece(self) -> OpenPiece:
        """To be sent. Raises LocalError."""
        return OpenPiece(Extent(self._file.descriptor(), 0, self.size), self._what, is_ours=True)

    def __del__(self) -> None:
        self._file.close()


class Spools:
    """``passes`` bounds how many are made at once, in ``threads``."""

    def __init__(self, threads: Executor, passes: asyncio.Semaphore, *, limit: int = SPOOLS_LIMIT) -> None:
        self._threads = threads
        self._passes = passes
        self._limit = limit
        self._there: WeakValueDictionary[Digest, Spooled] = WeakValueDictionary()
        self._all: WeakSet[Spooled] = WeakSet()
        self._flights: Flights[Digest, Spooled] = Flights()

    def get(self, digest: Digest) -> Spooled | None:
        """The blob ``digest``, while somebody holds it."""
        return self._there.get(digest)

    async def make(self, blob: Sendable) -> Spooled:
        """``blob``, for all who ask meanwhile.

        Raises SourceUnreadable, DigestMismatch; LocalError and NoSpace where it cannot be kept.
        """
        return await self._flights.join(blob.digest, lambda: self._make(blob))

    async def close(self) -> None:
        """End what is being made."""
        await self._flights.close()

    async def _make(self, blob: Sendable) -> Spooled:
        if (found := self.get(blob.digest)) is not None:
            return found
        async with self._passes:
            there = sum(one.size for one in self._all)
            if there + blob.size > self._limit:
                raise NoSpace(f"{there} bytes of layers are being sent from temporary files")
            log.info("%s: %s is wanted by several; put together for all", blob.place, blob.digest)
            made = await in_thread_of(self._threads, _spool, blob)
        self._there[blob.digest] = made
        self._all.add(made)
        return made


def _spool(blob: Sendable) -> Spooled:
    return Spooled(spool(read_whole(blob), f"{blob.place}: {blob.digest}", limit=blob.size), blob)
