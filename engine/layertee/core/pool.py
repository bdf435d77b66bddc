"""Many layers at once: worker threads that hash, inflate and write, seen from the event loop.

A :class:`Pool` hands out input buffers, takes them back filled, and answers with a
:class:`~layertee.core.result.TeeResult` per layer. Two implementations stand behind one face: the C pool,
whose threads never meet the interpreter, and a thread pool over the fallback core.

All methods are called from the event loop's thread. A buffer belongs to the pool but for the time
between :meth:`Pool.take` and :meth:`PoolLayer.submit` or :meth:`Pool.give_back`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Protocol

from ..errors import LayerteeError, LocalError, NoSpace
from ..image.media import Compression
from ..record import dataclass
from .result import BlobResult, TeeResult
from .tee import OUT_BUDGET, WINDOW_MAX

# Buffer sizes were measured flat from 128 KiB to 4 MiB (out) and 256 KiB to 4 MiB (in).
IN_NBYTES = 1 << 20
OUT_NBYTES = 256 << 10
N_IN = 32
N_OUT = 24
N_OUT_PER_WORKER = 4  # one being filled, one being hashed, two that wait


@dataclass(frozen=True, slots=True)
class LayerJob:
    """What is to be done with one blob.

    ``compression`` as :class:`~layertee.core.tee.Tee` takes it.
    ``write`` names the form that goes to ``fd`` (which the caller closes): ``"in"`` the blob as it
    is, ``"out"`` what it inflates to, or None. ``stream`` hands what it inflates to to
    :meth:`PoolLayer.read`. ``digest_only`` hashes the blob and inflates nothing, so there is nothing
    of the ``"out"`` kind then. ``size`` orders the work; ``path`` is for messages.

    ``spool_fd`` gets the blob besides, in order, where ``"out"`` is written: as far as it can be written, for
    a failure ends the spool, not the layer. Whichever file gets the blob has its first ``in_from`` bytes
    already; they are hashed like all others, and not written again.
    """

    compression: Compression
    size: int
    fd: int = -1
    write: str | None = None
    spool_fd: int = -1
    in_from: int = 0
    stream: bool = False
    digest_only: bool = False
    check_crc: bool = True
    out_budget: int = OUT_BUDGET
    window_max: int = WINDOW_MAX
    media_type: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        if self.digest_only and (self.stream or self.write == "out"):
            raise ValueError("a job that inflates nothing has no output")
        if self.spool_fd >= 0 and (self.write != "out" or self.compression is Compression.NONE):
            raise ValueError("a blob is spooled beside what it inflates to")


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counters since the pool began; ``in_queued`` is the work that waits for a worker.

    ``ahead_nbytes`` of output came from pieces of a blob that were decoded before their turn, in
    ``ahead_ns``. Workers took the pool's lock ``n_locks`` times, waited for it ``n_lock_waits`` times.
    """

    in_queued: int
    in_used: int
    idle_ns: int
    inflate_ns: int
    hash_ns: int
    write_ns: int
    pair_nbytes: int
    single_nbytes: int
    ahead_ns: int = 0
    ahead_nbytes: int = 0
    n_locks: int = 0
    n_lock_waits: int = 0
    lock_wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a layer has cost so far: bytes of its blob that were hashed, bytes that came out of it, and the
    time that workers spent on it, in nanoseconds; not what they waited for the disk.
    """

    in_nbytes: int = 0
    out_nbytes: int = 0
    work_ns: int = 0


class InBuffer:
    """``view`` is writable and has ``len(view)`` bytes."""

    __slots__ = ("index", "view")

    def __init__(self, index: int, view: memoryview) -> None:
        self.index = index
        self.view = view


class PoolLayer(Protocol):
    """One blob in the pool. End it by :meth:`end` or :meth:`cancel`, then await :meth:`result`."""

    number: int

    def submit(self, buf: InBuffer, nbytes: int) -> bool:
        """The blob goes on with ``nbytes`` bytes of ``buf``. False: the layer has failed already."""

    def end(self) -> None:
        """No more input. May be called again."""

    def end_spool(self) -> None:
        """Write no more of the blob to the job's ``spool_fd``, which must stay open until the layer's end."""

    def cancel(self) -> None:
        """Drop what is queued; :meth:`result` then raises CancelledError. May be called again."""

    def spent(self) -> Spent:
        """What the layer has cost so far; also after its end."""

    async def abandon(self) -> None:
        """Cancel, and wait until no worker touches the layer; its error, if any, is not raised."""

    async def measured(self) -> BlobResult:
        """Wait until no worker touches the layer (nor its fd) any more; raises what went wrong.

        A TeeResult, unless the job was ``digest_only``.
        """

    async def result(self) -> TeeResult:
        """``measured`` of a job that inflates. Raises TypeError for another."""

    async def read(self) -> memoryview | None:
        """The next output, valid until the next call; None at the end of the output."""


class Pool(Protocol):
    """Workers and the buffers they share."""

    in_nbytes: int
    workers: int

    def take(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer | None:
        """A free buffer, if more than ``keep`` are free; else None, and ``on_free`` will be called.

        Name the ``layer`` that it is for: one that must go on for others to go on gets one in any case.
        """

    def give_back(self, buf: InBuffer) -> None: ...
    def open_layer(self, job: LayerJob) -> PoolLayer: ...
    def stats(self) -> PoolStats: ...
    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time a buffer is free after :meth:`take` returned None."""

    def off_free(self, callback: Callable[[], None]) -> None:
        """Undo :meth:`on_free`."""

    async def take_soon(self, keep: int = 0, layer: PoolLayer | None = None) -> InBuffer:
        """Wait for a buffer."""

    def close(self) -> None:
        """Join the workers. Every layer's result must have been awaited."""


def write_error(os_errno: int, path: str) -> LayerteeError:
    """What a failed write of a layer is called."""
    text = os.strerror(os_errno)
    if os_errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{path or 'destination'}: {text} while writing a layer", path=path)
    return LocalError(f"{path or 'destination'}: {text} while writing a layer", path=path)


def inflated(measured: BlobResult) -> TeeResult:
    """The same, when it was inflated. Raises TypeError."""
    if not isinstance(measured, TeeResult):
        raise TypeError(f"{measured.digest} was hashed, not inflated")
    return measured


class FreeWaiters:
    """Who waits for a free buffer: callbacks that stay, futures that are used once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._callbacks: list[Callable[[], None]] = []
        self._futures: list[asyncio.Future[None]] = []

    def add(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def remove(self, callback: Callable[[], None]) -> None:
        self._callbacks.remove(callback)

    def notify(self) -> None:
        for callback in self._callbacks:
            callback()
        futures, self._futures = self._futures, []
        for future in futures:
            if not future.done():
                future.set_result(None)

    async def take(self, keep: int, layer: PoolLayer | None) -> InBuffer:
        while (buf := self._pool.take(keep, layer)) is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._futures.append(future)
            await future
        return buf
