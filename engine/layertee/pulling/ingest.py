"""One layer into the store, from wherever it may be had.

Bring it (from the network or a local place) through the pool into a part file, compare what was measured
with what the image names: then it is *staged*. ``commit`` makes it a layer of the store and records
it. Whoever does this holds the layer's lock meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ..aio import in_thread, unwrapped_group
from ..core.pool import LayerJob, Pool, PoolLayer, inflated
from ..core.result import BlobResult, TeeResult
from ..core.tee import OUT_BUDGET
from ..disk.blob_file import FileContent
from ..disk.locks import HeldLock
from ..disk.part import BlobWriter
from ..disk.space import human
from ..errors import (
    DecodeError,
    DiffIDMismatch,
    DigestMismatch,
    IntegrityError,
    LayerteeError,
    NoSpace,
    OutputBudgetExceeded,
    SizeMismatch,
    SourceUnreadable,
    StoreBusy,
)
from ..image.document import Compression, Digest, Layer
from ..image.holding import Holding
from ..store.store import Store
from ..transfer.fetcher import Fetcher, FetchReport
from .imageplan import ImagePlan
from .plan import Action, Form, LayerPlan, Verify
from .report import LayerProgress
from .source import Openable, read_blob

log = logging.getLogger(__name__)

# While another process holds a lock, look whether it is done this often.
LOCK_POLL_S = 0.05

Feed = Callable[[PoolLayer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ingested:
    """How a layer came to be where it is. ``held`` is None for one that was left in another place;
    ``nbytes`` came over the network for it.
    """

    action: Action
    reason: str
    held: Holding | None
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """A layer in a part file, checked. Whoever gets it commits it, or aborts the writer."""

    writer: BlobWriter
    result: BlobResult
    action: Action
    reason: str
    nbytes: int


class Ingest:
    """Brings the layers of ``plan`` in, any number at once.

    ``recheck``: what the store has is hashed once more before it counts, and replaced if it is wrong.
    """

    def __init__(
        self, store: Store, pool: Pool, fetcher: Fetcher, plan: ImagePlan, *, recheck: bool = False
    ) -> None:
        self._store = store
        self._pool = pool
        self._fetcher = fetcher
        self._plan = plan
        self._recheck = recheck

    async def stage(
        self, step: LayerPlan, progress: LayerProgress, *, pace: Callable[[], float] | None = None
    ) -> Ingested | Staged:
        """See that the layer is there, or bring it as far as a part file. Only with its lock held.

        ``pace`` as ``Fetcher.fetch`` has it. Raises IntegrityError, TransportError, RegistryError,
        LocalError, SourceUnreadable.
        """
        layer = step.layer
        held = await in_thread(self._store.holding, layer.diff_id, prefer=self._plan.name_of(layer))
        other = None
        if held is not None and self._plan.exact and held.digest != self._plan.name_of(layer):
            held, other = None, held if self._plan.plan.form is Form.UNCOMPRESSED else None
        if held is not None and await self._is_good(held, layer):
            reason = step.reason if step.action is Action.HAVE else "brought by another process meanwhile"
            return Ingested(Action.HAVE, reason, held)
        if (held := await self._adopt(step, progress)) is not None:
            return Ingested(Action.HAVE, "in the store, checked again now", held)
        source = step.holding if step.action is Action.REUSE else other
        if source is not None:
            try:
                return await self._reuse(step, source, progress)
            except (IntegrityError, SourceUnreadable) as exc:
                if self._plan.open_blob is None:
                    raise
                return await self._fetch(step, progress, pace, f"{source.place} could not give it: {exc}")
        if step.kept_elsewhere and step.holding is not None:
            if await in_thread(self._plan.still_held, step.holding):
                return Ingested(Action.HAVE, step.reason, None)
            return await self._fetch(step, progress, pace, f"no longer in {step.holding.place}")
        reason = step.reason if step.action is Action.FETCH else "no longer in the store"
        return await self._fetch(step, progress, pace, reason)

    def is_busy(self) -> bool:
        """Whether bytes that have arrived wait for a processor."""
        return self._pool.stats().in_queued > 0

    async def commit(self, step: LayerPlan, staged: Staged) -> Ingested:
        """Flush, rename, record; on a thread. Whatever is raised, the part is gone."""
        writer, result = staged.writer, staged.result
        if isinstance(result, TeeResult):
            held = await in_thread(self._store.commit_layer, writer, result, self._plan.plan.form)
        else:
            held = await in_thread(self._store.commit_blob, writer, result, step.layer)
        return Ingested(staged.action, staged.reason, held, staged.nbytes)

    # --- what is here already ---

    async def _is_good(self, held: Holding, layer: Layer) -> bool:
        """Whether what the store calls a layer still hashes to its name; else it goes to quarantine."""
        if not self._recheck or held.path is None:
            return True
        job = LayerJob(held.compression, held.size, digest_only=True, path=str(held.path))
        try:
            result = await measure_layer(self._pool.open_layer(job), self._reader(held, layer, None))
            check(result, layer, held.digest, held.size)
        except (IntegrityError, SourceUnreadable) as exc:
            log.warning("%s is damaged and goes to quarantine: %s", held.path, exc)
            await in_thread(self._store.quarantine, held.digest)
            return False
        return True

    async def _adopt(self, step: LayerPlan, progress: LayerProgress) -> Holding | None:
        """A file of the layer is here, but nobody wrote down that it was checked: check it now.

        It may be the blob that the image names, or the tar itself under its DiffID.
        """
        layer = step.layer
        forms = {Digest(str(layer.diff_id)): Compression.NONE, layer.digest: layer.compression}
        if self._plan.exact:
            forms = {digest: forms[digest] for digest in forms if digest == self._plan.name_of(layer)}
        for digest in sorted(forms, key=lambda digest: digest != layer.digest):
            path = await in_thread(self._store.unverified_path, digest)
            if path is None:
                continue
            job = LayerJob(
                forms[digest],
                layer.size,
                digest_only=digest == layer.digest and self._digest_only(),
                media_type=layer.media_type,
                path=str(path),
            )
            try:
                result = await self._through_pool(job, self._reader(FileContent(path), layer, progress))
                check(result, layer, digest, layer.size if digest == layer.digest else result.size)
                if isinstance(result, TeeResult):
                    return await in_thread(self._store.adopt, result)
                return await in_thread(self._store.adopt_blob, result, layer)
            except LayerteeError:
                continue  # fetched instead, and replaced
        return None

    async def _reuse(self, step: LayerPlan, source: Holding, progress: LayerProgress) -> Staged:
        layer = step.layer
        job = LayerJob(source.compression, source.size)
        writer, result = await self._write(layer, job, self._reader(source, layer, progress), source.digest)
        reason = step.reason if source is step.holding else f"from the {source.place}, inflated"
        return Staged(writer, result, Action.REUSE, reason, 0)

    async def _fetch(
        self, step: LayerPlan, progress: LayerProgress, pace: Callable[[], float] | None, reason: str
    ) -> Staged:
        layer = step.layer
        open_blob = self._plan.open_blob
        if open_blob is None:
            raise SourceUnreadable(f"{self._plan.image}: layer {layer.digest} is not there")
        reports: list[FetchReport] = []

        def advance(nbytes: int) -> None:
            progress.done += nbytes

        async def feed(pool_layer: PoolLayer) -> None:
            progress.done = 0
            single = bool(reports)
            report = FetchReport()
            reports.append(report)
            await self._fetcher.fetch(
                layer.descriptor,
                open_blob,
                pool_layer,
                single_stream=single,
                progress=advance,
                report=report,
                pace=pace,
            )

        job = LayerJob(layer.compression, layer.size, digest_only=self._digest_only())
        while True:
            try:
                writer, result = await self._write(layer, job, feed, layer.digest)
                break
            except IntegrityError as exc:
                if encoding := reports[-1].content_encoding:
                    exc.add_note(f"the answer was marked Content-Encoding: {encoding}; a proxy re-encoded it")
                # Ranges may have come from two versions of the blob, or from two servers that
                # disagree: one stream from one source tells whether the blob itself is wrong.
                if not reports[-1].ranged or len(reports) > 1:
                    raise
        nbytes = sum(report.nbytes for report in reports)
        return Staged(writer, result, Action.FETCH, reason, nbytes)

    # --- through the pool to the disk ---

    def _digest_only(self) -> bool:
        """Whether a blob of the image is hashed and no more."""
        return self._plan.verify is Verify.DIGEST and self._plan.plan.form is Form.AS_IS

    def _reader(self, source: Openable, layer: Layer, progress: LayerProgress | None) -> Feed:
        def advance(nbytes: int) -> None:
            if progress is not None:
                progress.done = min(progress.done + nbytes, layer.size)

        async def feed(pool_layer: PoolLayer) -> None:
            if progress is not None:
                progress.done = 0
            await read_blob(source, self._pool, pool_layer, progress=advance)

        return feed

    async def _write(
        self, layer: Layer, what: LayerJob, feed: Feed, digest: Digest
    ) -> tuple[BlobWriter, BlobResult]:
        """Bring a blob into a part file and check it. The part is gone when this raises."""
        as_is = self._plan.plan.form is Form.AS_IS
        root = self._store.root
        budget = OUT_BUDGET if as_is else max(1, min(OUT_BUDGET, self._store.headroom()))
        writer = self._store.writer(layer.diff_id)  # on this thread: a cancelled thread would leak it
        try:
            job = replace(
                what,
                fd=writer.fileno(),
                write="in" if as_is else "out",
                # Kept as it is, the blob is for others to read, who check its CRC. Where only the
                # tar is kept, the DiffID has judged every byte of it.
                check_crc=as_is,
                out_budget=budget,
                media_type=layer.media_type,
                path=str(root),
            )
            result = await self._through_pool(job, feed)
            check(result, layer, digest, what.size)
        except BaseException as exc:
            writer.abort()
            if isinstance(exc, DecodeError):
                exc.add_note(f"that was layer {layer.index}, {digest}")
            if isinstance(exc, OutputBudgetExceeded) and budget < OUT_BUDGET:
                raise NoSpace(
                    f"layer {layer.index} needs more than {human(budget)} uncompressed, which is all that may"
                    f" still be filled of {root}; make room (layertee gc may help)",
                    path=str(root),
                    need=budget + 1,
                    free=budget,
                ) from exc
            raise
        return writer, result

    async def _through_pool(self, job: LayerJob, feed: Feed) -> BlobResult:
        return await measure_layer(self._pool.open_layer(job), feed)


def check_headroom(store: Store) -> None:
    """Raise NoSpace once less than the floor is free."""
    if store.headroom() < 0:
        raise NoSpace(
            f"{store.root}: the free space has fallen below the floor that stays free for the"
            " system; the pull is stopped, finished layers are kept",
            path=str(store.root),
        )


def check(result: BlobResult, layer: Layer, digest: Digest, size: int) -> None:
    """Raise unless what was measured is what is named: ``digest`` and ``size`` of the blob read, and
    the DiffID of ``layer`` if it was inflated.
    """
    where = f"layer {layer.index}"
    if result.digest != digest:
        if result.size != size:
            raise SizeMismatch(
                f"{where}: {result.size} bytes arrived, {digest} has {size}", want=size, got=result.size
            )
        raise DigestMismatch(
            f"{where}: the {result.size} bytes that arrived hash to {result.digest}, {digest} is named",
            want=digest,
            got=result.digest,
            nbytes=result.size,
        )
    if result.size != size:
        raise SizeMismatch(
            f"{where}: {digest} has {result.size} bytes, its descriptor says {size}",
            want=size,
            got=result.size,
        )
    if isinstance(result, TeeResult) and result.diff_id != layer.diff_id:
        raise DiffIDMismatch(
            f"{where}: {digest} inflates to {result.diff_id}, the image config says {layer.diff_id}",
            want=layer.diff_id,
            got=result.diff_id,
        )


async def patiently(take: Callable[[float], HeldLock], wait_s: float) -> HeldLock:
    """A lock that others hold for a while. Raises StoreBusy after ``wait_s`` seconds.

    Polled here rather than waited for in a thread, which would keep it if the caller is cancelled.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return take(0.0)
        except StoreBusy as exc:
            if time.monotonic() >= deadline:
                message = (
                    f"{exc.path} is locked by another process, still after {wait_s:g} s; try again later"
                )
                raise StoreBusy(message, path=exc.path) from None
        await asyncio.sleep(LOCK_POLL_S)


async def measure_layer(pool_layer: PoolLayer, feed: Feed) -> BlobResult:
    """Feed a layer and wait for what it measured; whatever is raised, no worker touches it any more."""
    async with unwrapped_group() as group:
        group.create_task(_feed(feed, pool_layer))
        return await pool_layer.measured()


async def run_layer(pool_layer: PoolLayer, feed: Feed) -> TeeResult:
    """``measure_layer`` for a job that inflates."""
    return inflated(await measure_layer(pool_layer, feed))


async def _feed(feed: Feed, pool_layer: PoolLayer) -> None:
    await feed(pool_layer)
