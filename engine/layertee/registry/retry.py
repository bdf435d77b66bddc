"""Asking once more for something small, while that makes sense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..backoff import backoff_s
from ..errors import LayerteeError, RateLimited

TRIES = 3

T = TypeVar("T")


async def retrying(
    attempt: Callable[[], Awaitable[T]], *, sleep: Callable[[float], Awaitable[None]], tries: int = TRIES
) -> T:
    """``await attempt()``, again while it fails with a retryable error, ``tries`` times in all.

    Between two, ``sleep`` waits: for as long as the server asked for, and a little longer each time.
    Raises what ``attempt`` raised last.
    """
    for failures in range(1, tries):
        try:
            return await attempt()
        except LayerteeError as exc:
            if not exc.retryable:
                raise
            asked_s = exc.retry_after if isinstance(exc, RateLimited) else 0.0
        await sleep(backoff_s(failures, asked_s=asked_s))
    return await attempt()
