"""From a connection into the buffers of a layer: one body after another, for one part of a blob.

Bytes land in the pool's input buffers directly. Three rules bound that memory and keep it live:

- every byte that arrives is in an input buffer, and their number is fixed;
- a segment ahead of its turn may not take the last buffers: one per blob is left, so the
  segment that a layer needs next always gets one, sooner or later;
- what a blob has ahead of its turn is bounded by itself, since it is lost when the process is killed;
- without a buffer a segment does not read, and TCP slows the server down.

Three objects, each knowing only those before it: the :class:`Buffers` of a fetcher, the :class:`Intake` of a
blob, the :class:`Segment` of a part. Everything here is decided synchronously, on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..core.pool import InBuffer, Pool, PoolLayer
from ..errors import LayerteeError, Timeout
from .limits import FetchLimits
from .ranges import Reassembly
from .rate import RateLimiter
from .schedule import Part

# Buffers that one blob may have ahead of what its layer needs next. Connections that began together fill
# their ranges together, and would need twice as many as they are; with fewer, they spread out in time.
MOST_AHEAD = 10
# Bytes that a layer has got and not hashed yet: when this machine is slower than the network, more would only
# be lost. The pool hashes a lone stream when six buffers wait (csrc/pool/lt_pool_work.c).
MOST_QUEUED = 7 << 20
_QUEUED_S = 0.004  # looked at again so soon: 7 MiB take longer
_SCRATCH_NBYTES = 64 << 10  # for bytes that are dropped


class Body(Protocol):
    """A response whose head has arrived, with its body still to come.

    ``content_length`` is None where the end of the body does not show in the head. Whatever happens,
    whoever got it calls ``close``.
    """

    status: int
    url: str
    content_length: int | None

    def fields(self, name: str, /) -> list[str]:
        """The values of the header fields of that name, in order."""

    async def receive(self, receiver: Segment, nbytes: int, *, exact: bool = False) -> None:
        """Bring ``nbytes`` bytes of the body to ``receiver``, whose ``get_buffer`` and ``landed`` it calls.

        Returns when they have landed, or after ``stop``. Raises TruncatedBody when the connection ends
        before, SizeMismatch when the body must be ``exact`` and goes on, what ``abort`` was given, and
        TransportError otherwise.
        """

    def pause(self) -> None:
        """Read no more, until ``resume``."""

    def resume(self) -> None:
        """Ask the receiver for a buffer again, and read on if it has one."""

    def stop(self) -> None:
        """End ``receive`` well: what is here is enough."""

    def abort(self, exc: LayerteeError) -> None:
        """End ``receive`` with ``exc``."""

    def close(self) -> None:
        """Drop the connection, unless the body was received to its end. May be called again."""


@dataclass(slots=True)
class FetchReport:
    """What a transfer cost. ``nbytes`` counts every body byte, dropped and repeated ones included.

    ``ranged``: the blob was put together from several answers, which may not have been of one version of it.
    ``content_encoding``: what an answer said of itself, though nothing of the kind was asked for.
    ``by_server``: ``nbytes`` by the names of the servers that sent them.
    """

    nbytes: int = 0
    ranged: bool = False
    content_encoding: str | None = None
    by_server: dict[str, int] = field(default_factory=dict)


class Buffers:
    """The pool's input buffers, as the connections of one fetcher share them, and their rate limit.

    ``nbytes`` counts the body bytes of all of them; ``n_held`` how often one had to wait for this machine.
    """

    def __init__(self, pool: Pool, limits: FetchLimits) -> None:
        self._pool = pool
        self.nbytes_each = pool.in_nbytes
        self.limiter = RateLimiter(limits.max_rate) if limits.max_rate else None
        self.most_ahead = max(MOST_AHEAD, limits.max_connections + 2)
        self.n_blobs = 0  # under way: for each, one buffer is not for those ahead of their turn
        self.nbytes = 0
        self.n_held = 0
        self._waiting: deque[Segment] = deque()

    def take(self, segment: Segment, layer: PoolLayer) -> InBuffer | None:
        """A buffer for ``segment``; without one it is woken when it may ask again."""
        buf = self._pool.take(0 if segment.is_next else self.n_blobs, layer)
        if buf is None and segment not in self._waiting:
            self.n_held += 1
            self._waiting.append(segment)
        return buf

    def give_back(self, buf: InBuffer) -> None:
        self._pool.give_back(buf)

    def forget(self, segment: Segment) -> None:
        """``segment`` waits no more."""
        if segment in self._waiting:
            self._waiting.remove(segment)

    def on_free(self) -> None:
        """Buffers are free again: first for what a layer needs next, then for who waited longest."""
        for segment in sorted(self._waiting, key=lambda waiting: not waiting.is_next):
            segment.wake()
            if segment.waiting and not segment.is_next:
                return  # queued again: nothing is left for those behind it


class Intake:
    """Where the bytes of one blob come in: over its segments, in any order; they leave in blob order.

    ``name`` is for messages. ``pace`` tells how many seconds to wait before more is read, asked again after
    these; 0 to go on. ``behind`` tells the same of what this machine is behind with. ``refused``: the layer
    takes no more, and its result tells why. The layer has the bytes before ``start``.
    """

    def __init__(
        self,
        name: str,
        buffers: Buffers,
        layer: PoolLayer,
        report: FetchReport,
        progress: Callable[[int], None] | None,
        pace: Callable[[], float] | None,
        behind: Callable[[], float] | None = None,
        start: int = 0,
    ) -> None:
        self.name = name
        self.buffers = buffers
        self.layer = layer
        self.report = report
        self.pace = pace
        self.behind = behind
        self.refused = False
        self.segments: list[Segment] = []
        self._pieces: Reassembly[InBuffer] = Reassembly(start)
        self._progress = progress

    @property
    def next_byte(self) -> int:
        """The first byte of the blob that the layer has not got yet."""
        return self._pieces.next

    @property
    def may_go_ahead(self) -> bool:
        """Whether a segment ahead of its turn may begin another buffer."""
        n_filling = sum(segment.is_ahead for segment in self.segments)
        n_queued = self._queued() // self.buffers.nbytes_each if self.behind is not None else 0
        return len(self._pieces) + n_filling + n_queued < self.buffers.most_ahead

    def behind_s(self) -> float:
        """How many seconds to wait for this machine before more is read."""
        if self.behind is None:
            return 0.0
        return max(self.behind(), _QUEUED_S if self._queued() > MOST_QUEUED else 0.0)

    def _queued(self) -> int:
        return self.next_byte - self.layer.spent().in_nbytes

    def deliver(self, start: int, buf: InBuffer, nbytes: int) -> None:
        """A filled buffer, which holds the blob from ``start`` on; it and those it was missing for go to
        the layer.
        """
        for piece, n in self._pieces.add(start, nbytes, buf):
            if not self.layer.submit(piece, n):
                self.refused = True
        if self._progress is not None:
            self._progress(nbytes)
        for segment in self.segments:
            if self.refused:
                segment.halt()
            elif segment.waiting and (segment.is_next or self.may_go_ahead):
                segment.wake()

    def drop_ahead(self) -> None:
        """Give back what waits for bytes before it."""
        for buf in self._pieces.drain():
            self.buffers.give_back(buf)


class Segment:
    """Fills buffers with one part of a blob, from one connection after another; what a body calls.

    While it is open, it is one of the intake's segments.
    """

    def __init__(self, part: Part, intake: Intake, received: Callable[[Part, int], None]) -> None:
        self.part = part
        self._intake = intake
        self._buffers = intake.buffers
        self._received = received
        self._body: Body | None = None
        self._skip = 0  # bytes of the body still to be dropped
        self.waiting = False  # for a buffer
        self._throttled = False  # by the rate limit or the pace
        self._paced = False  # by the pace: nobody wants the blob yet
        self._buf: InBuffer | None = None
        self._fill = 0
        self._scratch: memoryview | None = None
        self._window: tuple[float, int] | None = None
        self.n_landed = 0  # bytes, dropped ones included

    @property
    def is_next(self) -> bool:
        """The layer has everything before the buffer that is being filled."""
        return self.part.pos - self._fill == self._intake.next_byte

    @property
    def is_ahead(self) -> bool:
        """It is filling a buffer that the layer cannot take yet."""
        return self._buf is not None and not self.is_next

    @property
    def held(self) -> bool:
        """It waits for this machine, not for the network."""
        return self.waiting or (self._throttled and not self._paced)

    @property
    def streaming(self) -> bool:
        """Body bytes are arriving as fast as the network lets them."""
        return self._body is not None and self.n_landed > 0 and not self.waiting and not self._throttled

    # --- what a body calls: for every read, so as little as possible ---

    def get_buffer(self) -> memoryview | None:
        """The next place to write to, or None: nothing is read until the body is resumed."""
        if self._throttled:
            return None
        if self._skip:
            if self._scratch is None:
                self._scratch = memoryview(bytearray(_SCRATCH_NBYTES))
            return self._scratch[: min(self._skip, _SCRATCH_NBYTES)]
        if self._buf is None:
            if self.is_next or self._intake.may_go_ahead:
                self._buf = self._buffers.take(self, self._intake.layer)
            if self._buf is None:
                self.waiting = True
                return None
            if self.waiting:  # it was not woken, but resumed for another reason
                self.waiting = False
                self._buffers.forget(self)
        part, fill = self.part, self._fill
        room = min(len(self._buf.view) - fill, part.stop - part.pos)
        limiter = self._buffers.limiter
        if limiter is not None:
            room = min(room, limiter.read_nbytes)
        return self._buf.view[fill : fill + room]

    def landed(self, nbytes: int) -> None:
        """The first ``nbytes`` of what ``get_buffer`` gave are filled."""
        intake, part = self._intake, self.part
        intake.report.nbytes += nbytes
        self._buffers.nbytes += nbytes
        self.n_landed += nbytes
        if self._skip:
            self._skip -= nbytes
        else:
            self._fill += nbytes
            self._received(part, nbytes)
            complete = part.pos == part.stop
            assert self._buf is not None
            if self._fill == len(self._buf.view) or complete:
                buf, fill = self._buf, self._fill
                self._buf, self._fill = None, 0
                intake.deliver(part.pos - fill, buf, fill)
            if complete:
                self.halt()
                return
        limiter = self._buffers.limiter
        if limiter is not None or intake.pace is not None or intake.behind is not None:
            self._throttle(nbytes, limiter)

    # --- flow ---

    def _throttle(self, nbytes: int, limiter: RateLimiter | None) -> None:
        loop = asyncio.get_running_loop()
        pace = self._intake.pace() if self._intake.pace is not None else 0.0
        limit = limiter.spend(nbytes, loop.time()) if limiter is not None else 0.0
        limit = max(limit, self._intake.behind_s())
        if max(pace, limit) > 0 and self._body is not None:
            self._throttled, self._paced = True, pace > limit
            self._buffers.n_held += not self._paced
            self._body.pause()
            loop.call_later(max(pace, limit), self._unthrottle)

    def _unthrottle(self) -> None:
        pace = self._intake.pace
        wait = pace() if pace is not None and self._body is not None else 0.0
        if wait > 0:
            self._paced = True
            asyncio.get_running_loop().call_later(wait, self._unthrottle)
            return
        self._throttled = self._paced = False
        if self._body is not None and not self.waiting:
            self._body.resume()

    def wake(self) -> None:
        """There may be a buffer now; without one, the segment queues again."""
        if not self.waiting:
            return
        self.waiting = False
        self._buffers.forget(self)
        if self._body is not None:
            self._body.resume()  # asks get_buffer again

    def halt(self) -> None:
        """No more of this body."""
        if self._body is not None:
            self._body.stop()

    def check_stall(self, now: float, limits: FetchLimits, *, anew: bool = False) -> None:
        """Abort the body if too little has come since ``limits.stall_s`` ago. Waiting for this machine, or
        for whoever sets the pace, does not count, nor does what was before a look ``anew``.
        """
        if anew or self._body is None or self.waiting or self._throttled:
            self._window = None
            return
        if self._window is None:
            self._window = (now, self.n_landed)
            return
        since, before = self._window
        if now - since < limits.stall_s:
            return
        got = self.n_landed - before
        self._window = (now, self.n_landed)
        if got < limits.stall_rate * limits.stall_s:
            said = f"{self._intake.name}: {got} bytes in {now - since:.0f} s, the connection is too slow"
            self._body.abort(Timeout(said))

    # --- from its first body to its end ---

    def open(self) -> None:
        self._intake.segments.append(self)

    async def receive(self, body: Body, nbytes: int, *, skip: int, exact: bool) -> None:
        """Bring ``nbytes`` bytes of ``body``, of which the first ``skip`` are here already and are dropped.

        Returns early when the part, which may be shortened meanwhile, is complete, or the layer refuses
        it. What was received stays, whatever is raised: as ``Body.receive`` says.
        """
        self._body, self._skip = body, skip
        try:
            await body.receive(self, nbytes, exact=exact)
        finally:
            self._body, self._skip, self._window = None, 0, None
            if self.waiting:
                self.waiting = False
                self._buffers.forget(self)

    def close(self) -> None:
        """Give back the buffer that is not full. May be called again."""
        if self in self._intake.segments:
            self._intake.segments.remove(self)
        if self._buf is not None:
            self._buffers.give_back(self._buf)
            self._buf, self._fill = None, 0
