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

# Who waits, in order: how many bytes it asked for, and when.
_Queue = dict[asyncio.Future[None], tuple[int, float]]


class Throttle:
    """At most ``rate`` bytes per second (None: any number), for all who ask.

    Each asks for one slice at a time, and slices are given out in the order in which they were asked for, so
    that of n clients each gets a part in n. Documents have a queue of their own, and every second turn: they
    are small, and a client can do nothing before it has one. A turn is given when it comes, and not before,
    so that a client which leaves takes none with it. What no client wanted is not made up for later.
    """

    def __init__(self, rate: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = 0.0
        self._blobs: _Queue = {}
        self._documents: _Queue = {}
        self._was_document = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def slice(self) -> int:
        """The most bytes to ask for at once."""
        return SLICE if self._rate is None else max(min(self._rate // _SLICES_PER_S, SLICE), _LEAST_SLICE)

    async def turn(self, nbytes: int, *, is_document: bool = False) -> None:
        """Wait until ``nbytes`` may go."""
        if self._rate is None:
            return
        queue = self._documents if is_document else self._blobs
        comes = asyncio.get_running_loop().create_future()
        queue[comes] = (nbytes, self._clock())
        self.see_who_is_due()
        try:
            await comes
        except asyncio.CancelledError:
            if queue.pop(comes, None) is None:
                self.give_back(nbytes)  # it came at the same moment
            raise

    def give_back(self, nbytes: int) -> None:
        """So many bytes of a turn did not go, and will not."""
        if self._rate is not None:
            self._free_at -= nbytes / self._rate
            self.see_who_is_due()

    def see_who_is_due(self) -> None:
        """Give the turns that have come. Happens by itself, if the clock is the event loop's."""
        if self._rate is None:
            return
        while queue := self._next():
            if (wait_s := self._free_at - self._clock()) > 0:
                self._look_again_in(wait_s)
                return
            comes, (nbytes, asked_at) = next(iter(queue.items()))
            del queue[comes]
            if comes.done():  # cancelled, and its task has not run since
                continue
            # From when it could have been given: a timer that is late costs nothing of the rate.
            self._free_at = max(self._free_at, asked_at) + nbytes / self._rate
            self._was_document = queue is self._documents
            comes.set_result(None)

    def _next(self) -> _Queue:
        first, second = self._documents, self._blobs
        if self._was_document:
            first, second = second, first
        return first or second

    def _look_again_in(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.see_who_is_due)


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
