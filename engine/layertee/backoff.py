"""How long to wait before asking a server again: one formula for whoever asks. No I/O, no clock."""

from __future__ import annotations

import random

MAX_WAIT_S = 60.0


def backoff_s(failures: int, first_s: float = 0.5, *, asked_s: float = 0.0) -> float:
    """The wait in seconds before another attempt after ``failures`` (≥ 1) in a row: exponential, with jitter.

    Between a half and the whole of ``first_s * 2 ** (failures - 1)``, at most 60 s, on top of the
    ``asked_s`` that the server asked for. Jitter spreads a fleet whose registry comes back; to what a
    server asked for it only ever adds, up to a quarter.
    """
    ceiling = min(MAX_WAIT_S, first_s * 2.0 ** min(failures - 1, 16))
    return asked_s * random.uniform(1.0, 1.25) + ceiling * random.uniform(0.5, 1.0)
