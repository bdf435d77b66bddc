"""A rate for all, and patience with each: with a clock that the test sets."""

from __future__ import annotations

import asyncio
import time

import pytest

from layertee.serve.pacing import MIN_RATE, SLICE, STALL_S, Throttle, Watch


class Clock:
    """The time is what the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Queue:
    """A throttle, the time, and whose turns have come, in order. To be made where an event loop runs."""

    def __init__(self, rate: int | None) -> None:
        self.clock = Clock()
        self.throttle = Throttle(rate, self.clock)
        self.came: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, nbytes: int, *, is_document: bool = False) -> None:
        async def wait() -> None:
            await self.throttle.turn(nbytes, is_document=is_document)
            self.came.append(name)

        self._tasks[name] = asyncio.create_task(wait())
        await self._rest()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await self._rest()

    async def pass_by(self, seconds: float) -> list[str]:
        """Those whose turns came in that time."""
        known = len(self.came)
        self.clock.now += seconds
        self.throttle.see_who_is_due()
        await self._rest()
        return self.came[known:]

    async def _rest(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def test_without_a_rate_nobody_waits() -> None:
    async def main() -> None:
        queue = Queue(None)
        assert queue.throttle.slice == SLICE
        for n in range(100):
            await queue.ask(str(n), SLICE)
        assert len(queue.came) == 100

    asyncio.run(main())


def test_turns_come_in_order_and_at_the_rate() -> None:
    async def main() -> None:
        queue = Queue(1000)
        for name in "abc":
            await queue.ask(name, 500)
        assert queue.came == ["a"]
        assert await queue.pass_by(0.49) == []
        assert await queue.pass_by(0.02) == ["b"]
        assert await queue.pass_by(0.48) == []
        assert await queue.pass_by(0.02) == ["c"], "what was late for b is not lost"

    asyncio.run(main())


def test_what_nobody_wanted_is_not_made_up_for() -> None:
    async def main() -> None:
        queue = Queue(1000)
        await queue.ask("a", 1000)
        await queue.pass_by(3600)
        await queue.ask("b", 1000)
        await queue.ask("c", 1000)
        assert queue.came == ["a", "b"]
        assert await queue.pass_by(0.9) == []
        assert await queue.pass_by(0.2) == ["c"]

    asyncio.run(main())


def test_a_client_that_leaves_takes_no_turn_with_it() -> None:
    async def main() -> None:
        queue = Queue(1000)
        left = [str(n) for n in range(300)]
        for name in ("first", *left, "last"):
            await queue.ask(name, 100)
        await queue.leave(*left)
        assert queue.came == ["first"]
        assert await queue.pass_by(0.11) == ["last"]

    asyncio.run(main())


def test_a_client_that_leaves_as_its_turn_comes_gives_it_back() -> None:
    async def main() -> None:
        queue = Queue(1000)
        for name in "abc":
            await queue.ask(name, 100)
        queue.clock.now += 0.11
        queue.throttle.see_who_is_due()
        await queue.leave("b")  # before it has run
        assert queue.came == ["a", "c"]

    asyncio.run(main())


def test_what_did_not_go_is_given_back() -> None:
    async def main() -> None:
        queue = Queue(1000)
        for name in "ab":
            await queue.ask(name, 1000)
        queue.throttle.give_back(900)
        assert await queue.pass_by(0.05) == []
        assert await queue.pass_by(0.06) == ["b"]

    asyncio.run(main())


def test_a_document_does_not_wait_for_all_the_blobs_nor_they_for_all_documents() -> None:
    async def main() -> None:
        queue = Queue(1000)
        for n in range(50):
            await queue.ask(f"blob {n}", 100)
        for n in range(3):
            await queue.ask(f"document {n}", 100, is_document=True)
        for _ in range(6):
            await queue.pass_by(0.1001)
        expected = ["blob 0", "document 0", "blob 1", "document 1", "blob 2", "document 2", "blob 3"]
        assert queue.came == expected

    asyncio.run(main())


def test_turns_come_without_help() -> None:
    async def main() -> None:
        throttle = Throttle(100_000)
        started = time.monotonic()
        await asyncio.gather(*(throttle.turn(1000) for _ in range(6)))
        assert time.monotonic() - started >= 0.05

    asyncio.run(main())


@pytest.mark.parametrize(("rate", "slice_"), [(1000, 1024), (100_000, 10_000), (10**12, SLICE)])
def test_a_slice_is_a_tenth_of_a_second(rate: int, slice_: int) -> None:
    assert Throttle(rate).slice == slice_


def test_many_clients_get_the_same() -> None:
    """Each asks again once it has had its turn, so nobody is passed over twice."""

    async def main() -> None:
        queue = Queue(10_000)
        got = dict.fromkeys("0123456789", 0)
        for name in got:
            await queue.ask(name, 1000)
        for name in queue.came:
            got[name] += 1
            await queue.ask(name, 1000)
        for _ in range(95):
            for name in await queue.pass_by(0.1):
                got[name] += 1
                await queue.ask(name, 1000)
        assert sum(got.values()) >= 90
        assert max(got.values()) - min(got.values()) <= 1

    asyncio.run(main())


class Client:
    """Takes so many bytes a second, and is looked at every second."""

    def __init__(self, taken: int = 0) -> None:
        self.taken = taken
        self.watch = Watch(lambda: self.taken)
        self._now = 500.0

    def cut_after(self, rate: float, *, at_most: int, is_waiting: bool = True) -> int | None:
        """The seconds after which it is too slow; None if it never is."""
        self.watch.is_waiting = is_waiting
        for second in range(at_most):
            self._now += 1.0
            if self.watch.is_too_slow(self._now):
                return second
            self.taken += int(rate)
        return None


def test_a_client_that_takes_nothing_is_cut_soon() -> None:
    assert Client().cut_after(0, at_most=100) == STALL_S


def test_what_was_sent_earlier_on_the_connection_does_not_help() -> None:
    assert Client(taken=10**9).cut_after(0, at_most=100) == STALL_S


def test_a_client_that_takes_a_byte_now_and_then_is_cut_by_its_average() -> None:
    second = Client().cut_after(1, at_most=100)
    assert second is not None
    assert STALL_S < second < STALL_S + 3


def test_a_slow_client_that_is_fast_enough_may_take_as_long_as_it_likes() -> None:
    assert Client().cut_after(MIN_RATE * 1.1, at_most=10_000) is None


def test_a_rest_is_allowed() -> None:
    client = Client()
    for _ in range(20):
        assert client.cut_after(50_000, at_most=5) is None
        assert client.cut_after(0, at_most=int(STALL_S) - 2) is None


def test_the_time_that_the_server_needs_is_not_the_clients() -> None:
    client = Client()
    assert client.cut_after(0, at_most=1000, is_waiting=False) is None
    assert client.cut_after(0, at_most=100) == STALL_S


def test_waiting_is_what_happens_inside() -> None:
    watch = Client().watch
    with pytest.raises(ConnectionError), watch.waiting():
        assert watch.is_waiting
        raise ConnectionError
    assert not watch.is_waiting
