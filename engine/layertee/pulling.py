"""One pull: the stages joined. Together with engine.py the only place that knows them all.

For each layer, in its own time: lock → bring (network, or a local place) through the pool into a
part file → compare what was measured with what the image names → commit → record. When all layers
are there, the image gets its name. A failure anywhere cancels the rest; what was committed stays, so
the next run has less to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import (
    DecodeError,
    DiffIDMismatch,
    DigestMismatch,
    IntegrityError,
    LayerteeError,
    NoSpace,
    OutputBudgetExceeded,
    SizeMismatch,
    StoreBusy,
)
from .fetch import Fetcher, FetchReport, OpenBlob
from .inventory import Holding
from .inventory.readback import ReadBack
from .local import SourceUnreadable, read_file
from .localimage import local_manifest
from .localtar import read_tar
from .locks import HeldLock
from .oci import Compression, DiffID, Digest, ImageConfig, Layer, Manifest
from .plan import Action, Form, LayerPlan, Plan, Verify
from .pool import OUT_BUDGET, LayerJob, Pool, PoolLayer, inflated
from .report import LayerProgress, LayerResult, Progress, ProgressCallback, PullResult
from .sink import BlobWriter
from .space import human
from .store import SHARED_WAIT_S, Store
from .tee import BlobResult, TeeResult
from .threads import in_thread

log = logging.getLogger(__name__)

TICK_S = 0.1
# While another process brings a layer in, look whether it is done this often.
LOCK_POLL_S = 0.05
# More layers at once gained nothing once two are in flight, and each costs a decoder's window.
LAYERS_IN_FLIGHT = 3

Feed = Callable[[PoolLayer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image, resolved, and what pulling it would do. ``layers`` are in the image's order.

    ``name`` is what the store will call it, None for the only image of a layout. ``open_blob`` asks
    the image's registry for a blob; None when the image comes from a place on this machine.
    ``still_held`` looks again whether a holding is where it was; it blocks.
    """

    image: str
    name: str | None
    manifest: Manifest
    config: ImageConfig
    index_digest: Digest | None
    plan: Plan
    open_blob: OpenBlob | None
    host: str
    verify: Verify = Verify.BOTH
    still_held: Callable[[Holding], bool] = lambda _: True

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        return self.plan.layers

    @property
    def bytes_to_fetch(self) -> int:
        return self.plan.bytes_to_fetch

    def to_json(self) -> dict[str, Any]:
        """The object that ``--dry-run --json`` prints."""
        return PullResult.planned(self.image, self.manifest, self.plan).to_json()


class Pull:
    """Carries out ``plan``. Use once."""

    def __init__(
        self, store: Store, pool: Pool, fetcher: Fetcher, plan: ImagePlan, progress: ProgressCallback | None
    ) -> None:
        self._store = store
        self._pool = pool
        self._fetcher = fetcher
        self._plan = plan
        self._callback = progress
        self._began = time.monotonic()
        once = _first_of_each(plan.layers)  # content that an image repeats is brought once
        self._first = {step.layer.diff_id: step.layer.index for step in once}
        self._todo = deque(sorted(once, key=lambda step: step.layer.size, reverse=True))
        self._held: dict[DiffID, Holding] = {}
        self._results: dict[DiffID, LayerResult] = {}
        self._progress = {
            step.layer.index: LayerProgress(step.layer.index, step.layer.digest, step.action, step.layer.size)
            for step in plan.layers
        }
        self._commits: asyncio.TaskGroup

    async def run(self) -> PullResult:
        """Raises the first error of any layer; nothing runs any more when it does."""
        shared = await patiently(self._store.shared, SHARED_WAIT_S)
        try:
            need = sum(step.disk_bytes for step in self._todo)
            await in_thread(self._store.check_space, need)
            async with unwrapped_group() as group:
                beside = [group.create_task(self._tick()), group.create_task(self._fetcher.watch())]
                async with unwrapped_group() as self._commits, unwrapped_group() as workers:
                    for _ in range(min(LAYERS_IN_FLIGHT, len(self._todo))):
                        workers.create_task(self._work())
                for task in beside:
                    task.cancel()
            local = await in_thread(self._name_image)
        finally:
            shared.release()
        self._report()
        return PullResult(
            self._plan.image,
            self._plan.manifest.digest,
            local,
            self._plan.config.digest,
            tuple(self._result(step) for step in self._plan.layers),
            time.monotonic() - self._began,
            tuple(self._store.warnings),
        )

    # --- one layer after the other, several at once ---

    async def _work(self) -> None:
        while self._todo:
            step, lock = self._next()
            if step is None or lock is None:  # all that is left is being brought by others
                await asyncio.sleep(LOCK_POLL_S)
                continue
            try:
                await self._layer(step, lock)
            except BaseException:
                lock.release()
                raise

    def _next(self) -> tuple[LayerPlan | None, HeldLock | None]:
        """The largest layer that no other process is bringing, locked."""
        for step in list(self._todo):
            lock = self._store.layer_lock(step.layer.diff_id)
            if lock is not None:
                self._todo.remove(step)
                return step, lock
        return None, None

    async def _layer(self, step: LayerPlan, lock: HeldLock) -> None:
        layer = step.layer
        self._progress[layer.index].state = "running"
        held = await in_thread(self._store.holding, layer.diff_id, prefer=layer.digest)
        if held is not None:
            reason = step.reason if step.action is Action.HAVE else "brought by another process meanwhile"
            self._done(step, Action.HAVE, reason, held, 0)
            lock.release()
            return
        if await self._adopt(step):
            lock.release()
            return
        if step.action is Action.REUSE:
            assert step.holding is not None
            try:
                await self._reuse(step, step.holding, lock)
                return
            except (IntegrityError, SourceUnreadable) as exc:
                if self._plan.open_blob is None:
                    raise
                await self._fetch(step, lock, f"{step.holding.place} could not give it: {exc}")
                return
        if step.kept_elsewhere and step.holding is not None:
            if await in_thread(self._plan.still_held, step.holding):
                self._done(step, Action.HAVE, step.reason, None, 0)
                lock.release()
                return
            await self._fetch(step, lock, f"no longer in {step.holding.place}")
            return
        reason = step.reason if step.action is Action.FETCH else "no longer in the store"
        await self._fetch(step, lock, reason)

    async def _adopt(self, step: LayerPlan) -> bool:
        """A file of the layer is here, but nobody wrote down that it was checked: check it now.

        It may be the blob that the image names, or the tar itself under its DiffID.
        """
        layer = step.layer
        forms = {Digest(str(layer.diff_id)): Compression.NONE, layer.digest: layer.compression}
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
                result = await self._through_pool(job, self._reader(path, layer))
                check(result, layer, digest, layer.size if digest == layer.digest else result.size)
                if isinstance(result, TeeResult):
                    held = await in_thread(self._store.adopt, result)
                else:
                    held = await in_thread(self._store.adopt_blob, result, layer)
            except LayerteeError:
                continue  # fetched instead, and replaced
            self._done(step, Action.HAVE, "in the store, checked again now", held, 0)
            return True
        return False

    async def _reuse(self, step: LayerPlan, source: Holding, lock: HeldLock) -> None:
        layer = step.layer
        where = source if isinstance(source, ReadBack) else source.path
        if where is None:
            raise SourceUnreadable(f"{source.place}: cannot be read back")
        job = LayerJob(source.compression, source.size)
        writer, result = await self._stage(layer, job, self._reader(where, layer), source.digest)
        self._commit(step, lock, writer, result, step.reason, 0)

    async def _fetch(self, step: LayerPlan, lock: HeldLock, reason: str) -> None:
        layer = step.layer
        open_blob = self._plan.open_blob
        if open_blob is None:
            raise SourceUnreadable(f"{self._plan.image}: layer {layer.digest} is not there")
        reports: list[FetchReport] = []
        progress = self._progress[layer.index]

        def advance(nbytes: int) -> None:
            progress.done += nbytes

        async def feed(pool_layer: PoolLayer) -> None:
            progress.done = 0
            single = bool(reports)
            report = FetchReport()
            reports.append(report)
            await self._fetcher.fetch(
                layer.descriptor, open_blob, pool_layer, single_stream=single, progress=advance, report=report
            )

        job = LayerJob(layer.compression, layer.size, digest_only=self._digest_only())
        while True:
            try:
                writer, result = await self._stage(layer, job, feed, layer.digest)
                break
            except IntegrityError as exc:
                if encoding := reports[-1].content_encoding:
                    exc.add_note(f"the answer was marked Content-Encoding: {encoding}; a proxy re-encoded it")
                # Ranges may have come from two versions of the blob, or from two servers that
                # disagree: one stream from one source tells whether the blob itself is wrong.
                if not reports[-1].ranged or len(reports) > 1:
                    raise
        nbytes = sum(report.nbytes for report in reports)
        self._commit(step, lock, writer, result, reason, nbytes, Action.FETCH)

    # --- through the pool to the disk ---

    def _digest_only(self) -> bool:
        """Whether a blob of the image is hashed and no more."""
        return self._plan.verify is Verify.DIGEST and self._plan.plan.form is Form.AS_IS

    def _reader(self, source: Path | ReadBack, layer: Layer) -> Feed:
        progress = self._progress[layer.index]

        def advance(nbytes: int) -> None:
            progress.done = min(progress.done + nbytes, layer.size)

        async def feed(pool_layer: PoolLayer) -> None:
            progress.done = 0
            if isinstance(source, ReadBack):
                await read_tar(source, self._pool, pool_layer, progress=advance)
            else:
                await read_file(source, self._pool, pool_layer, progress=advance)

        return feed

    async def _stage(
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

    def _commit(
        self,
        step: LayerPlan,
        lock: HeldLock,
        writer: BlobWriter,
        result: BlobResult,
        reason: str,
        nbytes: int,
        action: Action = Action.REUSE,
    ) -> None:
        """Flush and rename on a thread, while the next layer is being brought."""

        async def commit() -> None:
            if isinstance(result, TeeResult):
                held = await in_thread(self._store.commit_layer, writer, result, self._plan.plan.form)
            else:
                held = await in_thread(self._store.commit_blob, writer, result, step.layer)
            self._done(step, action, reason, held, nbytes)

        def end(_: object) -> None:  # also of a task that was cancelled before it began
            writer.abort()
            lock.release()

        begun = commit()
        try:
            self._commits.create_task(begun).add_done_callback(end)
        except RuntimeError:  # another commit has failed: the group takes no more, and raises its error
            begun.close()
            end(None)
            raise

    def _name_image(self) -> Digest | None:
        """Give the image its name, unless layers of it were left elsewhere: the store names no half image."""
        plan = self._plan
        if any(step.layer.diff_id not in self._held for step in plan.layers):
            return None
        layers = [step.layer for step in plan.layers]
        local = local_manifest(plan.manifest, layers, self._held, keep_docker=False)
        return self._store.put_image(plan.name, plan.manifest, plan.config, local).digest

    # --- telling ---

    def _done(self, step: LayerPlan, action: Action, reason: str, held: Holding | None, nbytes: int) -> None:
        """``held`` is None for a layer that was left where it is."""
        layer = step.layer
        log.info("layer %d, %s: %s, %s", layer.index, layer.digest, action.value, reason)
        if held is not None:
            self._held[layer.diff_id] = held
        self._results[layer.diff_id] = LayerResult.done(step, action, reason, held, nbytes)
        progress = self._progress[layer.index]
        progress.state = "done"
        progress.action = action
        if action is not Action.HAVE or progress.done:  # what was here, but had to be read, counts too
            progress.done = layer.size

    def _result(self, step: LayerPlan) -> LayerResult:
        """A layer that repeats an earlier one shares its holding, but cost nothing."""
        found = self._results[step.layer.diff_id]
        layer = step.layer
        if layer.index == self._first[layer.diff_id]:
            return found
        return found.repeated(step)

    async def _tick(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(TICK_S)
            if self._store.headroom() < 0:
                raise NoSpace(
                    f"{self._store.root}: the free space has fallen below the floor that stays free for the"
                    " system; the pull is stopped, finished layers are kept",
                    path=str(self._store.root),
                )

    def _report(self) -> None:
        if self._callback is not None:
            layers = tuple(replace(layer) for layer in self._progress.values())
            self._callback(Progress(layers, time.monotonic() - self._began))


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


@asynccontextmanager
async def unwrapped_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup whose first failure is raised as itself, not inside an ExceptionGroup."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]  # one level: a group that the block itself raises stays whole
    else:
        return
    raise first  # out of the handler: its own cause and context stay


def _first_of_each(steps: tuple[LayerPlan, ...]) -> list[LayerPlan]:
    """One step per DiffID."""
    first: dict[DiffID, LayerPlan] = {}
    for step in steps:
        first.setdefault(step.layer.diff_id, step)
    return list(first.values())
