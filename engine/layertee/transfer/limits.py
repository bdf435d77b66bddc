"""How much a transfer may take, and when it may use ranges: what a caller chooses."""

from __future__ import annotations

import enum

from ..record import dataclass


class RangeMode(enum.Enum):
    """When a blob is fetched in ranges."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of a fetcher. Sizes in bytes, rates in bytes per second, durations in seconds.

    ``max_connections`` and ``max_rate`` are for all transfers together. A connection that brings less than
    ``stall_rate`` for ``stall_s`` is given up; an answer may begin as late, and up to four times as late when
    it is asked for again. ``attempts`` in a row without progress end a transfer;
    ``backoff_s`` is the wait after the first, which doubles.
    """

    max_connections: int = 8
    ranges: RangeMode = RangeMode.AUTO
    max_rate: int | None = None
    range_nbytes: int = 4 << 20
    stall_s: float = 60.0
    stall_rate: int = 10 << 10
    attempts: int = 8
    backoff_s: float = 0.5
