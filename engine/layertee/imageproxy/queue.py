"""The layers of an open image on their way into the store, by the names under which a client asks for them.

What is begun, and what is held back, appetite.py decides; this carries it out, and keeps the descriptor by
which it is seen how far the client has read. Every task ends before ``LayerQueue.open`` does.

What a client gets was hashed by this process, through the descriptor that it gets or while it was written to
that very file: a part file stays open when it is given its name, and what the store has already is hashed
once more. No name is looked up after that. An image may have more layers than a process may have files open:
of those that were asked for, the last few stay open. One that is asked for again later is hashed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..aio import in_thread, unwrapped_group
from ..disk.blob_file import OpenFile
from ..errors import IntegrityError, LocalError, SourceUnreadable, StoreCorrupt
from ..image.media import Compression
from ..pulling.report import Ingested, LayerProgress
from ..pulling.staged import Staged
from ..record import dataclass
from .appetite import AHEAD, N_AHEAD, PATIENCE_S, POLL_S, Appetite
from .tally import LayerTally

if TYPE_CHECKING:
    from ..core.result import BlobResult
    from ..disk.space import Space
    from ..image.document import Digest, Layer
    from ..image.holding import Holding
    from ..pulling.ingest import Ingest
    from ..pulling.plan import LayerPlan
    from ..store.store import Store

log = logging.getLogger(__name__)

N_OPEN = 32  # files of layers that were asked for; N_WAITING more may be open that were not


@dataclass(frozen=True, slots=True)
class Brought:
    """A layer that is here: its ``file``, which the queue closes when it ends, and what was measured of that.

    A layer that was here already is only hashed, unless it has to be inflated to be known.
    """

    held: Holding
    file: OpenFile
    result: BlobResult


@dataclass(slots=True)
class _Job:
    """A layer that is being brought, or was. ``task`` returns what kept it from getting here, too."""

    step: LayerPlan
    progress: LayerProgress
    task: asyncio.Task[Brought | Exception] = field(init=False)
    room: int = 0  # bytes that it was granted on the disk
    n_waiting: int = 0  # callers of ``get``


class LayerQueue:
    """Use ``open``. Belongs to one event loop."""

    def __init__(
        self,
        ingest: Ingest,
        store: Store,
        space: Space,
        steps: Mapping[Digest, LayerPlan],
        appetite: Appetite,
        poll_s: float,
        group: asyncio.TaskGroup,
    ) -> None:
        self._ingest = ingest
        self._store = store
        self._space = space
        self._steps = steps
        self._appetite = appetite
        self._poll_s = poll_s
        self._group = group
        self._jobs: dict[Digest, _Job] = {}
        self._tasks: set[asyncio.Task[Brought | Exception]] = set()  # of jobs that were given up as well
        self._served: dict[Digest, None] = {}  # what was asked for and is open, the latest last
        self._reading: tuple[int, float] | None = None  # of what the client got last: descriptor, scale
        self._hungry = asyncio.Event()
        self.tally: dict[Digest, LayerTally] = {}
        """Layers that were brought, by name: how each came here first."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        ingest: Ingest,
        store: Store,
        space: Space,
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
        sizes = {name: step.size for name, step in steps.items()}
        appetite = Appetite(sizes, client_has=client_has, ahead=ahead, patience_s=patience_s)
        with ExitStack() as files:
            async with unwrapped_group() as group:
                queue = cls(ingest, store, space, steps, appetite, poll_s, group)
                files.callback(queue._close_files)
                watching = group.create_task(queue._watch())
                try:
                    queue._fill()
                    yield queue
                finally:
                    watching.cancel()
                    queue._give_up()

    async def get(self, name: Digest) -> Brought:
        """The layer, in the store and checked. Raises what kept it from getting there.

        Its file may be closed as soon as the caller awaits something, so that is used before.
        """
        if self._appetite.ask(name):
            self._begin(name)
        job = self._jobs[name]
        self._fill()
        job.n_waiting += 1
        try:
            # A client that gives up leaves the layer to come: it may ask again.
            got = await asyncio.shield(job.task)
        finally:
            job.n_waiting -= 1
        if isinstance(got, Exception):
            raise got
        self._served.pop(name, None)
        self._served[name] = None
        self._close_oldest()
        return got

    async def get_all(self, names: Iterable[Digest]) -> dict[Digest, Brought]:
        """Several layers, a few at a time, the largest first. Raises the first error."""
        todo = sorted(names, key=lambda name: self._steps[name].size)
        found: dict[Digest, Brought] = {}

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
        job = _Job(step, LayerProgress(layer.index, layer.digest, step.action, step.size))
        self._jobs[name] = job
        job.task = self._group.create_task(self._outcome(name, job))
        self._tasks.add(job.task)
        job.task.add_done_callback(lambda task: self._ended(name, job))

    async def _outcome(self, name: Digest, job: _Job) -> Brought | Exception:
        """Of one job. Its failure is that of the request that waits for it, and of no other job."""
        try:
            return await self._bring(name, job)
        except Exception as exc:  # noqa: BLE001 - raised to the client that asks for the layer
            return exc

    def _ended(self, name: Digest, job: _Job) -> None:
        self._tasks.discard(job.task)
        if job.task.cancelled():
            return
        got = job.task.result()
        if self._jobs.get(name) is not job:  # it was given up, and ended all the same
            if isinstance(got, Brought):
                got.file.close()
            return
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

    def _give_up(self) -> None:
        self._appetite.stop()
        self.reads(None)
        for task in self._tasks:
            task.cancel()

    def _close_oldest(self) -> None:
        """Of the files that were asked for, let no more than N_OPEN be open."""
        for name in list(self._served)[:-N_OPEN]:
            job = self._jobs[name]
            if job.n_waiting == 0 and self._appetite.forget(name):
                del self._jobs[name], self._served[name]
                if isinstance(got := job.task.result(), Brought):
                    got.file.close()

    def _close_files(self) -> None:
        """Those that were handed out stay open for the clients that have them."""
        for job in self._jobs.values():
            if not job.task.cancelled() and isinstance(got := job.task.result(), Brought):
                got.file.close()

    # --- one layer ---

    async def _bring(self, name: Digest, job: _Job) -> Brought:
        layer = job.step.layer
        brought = await self._stage(name, job)
        if brought is None:  # what was here was wrong, and is out of the way
            brought = await self._stage(name, job)
        if brought is None:
            raise StoreCorrupt(f"layer {layer.index} ({layer.digest}) is wrong each time that it is read")
        with suppress(OSError):
            os.utime(_path(brought.held))  # the cache gives up what was not used for longest
        return brought

    async def _stage(self, name: Digest, job: _Job) -> Brought | None:
        """The layer from wherever it may be had; None if what the store had is not what it was."""
        step, layer = job.step, job.step.layer
        # Another process that brings the same is waited for: then it is here.
        lock = await self._ingest.lock(step)
        try:
            self._take_room(job)
        except BaseException:
            lock.release()
            raise
        got = await self._ingest.stage(step, lock, job.progress, pace=lambda: self._wait_s(name, job))
        if not isinstance(got, Staged):
            self._tell(name, layer, got)
            return await self._look_again(step, _held(layer, got))
        try:
            file = got.reopen()
        except BaseException:
            got.abort()
            raise
        try:
            done = await got.commit()
        except BaseException:
            file.close()
            raise
        self._tell(name, layer, done)
        return Brought(_held(layer, done), file, got.result)

    async def _look_again(self, step: LayerPlan, held: Holding) -> Brought | None:
        """Hash a layer of the store through the descriptor by which it is handed out.

        One that is wrong goes to quarantine.
        """
        # How many members a gzip file has is seen only by inflating it.
        inflate = held.compression is Compression.GZIP and not step.layer.is_opaque
        try:
            file = OpenFile.at(_path(held))
            try:
                result = await self._ingest.measure(file, held, step.layer, inflate=inflate)
                return Brought(held, file, result)
            except BaseException:
                file.close()
                raise
        except (IntegrityError, SourceUnreadable) as exc:
            log.warning("%s is damaged and goes to quarantine: %s", held.path, exc)
            with await self._ingest.lock(step):
                await in_thread(self._store.blobs.quarantine, held.digest)
            return None

    def _tell(self, name: Digest, layer: Layer, got: Ingested) -> None:
        self.tally.setdefault(name, LayerTally.of(got, layer.size))
        log.info("layer %d, %s: %s, %s", layer.index, layer.digest, got.action.value, got.reason)
        if got.warning is not None:
            log.warning("%s", got.warning)

    def _take_room(self, job: _Job) -> None:
        """Raise NoSpace unless the layer, and others that have not taken up their room yet, fit above what
        stays free for the system.
        """
        others = sum(other.room for other in self._jobs.values() if not other.task.done())
        self._space.check(others + job.step.disk_bytes, f"layer {job.step.layer.index}")
        job.room = job.step.disk_bytes


def _held(layer: Layer, got: Ingested) -> Holding:
    if got.held is None:
        raise LocalError(f"layer {layer.index} ({layer.digest}) is not in the store")
    return got.held


def _path(held: Holding) -> Path:
    """The store keeps each blob in a file of its own."""
    assert held.path is not None
    return held.path
