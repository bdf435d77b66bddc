"""What a stock is asked, in a few threads of its own: for clients who still want to know.

A question may take long: it may look at thousands of files of a place that somebody else has made. So only a
few are asked at a time, only so many wait, and one whose client has left is asked no more; while it is being
answered, ``is_given_up`` says so to whoever answers. Nobody waits for a thread when the server ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final, TypeVar

from ..aio import mark_given_up
from ..errors import ServerBusy

T = TypeVar("T")

THREADS: Final = 4
MOST: Final = 512  # that wait or are being answered
_AGAIN_S: Final = 1.0


class Questions:
    """``threads`` answer, and at most ``most`` questions are open. One event loop; ``close`` it."""

    def __init__(self, *, threads: int = THREADS, most: int = MOST) -> None:
        self._n_threads = threads
        self._most = most
        self._n_open = 0
        self._waiting: deque[_Question] = deque()
        self._has_work = threading.Condition()
        self._is_closed = False
        self._n_started = 0

    async def ask(self, function: Callable[..., T], /, *args: object) -> T:
        """What ``function`` returns or raises. A cancelled caller does not wait for it.

        Raises ServerBusy where as many are asked as may be.
        """
        if self._n_open >= self._most:
            raise ServerBusy("more is asked at a time than can be answered", retry_after=_AGAIN_S)
        loop = asyncio.get_running_loop()
        question = _Question(function, args, loop)
        self._n_open += 1
        question.answer.add_done_callback(self._one_less)
        with self._has_work:
            self._waiting.append(question)
            if self._n_started < self._n_threads:
                self._n_started += 1
                threading.Thread(target=self._work, name="layertee-ask", daemon=True).start()
            self._has_work.notify()
        try:
            found: T = await asyncio.shield(question.answer)
        except asyncio.CancelledError:
            question.given_up.set()
            with self._has_work:
                if question in self._waiting:
                    self._waiting.remove(question)
                    question.answer.cancel()
            raise
        return found

    def close(self) -> None:
        """Nothing is asked any more. What is being answered is told so, and not waited for."""
        with self._has_work:
            self._is_closed = True
            for question in self._waiting:
                question.answer.cancel()
            self._waiting.clear()
            self._has_work.notify_all()

    def _one_less(self, answer: asyncio.Future[Any]) -> None:
        self._n_open -= 1
        if not answer.cancelled():
            answer.exception()  # retrieved, though its caller may have left

    def _work(self) -> None:
        while True:
            with self._has_work:
                self._has_work.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                question = self._waiting.popleft()
            question.put()
            del question  # its answer may be large, and the next question far


class _Question:
    """One question, and the future of its answer, which belongs to ``loop``."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[object, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._function = function
        self._args = args
        self._loop = loop
        self._context = copy_context()
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.given_up = threading.Event()

    def put(self) -> None:
        """In a thread."""
        found: Any = None
        failed: BaseException | None = None
        try:
            self._context.run(mark_given_up, self.given_up)
            found = self._context.run(self._function, *self._args)
        except BaseException as exc:  # noqa: BLE001 - the caller's, whatever it is
            failed = exc
        try:
            self._loop.call_soon_threadsafe(self._settle, found, failed)
        except RuntimeError:  # the loop has ended
            return

    def _settle(self, found: object, failed: BaseException | None) -> None:
        if self.answer.done():
            return
        if failed is not None:
            self.answer.set_exception(failed)
        else:
            self.answer.set_result(found)
