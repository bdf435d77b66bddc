"""Asking once more for something small, while that makes sense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..backoff import LONGEST_WAIT_S, asked_s, asks_too_much, backoff_s, tell_wait
from ..errors import LayerteeError

TRIES = 3

T = TypeVar("T")


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    tries: int = TRIES,
    patience_s: float = LONGEST_WAIT_S,
) -> T:
    """``await attempt()``, again while it fails with a retryable error, ``tries`` times in all.

    Between two, ``sleep`` waits: for as long as the server asked for, and a little longer each time. One that
    asks for more than ``patience_s`` seconds is not asked again. Raises what ``attempt`` raised last.
    """
    for failures in range(1, tries):
        try:
            return await attempt()
        except LayerteeError as exc:
            if not exc.retryable or asks_too_much(exc, patience_s):
                raise
            seconds = backoff_s(failures, asked_s=asked_s(exc))
            tell_wait(exc, seconds)
        await sleep(seconds)
    return await attempt()
