"""How much a transfer may take, and when it may use ranges: what a caller chooses."""

from __future__ import annotations

import enum

from ..backoff import LONGEST_WAIT_S
from ..image.given import of_declared_types
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
    ``backoff_s`` is the wait after the first, which doubles. ``patience_s`` is the longest wait that a server
    may ask for (Retry-After); one that asks for more has failed.
    """

    max_connections: int = 8
    ranges: RangeMode = RangeMode.AUTO
    max_rate: int | None = None
    range_nbytes: int = 4 << 20
    stall_s: float = 60.0
    stall_rate: int = 10 << 10
    attempts: int = 8
    backoff_s: float = 0.5
    patience_s: float = LONGEST_WAIT_S

    def __post_init__(self) -> None:
        of_declared_types(self, RangeMode)
        for name in ("max_connections", "max_rate", "range_nbytes", "stall_s", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is not above 0: {value}")
        for name in ("stall_rate", "backoff_s", "patience_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is below 0: {getattr(self, name)}")
