"""The layers of an open image on their way into the store, by the names under which a client asks for them.

What is begun, and what is held back, appetite.py decides; this carries it out, and keeps the descriptor by
which it is seen how far the client has read. Every task ends before ``LayerQueue.open`` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from ..aio import unwrapped_group
from ..errors import IntegrityError, LocalError
from ..image.document import Digest
from ..image.holding import Holding
from ..pulling.ingest import Ingest, Staged
from ..pulling.plan import LayerPlan
from ..pulling.report import LayerProgress
from ..store.store import Store
from .appetite import AHEAD, N_AHEAD, PATIENCE_S, POLL_S, Appetite

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """A layer that is being brought, or was. ``task`` returns what kept it from getting here, too."""

    step: LayerPlan
    progress: LayerProgress
    task: asyncio.Task[Holding | Exception] = field(init=False)
    room: int = 0  # bytes that it was granted on the disk


class LayerQueue:
    """Use ``open``. Belongs to one event loop."""

    def __init__(
        self,
        ingest: Ingest,
        store: Store,
        steps: Mapping[Digest, LayerPlan],
        appetite: Appetite,
        poll_s: float,
        group: asyncio.TaskGroup,
    ) -> None:
        self._ingest = ingest
        self._store = store
        self._steps = steps
        self._appetite = appetite
        self._poll_s = poll_s
        self._group = group
        self._jobs: dict[Digest, _Job] = {}
        self._tasks: set[asyncio.Task[Holding | Exception]] = set()  # of jobs that were given up as well
        self._reading: tuple[int, float] | None = None  # of what the client got last: descriptor, scale
        self._hungry = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        ingest: Ingest,
        store: Store,
        steps: Mapping[Digest, LayerPlan],
        *,
        client_has: Collection[Digest] = (),
        ahead: int = AHEAD,
        patience_s: float = PATIENCE_S,
        poll_s: float = POLL_S,
    ) -> AsyncIterator[Self]:
        """Bring ``steps``, by name and in the order of asking, as their client comes to want them.

        ``client_has``, ``ahead`` and ``patience_s`` as ``Appetite`` has them; every ``poll_s`` seconds it is
        looked how far the client has read, while that may make room. At the end, what is under way is given
        up; finished layers stay in the store.
        """
        sizes = {name: step.layer.size for name, step in steps.items()}
        appetite = Appetite(sizes, client_has=client_has, ahead=ahead, patience_s=patience_s)
        async with unwrapped_group() as group:
            queue = cls(ingest, store, steps, appetite, poll_s, group)
            watching = group.create_task(queue._watch())
            try:
                queue._fill()
                yield queue
            finally:
                watching.cancel()
                queue._close()

    async def get(self, name: Digest) -> Holding:
        """The layer, in the store and checked. Raises what kept it from getting there."""
        if self._appetite.ask(name):
            self._begin(name)
        job = self._jobs[name]
        self._fill()
        # A client that gives up leaves the layer to come: it may ask again.
        got = await asyncio.shield(job.task)
        if isinstance(got, Exception):
            raise got
        return got

    async def get_all(self, names: Iterable[Digest]) -> dict[Digest, Holding]:
        """Several layers, a few at a time, the largest first. Raises the first error."""
        todo = sorted(names, key=lambda name: self._steps[name].layer.size)
        found: dict[Digest, Holding] = {}

        async def work() -> None:
            while todo:
                name = todo.pop()
                found[name] = await self.get(name)

        async with unwrapped_group() as workers:
            for _ in range(N_AHEAD + 1):
                workers.create_task(work())
        return found

    def reads(self, fd: int | None, scale: float = 1.0) -> None:
        """The client was given ``fd`` to read, which stays the caller's. ``scale`` bytes come over the
        network for each byte of it.
        """
        if self._reading is not None:
            os.close(self._reading[0])
        self._reading = (os.dup(fd), scale) if fd is not None else None

    # --- carrying out ---

    async def _watch(self) -> None:
        """A client that reads on makes room."""
        while True:
            await self._hungry.wait()
            await asyncio.sleep(self._poll_s)
            self._look()
            self._fill()
            if not self._appetite.is_hungry:
                self._hungry.clear()

    def _look(self) -> None:
        if self._reading is not None:
            fd, scale = self._reading
            read = min(os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_size)  # it may seek to wherever it likes
            self._appetite.read(int(read * scale))
        else:
            self._appetite.read(0)

    def _fill(self) -> None:
        """Begin what may be begun unasked."""
        while (name := self._appetite.next()) is not None:
            self._begin(name)
        if self._appetite.is_hungry:
            self._hungry.set()

    def _begin(self, name: Digest) -> None:
        step = self._steps[name]
        layer = step.layer
        job = _Job(step, LayerProgress(layer.index, layer.digest, step.action, layer.size))
        self._jobs[name] = job
        job.task = self._group.create_task(self._outcome(name, job))
        self._tasks.add(job.task)
        job.task.add_done_callback(lambda task: self._ended(name, job))

    async def _outcome(self, name: Digest, job: _Job) -> Holding | Exception:
        """Of one job. Its failure is that of the request that waits for it, and of no other job."""
        try:
            return await self._bring(name, job)
        except Exception as exc:  # noqa: BLE001 - raised to the client that asks for the layer
            return exc

    def _ended(self, name: Digest, job: _Job) -> None:
        self._tasks.discard(job.task)
        if job.task.cancelled() or self._jobs.get(name) is not job:
            return
        got = job.task.result()
        if isinstance(got, Exception):
            log.info("layer %d failed: %s", job.step.layer.index, got)
            # What was looked at and is wrong stays wrong; anything else may go better.
            self._appetite.failed(name, for_good=isinstance(got, IntegrityError))
        else:
            self._appetite.arrived(name)
        self._fill()

    def _wait_s(self, name: Digest, job: _Job) -> float:
        """How long a layer that is on its way has to wait: not at all, once somebody wants it."""
        if self._jobs.get(name) is not job:
            return POLL_S
        self._look()
        busy = self._appetite.is_awaited and self._ingest.is_busy()
        now = asyncio.get_running_loop().time()
        wait = self._appetite.wait_s(name, job.progress.done, now, busy=busy)
        if wait is None:
            log.info("layer %d: nobody reads any more; it is given up for now", job.step.layer.index)
            del self._jobs[name]
            job.task.cancel()
            return POLL_S
        return wait

    def _close(self) -> None:
        self._appetite.stop()
        self.reads(None)
        for task in self._tasks:
            task.cancel()

    # --- one layer ---

    async def _bring(self, name: Digest, job: _Job) -> Holding:
        step, layer = job.step, job.step.layer
        # Another process that brings the same content is waited for: then it is here.
        lock = await self._ingest.lock(step)
        try:
            self._take_room(job)
        except BaseException:
            lock.release()
            raise
        got = await self._ingest.stage(step, lock, job.progress, pace=lambda: self._wait_s(name, job))
        if isinstance(got, Staged):
            got = await got.commit()
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
