"""How long a pull may take, all in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import DeadlineExceeded


@asynccontextmanager
async def in_time(deadline_s: float | None, *, spent_s: float = 0.0) -> AsyncIterator[None]:
    """The block ends within ``deadline_s`` seconds, if that is not None, or raises DeadlineExceeded.

    ``spent_s`` of them were spent before.
    """
    try:
        async with asyncio.timeout(None if deadline_s is None else max(0.0, deadline_s - spent_s)) as limit:
            yield
    except TimeoutError:
        if deadline_s is None or not limit.expired():
            raise
        raise DeadlineExceeded(
            f"the pull was not done after {deadline_s:g} s; what has arrived is kept, the next run goes on"
        ) from None
