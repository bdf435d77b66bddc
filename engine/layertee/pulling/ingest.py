"""One layer into the store, by the first of its plan's sources that works.

With the layer's lock held: what the store has now comes first, then the sources of the step in their order.
A source that fails leads to the next one; the last one's failure is the layer's. What is brought goes through
the pool into a part file and is held against what the image names: then it is *staged*. Committing makes it
a layer of the store and records it. Nothing is decided here but whether a source worked.

What has come over the network stays when the rest does not come (arrival.py), and the next run goes on after
it. A part that turns out wrong costs one new start: its blob is fetched as if there had been none.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..aio import in_thread, unwrapped_group
from ..core.pool import LayerJob, Pool, PoolLayer
from ..core.result import BlobResult, TeeResult
from ..core.tee import OUT_BUDGET
from ..disk.locks import HeldLock, when_free
from ..disk.space import Space, human
from ..errors import (
    DecodeError,
    DiffIDMismatch,
    IntegrityError,
    LayerteeError,
    NoSpace,
    OutputBudgetExceeded,
    SourceUnreadable,
    StoreBusy,
    WorkBudgetExceeded,
)
from ..image.holding import Basis, Form, Holding
from ..image.media import Compression
from ..record import dataclass
from ..store.blobs import PLACE
from ..transfer.fetcher import Fetcher, FetchReport
from .arrival import Arrival
from .budget import Bounds, Spending
from .measure import Feed, check, measure_layer
from .plan import Action, LayerPlan, Plan, Source, SourceKind, largest_read, own_sources
from .report import Ingested, LayerProgress
from .source import Openable, read_blob
from .staged import Staged

if TYPE_CHECKING:
    from ..image.document import Digest, Layer
    from ..image.reference import Reference
    from ..store.store import Store
    from ..transfer.servers import Servers
    from .survey import Keepers

log = logging.getLogger(__name__)

# The blob's digest is right, or more work would have been done: other servers have nothing else.
_NOT_THE_SERVER = (DiffIDMismatch, WorkBudgetExceeded)
_OF_THE_REGISTRY = frozenset({SourceKind.RESUME, SourceKind.NETWORK})
# Of a smaller blob nothing is kept beside its tar: it is fetched again.
SPOOL_LEAST: Final = 8 << 20
_OF_THE_STORE = frozenset({SourceKind.HAVE, SourceKind.ADOPT})


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One step being carried out."""

    step: LayerPlan
    lock: HeldLock
    progress: LayerProgress
    pace: Callable[[], float] | None

    @property
    def layer(self) -> Layer:
        return self.step.layer


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
        self._fetcher = fetcher
        self._want = plan.want
        self._keep_parts = keep_parts
        self._may_spool: bool | None = None
        self._needs = plan.disk_bytes + plan.bytes_to_fetch
        self._servers_of = servers_of
        self._keepers = keepers
        self._spending = spending
        self._spare = spare
        self._window = zstd_window

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
            got = await self._first_that_works(_Attempt(step, lock, progress, pace))
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

    async def _first_that_works(self, attempt: _Attempt) -> Ingested | Staged:
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
                    raise
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

    async def _try(self, attempt: _Attempt, source: Source, why: str) -> Ingested | Staged | None:
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
            case SourceKind.RESUME | SourceKind.NETWORK if source.registry is not None:
                return await self._fetch(attempt, source, source.registry, why or source.reason)
        raise ValueError(f"not a source to bring a layer from: {source.kind}")

    # --- what the store has ---

    def _have(self, attempt: _Attempt, source: Source, held: Holding) -> Ingested:
        planned = attempt.step.action is Action.HAVE
        reason = attempt.step.reason if planned else "brought by another process meanwhile"
        return Ingested(Action.HAVE, reason, held, held)

    async def _adopt(self, attempt: _Attempt, source: Source, held: Holding) -> Ingested:
        """The file is here, but nobody wrote down that it was checked: check it now."""
        layer = attempt.layer
        is_blob = held.digest == layer.digest
        bounds = self._bounds(attempt.step, source)
        job = LayerJob(
            held.compression,
            held.size,
            digest_only=is_blob and self._hashes_only(layer),
            out_budget=bounds.out_nbytes,
            window_max=self._window,
            media_type=layer.media_type,
            path=str(held.path),
        )
        feed = self._reader(held, layer, attempt.progress)
        result = await self._measure(job, feed, bounds)
        check(result, layer, held.digest, layer.size if is_blob else result.size)
        now = await in_thread(self._store.blobs.adopt, result, claim=layer)
        return Ingested(
            Action.HAVE, "in the store, checked again now", now, now, warning=_found(layer, result)
        )

    # --- what has to be brought ---

    async def _read(self, attempt: _Attempt, source: Source, held: Holding) -> Staged:
        job = LayerJob(held.compression, held.size, digest_only=attempt.layer.is_opaque)
        feed = self._reader(held, attempt.layer, attempt.progress)
        bounds = self._bounds(attempt.step, source)
        if bounds.disk_nbytes is not None and source.disk_bytes > bounds.disk_nbytes:
            raise SourceUnreadable(f"it would take {source.disk_bytes} bytes of the little that is free")
        arrival = Arrival(self._store.blobs.writer(self._want.name_of(attempt.layer)), None)
        try:
            result = await self._write(attempt.layer, job, feed, held.digest, bounds, arrival)
        except BaseException:
            arrival.drop()
            raise
        return self._staged(attempt, arrival, result, Ingested(Action.REUSE, source.reason, None, held))

    async def _fetch(self, attempt: _Attempt, source: Source, registry: Reference, reason: str) -> Staged:
        layer, progress = attempt.layer, attempt.progress
        servers = await self._servers_of(registry)
        reports: list[FetchReport] = []

        def count(nbytes: int) -> None:
            progress.done += nbytes

        def advance(nbytes: int) -> None:
            count(nbytes)
            arrival.advance(nbytes)

        async def feed(pool_layer: PoolLayer) -> None:
            progress.done = 0
            report = FetchReport()
            reports.append(report)
            if arrival.n_kept:
                progress.state = "checking"
            if not await arrival.feed_kept(self._pool, pool_layer, count):
                return
            progress.state = "running"
            await self._fetcher.fetch(
                layer.descriptor,
                servers,
                pool_layer,
                start=arrival.n_kept,
                single_stream=single_stream,
                progress=advance,
                report=report,
                pace=attempt.pace,
                behind=arrival.behind_s,
            )

        job = LayerJob(layer.compression, layer.size, digest_only=self._hashes_only(layer))
        single_stream = False
        while True:
            bounds, left = self._bounds(attempt.step, source), self.space.left()
            arrival = self._arrival(layer)  # on this thread: a cancelled thread would leak it
            try:
                result = await self._write(layer, job, feed, layer.digest, bounds, arrival)
                break
            except (IntegrityError, SourceUnreadable) as exc:
                arrival.drop()
                if arrival.n_kept:
                    bounds.spending.take_back(arrival.spent)
                    log.info("layer %d: %s; what was here of it is dropped", layer.index, exc)
                    continue
                if isinstance(exc, SourceUnreadable):
                    raise
                if encoding := reports[-1].content_encoding:
                    exc.add_note(f"the answer was marked Content-Encoding: {encoding}; a proxy re-encoded it")
                if isinstance(exc, _NOT_THE_SERVER):
                    raise
                elsewhere = servers.wrong(layer.digest, reports[-1].by_server)
                # Ranges may have come from two versions of the blob, or from two servers that
                # disagree: one stream from one source tells whether the blob itself is wrong.
                if not elsewhere and (not reports[-1].ranged or len(reports) > 1):
                    raise
                single_stream = True
                again = servers.pick(layer.digest).name
                log.info("layer %d: %s; once more, from %s", layer.index, exc, again)
            except NoSpace as exc:
                if not arrival.spool_is_in_the_way(left):
                    arrival.retain()
                    raise
                arrival.drop()
                bounds.spending.take_back(arrival.spent)
                self._may_spool = False
                log.info("layer %d: %s; once more, without a copy of its blob", layer.index, exc)
            except BaseException:
                arrival.retain()
                raise
        nbytes = sum(report.nbytes for report in reports)
        sent: Counter[str] = Counter()
        for report in reports:
            sent.update(report.by_server)
        at = arrival.n_kept
        if at:
            reason = f"went on at byte {at}"
        elif source.kind is SourceKind.RESUME and reason == source.reason:
            reason = "from its start; what was here of it was not used"
        outcome = Ingested(Action.FETCH, reason, None, None, nbytes, dict(sent), resumed_at=at)
        return self._staged(attempt, arrival, result, outcome)

    def _arrival(self, layer: Layer) -> Arrival:
        """The files for a blob that is fetched: what is here of it, and what the store is to keep.

        Raises LocalError, NoSpace.
        """
        blobs = self._store.blobs
        part = None
        if self._keep_parts and layer.size:
            make = self._keeps_blob(layer) or (layer.size > SPOOL_LEAST and self._room_for_spools())
            part = self._store.parts.writer(layer, make=make)
        if self._keeps_blob(layer):
            # While another process spools the blob that it keeps as a tar, this one has a file of its own.
            return Arrival(part or blobs.writer(self._want.name_of(layer)), part)
        try:
            return Arrival(blobs.writer(self._want.name_of(layer)), part)
        except BaseException:
            if part is not None:
                part.retain()
            raise

    def _room_for_spools(self) -> bool:
        """Whether the image fits along with all of its blobs, as there was room at the beginning."""
        if self._may_spool is None:
            self._may_spool = self.space.left() > self._needs
        return self._may_spool

    def _staged(self, attempt: _Attempt, arrival: Arrival, result: BlobResult, outcome: Ingested) -> Staged:
        form = self._want.form
        outcome = replace(outcome, warning=_found(attempt.layer, result))
        return Staged(self._store, attempt.step, form, attempt.lock, arrival, result, outcome)

    # --- through the pool to the disk ---

    def _keeps_blob(self, layer: Layer) -> bool:
        """Whether what is kept of ``layer`` is its blob, and not what comes out of that."""
        return self._want.form is Form.AS_IS or layer.is_opaque or layer.compression is Compression.NONE

    def _hashes_only(self, layer: Layer) -> bool:
        """Whether the blob of ``layer`` is hashed and not inflated, and no pair is recorded of it."""
        return self._want.digest_only or layer.is_opaque

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

    def _bounds(self, step: LayerPlan, source: Source) -> Bounds:
        """What trying ``source`` may cost: what the image may, unless the registry can do without it.

        The store's own checked layers are no risk.
        """
        held = source.holding
        is_checked = held is not None and held.place == PLACE and held.basis is Basis.COMPUTED
        has_registry = any(other.kind is SourceKind.NETWORK for other in step.sources)
        if source.kind in _OF_THE_REGISTRY or is_checked or not has_registry:
            return Bounds(self._spending, min(OUT_BUDGET, self._spending.output_left))
        # Several layers are read at once, and all are to leave room for what is fetched.
        fits = max(source.disk_bytes if source is step.sources[0] else 0, self.space.left() // 4)
        return Bounds(self._spare, min(largest_read(step.layer), self._spare.output_left), fits)

    async def _measure(
        self, job: LayerJob, feed: Feed, bounds: Bounds, arrival: Arrival | None = None
    ) -> BlobResult:
        """Through the pool, with an eye on what it costs, and on what of it is on the disk."""
        pool_layer = self._pool.open_layer(job)
        async with unwrapped_group() as group:
            beside = [group.create_task(bounds.spending.watch(pool_layer))]
            if arrival is not None:
                beside.append(group.create_task(arrival.keep_pace(pool_layer)))
            try:
                result = await measure_layer(pool_layer, feed)
            finally:
                if arrival is not None:
                    arrival.spent = pool_layer.spent()
            for task in beside:
                task.cancel()
        return result

    async def _write(
        self, layer: Layer, what: LayerJob, feed: Feed, digest: Digest, bounds: Bounds, arrival: Arrival
    ) -> BlobResult:
        """Bring a blob into the files of ``arrival`` and check it."""
        as_is = self._keeps_blob(layer)
        root = self._store.root
        allowed = bounds.out_nbytes
        room = self.space.left() if bounds.disk_nbytes is None else bounds.disk_nbytes
        budget = allowed if as_is else max(1, min(allowed, room))
        try:
            job = replace(
                what,
                fd=arrival.writer.fileno(),
                write="in" if as_is else "out",
                spool_fd=arrival.spool.fileno() if arrival.spool is not None else -1,
                in_from=arrival.n_kept,
                # Kept as it is, the blob is for others to read, who check the checksums in it. Where
                # only the tar is kept, the DiffID has judged every byte of it.
                check_crc=as_is,
                out_budget=budget,
                window_max=self._window,
                media_type=layer.media_type,
                path=str(root),
            )
            result = await self._measure(job, feed, bounds, arrival)
            check(result, layer, digest, what.size)
        except LayerteeError as exc:
            if isinstance(exc, DecodeError):
                exc.add_note(f"that was layer {layer.index}, {digest}")
                if exc.reason == "header" and exc.offset == 0 and digest == layer.digest:
                    exc.add_note(
                        f"a plain tar would have its digest as DiffID; the config says {layer.diff_id}"
                    )
            if isinstance(exc, OutputBudgetExceeded) and budget < allowed:
                raise NoSpace(
                    f"layer {layer.index} needs more than {human(budget)} uncompressed, which is all that may"
                    f" still be filled of {root}",
                    path=str(root),
                    need=budget + 1,
                    free=budget,
                ).with_hint("keep-free") from exc
            raise
        return result


def _found(layer: Layer, result: BlobResult) -> str | None:
    """What is wrong with the media type of ``layer`` that nobody could know before its bytes were here."""
    if layer.mislabelled() is not None or not isinstance(result, TeeResult) or result.digest != layer.digest:
        return None
    return layer.mislabelled(result.compression)


def _is_own(source: Source) -> bool:
    """Whether the store itself is the source, whose answer is asked for again under the layer's lock."""
    of_store = source.holding is not None and source.holding.place == PLACE
    return source.kind in _OF_THE_STORE or of_store


def _place(source: Source) -> str:
    return source.holding.place if source.holding is not None else source.kind.value
