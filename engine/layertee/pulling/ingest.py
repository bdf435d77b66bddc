"""One layer into the store, by the first of its plan's sources that works.

With the layer's lock held: what the store has now comes first, then the sources of the step in their order.
A source that fails leads to the next one; the last one's failure is the layer's. What is brought goes through
the pool into a part file and is held against what the image names: then it is *staged*. Committing makes it
a layer of the store and records it. Nothing is decided here but whether a source worked.

How a layer comes over the network is download.py, and how its bytes get into a file is landing.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..core.pool import LayerJob, Pool, PoolLayer
from ..core.result import BlobResult
from ..disk.locks import HeldLock, when_free
from ..disk.space import Space
from ..errors import LayerteeError, SourceUnreadable, StoreBusy
from ..image.holding import Holding
from ..store.blobs import PLACE
from ..transfer.fetcher import Fetcher
from .arrival import Arrival
from .budget import Spending
from .download import Download, final_error
from .landing import Attempt, Landing, seen_wrong
from .measure import Feed, check, measure_layer
from .plan import Action, LayerPlan, Plan, Source, SourceKind, own_sources
from .report import Ingested, LayerProgress
from .source import Openable, read_blob
from .staged import Staged

if TYPE_CHECKING:
    from ..image.document import Layer
    from ..image.reference import Reference
    from ..store.store import Store
    from ..transfer.servers import Servers
    from .survey import Keepers

log = logging.getLogger(__name__)

_OF_THE_REGISTRY = frozenset({SourceKind.RESUME, SourceKind.NETWORK})
_OF_THE_STORE = frozenset({SourceKind.HAVE, SourceKind.ADOPT})


class Ingest:
    """Brings the layers of ``plan`` in, any number at once.

    ``keep_parts``: what arrives of a layer is kept when the rest does not arrive.
    ``servers_of`` tells who may be asked for the blobs of an image; ``keepers`` whether a place still
    has what it keeps. ``space`` is what may be filled of the disk. ``spending`` bounds what all layers may
    cost together; ``spare``, what is read on this machine of layers that a registry has as well.
    ``zstd_window``: the largest window that a zstd frame may have.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        fetcher: Fetcher,
        plan: Plan,
        *,
        servers_of: Callable[[Reference], Awaitable[Servers]],
        keepers: Keepers,
        space: Space,
        keep_parts: bool,
        spending: Spending,
        spare: Spending,
        zstd_window: int,
    ) -> None:
        self.space = space
        self._store = store
        self._pool = pool
        self._want = plan.want
        self._servers_of = servers_of
        self._keepers = keepers
        self._window = zstd_window
        self._landing = Landing(
            store, pool, plan.want, space, spending=spending, spare=spare, zstd_window=zstd_window
        )
        self._download = Download(fetcher, self._landing, plan, keep_parts=keep_parts)

    # --- locks ---

    def try_lock(self, step: LayerPlan) -> HeldLock | None:
        """The right to bring the layer in; None while another process or task has it. Raises LocalError."""
        return self._store.blobs.lock(self._want.name_of(step.layer))

    async def lock(self, step: LayerPlan) -> HeldLock:
        """Wait for that right: whoever has it may be bringing the same layer, which is then there."""
        where = self._store.blobs.lock_path(self._want.name_of(step.layer))
        return await when_free(lambda: self.try_lock(step), where, math.inf)

    # --- one layer ---

    async def bring(
        self, step: LayerPlan, progress: LayerProgress, *, pace: Callable[[], float] | None = None
    ) -> Ingested:
        """Lock, stage and commit one layer. Raises as ``stage``."""
        got = await self.stage(step, await self.lock(step), progress, pace=pace)
        return await got.commit() if isinstance(got, Staged) else got

    async def stage(
        self,
        step: LayerPlan,
        lock: HeldLock,
        progress: LayerProgress,
        *,
        pace: Callable[[], float] | None = None,
    ) -> Ingested | Staged:
        """See that the layer is there, or bring it as far as a part file.

        Takes ``lock`` over: it is released unless a Staged comes back, which has it then. ``pace`` is asked
        after every read how many seconds to wait before the next one, 0 to go on. Raises IntegrityError,
        TransportError, RegistryError, LocalError, SourceUnreadable: what the last source failed with.
        """
        got: Ingested | Staged | None = None
        try:
            got = await self._first_that_works(Attempt(step, lock, progress, pace))
            return got
        finally:
            if not isinstance(got, Staged):
                lock.release()

    async def measure(self, blob: Openable, held: Holding, layer: Layer, *, inflate: bool) -> BlobResult:
        """Hash ``blob``, which is to be ``held``; with ``inflate`` what is in it, too: a TeeResult.

        Raises IntegrityError for one that is not, SourceUnreadable.
        """
        job = LayerJob(
            held.compression,
            held.size,
            digest_only=not inflate,
            window_max=self._window,
            path=str(held.path),
        )
        result = await measure_layer(self._pool.open_layer(job), self._reader(blob, layer, None))
        check(result, layer, held.digest, held.size)
        return result

    def is_busy(self) -> bool:
        """Whether bytes that have arrived wait for a processor."""
        return self._pool.stats().in_queued > 0

    async def _first_that_works(self, attempt: Attempt) -> Ingested | Staged:
        step = attempt.step
        own = own_sources(step.layer, await in_thread(self._store.blobs.forms, step.layer), self._want)
        others = [source for source in step.sources if not _is_own(source)]
        failed: LayerteeError | None = None
        why = "no longer in the store" if len(others) < len(step.sources) else ""
        for source in (*own, *others):
            try:
                got = await self._try(attempt, source, why)
            except StoreBusy:
                raise
            except LayerteeError as exc:
                if source.kind in _OF_THE_REGISTRY:
                    raise final_error(exc, attempt.without) from None
                log.info("layer %d: %s failed: %s", step.layer.index, source.reason, exc)
                failed, why = exc, f"{_place(source)} could not give it: {exc}"
                continue
            if got is not None:
                return got
            if source.kind is SourceKind.KEPT:
                why = f"no longer in {_place(source)}"
        if failed is not None:
            raise failed
        raise SourceUnreadable(f"layer {step.layer.index} ({step.layer.digest}) is not there")

    async def _try(self, attempt: Attempt, source: Source, why: str) -> Ingested | Staged | None:
        """What came of one source; None if it turns out not to be one. ``why``: those before it were not."""
        held = source.holding
        match source.kind:
            case SourceKind.HAVE if held is not None:
                return self._have(attempt, source, held)
            case SourceKind.ADOPT if held is not None:
                return await self._adopt(attempt, source, held)
            case SourceKind.READ if held is not None:
                return await self._read(attempt, source, held)
            case SourceKind.KEPT if held is not None:
                if await in_thread(self._keepers.still_held, held):
                    return Ingested(Action.HAVE, source.reason, None, held)
                return None
            case SourceKind.TAR if source.registry is not None and source.tar is not None:
                servers = await self._servers_of(source.registry)
                return await self._download.fetch_tar(attempt, source, servers, source.tar)
            case SourceKind.RESUME | SourceKind.NETWORK if source.registry is not None:
                servers = await self._servers_of(source.registry)
                return await self._download.fetch(attempt, source, servers, why or source.reason)
        raise ValueError(f"not a source to bring a layer from: {source.kind}")

    # --- what the store has ---

    def _have(self, attempt: Attempt, source: Source, held: Holding) -> Ingested:
        planned = attempt.step.action is Action.HAVE
        reason = attempt.step.reason if planned else "brought by another process meanwhile"
        return Ingested(Action.HAVE, reason, held, held)

    async def _adopt(self, attempt: Attempt, source: Source, held: Holding) -> Ingested:
        """The file is here, but nobody wrote down that it was checked: check it now."""
        layer = attempt.layer
        is_blob = held.digest == layer.digest
        bounds = self._landing.bounds(attempt.step, source)
        job = LayerJob(
            held.compression,
            held.size,
            digest_only=is_blob and self._landing.hashes_only(layer),
            out_budget=bounds.out_nbytes,
            window_max=self._window,
            media_type=layer.media_type,
            path=str(held.path),
        )
        feed = self._reader(held, layer, attempt.progress)
        result = await self._landing.measure(job, feed, bounds)
        check(result, layer, held.digest, layer.size if is_blob else result.size)
        now = await in_thread(self._store.blobs.adopt, result, claim=layer)
        return Ingested(
            Action.HAVE, "in the store, checked again now", now, now, warning=seen_wrong(layer, result)
        )

    # --- what is read here ---

    async def _read(self, attempt: Attempt, source: Source, held: Holding) -> Staged:
        job = LayerJob(held.compression, held.size, digest_only=attempt.layer.is_opaque)
        feed = self._reader(held, attempt.layer, attempt.progress)
        bounds = self._landing.bounds(attempt.step, source)
        if bounds.disk_nbytes is not None and source.disk_bytes > bounds.disk_nbytes:
            raise SourceUnreadable(f"it would take {source.disk_bytes} bytes of the little that is free")
        arrival = Arrival(self._store.blobs.writer(self._want.name_of(attempt.layer)), None)
        try:
            result = await self._landing.write(attempt.layer, job, feed, held.digest, bounds, arrival)
        except BaseException:
            arrival.drop()
            raise
        return self._landing.staged(
            attempt, arrival, result, Ingested(Action.REUSE, source.reason, None, held)
        )

    def _reader(self, source: Openable, layer: Layer, progress: LayerProgress | None) -> Feed:
        def advance(nbytes: int) -> None:
            if progress is not None:
                progress.done = min(progress.done + nbytes, layer.size)

        async def feed(pool_layer: PoolLayer) -> None:
            if progress is not None:
                progress.done = 0
            limit = source.size if isinstance(source, Holding) else None
            await read_blob(source, self._pool, pool_layer, limit=limit, progress=advance)

        return feed


def _is_own(source: Source) -> bool:
    """Whether the store itself is the source, whose answer is asked for again under the layer's lock."""
    of_store = source.holding is not None and source.holding.place == PLACE
    return source.kind in _OF_THE_STORE or of_store


def _place(source: Source) -> str:
    if source.tar is not None:
        return source.tar.endpoint
    return source.holding.place if source.holding is not None else source.kind.value
