"""Who may have a connection, and how many are worth having, on a clock that the tests turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import RateLimited, ServerError
from layertee.transfer.connections import (
    BLOBS_AT_ONCE,
    FAST,
    FORGET_S,
    HOLD_S,
    STARVED_S,
    TICK_S,
    TRIAL_S,
    Connections,
    Sample,
    Widening,
)
from layertee.transfer.limits import FetchLimits, RangeMode

MB = 1e6
Rate = Callable[[int], float]


class World:
    """A server that gives ``rate(n)`` bytes per second over ``n`` connections, and workers that take
    ``demand``: what is beyond it waits for them.
    """

    def __init__(
        self,
        rate: Rate,
        *,
        n_blobs: int = 3,
        demand: float = 1e12,
        max_connections: int = 8,
        always: bool = False,
    ) -> None:
        self.widening = Widening(max_connections, always=always)
        self.rate = rate
        self.n_blobs = n_blobs
        self.demand = demand
        self.room = True
        self.held = False
        self.now = 1000.0
        self.nbytes = 0.0

    @property
    def n_open(self) -> int:
        wanted = max(self.n_blobs, self.widening.target if self.room else 0)
        return min(self.widening.limit, wanted)

    def run(self, seconds: float) -> list[int]:
        """The numbers of connections that were open."""
        seen = []
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            n, rate = self.n_open, self.rate(self.n_open)
            self.nbytes += min(rate, self.demand) * TICK_S
            queued = 20 if rate > self.demand else 0
            self.widening.sample(Sample(self.now, int(self.nbytes), queued, self.held, n, self.room))
            seen.append(n)
        return seen

    def refuse(self, *, ago: float = 0.0, n_served: int = 1, retry_after: float = 0.0) -> None:
        self.widening.refused(
            self.now, asked=self.now - ago, n_open=self.n_open, n_served=n_served, retry_after=retry_after
        )


def capped(n: int) -> float:
    return 40 * MB * n


def test_capped_connections_are_doubled_until_the_limit() -> None:
    world = World(capped)
    seen = world.run(1.5)
    assert list(dict.fromkeys(seen)) == [3, 6, 8]
    assert seen.index(6) * TICK_S <= STARVED_S + 2 * TICK_S
    assert set(world.run(60)) == {8}


def test_enough_is_enough() -> None:
    world = World(capped, demand=200 * MB)
    world.run(1)
    assert set(world.run(60)) == {6}


def test_workers_that_have_something_to_do_call_for_nobody() -> None:
    assert set(World(capped, demand=100 * MB).run(60)) == {3}


def test_a_fast_server_is_left_alone_even_if_the_workers_are_faster() -> None:
    assert set(World(lambda n: 1.05 * FAST * n).run(60)) == {3}


def test_one_look_at_idle_workers_is_not_enough() -> None:
    world = World(capped)
    for _ in range(100):
        world.run(TICK_S * 2)
        world.held = True
        world.run(TICK_S)
        world.held = False
    assert world.widening.target == 0


def test_who_waits_for_this_machine_is_not_helped_by_a_connection() -> None:
    world = World(capped)
    world.held = True
    assert set(world.run(60)) == {3}


def test_without_room_there_is_no_trial() -> None:
    world = World(capped)
    world.room = False
    assert set(world.run(60)) == {3}
    assert world.widening.target == 0


@pytest.mark.parametrize("rate", [lambda n: 50 * MB, lambda n: 150 * MB / n], ids=["the same", "less"])
def test_what_does_not_pay_is_taken_back_and_tried_less_and_less(rate: Rate) -> None:
    world = World(rate)
    first = world.run(TRIAL_S + 1)
    assert max(first) == 6 and first[-1] == 3
    seen = world.run(300)
    tries = sum(1 for before, after in itertools.pairwise(seen) if after > before)
    assert 2 <= tries <= 8  # at 5, 10, 20, 40, 60 s …
    assert seen.count(3) > 0.94 * len(seen)


def test_a_gain_that_comes_late_is_seen() -> None:
    world = World(capped)
    began: list[float] = []

    def slow_start(n: int) -> float:
        if n <= 3:
            return capped(3)
        began[:] = began or [world.now]
        return capped(3) + min(1.0, (world.now - began[0]) / 0.8) * capped(n - 3)

    world.rate = slow_start
    world.run(10)
    assert world.n_open == 8


def test_what_a_partial_gain_is_worth() -> None:
    world = World(lambda n: 100 * MB + 5 * MB * n)  # 13 % for twice as many
    world.run(TRIAL_S + 1)
    assert world.n_open == 3
    world = World(lambda n: 60 * MB + 20 * MB * n)
    world.run(TRIAL_S + 1)
    assert world.n_open >= 6


def test_being_refused_halves_at_once_and_grows_back_one_by_one() -> None:
    world = World(capped)
    world.run(2)
    assert world.n_open == 8
    world.refuse()
    assert (world.widening.limit, world.n_open) == (4, 4)
    seen = world.run(60)
    assert list(dict.fromkeys(seen)) == [4, 5, 6, 7]
    assert seen.index(5) * TICK_S >= HOLD_S - TICK_S


def test_the_number_that_was_refused_is_not_tried_again_soon() -> None:
    world = World(capped)
    world.run(2)
    world.refuse()
    world.run(19)
    assert world.n_open == 7
    assert set(world.run(55)) == {7}
    world.run(10)
    assert world.n_open == 8


def test_a_burst_of_refusals_counts_once() -> None:
    world = World(capped)
    world.run(2)
    for _ in range(4):
        world.now += 0.001
        world.refuse(ago=0.01)
    assert world.widening.limit == 4
    world.now += 1
    world.refuse(ago=0.01)
    assert world.widening.limit == 2


def test_a_server_that_serves_nobody_is_waited_for_and_no_more() -> None:
    world = World(capped)
    world.refuse(n_served=0, retry_after=30)
    assert world.widening.limit == 8
    assert world.widening.pause_until == world.now + 30


def test_a_server_that_takes_so_many_and_no_more_is_settled_below_it() -> None:
    """Above 3 it says 429: for 5 minutes, few requests are refused, and 2 or 3 are open."""
    world = World(capped, n_blobs=1)
    refusals = 0
    seen: list[int] = []
    for _ in range(round(300 / TICK_S)):
        seen += world.run(TICK_S)
        if world.n_open > 3:
            refusals += 1
            world.refuse(retry_after=1)
    assert world.n_open in (2, 3)
    assert refusals <= 6
    assert seen[-1000:].count(3) > 800


def test_what_was_learned_is_kept_for_the_next_pull_and_forgotten_after_a_while() -> None:
    world = World(capped)
    world.run(2)
    world.now += 30
    assert world.n_open == 8
    assert set(world.run(5)) == {8}
    world.now += FORGET_S + 1
    world.run(TICK_S)
    assert world.n_open == 3


def test_always_is_as_many_as_the_server_takes() -> None:
    world = World(lambda n: FAST, always=True)
    assert set(world.run(1)) == {8}
    world.refuse()
    assert world.n_open == 4
    assert world.run(120)[-1] == 8


def test_blobs_that_end_during_a_trial_prove_nothing() -> None:
    world = World(capped)
    world.run(STARVED_S + 2 * TICK_S)
    world.room = False
    world.n_blobs = 1
    world.run(5)
    assert world.widening.target == 6  # for the next large one
    world.room = True
    world.run(5)
    assert world.n_open == 8


@given(
    st.lists(
        st.tuples(st.floats(0.001, 20), st.floats(0, 500), st.integers(0, 32), st.booleans(), st.booleans()),
        max_size=200,
    ),
    st.integers(1, 16),
    st.integers(1, 3),
)
def test_whatever_happens_the_bounds_hold(
    steps: list[tuple[float, float, int, bool, bool]], most: int, n_blobs: int
) -> None:
    widening = Widening(most)
    now, nbytes = 5.0, 0.0
    for dt, rate, queued, held, refused in steps:
        now, nbytes = now + dt, nbytes + rate * MB * dt
        n_open = min(widening.limit, max(n_blobs, widening.target))
        if refused:
            widening.refused(now, asked=now - dt / 2, n_open=n_open, n_served=queued, retry_after=1.0)
        widening.sample(Sample(now, int(nbytes), queued, held, n_open, True))
        assert 1 <= widening.limit <= most
        assert 0 <= widening.target <= most


# --- who has one -----------------------------------------------------------------------------------


async def settled() -> None:
    """Every task that can go on has done so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Queue:
    """Blobs that take a connection one after the other, as far as there are any."""

    def __init__(self, connections: Connections, n: int) -> None:
        self.served: list[int] = []
        self._connections = connections
        self.tasks = [asyncio.create_task(self._take(i)) for i in range(n)]

    async def _take(self, i: int) -> None:
        await self._connections.take()
        self.served.append(i)

    async def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def starve(connections: Connections, *, room: bool = False) -> None:
    """Ticks for a while, in which nothing but the network is slow."""
    for n in range(round(2 * STARVED_S / TICK_S) + 2):
        connections.tick(1000 + n * TICK_S, nbytes=10_000, n_queued=0, held=False, room=room)


def test_few_blobs_have_a_connection_and_the_others_get_theirs_in_turn() -> None:
    async def main() -> None:
        connections = Connections(FetchLimits())
        queue = Queue(connections, 6)
        await settled()
        assert queue.served == list(range(BLOBS_AT_ONCE))
        connections.give()
        await settled()
        assert queue.served == list(range(BLOBS_AT_ONCE + 1))
        await queue.cancel()

    asyncio.run(main())


def test_a_blob_that_waits_goes_before_one_more_for_a_blob_that_has_one() -> None:
    async def main() -> None:
        connections = Connections(FetchLimits())
        queue = Queue(connections, BLOBS_AT_ONCE + 1)
        await settled()
        assert not connections.take_now()
        starve(connections)  # that a blob waits is room enough
        await settled()
        assert len(queue.served) == BLOBS_AT_ONCE + 1
        assert connections.wants_more
        assert connections.take_now()

    asyncio.run(main())


def test_who_is_cancelled_while_it_waits_takes_no_connection() -> None:
    async def main() -> None:
        connections = Connections(FetchLimits(max_connections=1))
        queue = Queue(connections, 3)
        await settled()
        queue.tasks[1].cancel()
        await settled()
        connections.give()
        await settled()
        assert queue.served == [0, 2]

    asyncio.run(main())


def test_one_that_is_woken_and_cancelled_leaves_its_connection_to_the_next() -> None:
    async def main() -> None:
        connections = Connections(FetchLimits(max_connections=1))
        queue = Queue(connections, 3)
        await settled()
        connections.give()
        queue.tasks[1].cancel()
        await settled()
        assert queue.served == [0, 2]

    asyncio.run(main())


@pytest.mark.parametrize("most", [1, 3, 8])
def test_there_are_never_more_than_allowed(most: int) -> None:
    async def main() -> None:
        connections = Connections(FetchLimits(max_connections=most, ranges=RangeMode.ALWAYS))
        queue = Queue(connections, 2)
        await settled()
        n = len(queue.served)
        while connections.take_now():
            n += 1
        assert n == most
        assert not connections.wants_more
        await queue.cancel()

    asyncio.run(main())


def test_a_refusal_halves_what_there_may_be_only_while_others_are_served() -> None:
    async def main() -> None:
        connections = Connections(FetchLimits(max_connections=4, ranges=RangeMode.ALWAYS))
        while connections.take_now():
            pass
        connections.refused(RateLimited("wait", retry_after=30), 10.0, asked=9.0, host="registry")
        assert 30 <= connections.pause_s(10.0, "registry") <= 37.5
        connections.give()
        assert connections.wants_more  # the server serves nobody: it is not about their number
        connections.take_now()
        with connections.arriving():
            connections.refused(ServerError("busy", status=503), 11.0, asked=10.5, host="registry")
        connections.give()
        assert not connections.wants_more
        connections.give()
        connections.give()
        assert connections.wants_more  # two, of four
        assert connections.pause_s(50.0, "registry") <= 0

    asyncio.run(main())


def test_hosts_that_were_given_the_same_date_do_not_come_back_together() -> None:
    def pause() -> float:
        connections = Connections(FetchLimits())
        connections.refused(RateLimited("wait", retry_after=100), 10.0, asked=9.0, host="registry")
        return connections.pause_s(10.0, "registry")

    pauses = [pause() for _ in range(30)]
    assert all(100 <= pause <= 125 for pause in pauses)
    assert len({round(pause, 1) for pause in pauses}) > 10


def test_no_pause_is_longer_than_there_is_patience() -> None:
    connections = Connections(FetchLimits(patience_s=20))
    connections.refused(RateLimited("wait", retry_after=3600), 10.0, asked=9.0, host="registry")
    assert 20 <= connections.pause_s(10.0, "registry") <= 25


def test_several_requests_that_are_sent_away_at_once_are_one_piece_of_news() -> None:
    connections = Connections(FetchLimits())
    hour = RateLimited("wait", retry_after=3600)
    assert connections.is_news(hour, 10.0)
    assert not connections.is_news(hour, 10.1)
    assert not connections.is_news(RateLimited("wait", retry_after=60), 11.0)
    assert connections.is_news(hour, 3700.0)


def test_a_server_without_ranges_is_remembered_for_a_while_and_alone() -> None:
    connections = Connections(FetchLimits())
    connections.no_ranges("cdn.example", 100.0)
    assert not connections.may_range("cdn.example", 99.0)
    assert connections.may_range("cdn.example", 100.0)
    assert connections.may_range("other.example", 99.0)
