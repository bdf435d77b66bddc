"""How many connections to a registry are worth having. No I/O, no clock of its own.

The rule: a blob is one GET, and few are under way at once. Only when the workers have nothing to do,
although every connection delivers as fast as it can, may more be opened: first as many again, judged
by what all of them bring together. What helped is kept, and the next step may follow at once; what
did not is taken back, and the next try waits, longer each time. A server that says "too many" halves
the number at once, and it grows back by one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def __init__(self, max_connections: int) -> None:
        self._max = max_connections
        self.limit = max_connections
        self.always = False
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
