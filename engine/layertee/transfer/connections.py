"""The connections to one registry: who may have one, and how many are worth having. No I/O.

The rule: a blob is one GET, and few are under way at once. Only when the workers have nothing to do,
although every connection delivers as fast as it can, may more be opened: first as many again, judged
by what all of them bring together. What helped is kept, and the next step may follow at once; what
did not is taken back, and the next try waits, longer each time. A server that says "too many" halves
the number at once, and it grows back by one at a time.

:class:`Widening` is that rule alone, on a clock that its caller turns. :class:`Connections` applies it, to
all fetchers of a registry together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..backoff import WORTH_TELLING_S, asked_s, lateness
from ..errors import LayerteeError
from ..record import dataclass
from .limits import FetchLimits, RangeMode

TICK_S = 0.025
# One look says little. This much of a pull is lost before the first connection is added.
STARVED_S = 0.075
# Buffers of 1 MiB that wait for a worker: 0 to 1 while three connections of 40 MB/s were the limit, 3
# to 5 when other programs had half of the CPU; 29 to 32 of 32 while the workers were the limit.
FEW_QUEUED = 4
# A connection above this is not a slow one: what is missing then is missing on this machine, or
# all of the link. Content delivery networks cap at a third of it.
FAST = 100e6
SETTLE_S = 0.1  # a connection needs a round trip or two before it brings anything
WINDOW_S = 0.25
TRIAL_S = 1.5  # and slow start takes longer on a long way
# Of the throughput that as many more connections would bring if each were worth the same, so much
# must have come: 25 % more for twice as many.
WORTH = 0.25
HOLD_S, MAX_HOLD_S = 5.0, 60.0
GROW_S, BEYOND_S = 5.0, 60.0  # one more, below and beyond the number that was refused
FORGET_S = 600.0
# More blobs at once gained nothing on a fast server, once two are in flight.
BLOBS_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """How the transfers stand. ``nbytes`` counts all body bytes so far.

    ``n_queued`` buffers wait for a worker; ``held``: a connection had to wait for this machine, for a
    buffer or for the rate limit, since the last sample; ``n_open`` connections are in use; ``room``:
    there is a blob that another connection could help with, or that waits for its first.
    """

    now: float
    nbytes: int
    n_queued: int
    held: bool
    n_open: int
    room: bool

    @property
    def fed(self) -> bool:
        """The workers have something to do."""
        return self.n_queued > FEW_QUEUED

    @property
    def starved(self) -> bool:
        """They have not, and it is the network that is slow."""
        return not self.fed and not self.held and self.room


@dataclass(slots=True)
class _Trial:
    """Since ``began`` there should be more connections than ``n_before``, which brought ``rate``."""

    n_before: int
    rate: float
    began: float
    window: Sample | None = None
    fed: bool = True


class Widening:
    """The number of connections to one registry; lives as long as what is remembered of it.

    ``target``: connections are added while fewer are open. ``limit``: no connection at all beyond it.
    ``pause_until``: no request before. ``always``: as many as there may be, without asking why.
    """

    def __init__(self, max_connections: int, *, always: bool = False) -> None:
        self._max = max_connections
        self.limit = max_connections
        self.always = always
        self._wanted = 0
        self.pause_until = 0.0
        self._last = 0.0
        self._starved: Sample | None = None
        self._trial: _Trial | None = None
        self._hold_s = HOLD_S
        self._hold_until = 0.0
        self._refused_at = float("-inf")
        self._n_refused = max_connections + 1
        self._grow_at = 0.0

    @property
    def target(self) -> int:
        return self.limit if self.always else min(self._wanted, self.limit)

    def sample(self, at: Sample) -> None:
        """Look at how things stand, every :data:`TICK_S`, and decide."""
        if at.now - self._last > FORGET_S:
            self._wanted = 0
        if at.now - self._last > STARVED_S * 5:  # nothing was fetched meanwhile, or nobody looked
            self._starved = self._trial = None
        self._last = at.now
        self._grow_back(at.now)
        if self._trial is not None:
            self._judge(self._trial, at)
        else:
            self._watch(at)

    def refused(self, now: float, *, asked: float, n_open: int, n_served: int, retry_after: float) -> None:
        """A request, sent at ``asked``, was turned away, while ``n_open`` connections were in use.

        If ``n_served`` of them were getting their bytes, it was one too many; if none were, the server
        wants to be left alone, however many they are. A burst of refusals counts once.
        """
        self.pause_until = max(self.pause_until, now + retry_after)
        if n_served == 0 or asked <= self._refused_at:
            return
        self._refused_at = now
        self._n_refused = n_open
        self.limit = max(1, n_open // 2)
        self._wanted = min(self._wanted, self.limit)
        self._trial = None
        self._grow_at = max(now, self.pause_until) + GROW_S

    def _grow_back(self, now: float) -> None:
        if self.limit < self._max and now >= self._grow_at:
            self.limit += 1
            self._grow_at = now + (GROW_S if self.limit + 1 < self._n_refused else BEYOND_S)

    def _watch(self, at: Sample) -> None:
        if not at.starved or at.now < self._hold_until or at.n_open >= self.limit:
            self._starved = None
        elif self._starved is None:
            self._starved = at
        elif at.now - self._starved.now >= STARVED_S:
            rate = _rate(self._starved, at)
            self._starved = None
            if rate < FAST * at.n_open:
                refused_before = self._refused_at > float("-inf")
                step = 1 if refused_before else at.n_open
                self._wanted = min(self.limit, at.n_open + step)
                self._trial = _Trial(at.n_open, rate, at.now)

    def _judge(self, trial: _Trial, at: Sample) -> None:
        if at.now - trial.began < SETTLE_S:
            return
        if at.n_open <= trial.n_before:  # blobs came to their end, or the server has no ranges
            self._trial = None
            return
        if trial.window is None:
            trial.window, trial.fed = at, at.fed
            return
        trial.fed = trial.fed and at.fed
        if at.now - trial.window.now < WINDOW_S:
            return
        worth = 1 + WORTH * (at.n_open / trial.n_before - 1)
        if trial.fed or _rate(trial.window, at) >= trial.rate * worth:
            self._trial = None
            self._hold_s = HOLD_S
        elif at.now - trial.began >= TRIAL_S:
            self._trial = None
            self._wanted = trial.n_before
            self._hold_until = at.now + self._hold_s
            self._hold_s = min(MAX_HOLD_S, self._hold_s * 2)
        else:
            trial.window, trial.fed = at, at.fed


def _rate(then: Sample, now: Sample) -> float:
    return (now.nbytes - then.nbytes) / (now.now - then.now)


class Connections:
    """The connections to one registry, and what is remembered of it for as long as an engine lives.

    ``take`` one for a blob, ``take_now`` one more for a blob that has one, ``give`` it back; ``tick`` tells
    how things stand, every :data:`TICK_S` while anything is fetched. A connection is the right to have one
    request under way; the sockets are the transport's. Belongs to one event loop; any number of fetchers.

    A registry's mirrors are counted with it: their transfers are the same, only asked for elsewhere. What is
    known of one of them, by its host, is kept apart.
    """

    def __init__(self, limits: FetchLimits) -> None:
        self._widening = Widening(limits.max_connections, always=limits.ranges is RangeMode.ALWAYS)
        self._queue: deque[asyncio.Future[None]] = deque()
        self._n_open = 0
        self._n_arriving = 0  # bodies, not heads: these connections are being served
        self._nbytes = 0
        self._rangeless_until: dict[str, float] = {}
        self._ranged: dict[str, bool] = {}
        self._paused_by = ""
        self._patience_s = limits.patience_s
        self._lateness = lateness()  # a date is the same for a whole fleet
        self._told_until = float("-inf")

    # --- who has one ---

    @property
    def wants_more(self) -> bool:
        """More than are open are worth having."""
        return self._n_open < self._widening.target

    def is_enough_for(self, n_blobs: int) -> bool:
        """Whether no more connections are worth having than so many blobs have anyway."""
        return self._widening.target <= n_blobs

    async def take(self) -> None:
        """A connection for a blob that has none, when it is its turn.

        Of blobs there are few at once, until more connections turn out to be worth having; then one goes
        to a blob that waits before it goes to one that is under way.
        """
        while self._n_free <= 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._queue.remove(turn)
                self._wake()  # what it was woken for, if it was, is for the next
                raise
            self._queue.remove(turn)
        self._n_open += 1

    def take_now(self) -> bool:
        """One more connection for a blob that has one already: at once, or not at all."""
        if self._n_open >= self._widening.limit or self._queue:
            return False
        self._n_open += 1
        return True

    def give(self) -> None:
        """A connection that was taken is free again."""
        self._n_open -= 1
        self._wake()

    def tick(self, now: float, *, nbytes: int, n_queued: int, held: bool, room: bool) -> None:
        """How a fetcher stands: ``nbytes`` more have come since its last tick; ``n_queued``, ``held`` and
        ``room`` as :class:`Sample` has them, but that blobs which wait here need not be known to it.
        """
        self._nbytes += nbytes
        room = room or bool(self._queue)
        self._widening.sample(Sample(now, self._nbytes, n_queued, held, self._n_open, room))
        self._wake()

    @property
    def _n_free(self) -> int:
        """For blobs."""
        widening = self._widening
        return min(widening.limit, max(BLOBS_AT_ONCE, widening.target)) - self._n_open

    def _wake(self) -> None:
        """More connections may be had now, or one is free: for who waits longest."""
        for turn in list(self._queue)[: max(0, self._n_free)]:
            if not turn.done():
                turn.set_result(None)

    # --- what the server is like ---

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a body arrives: its connection is one that the server does serve."""
        self._n_arriving += 1
        try:
            yield
        finally:
            self._n_arriving -= 1

    def is_ranged(self, host: str) -> bool | None:
        """Whether ``host``, or where it redirects to, answers ranges properly; None: not known."""
        return self._ranged.get(host)

    def learn(self, host: str, *, ranged: bool) -> None:
        """``host`` has answered a range, properly or not."""
        self._ranged[host] = ranged

    def pause_s(self, now: float, host: str) -> float:
        """The seconds before the next request may be sent to ``host``; 0 or less: at once."""
        return self._widening.pause_until - now if host == self._paused_by else 0.0

    def refused(self, error: LayerteeError, now: float, *, asked: float, host: str) -> None:
        """A request, sent to ``host`` at ``asked``, was turned away: as one connection too many."""
        self._paused_by = host
        self._widening.refused(
            now,
            asked=asked,
            n_open=self._n_open,
            n_served=self._n_arriving,
            retry_after=min(asked_s(error), self._patience_s) * self._lateness,
        )

    def is_news(self, error: LayerteeError, now: float) -> bool:
        """Whether the wait that ``error`` asks for ends later than the last that this was asked about."""
        until = now + asked_s(error)
        if until - self._told_until < WORTH_TELLING_S:
            return False
        self._told_until = until
        return True

    def no_ranges(self, netloc: str, until: float) -> None:
        """Ask ``netloc`` for no more ranges than are needed, until then: servers get other settings."""
        self._rangeless_until[netloc] = until

    def may_range(self, netloc: str, now: float) -> bool:
        """Whether ranges of ``netloc`` are worth a try."""
        return now >= self._rangeless_until.get(netloc, 0.0)
