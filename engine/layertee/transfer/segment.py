"""A part of a blob on one connection, and the memory that all of them share.

Its bytes land in the pool's input buffers directly. Three rules bound that memory and keep it
live:

- every byte that arrives is in an input buffer, and their number is fixed;
- a segment ahead of its turn may not take the last buffers: one per transfer is left, so the
  segment that a layer needs next always gets one, sooner or later;
- without a buffer a segment does not read, and TCP slows the server down.

Everything here is decided synchronously, on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..core.pool import InBuffer, Pool, PoolLayer
from ..errors import LayerteeError, Timeout
from .connections import Widening
from .rate import RateLimiter

# More blobs at once gained nothing on a fast server, once two are in flight.
BLOBS_AT_ONCE = 3


class RangeMode(enum.Enum):
    """When a blob is fetched in ranges."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of a fetcher. Sizes in bytes, durations in seconds."""

    max_connections: int = 8
    ranges: RangeMode = RangeMode.AUTO
    max_rate: int | None = None
    range_nbytes: int = 4 << 20
    stall_s: float = 60.0
    stall_rate: int = 10 << 10
    attempts: int = 8
    backoff_s: float = 0.5


class Headers(Protocol):
    def get(self, key: str, /) -> str | None: ...
    def getall(self, key: str, default: list[str], /) -> list[str]: ...


class Receiver(Protocol):
    def get_buffer(self) -> memoryview | None: ...
    def landed(self, nbytes: int) -> None: ...


class Body(Protocol):
    """What :mod:`layertee.registry.http` gives for a response whose body is still to come."""

    status: int
    headers: Headers
    url: str
    content_length: int | None

    async def receive(self, receiver: Receiver, nbytes: int, *, exact: bool = False) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self, exc: LayerteeError) -> None: ...
    def close(self) -> None: ...


class Slots:
    """The connections in use, of which there may be ``widening.limit``.

    Helpers take one at once or not at all; blobs wait. Of blobs there are few at once, until more
    connections turn out to be worth having; then one goes to a blob that waits first.
    """

    def __init__(self, widening: Widening) -> None:
        self._widening = widening
        self._queue: deque[asyncio.Future[None]] = deque()
        self.n_open = 0

    @property
    def _n_free(self) -> int:
        """For blobs."""
        return min(self._widening.limit, max(BLOBS_AT_ONCE, self._widening.target)) - self.n_open

    @property
    def n_waiting(self) -> int:
        """Blobs that have no connection yet."""
        return len(self._queue)

    def try_take(self) -> bool:
        if self.n_open >= self._widening.limit or self._queue:
            return False
        self.n_open += 1
        return True

    async def take(self) -> None:
        while self._n_free <= 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            finally:
                if turn in self._queue:
                    self._queue.remove(turn)
        self.n_open += 1

    def give(self) -> None:
        self.n_open -= 1
        self.wake()

    def wake(self) -> None:
        """More connections may be had now, or one is free: for who waits longest."""
        for turn in list(self._queue)[: max(0, self._n_free)]:
            if not turn.done():
                turn.set_result(None)


class HostState:
    """What is remembered of a registry for as long as an engine lives.

    ``ranged``: it, or where it redirects to, has answered a range properly.
    """

    def __init__(self, max_connections: int) -> None:
        self.widening = Widening(max_connections)
        self.slots = Slots(self.widening)
        self.ranged = False
        self.nbytes = 0  # body bytes of all fetchers, as of their last ticks
        self.n_served = 0  # bodies that are arriving
        self._rangeless_until: dict[str, float] = {}

    def no_ranges(self, netloc: str, until: float) -> None:
        """Ask ``netloc`` for no more ranges than are needed, until then: servers get other settings."""
        self._rangeless_until[netloc] = until

    def may_range(self, netloc: str, now: float) -> bool:
        return now >= self._rangeless_until.get(netloc, 0.0)


class Shared:
    """What all segments of one fetcher share."""

    def __init__(self, pool: Pool, limits: FetchLimits, host: HostState) -> None:
        self.pool = pool
        self.limits = limits
        self.limiter = RateLimiter(limits.max_rate) if limits.max_rate else None
        self.host = host
        self.slots = host.slots
        self.n_transfers = 0
        self.nbytes = 0
        self.n_held = 0  # times that a connection had to wait for this machine
        self.fill: Callable[[], None] = _nothing  # opens the connections that are wanted
        self._waiting: deque[Segment] = deque()

    def queue(self, segment: Segment) -> None:
        self.n_held += 1
        self._waiting.append(segment)

    def unqueue(self, segment: Segment) -> None:
        if segment in self._waiting:
            self._waiting.remove(segment)

    def on_free(self) -> None:
        """Buffers are free again: first for what a layer needs next, then for who waited longest."""
        for segment in sorted(self._waiting, key=lambda waiting: not waiting.is_next):
            segment.wake()
            if segment.waiting and not segment.is_next:
                return  # queued again: nothing is left for those behind it


def _nothing() -> None:
    """Nobody is there to open connections."""


class Owner(Protocol):
    """The transfer, as its segments see it."""

    name: str
    layer: PoolLayer
    pace: Callable[[], float] | None
    """The seconds to wait before more is read, asked again after these; 0 to go on."""

    @property
    def next_byte(self) -> int:
        """The first byte of the blob that the pool has not got yet."""

    def count(self, nbytes: int) -> None:
        """Body bytes arrived, useful or not."""

    def deliver(self, start: int, buf: InBuffer, nbytes: int) -> None:
        """A buffer is filled; it holds the blob from ``start`` on."""


class Segment:
    """``[start, stop)`` of a blob on one connection; ``pos`` is how far it has come. A Receiver.

    ``probe``: it asks whether the server does ranges, and its bytes are not counted on yet.
    """

    def __init__(self, owner: Owner, shared: Shared, start: int, stop: int, *, probe: bool = False) -> None:
        self._owner = owner
        self._shared = shared
        self.start = self.pos = start
        self.stop = stop
        self.probe = probe
        self.body: Body | None = None
        self.skip = 0  # bytes of the body still to be discarded
        self.waiting = False  # for a buffer
        self._throttled = False
        self._paced = False  # because nobody wants the blob yet
        self._buf: InBuffer | None = None
        self._fill = 0
        self._scratch: memoryview | None = None
        self._window: tuple[float, int] | None = None
        self._n_landed = 0

    @property
    def buf_start(self) -> int:
        """Where in the blob the buffer being filled begins."""
        return self.pos - self._fill

    @property
    def is_next(self) -> bool:
        return self.buf_start == self._owner.next_byte

    @property
    def held(self) -> bool:
        """It waits for this machine, not for the network."""
        return self.waiting or (self._throttled and not self._paced)

    @property
    def streaming(self) -> bool:
        """Body bytes are arriving as fast as the network lets them."""
        return self.body is not None and self._n_landed > 0 and not self.held and not self._throttled

    # --- Receiver ---

    def get_buffer(self) -> memoryview | None:
        if self._throttled:
            return None
        shared = self._shared
        if self.skip:
            if self._scratch is None:
                self._scratch = memoryview(bytearray(64 << 10))
            return self._scratch[: min(self.skip, len(self._scratch))]
        if self._buf is None:
            self._buf = shared.pool.take(0 if self.is_next else shared.n_transfers, self._owner.layer)
            if self._buf is None:
                if not self.waiting:
                    self.waiting = True
                    shared.queue(self)
                return None
        room = min(len(self._buf.view), self._fill + self.stop - self.pos) - self._fill
        if shared.limiter is not None:
            room = min(room, shared.limiter.read_nbytes)
        return self._buf.view[self._fill : self._fill + room]

    def landed(self, nbytes: int) -> None:
        self._owner.count(nbytes)
        self._n_landed += nbytes
        if self.skip:
            self.skip -= nbytes
        else:
            self._fill += nbytes
            self.pos += nbytes
            assert self._buf is not None
            if self._fill == len(self._buf.view) or self.pos == self.stop:
                buf, start, fill = self._buf, self.buf_start, self._fill
                self._buf, self._fill = None, 0
                self._owner.deliver(start, buf, fill)
            if self.pos == self.stop:
                self.halt()
                return
        pace = self._owner.pace() if self._owner.pace is not None else 0.0
        limiter = self._shared.limiter
        limit = limiter.spend(nbytes, asyncio.get_running_loop().time()) if limiter is not None else 0.0
        if max(pace, limit) > 0 and self.body is not None:
            self._throttled, self._paced = True, pace > limit
            self._shared.n_held += not self._paced
            self.body.pause()
            asyncio.get_running_loop().call_later(max(pace, limit), self._unthrottle)

    # --- flow ---

    def _unthrottle(self) -> None:
        wait = self._owner.pace() if self._owner.pace is not None and self.body is not None else 0.0
        if wait > 0:
            self._paced = True
            asyncio.get_running_loop().call_later(wait, self._unthrottle)
            return
        self._throttled = self._paced = False
        if self.body is not None and not self.waiting:
            self.body.resume()

    def wake(self) -> None:
        """There may be a buffer now; without one, the segment queues again."""
        if not self.waiting:
            return
        self.waiting = False
        self._shared.unqueue(self)
        if self.body is not None:
            self.body.resume()  # asks get_buffer again

    def halt(self) -> None:
        if self.body is not None:
            self.body.stop()

    def check_stall(self, now: float) -> None:
        limits = self._shared.limits
        if self.body is None or self.held or self._throttled:
            self._window = None
            return
        if self._window is None:
            self._window = (now, self._n_landed)
            return
        since, before = self._window
        if now - since < limits.stall_s:
            return
        got = self._n_landed - before
        self._window = (now, self._n_landed)
        if got < limits.stall_rate * limits.stall_s:
            self.body.abort(
                Timeout(f"{self._owner.name}: {got} bytes in {now - since:.0f} s, the connection is too slow")
            )

    def attach(self, body: Body, skip: int) -> None:
        """A body begins, of which the first ``skip`` bytes are here already."""
        self.body = body
        self.skip = skip
        self._shared.host.n_served += 1

    def detach(self) -> None:
        """The connection, if there is one, is gone; what was received stays."""
        if self.body is not None:
            self.body = None
            self._shared.host.n_served -= 1
        self.skip = 0
        self._window = None
        if self.waiting:
            self.waiting = False
            self._shared.unqueue(self)

    def release(self) -> None:
        if self._buf is not None:
            self._shared.pool.give_back(self._buf)
            self._buf = None
