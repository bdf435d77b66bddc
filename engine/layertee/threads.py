"""Blocking calls off the event loop, without leaving them behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread; a cancelled caller still waits for it, then is cancelled.

    ``asyncio.to_thread`` returns at once when it is cancelled, with the thread still at work on a
    descriptor, a buffer or a lock that the caller is about to give up.
    """
    job = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not job.done():
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError as exc:
            if job.cancelled():
                raise
            cancelled = exc
        except BaseException:  # noqa: BLE001 - raised below, from the job itself
            break
    if cancelled is not None:
        if not job.cancelled():
            job.exception()  # retrieved: the cancellation is what the caller hears of
        raise cancelled
    return job.result()
