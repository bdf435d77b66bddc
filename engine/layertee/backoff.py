"""How long to wait before asking a server again, and who hears of it: one rule for whoever asks. No clock."""

from __future__ import annotations

import logging
import random
from typing import Final
from urllib.parse import urlsplit

from .errors import LayerteeError, RateLimited, RegistryError
from .record import dataclass

MAX_WAIT_S = 60.0
LONGEST_WAIT_S: Final = 300.0
"""The longest wait that a server may ask for, unless a caller has more patience, or less."""
WORTH_TELLING_S: Final = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AskedWait:
    """``host`` answered ``status`` and asked for ``asked_s`` seconds; it is asked again after ``seconds``."""

    host: str
    status: int
    asked_s: float
    seconds: float


def backoff_s(failures: int, first_s: float = 0.5, *, asked_s: float = 0.0) -> float:
    """The wait in seconds before another attempt after ``failures`` (≥ 1) in a row: exponential, with jitter.

    Between a half and the whole of ``first_s * 2 ** (failures - 1)``, at most 60 s, on top of the
    ``asked_s`` that the server asked for. Jitter spreads a fleet whose registry comes back; to what a
    server asked for it only ever adds, up to a quarter.
    """
    ceiling = min(MAX_WAIT_S, first_s * 2.0 ** min(failures - 1, 16))
    return asked_s * lateness() + ceiling * random.uniform(0.5, 1.0)


def lateness() -> float:
    """By how much a wait that a server asked for is made longer: a factor, from 1 to 1.25."""
    return random.uniform(1.0, 1.25)


def asked_s(error: LayerteeError) -> float:
    """The seconds that a server asked to be left alone for; 0 where it did not."""
    return error.retry_after if isinstance(error, RateLimited) else 0.0


def asks_too_much(error: LayerteeError, patience_s: float) -> bool:
    """Whether a server asked for a longer wait than ``patience_s``; ``error`` then has a hint for that."""
    if asked_s(error) <= patience_s:
        return False
    error.with_hint("patience")
    return True


def tell_wait(error: LayerteeError, seconds: float) -> None:
    """A server asked for a wait, of ``seconds`` with what was added: a warning, if it is one to speak of.

    The record of the log has the :class:`AskedWait` as ``wait``.
    """
    asked = asked_s(error)
    if asked < WORTH_TELLING_S or not isinstance(error, RegistryError):
        return
    wait = AskedWait(urlsplit(error.url).netloc or "the registry", error.status, asked, seconds)
    log.warning(
        "%s answers %d and asks to be left alone for %s: it is asked again in %s",
        wait.host,
        wait.status,
        in_words(asked),
        in_words(seconds),
        extra={"wait": wait},
    )


def in_words(seconds: float) -> str:
    """``40 s``, ``5 min`` or ``1 h 4 min``: the greater of two units is enough."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
