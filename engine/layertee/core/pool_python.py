"""The pool over the fallback core: each layer is a chain of jobs on a thread pool.

Correct everywhere, fast nowhere: it exists so that the package works without a compiler, and as
the second opinion of the tests.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..aio import until_done
from ..errors import LayerteeError
from ..image.media import Compression
from .pool import (
    IN_NBYTES,
    FreeWaiters,
    InBuffer,
    LayerJob,
    PoolLayer,
    PoolStats,
    Spent,
    inflated,
    write_error,
)
from .result import BlobResult, TeeResult, make_blob_result
from .tee import Tee

_STREAM_AHEAD = 8  # outputs of 256 KiB per job, and ahead of a reader


class ThreadPool:
    """Each layer is a chain of jobs on a thread pool; correct everywhere, fast nowhere."""

    def __init__(self, workers: int, n_in: int) -> None:
        self.in_nbytes = IN_NBYTES
        self.workers = workers
        self._n_in = n_in
        self._free = list(range(n_in))
        self._buffers: dict[int, InBuffer] = {}
        self._waiters = FreeWaiters(self)
        self._starved = False
        self._queued = 0
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="layertee")

    def on_free(self, callback: Callable[[], None]) -> None:
        self._waiters.add(callback)

    def off_free(self, callback: Callable[[], None]) -> None:
        self._waiters.remove(callback)

    async def take_soon(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer:
        return await self._waiters.take(keep, layer)

    def take(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer | None:
        if len(self._free) <= keep:
            self._starved = True
            return None
        index = self._free.pop()
        if index not in self._buffers:
            self._buffers[index] = InBuffer(index, memoryview(bytearray(IN_NBYTES)))
        return self._buffers[index]

    def give_back(self, buf: InBuffer) -> None:
        self._free.append(buf.index)
        if self._starved:
            self._starved = False
            self._loop.call_soon(self._waiters.notify)

    def open_layer(self, job: LayerJob) -> ThreadLayer:
        return ThreadLayer(self, job)

    def stats(self) -> PoolStats:
        return PoolStats(self._queued, self._n_in - len(self._free), 0, 0, 0, 0, 0, 0)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class ThreadLayer:
    number = -1  # no layer waits for another here

    def __init__(self, pool: ThreadPool, job: LayerJob) -> None:
        self._p = pool
        self._job = job
        self._tee = Tee(
            Compression.NONE if job.digest_only else job.compression,
            check_crc=job.check_crc,
            out_budget=job.out_budget,
            window_max=job.window_max,
            media_type=job.media_type,
            core="python",
        )
        self._in_pos = self._out_pos = 0  # of the blob, and of what it inflates to
        self._spool_fd = job.spool_fd
        self._todo: deque[tuple[InBuffer, int]] = deque()
        self._current: InBuffer | None = None  # the tee still reads from it
        self._running = False
        self._ended = False
        self._error: BaseException | None = None
        self._done: asyncio.Future[TeeResult | None] = pool._loop.create_future()
        self._out: deque[memoryview] = deque()
        self._news = asyncio.Event()
        self._spent = Spent()
        self._made = 0

    def submit(self, buf: InBuffer, nbytes: int) -> bool:
        if self._error is not None or self._done.done():
            self._p.give_back(buf)
            return False
        self._todo.append((buf, nbytes))
        self._p._queued += 1
        self._pump()
        return True

    def end(self) -> None:
        self._ended = True
        self._pump()

    def spent(self) -> Spent:
        return self._spent

    def end_spool(self) -> None:
        self._spool_fd = -1

    def cancel(self) -> None:
        self._fail(asyncio.CancelledError())

    def _fail(self, exc: BaseException) -> None:
        if self._error is None:
            self._error = exc
        self._pump()

    def _pump(self) -> None:
        """Start the next job, or finish. Runs on the loop's thread, like every method but _work."""
        if self._running or self._done.done():
            return
        if self._error is not None:
            self._release_current()
            while self._todo:
                self._p._queued -= 1
                self._p.give_back(self._todo.popleft()[0])
            self._done.set_result(None)
            self._news.set()
            return
        if self._job.stream and len(self._out) >= _STREAM_AHEAD:
            return  # the reader is behind; read() pumps again
        data: memoryview | None = memoryview(b"")
        if not self._tee.pending:
            self._release_current()
            if self._todo:
                self._current, nbytes = self._todo.popleft()
                data = self._current.view[:nbytes]
            elif self._ended:
                data = None
            else:
                return
        self._running = True
        job = self._p._loop.run_in_executor(self._p._executor, self._work, data)
        job.add_done_callback(self._worked)

    def _release_current(self) -> None:
        if self._current is not None:
            buf, self._current = self._current, None
            self._p._queued -= 1
            self._p.give_back(buf)

    def _work(self, data: memoryview | None) -> tuple[list[memoryview], TeeResult | None]:
        """A bounded step: finish (None), or feed ``data`` and take at most a few outputs."""
        began = time.thread_time_ns()  # what waits for the disk is not counted
        kept: list[memoryview] = []
        try:
            return kept, self._step(data, kept)
        finally:
            before = self._spent
            self._spent = Spent(
                before.in_nbytes + len(data or b""),
                before.out_nbytes + self._made,
                before.work_ns + time.thread_time_ns() - began,
            )

    def _step(self, data: memoryview | None, kept: list[memoryview]) -> TeeResult | None:
        job = self._job
        self._made = 0
        if data is None:
            return self._tee.finish()
        self._write_blob(data)
        out = self._tee.feed(data)
        self._made = len(out)
        for left in reversed(range(_STREAM_AHEAD)):
            if job.write == "out":
                self._write(job.fd, out, self._out_pos)
                self._out_pos += len(out)
            elif job.stream and len(out):
                kept.append(memoryview(bytes(out)))
            if not left or not self._tee.pending:
                break
            out = self._tee.feed(b"")
            self._made += len(out)
        return None

    def _write_blob(self, data: memoryview) -> None:
        """To the file that gets the blob, if one does: what it does not have yet."""
        fresh, pos = data[max(0, self._job.in_from - self._in_pos) :], max(self._job.in_from, self._in_pos)
        self._in_pos += len(data)
        if self._job.write == "in":
            self._write(self._job.fd, fresh, pos)
        elif self._spool_fd >= 0:
            try:
                self._write(self._spool_fd, fresh, pos)
            except LayerteeError:  # what was written is right, and there is no more
                self._spool_fd = -1

    def _write(self, fd: int, data: memoryview, pos: int) -> None:
        while len(data):
            try:
                n = os.pwrite(fd, data, pos)
            except OSError as exc:
                raise write_error(exc.errno or errno.EIO, self._job.path) from exc
            pos += n
            data = data[n:]

    def _worked(self, future: asyncio.Future[Any]) -> None:
        self._running = False
        if (exc := future.exception()) is not None:
            self._fail(exc)
            return
        kept, result = future.result()
        self._out.extend(kept)
        self._news.set()
        if result is not None and self._error is None:
            self._done.set_result(result)
            return
        self._pump()

    async def abandon(self) -> None:
        self.cancel()
        await until_done(self._done)

    async def result(self) -> TeeResult:
        return inflated(await self.measured())

    async def measured(self) -> BlobResult:
        try:
            await asyncio.shield(self._done)
        except asyncio.CancelledError:
            self.cancel()
            await until_done(self._done)
            raise
        result = self._done.result()
        if result is None:
            assert self._error is not None
            raise self._error
        if self._job.digest_only:
            return make_blob_result(
                digest=bytes.fromhex(result.digest.hex), size=result.size, compression=self._job.compression
            )
        return result

    async def read(self) -> memoryview | None:
        while not self._out:
            if self._done.done():
                return None
            self._pump()
            self._news.clear()
            await self._news.wait()
        return self._out.popleft()
