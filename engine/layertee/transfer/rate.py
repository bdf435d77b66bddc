"""How fast: the rate limit that all connections of a fetcher keep together. No I/O, no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimiter:
    """A token bucket in bytes, shared by all connections.

    Bytes are paid for after they arrived, so the balance goes below zero and the answer is how
    long to stop reading. Over any period the rate is kept to within one read per connection.
    """

    bytes_per_s: float
    _balance: float = field(default=0.0, init=False)
    _then: float | None = field(default=None, init=False)

    def spend(self, nbytes: int, now: float) -> float:
        """Pay for ``nbytes``; the seconds to wait before reading again."""
        if self._then is not None:
            earned = (now - self._then) * self.bytes_per_s
            self._balance = min(self._balance + earned, self.bytes_per_s * 0.1)
        self._then = now
        self._balance -= nbytes
        return max(0.0, -self._balance / self.bytes_per_s)

    @property
    def read_nbytes(self) -> int:
        """The most to read at once, so that slow rates stay smooth."""
        return max(4 << 10, int(self.bytes_per_s / 16))
