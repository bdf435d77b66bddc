"""What asyncio leaves out: work that ends before its caller does, and groups that raise what failed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


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


async def until_done(
    future: asyncio.Future[Any], *, when_cancelled: Callable[[], None] = lambda: None
) -> None:
    """Wait for ``future`` through every cancellation, without looking at what it holds.

    The first cancellation is raised once ``future`` is done, so that a caller which gives up waits for
    work that still uses what it is about to release. ``when_cancelled`` may ask that work to end soon.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as exc:
            if not future.cancelled():
                cancelled = cancelled or exc
                when_cancelled()
        except BaseException:  # noqa: BLE001 - the future's own, for whoever takes its result
            break
    if cancelled is not None:
        raise cancelled


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread; a cancelled caller still waits for it, then is cancelled.

    ``asyncio.to_thread`` returns at once when it is cancelled, with the thread still at work on a
    descriptor, a buffer or a lock that the caller is about to give up. A function that may take long
    asks ``is_given_up`` now and then.
    """
    return await in_thread_of(None, function, *args, **kwargs)


async def in_thread_of(
    threads: Executor | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """``in_thread`` with a thread of ``threads``; None are those that everything else shares."""
    given_up = threading.Event()
    context = copy_context()

    def run() -> T:
        _given_up.set(given_up)  # in the copy of the context
        return function(*args, **kwargs)

    job = asyncio.get_running_loop().run_in_executor(threads, context.run, run)
    try:
        await until_done(job, when_cancelled=given_up.set)
    except asyncio.CancelledError:
        if not job.cancelled():
            job.exception()  # retrieved: the cancellation is what the caller hears of
        raise
    return job.result()


def mark_given_up(given_up: threading.Event) -> None:
    """From now on, in this context, ``is_given_up`` goes by ``given_up``."""
    _given_up.set(given_up)


def is_given_up() -> bool:
    """Whether the caller of ``in_thread``, in whose thread this is asked, was cancelled meanwhile."""
    given_up = _given_up.get()
    return given_up is not None and given_up.is_set()


def refuse_event_loop(advice: str) -> None:
    """Raises RuntimeError in a thread whose event loop is running, which would wait for itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"this would block the event loop that it is called on; {advice}")


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
