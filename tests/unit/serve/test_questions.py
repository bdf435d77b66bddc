"""Questions to a stock: in few threads, for those who still want to know, and never without end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from layertee.aio import is_given_up
from layertee.errors import NotFound, ServerBusy
from layertee.serve.questions import Questions


def run(main: Callable[[Questions], Awaitable[None]], *, threads: int = 1, most: int = 4) -> None:
    async def with_questions() -> None:
        questions = Questions(threads=threads, most=most)
        try:
            await asyncio.wait_for(main(questions), 30)
        finally:
            questions.close()

    asyncio.run(with_questions())


def test_an_answer_and_a_failure_come_back() -> None:
    def fails() -> None:
        raise NotFound("not here")

    async def main(questions: Questions) -> None:
        assert await questions.ask(lambda a, b: a + b, 1, 2) == 3
        with pytest.raises(NotFound, match="not here"):
            await questions.ask(fails)

    run(main)


def test_as_many_are_asked_at_once_as_there_are_threads() -> None:
    both = threading.Barrier(2)

    async def main(questions: Questions) -> None:
        await asyncio.gather(questions.ask(both.wait, 20), questions.ask(both.wait, 20))

    run(main, threads=2)


def test_who_has_left_is_neither_waited_for_nor_asked_for() -> None:
    """The one that is being answered hears of it, those behind it are never begun."""
    begun, answered, heard = threading.Event(), threading.Event(), threading.Event()
    asked: list[int] = []

    def long() -> None:
        begun.set()
        while not is_given_up():
            time.sleep(0.001)
        heard.set()
        assert answered.wait(20)

    async def main(questions: Questions) -> None:
        tasks = [asyncio.create_task(questions.ask(long))]
        await asyncio.to_thread(begun.wait, 20)
        tasks += [asyncio.create_task(questions.ask(asked.append, n)) for n in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError)
            for one in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert await asyncio.to_thread(heard.wait, 20)
        # The thread is still at work, and there is room for three more.
        later = [asyncio.create_task(questions.ask(asked.append, n)) for n in (7, 8, 9)]
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy):
            await questions.ask(asked.append, 10)
        answered.set()
        await asyncio.gather(*later)
        assert asked == [7, 8, 9]

    run(main)


def test_more_than_may_wait_are_refused_and_then_there_is_room_again() -> None:
    go = threading.Event()

    async def main(questions: Questions) -> None:
        open_ones = [asyncio.create_task(questions.ask(go.wait, 20)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy) as caught:
            await questions.ask(go.wait, 20)
        assert caught.value.retry_after > 0
        go.set()
        assert await asyncio.gather(*open_ones) == [True] * 4
        assert await questions.ask(go.is_set)

    run(main)


def test_the_end_waits_for_no_answer() -> None:
    begun, go = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        go.wait(20)

    async def main(questions: Questions) -> None:
        running, waiting = (asyncio.create_task(questions.ask(one)) for one in (long, go.is_set))
        await asyncio.to_thread(begun.wait, 20)
        questions.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    began = time.monotonic()
    run(main)
    assert time.monotonic() - began < 15
    go.set()
