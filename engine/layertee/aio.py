"""What asyncio leaves out: work that ends before its caller does, and groups that raise what failed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def unwrapped_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup whose first failure is raised as itself, not inside an ExceptionGroup."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]  # one level: a group that the block itself raises stays whole
    else:
        return
    raise first  # out of the handler: its own cause and context stay


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait for ``future`` through every cancellation, without looking at what it holds.

    The first cancellation is raised once ``future`` is done, so that a caller which gives up waits for
    work that still uses what it is about to release.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as exc:
            if not future.cancelled():
                cancelled = cancelled or exc
        except BaseException:  # noqa: BLE001 - the future's own, for whoever takes its result
            break
    if cancelled is not None:
        raise cancelled


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread; a cancelled caller still waits for it, then is cancelled.

    ``asyncio.to_thread`` returns at once when it is cancelled, with the thread still at work on a
    descriptor, a buffer or a lock that the caller is about to give up.
    """
    job = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        await until_done(job)
    except asyncio.CancelledError:
        if not job.cancelled():
            job.exception()  # retrieved: the cancellation is what the caller hears of
        raise
    return job.result()


async def start_process(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """``create_subprocess_exec`` in a session of its own; killed if its caller is cancelled meanwhile.

    asyncio's own leaves that process running, and nobody knows it. Raises what that raises.
    """
    made = asyncio.create_subprocess_exec(*command, start_new_session=True, **options)
    starting = asyncio.ensure_future(made)
    try:
        await until_done(starting)
    except asyncio.CancelledError:
        if not starting.cancelled() and starting.exception() is None:
            process = starting.result()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await until_done(asyncio.ensure_future(process.wait()))
        raise
    return starting.result()
