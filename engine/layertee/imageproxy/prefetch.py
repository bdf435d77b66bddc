"""The layers of an open image, brought into the store in the order in which its client will ask for them.

Clients ask for one layer after the other and work on each before they ask for the next, so what is ahead
of them is brought meanwhile: at most ``ahead`` bytes more than they have read of the layer that they got
last. (How far a client has read shows in the descriptor that it was given: its offset is ours, too.) A client
that stops stops the network. Layers that the client has already are left out, and brought only if it
asks for them after all.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ..disk.locks import HeldLock
from ..errors import IntegrityError, LocalError
from ..image.document import DiffID, ImageConfig, Layer
from ..image.holding import Holding
from ..pulling.ingest import LOCK_POLL_S, Ingest, Staged
from ..pulling.plan import LayerPlan
from ..pulling.report import LayerProgress
from ..store.store import Store

log = logging.getLogger(__name__)

AHEAD: Final = 32 << 20
# Beside the layer that the client waits for. More at once gained nothing (pulling.LAYERS_IN_FLIGHT).
_N_AHEAD: Final = 2
# What the kernels at both ends may hold of a connection that is not read any more: their buffers grow with
# the speed, to several MiB on a fast network.
_IN_KERNELS: Final = 20 << 20
_LEAST: Final = 4 << 20  # below, a layer that does not fit is not begun
_POLL_S: Final = 0.05
_YIELD_S: Final = 0.01  # to the layer that the client waits for, while it is the processor that is short
# A layer that waits for its client keeps others from bringing it. It is given up after this.
PATIENCE_S: Final = 30.0
# Label of images that are made of an ostree commit; it names the last layer that belongs to that.
FINAL_DIFFID: Final = "ostree.final-diffid"


def asking_order(config: ImageConfig, layers: Sequence[Layer]) -> list[Layer]:
    """As ostree-ext asks: the chunks of the ostree commit, the layer with the commit itself, which is the
    first of the image, then what was derived from it.
    """
    final = config.labels.get(FINAL_DIFFID)
    last = next((at for at, layer in enumerate(layers) if layer.diff_id == final), 0)
    return [*layers[1 : last + 1], *layers[:1], *layers[last + 1 :]]


@dataclass(slots=True)
class _Job:
    """A layer that is being brought, or was."""

    step: LayerPlan
    progress: LayerProgress
    task: asyncio.Task[Holding] = field(init=False)
    asked: bool = False
    room: int = 0  # bytes that it was granted on the disk
    held_since: float | None = None


class LayerQueue:
    """Brings the layers of ``steps``, which are in the order of asking; ``close`` it.

    ``client_has``: layers that are not brought before they are asked for. ``ahead`` in bytes, 0 for none.
    """

    def __init__(
        self,
        ingest: Ingest,
        store: Store,
        steps: Iterable[LayerPlan],
        *,
        client_has: Collection[DiffID] = (),
        ahead: int = AHEAD,
    ) -> None:
        self._ingest = ingest
        self._store = store
        self._steps: dict[DiffID, LayerPlan] = {}
        for step in steps:
            self._steps.setdefault(step.layer.diff_id, step)
        self._ahead = ahead
        self._jobs: dict[DiffID, _Job] = {}
        self._tasks: set[asyncio.Task[Holding]] = set()  # of layers that were given up as well
        self._client_has = set(client_has)
        self._orders = self._expected(list(self._steps))
        self._broken = False
        self._reading: tuple[int, float] | None = None  # of what the client got last: descriptor, scale
        self._fill()
        self._watch = asyncio.ensure_future(self._poll())

    async def close(self) -> None:
        """Give up what is under way; finished layers stay in the store."""
        self._broken = True
        self._watch.cancel()
        self.reads(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def get(self, diff_id: DiffID) -> Holding:
        """The layer, in the store and checked. Raises what kept it from getting there."""
        job = self._jobs.get(diff_id)
        if job is None or _may_go_better(job.task):
            job = self._begin(self._steps[diff_id])
        job.asked = True
        self._broken = False
        self._asked(diff_id)
        self._fill()
        return await asyncio.shield(job.task)

    async def get_all(self, diff_ids: Iterable[DiffID]) -> dict[DiffID, Holding]:
        """Several layers, a few at a time, the largest first. Raises the first error."""
        todo = sorted(diff_ids, key=lambda diff_id: self._steps[diff_id].layer.size)
        found: dict[DiffID, Holding] = {}

        async def work() -> None:
            while todo:
                diff_id = todo.pop()
                found[diff_id] = await self.get(diff_id)

        workers = [asyncio.ensure_future(work()) for _ in range(_N_AHEAD + 1)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return found

    def reads(self, fd: int | None, scale: float = 1.0) -> None:
        """The client was given ``fd`` to read. ``scale`` bytes come over the network for each byte of it."""
        if self._reading is not None:
            os.close(self._reading[0])
        self._reading = (os.dup(fd), scale) if fd is not None else None

    # --- what comes next ---

    def _expected(self, diff_ids: list[DiffID]) -> tuple[list[DiffID], list[DiffID]]:
        """The orders in which those of ``diff_ids`` may be asked for that the client does not have.

        In the one of ``steps``, or the largest first, as other clients do. Which kind this one is shows with
        its first requests.
        """
        wanted = [diff_id for diff_id in diff_ids if diff_id not in self._client_has]
        by_size = sorted(wanted, key=lambda diff_id: self._steps[diff_id].layer.size, reverse=True)
        return wanted, by_size

    def _asked(self, diff_id: DiffID) -> None:
        """Guess from what is asked for which order the client has, and where in it the client is."""
        if diff_id in self._client_has:
            # It has the content, but does not know it by this name: so it will ask for the others as well.
            self._client_has.clear()
            order = list(self._steps)
            self._orders = self._expected(order[order.index(diff_id) :])
        current, other = self._orders
        if current[:1] != [diff_id] and other[:1] == [diff_id]:
            current, other = self._orders = other, current
        if diff_id in current:
            # What comes before was not asked for, so the client has it. If not, it will ask.
            del current[: current.index(diff_id) + 1]
        if diff_id in other:
            other.remove(diff_id)

    def _allowed(self) -> int:
        """Bytes that may be fetched of layers that nobody has asked for yet."""
        if self._reading is None or self._ahead == 0:
            return self._ahead
        fd, scale = self._reading
        read = min(os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_size)  # it may seek to wherever it likes
        return self._ahead + int(read * scale)

    def _room(self, but: DiffID | None = None) -> int:
        """What is left of that by layers that were begun, all of each, ``but`` one."""
        begun = (diff_id for diff_id in self._orders[0] if diff_id in self._jobs and diff_id != but)
        return self._allowed() - sum(self._steps[diff_id].layer.size for diff_id in begun)

    def _fill(self) -> None:
        """Begin layers that nobody has asked for yet, as far as that is allowed."""
        room = self._room()
        running = sum(not job.asked and not job.task.done() for job in self._jobs.values())
        for diff_id in self._orders[0]:
            if diff_id in self._jobs:
                continue
            if self._broken or running >= _N_AHEAD:
                return
            size = self._steps[diff_id].layer.size
            if size > room and (running or room < _IN_KERNELS + _LEAST):
                return
            self._begin(self._steps[diff_id])
            running += 1
            room -= size

    def _pace(self, job: _Job) -> float:
        """How long a layer that is on its way has to wait: not at all, once somebody wants it."""
        diff_id = job.step.layer.diff_id
        room = self._room(but=diff_id)
        if job.step.layer.size > room:
            room -= _IN_KERNELS
        if job.asked:
            return 0.0
        if job.progress.done < room:
            job.held_since = None
            return _YIELD_S if self._someone_waits() and self._ingest.is_busy() else 0.0
        now = asyncio.get_running_loop().time()
        if job.held_since is None:
            job.held_since = now
        elif now - job.held_since > PATIENCE_S and self._jobs.get(diff_id) is job:
            log.info("layer %d: nobody reads any more; it is given up for now", job.step.layer.index)
            self._broken = True
            del self._jobs[diff_id]
            job.task.cancel()
        return _POLL_S

    def _someone_waits(self) -> bool:
        return any(job.asked and not job.task.done() for job in self._jobs.values())

    async def _poll(self) -> None:
        """A client that reads on makes room."""
        while self._orders[0]:
            await asyncio.sleep(_POLL_S)
            self._fill()

    def _begin(self, step: LayerPlan) -> _Job:
        layer = step.layer
        progress = LayerProgress(layer.index, layer.digest, step.action, layer.size)
        job = self._jobs[layer.diff_id] = _Job(step, progress)
        job.task = asyncio.ensure_future(self._bring(job))
        job.task.add_done_callback(self._ended)
        self._tasks.add(job.task)
        return job

    def _ended(self, task: asyncio.Task[Holding]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if (exc := task.exception()) is not None:
            log.info("a layer failed: %s", exc)
            self._broken = True  # the client will hear of it when it asks; no more is fetched unasked
        self._fill()

    # --- one layer ---

    async def _bring(self, job: _Job) -> Holding:
        step, layer = job.step, job.step.layer
        lock = await self._lock(layer)
        try:
            self._take_room(job)
            got = await self._ingest.stage(step, job.progress, pace=lambda: self._pace(job))
            if isinstance(got, Staged):
                with got.writer:  # whatever happens, no part stays
                    got = await self._ingest.commit(step, got)
        finally:
            lock.release()
        log.info("layer %d, %s: %s, %s", layer.index, layer.digest, got.action.value, got.reason)
        if got.held is None or got.held.path is None:
            raise LocalError(f"layer {layer.index} ({layer.digest}) is not in the store")
        with suppress(OSError):
            os.utime(got.held.path)  # the cache gives up what was not used for longest
        return got.held

    def _take_room(self, job: _Job) -> None:
        """Raise NoSpace unless the layer, and others that have not taken up their room yet, fit above what
        stays free for the system.
        """
        others = sum(other.room for other in self._jobs.values() if not other.task.done())
        self._store.check_space(others + job.step.disk_bytes, f"layer {job.step.layer.index}")
        job.room = job.step.disk_bytes

    async def _lock(self, layer: Layer) -> HeldLock:
        """Others who bring the same layer are waited for: then it is here."""
        while True:
            if (lock := self._store.layer_lock(layer.diff_id)) is not None:
                return lock
            await asyncio.sleep(LOCK_POLL_S)


def _may_go_better(task: asyncio.Task[Holding]) -> bool:
    """Whether a failure is worth another attempt: not when what is there was looked at, and is wrong."""
    if not task.done() or task.cancelled():
        return task.cancelled()
    exc = task.exception()
    return exc is not None and not isinstance(exc, IntegrityError)
