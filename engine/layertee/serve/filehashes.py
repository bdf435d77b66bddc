"""What plain files of others hash to: each is read once for as long as it stays as it is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from ..aio import in_thread_of, is_given_up
from ..errors import DigestMismatch, SourceUnreadable
from ..image.document import Digest
from .flights import Flights
from .outgoing import FileIdentity, OpenPiece

if TYPE_CHECKING:
    from concurrent.futures import Executor

_AT_ONCE: Final = 1 << 20
_REMEMBERED: Final = 16384  # files; a few hundred bytes of memory each
# Two writes within one tick of the clock that stamps files look like one.
_TICK_S: Final = 0.05

_Key = tuple[FileIdentity, int, int, str]


class FileHashes:
    """Of pieces of files, as many as ``limit`` of them remembered; ``passes`` bounds how many are read at
    once, in ``threads``.
    """

    def __init__(self, threads: Executor, passes: asyncio.Semaphore, *, limit: int = _REMEMBERED) -> None:
        self._threads = threads
        self._passes = passes
        self._limit = limit
        self._known: OrderedDict[_Key, bytes] = OrderedDict()
        self._flights: Flights[_Key, bytes] = Flights()

    async def check(self, piece: OpenPiece, digest: Digest) -> None:
        """Raise DigestMismatch unless ``piece`` hashes to ``digest``, SourceUnreadable where nobody can tell.

        ``piece`` stays the caller's.
        """
        key = (piece.identity, piece.offset, piece.size, digest.algorithm)
        found = self._known.get(key)
        if found is None:
            own = None if key in self._flights else piece.duplicate()
            found = await self._flights.join(key, partial(self._pass, key, own or piece))
        else:
            self._known.move_to_end(key)
        if found.hex() != digest.hex:
            got = f"{digest.algorithm}:{found.hex()}"
            raise DigestMismatch(
                f"{piece.what}: hashes to {got}, not {digest}", want=str(digest), got=got, nbytes=piece.size
            )

    async def close(self) -> None:
        """End what is being read."""
        await self._flights.close()

    async def _pass(self, key: _Key, piece: OpenPiece) -> bytes:
        """``piece`` is given up."""
        try:
            if piece.identity != key[0]:
                raise SourceUnreadable(f"{piece.what}: was written to just now")
            async with self._passes:
                age_s = time.time() - piece.identity.ctime_ns / 1e9
                if 0 <= age_s < _TICK_S:
                    await asyncio.sleep(_TICK_S - age_s)
                found = await in_thread_of(self._threads, _hash, piece, key[3])
        finally:
            piece.close()
        self._known[key] = found
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return found


def _hash(piece: OpenPiece, algorithm: str) -> bytes:
    """Raises SourceUnreadable, also when the file was written to meanwhile. Blocks."""
    with suppress(OSError):  # advice only
        os.posix_fadvise(piece.fd, piece.offset, piece.size, os.POSIX_FADV_SEQUENTIAL)
    state = hashlib.new(algorithm)
    room = memoryview(bytearray(min(_AT_ONCE, piece.size)))
    at = 0
    while at < piece.size:
        if is_given_up():
            raise SourceUnreadable(f"{piece.what}: nobody waits for it any more")
        n = piece.read(room, at)
        state.update(room[:n])
        at += n
    piece.check()
    return state.digest()
