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
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..aio import in_thread, unwrapped_group
from ..disk.keeping import KeepPartials
from ..disk.space import free_space, human
from ..errors import NoSpace
from ..image.rewrite import Types, local_manifest
from .plan import Action, Form, LayerPlan, leanest
from .report import Ingested, LayerProgress, LayerResult, Progress, ProgressCallback, PullResult
from .staged import Staged
from .tracing import Traced, span

if TYPE_CHECKING:
    from ..disk.locks import HeldLock
    from ..image.document import Digest
    from ..store.beside import BesideDocument
    from ..store.store import Store
    from ..transfer.fetcher import Fetcher
    from .budget import Pace
    from .imageplan import ImagePlan
    from .ingest import Ingest

log = logging.getLogger(__name__)

TICK_S = 0.1
# While other processes bring all that is left, look whether they are done this often.
LOCK_POLL_S = 0.05
# One layer more than there are workers, so that none of them waits for the network; but each costs a
# decoder's window and a share of the buffers. On two cores more than three gained nothing.
LAYERS_IN_FLIGHT_MIN = 3
LAYERS_IN_FLIGHT_MAX = 9


def layers_in_flight(n_workers: int) -> int:
    """How many layers of an image are pulled at once where so many workers decode them."""
    return min(max(LAYERS_IN_FLIGHT_MIN, n_workers + 1), LAYERS_IN_FLIGHT_MAX)


class Pull:
    """Carries out ``plan`` through ``ingest``, and keeps ``beside`` the image what that lists. Use once."""

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        ingest: Ingest,
        plan: ImagePlan,
        pace: Pace,
        progress: ProgressCallback | None,
        beside: Sequence[BesideDocument] | None = None,
        *,
        n_workers: int,
    ) -> None:
        self._beside = beside
        self._store = store
        self._fetcher = fetcher
        self._ingest = ingest
        self._plan = plan
        self._pace = pace
        self._callback = progress
        self._in_flight = layers_in_flight(n_workers)
        self._began = time.monotonic()
        self._todo: deque[LayerPlan] = deque()
        self._got: dict[int, Ingested] = {}  # by the layer's index
        self._progress = {
            step.layer.index: LayerProgress(step.layer.index, step.layer.digest, step.action, step.size)
            for step in plan.layers
        }
        self._commits: asyncio.TaskGroup

    async def run(self) -> PullResult:
        """Raises the first error of any layer; nothing runs any more when it does."""
        shared = await self._store.when_shared()
        try:
            steps = await in_thread(self._steps_that_fit)
            once = [step for step in steps if step.same_as is None]
            self._todo.extend(sorted(once, key=lambda step: step.size, reverse=True))
            async with unwrapped_group() as group:
                beside = [group.create_task(self._tick()), group.create_task(self._fetcher.watch())]
                async with unwrapped_group() as self._commits, unwrapped_group() as workers:
                    for _ in range(min(self._in_flight, len(self._todo))):
                        workers.create_task(self._work())
                for task in beside:
                    task.cancel()
            with span("publish") as traced:
                local = await in_thread(self._name_image)
                traced.set(local_manifest_digest=local)
        except NoSpace as exc:
            await in_thread(self._say_what_is_needed, exc)
            raise
        finally:
            shared.release()
        self._report()
        return PullResult(
            self._plan.reference,
            self._plan.digest,
            local,
            self._plan.config_digest,
            tuple(self._result(step) for step in self._plan.layers),
            time.monotonic() - self._began,
            tuple(dict.fromkeys([*self._plan.warnings, *self._found(), *self._store.warnings])),
            self._plan.asked,
            self._plan.consent,
            self._plan.freshness,
            members=self._plan.members,
        )

    def _steps_that_fit(self) -> tuple[LayerPlan, ...]:
        """The plan's steps, by other sources where those in front take more room than there is.

        What other pulls left unfinished is the first to go, then what this image's left, where that is only
        a copy. Raises NoSpace. Blocks.
        """
        space, plan = self._ingest.space, self._plan
        if not self._takes_room:
            return plan.layers
        for make_room in (self._drop_other_parts, self._drop_spools):
            try:
                space.check(plan.disk_bytes)
                return plan.layers
            except NoSpace:
                make_room()
        try:
            space.check(plan.disk_bytes)
        except NoSpace:
            lean = leanest(plan)
            if lean.disk_bytes >= plan.disk_bytes:
                raise
            space.check(lean.disk_bytes)
            return lean.layers
        return plan.layers

    @property
    def _takes_room(self) -> bool:
        """Whether anything is to be written. An image that is all here is no matter of a full disk."""
        return self._plan.disk_bytes > 0

    def _check_floor(self) -> None:
        try:
            self._ingest.space.check_floor()
        except NoSpace:
            if not self._drop_other_parts():
                raise

    def _drop_other_parts(self) -> int:
        """Bytes that this freed."""
        layers = [step.layer for step in self._plan.layers]
        own = {name for layer in layers for name in (layer.digest, layer.tar_digest)}
        return self._store.parts.trim(KeepPartials(0.0), spare=own)[1]

    def _drop_spools(self) -> int:
        if self._plan.want.form is Form.AS_IS:
            return 0
        return self._store.parts.trim(KeepPartials(0.0))[1]

    # --- one layer after the other, several at once ---

    async def _work(self) -> None:
        while self._todo:
            step, lock = self._next()
            if step is None or lock is None:  # all that is left is being brought by others
                await asyncio.sleep(LOCK_POLL_S)
                continue
            progress = self._progress[step.layer.index]
            progress.state = "running"
            with span("layer", index=step.layer.index, digest=step.layer.digest, size=step.size) as traced:
                got = await self._ingest.stage(step, lock, progress)
                _tell(traced, got.outcome if isinstance(got, Staged) else got)
                if isinstance(got, Staged):
                    self._commit(step, got)
                else:
                    self._done(step, got)

    def _next(self) -> tuple[LayerPlan | None, HeldLock | None]:
        """The largest layer that no other process is bringing, locked."""
        for step in list(self._todo):
            lock = self._ingest.try_lock(step)
            if lock is not None:
                self._todo.remove(step)
                return step, lock
        return None, None

    def _commit(self, step: LayerPlan, staged: Staged) -> None:
        """Flush and rename on a thread, while the next layer is being brought."""

        async def commit() -> None:
            with span("commit"):
                got = await staged.commit()
            self._done(step, got)

        def end(_: object) -> None:  # also of a task that was cancelled before it began
            staged.abort()

        begun = commit()
        try:
            self._commits.create_task(begun).add_done_callback(end)
        except RuntimeError:  # another commit has failed: the group takes no more, and raises its error
            begun.close()
            end(None)
            raise

    def _name_image(self) -> Digest | None:
        """Give the image its name, unless layers of it were left elsewhere: the store names no half image."""
        plan, images = self._plan, self._store.images
        if plan.image.whole is not None:
            return images.put_whole(plan.name, plan.image, beside=self._beside).digest
        held = [self._outcome(step).held for step in plan.layers]
        there = [one for one in held if one is not None]
        if len(there) < len(held):
            return None
        local = local_manifest(plan.manifest, plan.image.layers, there, Types.OCI)
        return images.put(plan.name, plan.manifest, plan.config, local, beside=self._beside).digest

    # --- telling ---

    def _done(self, step: LayerPlan, got: Ingested) -> None:
        layer = step.layer
        log.info("layer %d, %s: %s, %s", layer.index, layer.digest, got.action.value, got.reason)
        self._got[layer.index] = got
        progress = self._progress[layer.index]
        progress.state = "done"
        progress.action = got.action
        if got.action is not Action.HAVE or progress.done:  # what was here, but had to be read, counts too
            progress.done = progress.size

    def _found(self) -> list[str]:
        """What only the bytes of layers told about them."""
        return [got.warning for _, got in sorted(self._got.items()) if got.warning is not None]

    def _outcome(self, step: LayerPlan) -> Ingested:
        """Of the step itself, or of the earlier one that brought the same."""
        brought = step if step.same_as is None else self._plan.layers[step.same_as]
        return self._got[brought.layer.index]

    def _result(self, step: LayerPlan) -> LayerResult:
        """A layer that repeats an earlier one shares its holding, but cost nothing."""
        result = LayerResult.done(step, self._outcome(step))
        return result if step.same_as is None else result.repeated(step)

    async def _tick(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(TICK_S)
            if self._takes_room:
                self._check_floor()
            self._pace.check(time.monotonic(), self._fetcher.nbytes, is_fetching=self._is_fetching())

    def _is_fetching(self) -> bool:
        running = (layer for layer in self._progress.values() if layer.state == "running")
        return any(layer.action is Action.FETCH and layer.done < layer.size for layer in running)

    def _report(self) -> None:
        if self._callback is not None:
            layers = tuple(replace(layer) for layer in self._progress.values())
            self._callback(Progress(layers, time.monotonic() - self._began))

    def _say_what_is_needed(self, exc: NoSpace) -> None:
        """Let ``exc`` have what the layers that are not there yet need, if it does not know. Blocks."""
        left = sum(step.disk_bytes for step in self._plan.layers if step.layer.index not in self._got)
        if exc.need or not left:
            return
        exc.need, exc.free = left, free_space(self._store.root, self._ingest.space.keep_free)[0]
        exc.add_note(f"what is still to come needs {human(exc.need)}, and {human(exc.free)} are free now")


def _tell(traced: Traced, got: Ingested) -> None:
    """What became of a layer."""
    traced.set(
        action=got.action.value,
        reason=got.reason,
        bytes_fetched=got.nbytes,
        resumed_at=got.resumed_at,
        place=got.source.place if got.source is not None else None,
    )
