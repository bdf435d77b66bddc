"""A rate for all, and patience with each: with a clock that the test sets."""

from __future__ import annotations

import pytest

from layertee.serve.pacing import MIN_RATE, SLICE, STALL_S, Throttle, Watch


class Clock:
    """The time is what the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_rate_nobody_waits() -> None:
    throttle = Throttle(None)
    assert throttle.slice == SLICE
    assert [throttle.due_in(SLICE) for _ in range(100)] == [0.0] * 100


def test_turns_come_in_order_and_at_the_rate() -> None:
    throttle = Throttle(1000, clock := Clock())
    assert [throttle.due_in(500) for _ in range(3)] == pytest.approx([0.0, 0.5, 1.0])
    clock.now += 1.0
    assert throttle.due_in(500) == pytest.approx(0.5)


def test_what_nobody_wanted_is_not_made_up_for() -> None:
    throttle = Throttle(1000, clock := Clock())
    throttle.due_in(1000)
    clock.now += 3600
    assert throttle.due_in(1000) == 0.0
    assert throttle.due_in(1000) == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "slice_"), [(1000, 1024), (100_000, 10_000), (10**12, SLICE)])
def test_a_slice_is_a_tenth_of_a_second(rate: int, slice_: int) -> None:
    assert Throttle(rate).slice == slice_


def test_many_clients_get_the_same() -> None:
    """Each asks again once it has had its turn, so nobody is passed over twice."""
    throttle = Throttle(10_000, clock := Clock())
    turns = {name: throttle.due_in(1000) + clock.now for name in range(10)}
    got = dict.fromkeys(turns, 0)
    for _ in range(95):
        name = min(turns, key=lambda one: turns[one])
        clock.now = turns[name]
        got[name] += 1000
        turns[name] = throttle.due_in(1000) + clock.now
    assert max(got.values()) - min(got.values()) <= 1000


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
