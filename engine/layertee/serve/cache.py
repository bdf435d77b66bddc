"""Layers that are asked for again, kept as tars: in a store of the server's own, within a limit.

What is in it was hashed when it came in, by the store's own rules, and goes to clients as any checked file
does. Nothing of it is needed: whatever fails is logged, and the layer is put together as if there were no
cache.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ..aio import in_thread_of, is_given_up
from ..core.tee import Tee
from ..disk.files import disk_error
from ..disk.space import KeepFree, Space
from ..errors import DigestMismatch, LayerteeError, NoSpace, ServeConfigError, SourceUnreadable, StoreBusy
from ..image.document import DiffID
from ..image.holding import Form
from ..image.media import Compression
from ..store.cache import CacheLimit, keep_within, make_room
from ..store.store import Store
from .blocks import BLOCK
from .flights import Flights
from .outgoing import OpenPiece

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..core.result import TeeResult
    from ..disk.part import BlobWriter
    from ..image.document import Digest
    from .offer import Sendable

log = logging.getLogger(__name__)

PLACE: Final = "the cache"
_AGAIN_S: Final = 600.0  # after a layer could not be kept


class Cache:
    """The layers in ``store``, as many as ``limit`` allows. Every method blocks; any thread may call."""

    def __init__(self, store: Store, limit: CacheLimit) -> None:
        self._store = store
        self._limit = limit

    @classmethod
    def open(cls, root: Path, limit: CacheLimit | None = None, *, apart_from: Sequence[Path] = ()) -> Self:
        """In the directory ``root``, which is made if need be, and is nobody else's. Raises as Store.open.

        ServeConfigError: ``root`` is, is in, or holds one of the paths ``apart_from``, where nothing is to be
        written, and removed again.
        """
        real = os.path.realpath(root)
        for path in apart_from:
            other = os.path.realpath(path)
            if os.path.commonpath((real, other)) in (real, other):
                raise ServeConfigError(
                    f"{root} cannot be the cache: images are in {path}; name a directory apart from it"
                )
        return cls(Store.open(root), limit or CacheLimit())

    def close(self) -> None:
        """After the last call of any other method."""
        self._store.close()

    def piece(self, blob: Sendable) -> OpenPiece | None:
        """``blob``, if it is here, to be sent; it is then the one that was used last. Raises LocalError,
        SourceUnreadable.
        """
        for held in self._store.blobs.held(DiffID(blob.digest)):
            if held.digest == blob.digest and held.size == blob.size:
                piece = OpenPiece(self._store.layout.content(held.digest).extent(), f"{PLACE}: {blob.digest}")
                with suppress(OSError):
                    os.utime(piece.fd)
                return piece
        return None

    def keep(self, blob: Sendable) -> None:
        """Bring ``blob`` in, unless another process does, and see that all stays within the limit.

        Raises SourceUnreadable, DigestMismatch, StoreBusy, LocalError, NoSpace.
        """
        store = self._store
        if blob.size > self._limit.of(store, 0):
            raise NoSpace(f"{blob.digest} is larger than {PLACE} may be", need=blob.size)
        space = Space(store.root, KeepFree.usual())
        make_room(store, space, blob.size, ())
        space.check(blob.size, "keeping a layer")
        with store.shared(0.0):
            lock = store.blobs.lock(blob.digest)
            if lock is None:
                return
            with lock, store.blobs.writer(blob.digest) as writer:
                result = _written(blob, writer)
                if result.digest != blob.digest:
                    raise DigestMismatch(
                        f"{blob.place}: {blob.digest}: hashes to {result.digest}",
                        want=str(blob.digest),
                        got=str(result.digest),
                        nbytes=result.size,
                    )
                store.blobs.commit(writer, result, Form.UNCOMPRESSED)
        keep_within(store, self._limit)


class Caching:
    """``cache`` for a server's event loop. ``passes`` bounds how many layers are read at once.

    Takes ``cache`` over. Nothing is raised but for a caller who is cancelled.
    """

    def __init__(self, cache: Cache, threads: Executor, passes: asyncio.Semaphore) -> None:
        self._cache = cache
        self._threads = threads
        self._passes = passes
        self._flights: Flights[Digest, None] = Flights()
        self._behind: set[asyncio.Task[bool]] = set()
        self._failed: dict[Digest, float] = {}

    async def get(self, blob: Sendable) -> OpenPiece | None:
        """``blob``, if it is kept, to be sent."""
        made: list[OpenPiece | None] = []
        try:
            await in_thread_of(self._threads, lambda: made.append(self._cache.piece(blob)))
        except LayerteeError as exc:
            log.warning("%s: %s", PLACE, exc)
        except BaseException:
            for piece in made:
                if piece is not None:
                    piece.close()
            raise
        return made[0] if made else None

    def keep_soon(self, blob: Sendable) -> None:
        """Keep ``blob`` while the caller goes on."""
        if blob.digest not in self._flights:
            task = asyncio.ensure_future(self.keep(blob))
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def keep(self, blob: Sendable) -> bool:
        """Keep ``blob``, for all who ask meanwhile. False: it could not be kept, now or a while ago."""
        if time.monotonic() < self._failed.get(blob.digest, 0.0):
            return False
        try:
            await self._flights.join(blob.digest, lambda: self._keep(blob))
        except StoreBusy as exc:
            log.info("%s: %s", PLACE, exc)
            return False
        except LayerteeError as exc:
            if len(self._failed) >= 1000:
                self._failed.clear()
            self._failed[blob.digest] = time.monotonic() + _AGAIN_S
            log.warning("%s: %s: cannot be kept: %s", PLACE, blob.digest, exc)
            return False
        return True

    async def close(self) -> None:
        """End what is being kept, and close the cache."""
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._flights.close()
        await in_thread_of(self._threads, self._cache.close)

    async def _keep(self, blob: Sendable) -> None:
        async with self._passes:
            await in_thread_of(self._threads, self._cache.keep, blob)


def _written(blob: Sendable, writer: BlobWriter) -> TeeResult:
    """What was measured of all of ``blob`` while it was written. Raises SourceUnreadable, LocalError."""
    tee = Tee(Compression.NONE, out_budget=blob.size)
    room = memoryview(bytearray(BLOCK))
    reader = blob.content.open()
    try:
        while n := reader.readinto(room):
            if is_given_up():
                raise SourceUnreadable(f"{blob.digest}: nobody waits for it any more")
            _write(writer, tee.feed(room[:n]))
            while tee.pending:
                _write(writer, tee.feed(b""))
    finally:
        reader.close()
    return tee.finish()


def _write(writer: BlobWriter, view: memoryview) -> None:
    try:
        while view:
            view = view[os.write(writer.fileno(), view) :]
    except OSError as exc:
        raise disk_error(exc, "writing", writer.path) from exc
