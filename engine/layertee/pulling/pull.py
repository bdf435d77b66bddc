"""One pull: all layers of an image into the store, several at once, the largest first.

For each layer, in its own time: lock → stage → commit (ingest.py). When all layers are there, the image
gets its name. A failure anywhere cancels the rest; what was committed stays, so the next run has less
to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import replace

from ..aio import in_thread, unwrapped_group
from ..core.pool import Pool
from ..disk.locks import HeldLock
from ..image.document import DiffID, Digest
from ..image.holding import Holding
from ..store.localimage import local_manifest
from ..store.store import SHARED_WAIT_S, Store
from ..transfer.fetcher import Fetcher
from .imageplan import ImagePlan
from .ingest import LOCK_POLL_S, Ingest, Ingested, Staged, check_headroom, patiently
from .plan import Action, LayerPlan
from .report import LayerProgress, LayerResult, Progress, ProgressCallback, PullResult

log = logging.getLogger(__name__)

TICK_S = 0.1
# More layers at once gained nothing once two are in flight, and each costs a decoder's window.
LAYERS_IN_FLIGHT = 3


class Pull:
    """Carries out ``plan``. Use once."""

    def __init__(
        self, store: Store, pool: Pool, fetcher: Fetcher, plan: ImagePlan, progress: ProgressCallback | None
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._ingest = Ingest(store, pool, fetcher, plan)
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
        progress = self._progress[step.layer.index]
        progress.state = "running"
        got = await self._ingest.stage(step, progress)
        if isinstance(got, Staged):
            self._commit(step, got, lock)
            return
        self._done(step, got)
        lock.release()

    def _commit(self, step: LayerPlan, staged: Staged, lock: HeldLock) -> None:
        """Flush and rename on a thread, while the next layer is being brought."""

        async def commit() -> None:
            self._done(step, await self._ingest.commit(step, staged))

        def end(_: object) -> None:  # also of a task that was cancelled before it began
            staged.writer.abort()
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

    def _done(self, step: LayerPlan, got: Ingested) -> None:
        layer = step.layer
        log.info("layer %d, %s: %s, %s", layer.index, layer.digest, got.action.value, got.reason)
        if got.held is not None:
            self._held[layer.diff_id] = got.held
        self._results[layer.diff_id] = LayerResult.done(step, got.action, got.reason, got.held, got.nbytes)
        progress = self._progress[layer.index]
        progress.state = "done"
        progress.action = got.action
        if got.action is not Action.HAVE or progress.done:  # what was here, but had to be read, counts too
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
            check_headroom(self._store)

    def _report(self) -> None:
        if self._callback is not None:
            layers = tuple(replace(layer) for layer in self._progress.values())
            self._callback(Progress(layers, time.monotonic() - self._began))


def _first_of_each(steps: tuple[LayerPlan, ...]) -> list[LayerPlan]:
    """One step per DiffID."""
    first: dict[DiffID, LayerPlan] = {}
    for step in steps:
        first.setdefault(step.layer.diff_id, step)
    return list(first.values())
