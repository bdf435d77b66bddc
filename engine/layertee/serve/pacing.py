"""How fast bytes go: not faster than allowed for all together, and not slower than a client must take them.

No sockets: what was taken is asked for, and time is an argument.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLICE = 1 << 20  # bytes that go in one piece where no rate is set: one call of sendfile, which blocks nothing
_LEAST_SLICE = 1024
_SLICES_PER_S = 10  # of a rate: how often each of a few clients has its turn

STALL_S = 30.0  # a client's disk may be busy for so long with what it has got; also before an average counts
MIN_RATE = 1000  # bytes per second


class Throttle:
    """At most ``rate`` bytes per second (None: any number), for all who ask, in the order in which they do.

    Each asks for one slice at a time, so that of n clients each gets a part in n. What no client wanted
    is not made up for later.
    """

    def __init__(self, rate: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = 0.0

    @property
    def slice(self) -> int:
        """The most bytes to ask for at once."""
        return SLICE if self._rate is None else max(min(self._rate // _SLICES_PER_S, SLICE), _LEAST_SLICE)

    def due_in(self, nbytes: int) -> float:
        """Take the next turn for ``nbytes``; the seconds until it comes."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        turn = max(self._free_at, now)
        self._free_at = turn + nbytes / self._rate
        return turn - now

    async def turn(self, nbytes: int) -> None:
        """Wait until ``nbytes`` may go."""
        if (wait_s := self.due_in(nbytes)) > 0:
            await asyncio.sleep(wait_s)


class Watch:
    """Looks at how one client takes its answer. ``taken`` says how many bytes its machine has confirmed.

    Only the time counts in which the server waits for the client: not that of a throttle, or of a slow disk.
    """

    def __init__(
        self, taken: Callable[[], int], *, stall_s: float = STALL_S, min_rate: int = MIN_RATE
    ) -> None:
        self._taken = taken
        self._stall_s = stall_s
        self._min_rate = min_rate
        self._first = self._last = taken()
        self._waiting_since: float | None = None
        self._looked_at = 0.0
        self._still_s = 0.0
        self._waited_s = 0.0
        self.is_waiting = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what ends when the client has taken something."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    def is_too_slow(self, now: float) -> bool:
        """Look once more; to be called now and then, about every second."""
        since, self._looked_at = now - self._looked_at, now
        taken = self._taken()
        was_still = taken == self._last
        self._last = taken
        if not self.is_waiting:
            self._waiting_since = None
            self._still_s = 0.0
            return False
        if self._waiting_since is None:
            self._waiting_since = now
            return False
        self._waited_s += since
        self._still_s = self._still_s + since if was_still else 0.0
        if self._still_s >= self._stall_s:
            return True
        counted = self._waited_s - self._stall_s
        return counted > 0 and taken - self._first < counted * self._min_rate
