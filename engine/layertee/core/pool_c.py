"""The pool over the C core: worker threads that never meet the interpreter (csrc/pool/).

Rules of this file. ``lt_pool`` belongs to the thread of the event loop: all calls are made there, and
none waits. What the workers have to say comes as events, when the pool's descriptor becomes readable. A
buffer is a number to the pool and, as long as it is ours, a memoryview of the pool's memory: nothing is
copied here, and no view may outlive :meth:`CPool.close`, which frees that memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..aio import until_done
from .loading import c_core, c_format, found_format
from .pool import (
    IN_NBYTES,
    OUT_NBYTES,
    FreeWaiters,
    InBuffer,
    LayerJob,
    PoolLayer,
    PoolStats,
    Spent,
    inflated,
    write_error,
)
from .result import BlobResult, TeeResult, make_blob_result, make_result
from .status import decode_error

# Of its blob, what a piece that is decoded before its turn has at least: a third of what podman's gzip
# puts between two flush markers.
PIECE_NBYTES = 128 << 10


def _n_pieces(workers: int) -> int:
    """Two workers have enough to do with inflating and hashing one layer: there, pieces cost 5 % of the time
    (``python -m bench lone``). With three, one would idle.
    """
    return workers - 1 if workers > 2 else 0


class CPool:
    def __init__(self, workers: int, n_in: int, n_out: int, n_pieces: int | None = None) -> None:
        self._ffi, self._lib = c_core()
        config = self._ffi.new(
            "struct lt_pool_config *",
            {
                "n_workers": workers,
                "n_in": n_in,
                "in_nbytes": IN_NBYTES,
                "n_out": n_out,
                "out_nbytes": OUT_NBYTES,
                "n_pieces": _n_pieces(workers) if n_pieces is None else n_pieces,
                "piece_in_nbytes": PIECE_NBYTES,
            },
        )
        pool = self._lib.lt_pool_new(config)
        if pool == self._ffi.NULL:
            raise MemoryError(f"cannot start {workers} workers with {n_in} + {n_out} buffers")
        self._pool = pool
        self.in_nbytes = IN_NBYTES
        self.workers = workers
        self._buffers: dict[int, InBuffer] = {}
        self._layers: dict[int, CLayer] = {}
        self._waiters = FreeWaiters(self)
        self._events = self._ffi.new("struct lt_event[64]")
        self._loop = asyncio.get_running_loop()
        self._fd = self._lib.lt_pool_eventfd(pool)
        self._loop.add_reader(self._fd, self._on_events)

    def on_free(self, callback: Callable[[], None]) -> None:
        self._waiters.add(callback)

    def off_free(self, callback: Callable[[], None]) -> None:
        self._waiters.remove(callback)

    async def take_soon(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer:
        return await self._waiters.take(keep, layer)

    def take(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer | None:
        index: int = self._lib.lt_pool_take(self._pool, -1 if layer is None else layer.number, keep)
        if index < 0:
            return None
        # The memory of a buffer stays where it is, so that one view serves for the life of the pool.
        buf = self._buffers.get(index)
        if buf is None:
            raw = self._ffi.buffer(self._lib.lt_pool_in_ptr(self._pool, index), IN_NBYTES)
            buf = self._buffers[index] = InBuffer(index, memoryview(raw))
        return buf

    def give_back(self, buf: InBuffer) -> None:
        self._lib.lt_pool_give_back(self._pool, buf.index)

    def open_layer(self, job: LayerJob) -> CLayer:
        lib = self._lib
        flags = (
            (lib.LT_LAYER_WRITE_IN if job.write == "in" else 0)
            | (lib.LT_LAYER_WRITE_OUT if job.write == "out" else 0)
            | (lib.LT_LAYER_STREAM_OUT if job.stream else 0)
            | (lib.LT_LAYER_CHECK_CRC if job.check_crc else 0)
            | (lib.LT_LAYER_DIGEST_ONLY if job.digest_only else 0)
        )
        config = self._ffi.new(
            "struct lt_layer_config *",
            {
                "format": c_format(job.compression),
                "flags": flags,
                "fd": job.fd,
                "spool_fd": job.spool_fd,
                "in_from": job.in_from,
                "in_size": job.size,
                "out_budget": job.out_budget,
                "window_max": job.window_max,
            },
        )
        number = lib.lt_pool_layer_open(self._pool, config)
        if number < 0:
            raise decode_error(number, 0, job.media_type)
        layer = self._layers[number] = CLayer(self, number, job)
        return layer

    def stats(self) -> PoolStats:
        raw = self._ffi.new("struct lt_pool_stats *")
        self._lib.lt_pool_stats(self._pool, raw)
        return PoolStats(
            raw.in_queued,
            raw.in_used,
            raw.idle_ns,
            raw.inflate_ns,
            raw.hash_ns,
            raw.write_ns,
            raw.pair_nbytes,
            raw.single_nbytes,
            raw.ahead_ns,
            raw.ahead_nbytes,
            raw.n_locks,
            raw.n_lock_waits,
            raw.lock_wait_ns,
        )

    def _on_events(self) -> None:
        # Those who wait for a buffer are called last, once: what they do may take the buffers that the
        # events here give back.
        free = False
        while n := self._lib.lt_pool_poll(self._pool, self._events, 64):
            for i in range(n):
                event = self._events[i]
                if event.kind == self._lib.LT_EVENT_IN_FREE:
                    free = True
                elif event.kind == self._lib.LT_EVENT_OUT:
                    self._layers[event.layer].on_out(event.buf, event.nbytes)
                else:
                    self._layers.pop(event.layer).on_done()
        if free:
            self._waiters.notify()

    def close(self) -> None:
        if self._pool is None:
            return
        self._loop.remove_reader(self._fd)
        pool, self._pool = self._pool, None
        self._buffers.clear()
        self._lib.lt_pool_free(pool)


class CLayer:
    def __init__(self, pool: CPool, number: int, job: LayerJob) -> None:
        self._p = pool
        self.number = number
        self._job = job
        self._ended = False
        self._cancelled = False
        self._done: asyncio.Future[None] = pool._loop.create_future()
        self._raw = pool._ffi.new("struct lt_result *")
        self._out: deque[tuple[int, int]] = deque()  # number and size, lent to us and not read yet
        self._lent: int | None = None  # the one that our reader looks at
        self._news = asyncio.Event()
        self._spent = Spent()

    def submit(self, buf: InBuffer, nbytes: int) -> bool:
        if self._done.done():
            self._p.give_back(buf)
            return False
        return bool(self._p._lib.lt_pool_submit(self._p._pool, self.number, buf.index, nbytes) == 0)

    def end(self) -> None:
        if not self._ended and not self._done.done():
            self._ended = True
            self._p._lib.lt_pool_layer_end(self._p._pool, self.number)

    def end_spool(self) -> None:
        if not self._done.done():
            self._p._lib.lt_pool_layer_end_spool(self._p._pool, self.number)

    def cancel(self) -> None:
        if not self._done.done() and not self._cancelled:
            self._cancelled = True
            self._p._lib.lt_pool_layer_cancel(self._p._pool, self.number)

    def spent(self) -> Spent:
        if not self._done.done():
            raw = self._p._ffi.new("struct lt_layer_spent *")
            self._p._lib.lt_pool_layer_spent(self._p._pool, self.number, raw)
            self._spent = Spent(raw.in_nbytes, raw.out_nbytes, raw.work_ns)
        return self._spent

    def on_out(self, buf: int, nbytes: int) -> None:
        self._out.append((buf, nbytes))
        self._news.set()

    def on_done(self) -> None:
        # The layer's number is free for another from here on, so its result is taken now. Output that was
        # lent to us is still ours.
        lib, pool = self._p._lib, self._p._pool
        self.spent()  # for who asks later
        lib.lt_pool_layer_result(pool, self.number, self._raw)
        lib.lt_pool_layer_free(pool, self.number)
        self._done.set_result(None)
        self._news.set()

    async def abandon(self) -> None:
        self.cancel()
        try:
            await until_done(self._done)
        finally:
            self._drop_output()

    async def result(self) -> TeeResult:
        return inflated(await self.measured())

    async def measured(self) -> BlobResult:
        try:
            await asyncio.shield(self._done)
        except asyncio.CancelledError:
            # The workers hold the fd for one more job at most: wait for them all the same.
            self.cancel()
            await until_done(self._done)
            raise
        finally:
            self._drop_output()
        raw, job = self._raw, self._job
        if raw.status == self._p._lib.LT_OK:
            buffer = self._p._ffi.buffer
            digest = bytes(buffer(raw.in_digest))
            if job.digest_only:
                return make_blob_result(digest=digest, size=raw.in_total, compression=job.compression)
            return make_result(
                digest=digest,
                diff_id=bytes(buffer(raw.out_digest)),
                size=raw.in_total,
                uncompressed_size=raw.out_total,
                n_members=raw.n_members,
                compression=found_format(raw.format, job.compression),
            )
        if raw.status == self._p._lib.LT_ERR_CANCELLED:
            raise asyncio.CancelledError
        if raw.status == self._p._lib.LT_ERR_WRITE:
            raise write_error(raw.os_errno, job.path)
        raise decode_error(
            raw.status, raw.error_offset, job.media_type, window=raw.window, window_max=job.window_max
        )

    async def read(self) -> memoryview | None:
        self._give_back_lent()
        while not self._out:
            if self._done.done():
                return None
            self._news.clear()
            await self._news.wait()
        self._lent, nbytes = self._out.popleft()
        raw = self._p._ffi.buffer(self._p._lib.lt_pool_out_ptr(self._p._pool, self._lent), nbytes)
        return memoryview(raw).toreadonly()

    def _give_back_lent(self) -> None:
        if self._lent is not None:
            self._p._lib.lt_pool_out_done(self._p._pool, self._lent)
            self._lent = None

    def _drop_output(self) -> None:
        self._give_back_lent()
        for buf, _ in self._out:
            self._p._lib.lt_pool_out_done(self._p._pool, buf)
        self._out.clear()
