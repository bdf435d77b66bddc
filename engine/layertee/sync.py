"""The same for callers without an event loop.

Rules of this file: what is said and decided stands in engine.py; here it is only waited for. Whoever waits
may be interrupted (KeyboardInterrupt): what was waited for is cancelled, and has ended when the interruption
is raised. It has kept what a cancelled pull keeps.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from .aio import refuse_event_loop
from .engine import Engine, ImageName, Inspection, Options
from .pulling.deadline import in_time
from .pulling.plan import Form, Verify

if TYPE_CHECKING:
    from .disk.space import Space
    from .image.platform import Platform
    from .pulling.imageplan import ImagePlan
    from .pulling.plan import LayerPlan, Want
    from .pulling.report import ProgressCallback, PullResult, VerifyCallback
    from .pulling.stream import LayerStream
    from .pulling.tags import RepositoryTags
    from .pulling.verify import VerifyReport
    from .store.store import Store

T = TypeVar("T")

_ADVICE = "there, use layertee.Engine"
_CLOSED = "the engine was closed meanwhile"
_FORKED = "the engine is the parent's: a process that was forked has none of its threads; make one in each"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on an event loop of its own, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()

    class Loop(uvloop.Loop):
        """uvloop's, with names looked up by threads of ours. Its own are joined when the process exits, also
        by one that was forked and has not got them: that would crash at its end.
        """

        async def getaddrinfo(
            self,
            host: str | bytes | None,
            port: str | bytes | int | None,
            *,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> list[Any]:
            try:  # most hosts that are looked up a second time are addresses
                return socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
            except socket.gaierror:
                return await _in_passing(lambda: socket.getaddrinfo(host, port, family, type, proto, flags))

    return Loop()


async def _in_passing(work: Callable[[], T]) -> T:
    """What ``work`` gives, in a thread that nobody waits for: a name server that is mute holds up no end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(found: T | None, exc: OSError | UnicodeError | None) -> None:
        if done.done():
            return
        if exc is not None:
            done.set_exception(exc)
        else:
            done.set_result(cast("T", found))

    def main() -> None:
        found, failed = None, None
        try:
            found = work()
        except (OSError, UnicodeError) as exc:
            failed = exc
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, found, failed)

    threading.Thread(target=main, name="layertee-lookup", daemon=True).start()
    return await done


def pull(
    reference: str,
    *,
    store: Store | Path | str | None = None,
    form: Form | str = Form.AS_IS,
    verify: Verify | str = Verify.BOTH,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
    all_platforms: bool = False,
) -> PullResult:
    """Pull ``reference`` into ``store`` and return what happened.

    As :meth:`Engine.plan` and :meth:`Engine.pull`, whose errors it raises. Not to be called from a
    coroutine (RuntimeError).
    """

    async def main() -> PullResult:
        async with Engine(store, options=options) as engine, engine.in_time():
            plan = await engine.plan(reference, form=form, verify=verify, all_platforms=all_platforms)
            return await engine.pull(plan, progress)

    return run(main())


class SyncEngine:
    """What an Engine does, for threads; a context manager.

    It has an event loop in a thread of its own. Any thread may call it, several at once, but none on whose
    event loop it would wait (RuntimeError). Errors are raised in the thread that called. Leaving the block
    cancels what other threads wait for, which is a RuntimeError there. An engine that is forgotten inside its
    block is a ResourceWarning, and ends. A process that was forked cannot use its parent's (RuntimeError).
    """

    _home: _Home | None = None

    def __init__(self, store: Store | Path | str | None = None, *, options: Options | None = None) -> None:
        self._engine = Engine(store, options=options)
        self._was_used = False

    def __enter__(self) -> Self:
        refuse_event_loop(_ADVICE)
        if self._was_used:
            raise RuntimeError("an engine has one block: make another one")
        self._was_used = True
        self._home = home = _Home(self._engine)
        try:
            home.open()
        except BaseException:
            self._home = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        home, self._home = self._home, None
        if home is not None and home.is_ours:
            home.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        home, self._home = self._home, None
        if home is not None and home.is_ours:
            home.end()  # not waited for: any thread may come by, also the engine's own
            warn(f"an engine was not closed: {self!r}", ResourceWarning, stacklevel=2, source=self)

    @property
    def store(self) -> Store:
        """As of the Engine."""
        return self._engine.store

    @property
    def space(self) -> Space:
        """As of the Engine."""
        return self._engine.space

    @property
    def platform(self) -> Platform:
        """As of the Engine."""
        return self._engine.platform

    @property
    def options(self) -> Options:
        """As of the Engine."""
        return self._engine.options

    def in_time(self) -> AbstractContextManager[None]:
        """As :meth:`Engine.in_time`, for what this thread calls inside the block."""
        return self._bounded()

    # --- what it does ---

    def plan(
        self,
        reference: str,
        want: Want | None = None,
        *,
        form: Form | str | None = None,
        verify: Verify | str | None = None,
        name: str | ImageName | None = ImageName.AS_REFERENCE,
        all_platforms: bool = False,
    ) -> ImagePlan:
        """As :meth:`Engine.plan`."""
        return self._wait(
            lambda: self._engine.plan(
                reference, want, form=form, verify=verify, name=name, all_platforms=all_platforms
            )
        )

    def inspect(self, reference: str, want: Want | None = None, *, enforce: bool = False) -> Inspection:
        """As :meth:`Engine.inspect`."""
        return self._wait(lambda: self._engine.inspect(reference, want, enforce=enforce))

    def tags(self, repository: str) -> RepositoryTags:
        """As :meth:`Engine.tags`."""
        return self._wait(lambda: self._engine.tags(repository))

    def pull(self, plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult:
        """As :meth:`Engine.pull`. ``progress`` is called in the engine's own thread, which it should not hold
        up, and cannot call the engine.
        """
        return self._wait(lambda: self._engine.pull(plan, progress))

    def remember(self, plan: ImagePlan) -> tuple[str, ...]:
        """As :meth:`Engine.remember`."""
        return self._wait(lambda: self._engine.remember(plan))

    def open_layer(self, step: LayerPlan) -> AbstractContextManager[LayerStream]:
        """As :meth:`Engine.open_layer`; the stream is read by ``for`` or as a file, in any thread."""
        return self._held(lambda: self._engine.open_layer(step))

    def verify(self, progress: VerifyCallback | None = None) -> VerifyReport:
        """As :meth:`Engine.verify`."""
        return self._wait(lambda: self._engine.verify(progress))

    # --- inside ---

    def _call(
        self, make: Callable[[], Coroutine[Any, Any, T]], news: threading.Event | None = None
    ) -> _Call[T]:
        refuse_event_loop(_ADVICE)
        if self._home is None:
            raise RuntimeError("use the engine inside 'with'")
        if not self._home.is_ours:
            raise RuntimeError(_FORKED)
        call = _Call(self._home, make, news)
        call.begin()
        return call

    def _wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        engine, since = _since.get()
        if engine is not self:
            return self._call(make).wait()

        async def bounded() -> T:
            spent_s = time.monotonic() - since
            async with in_time(self.options.budget.deadline_s, spent_s=spent_s):
                return await make()

        return self._call(bounded).wait()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        token = _since.set((self, time.monotonic()))
        try:
            yield
        finally:
            _since.reset(token)

    @contextmanager
    def _held(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
        """What is entered and left in one task of the loop, as task groups have to be."""
        entered: list[T] = []
        news = threading.Event()
        leave = asyncio.Event()

        async def hold() -> None:
            async with make() as value:
                entered.append(value)
                news.set()
                await leave.wait()

        call = self._call(hold, news)
        call.until(news)
        if not entered:
            call.wait()
        try:
            yield entered[0]
        except BaseException:
            call.give_up()  # what the block raised says more than what comes of that
            raise
        if call.home.is_ours:
            call.home.soon(leave.set)
            call.wait()


# The engine of the block of ``in_time`` that this thread is in, and when that began.
_since: ContextVar[tuple[SyncEngine | None, float]] = ContextVar("since", default=(None, 0.0))


class _Home(threading.Thread):
    """An event loop, and the engine that is open on it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="layertee", daemon=True)  # a program that forgets it can end
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._is_left = False  # written by who closes, and on the loop
        self._opened = threading.Event()
        self._failed: BaseException | None = None
        self._calls: set[_Call[Any]] = set()
        self._lock = threading.RLock()  # of the calls; a thread that has it may come to __del__
        self._pid = os.getpid()
        self._is_over = False

    def run(self) -> None:
        try:
            run(self._main())
        except BaseException as exc:  # noqa: BLE001 - raised by who opens or closes
            self._failed = exc
        finally:
            with self._lock:
                self._is_over = True
                calls = list(self._calls)
            for call in calls:  # those that the loop did not come to
                call.on_end()
            self._opened.set()

    async def _main(self) -> None:
        self._leave = leave = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_left:
            return
        async with self._engine:
            self._opened.set()
            await leave.wait()
            while tasks := self._tasks():
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        with self._lock:
            return [call.task for call in self._calls if call.task is not None]

    @property
    def is_ours(self) -> bool:
        """Whether this process has the thread: one that was forked has not."""
        return self._pid == os.getpid()

    @property
    def is_left(self) -> bool:
        """Whether nothing new is begun."""
        return self._is_left

    def open(self) -> None:
        """Raises what opening the engine raises."""
        self.start()
        try:
            self._opened.wait()
        except BaseException:
            self.close()
            raise
        self._raise_failure()

    def close(self) -> None:
        """Raises what closing the engine raises."""
        self.end()
        self.join()
        self._raise_failure()

    def end(self) -> None:
        """Begin to close."""
        self._is_left = True
        if self._leave is not None:
            self.soon(self._leave.set)

    def enter(self, call: _Call[Any]) -> None:
        """``call`` is one of those that end with the loop at the latest. Raises RuntimeError after that."""
        with self._lock:
            if self._is_over:
                raise RuntimeError(_CLOSED)
            self._calls.add(call)

    def leave(self, call: _Call[Any]) -> None:
        with self._lock:
            self._calls.discard(call)

    def soon(self, function: Callable[[], object]) -> None:
        """Call it on the loop, unless that has ended."""
        with self._lock:  # the loop is closed after it is over
            if self._loop is not None and not self._is_over and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(function)

    def _raise_failure(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed


class _Call(Generic[T]):
    """A coroutine that runs on the loop of ``home``, and the thread that waits for it.

    ``news`` is an event that is set at its end as well.
    """

    def __init__(
        self, home: _Home, make: Callable[[], Coroutine[Any, Any, T]], news: threading.Event | None
    ) -> None:
        self.home = home
        self.task: asyncio.Task[T | None] | None = None
        self._make = make
        self._stopped: BaseException | None = None
        self._ended = threading.Event()
        self._news = news

    def begin(self) -> None:
        """Raises RuntimeError if the engine was closed."""
        self.home.enter(self)
        self.home.soon(self._start)

    def wait(self) -> T:
        """Its result. Raises what it raises, RuntimeError if the engine was closed meanwhile."""
        self.until(self._ended)
        if self.task is None or self.task.cancelled():
            raise RuntimeError(_CLOSED)
        if self._stopped is not None:
            raise self._stopped
        return cast(T, self.task.result())

    def until(self, event: threading.Event) -> None:
        """Wait for ``event``. Who is interrupted meanwhile has given up. Raises RuntimeError after a fork."""
        if not self.home.is_ours:
            raise RuntimeError(_FORKED)
        try:
            event.wait()
        except BaseException:  # KeyboardInterrupt, or whatever else the handler of a signal raises
            self.give_up()
            raise

    def give_up(self) -> None:
        """Cancel it, and wait until it has ended; what it raises is of no account."""
        if not self.home.is_ours:
            return
        self.home.soon(self._cancel)
        self._ended.wait()

    def on_end(self, task: asyncio.Task[T | None] | None = None) -> None:
        self.home.leave(self)
        if task is not None and not task.cancelled():
            task.exception()  # retrieved: who gave up does not look at it
        self._ended.set()
        if self._news is not None:
            self._news.set()

    def _start(self) -> None:
        if self.home.is_left:
            self.on_end()
            return
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(self.on_end)

    async def _run(self) -> T | None:
        """What would end the loop, and all other calls with it, is kept for who waits."""
        try:
            return await self._make()
        except (KeyboardInterrupt, SystemExit) as exc:
            self._stopped = exc
            return None

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
