"""Who stays and who goes, with a clock that the test sets."""

from __future__ import annotations

import asyncio

from layertee.serve.connections import HEAD_S, IDLE_S, Connections


class Guest:
    """A connection that is gone as soon as it is hung up on."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.is_gone = False

    def hang_up(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self._connections.left(self)


class House:
    """Connections, and the time."""

    def __init__(self, most: int = 100) -> None:
        self.now = 0.0
        self.connections = Connections(most, clock=lambda: self.now)

    async def guest(self) -> Guest:
        await self.connections.room()
        guest = Guest(self.connections)
        self.connections.came(guest)
        return guest

    def answer(self, guest: Guest) -> None:
        self.connections.is_answered(guest)
        self.connections.rests(guest)


def test_a_head_has_to_come_in_time_however_it_trickles() -> None:
    async def main() -> None:
        house = House()
        guest = await house.guest()
        while house.now < HEAD_S:
            house.connections.begins(guest)
            assert house.connections.see_late_ones_off() == 0
            house.now += 1
        assert house.connections.see_late_ones_off() == 1
        assert guest.is_gone
        assert house.connections.count == 0

    asyncio.run(main())


def test_an_answer_may_take_any_time_and_then_the_connection_is_idle() -> None:
    async def main() -> None:
        house = House()
        guest = await house.guest()
        house.connections.is_answered(guest)
        house.now += 10_000
        assert house.connections.see_late_ones_off() == 0
        house.connections.rests(guest)
        house.now += IDLE_S - 1
        assert house.connections.see_late_ones_off() == 0
        assert not guest.is_gone
        house.now += 1
        assert house.connections.see_late_ones_off() == 0, "it has done nothing wrong"
        assert guest.is_gone

    asyncio.run(main())


def test_the_next_request_has_its_time_from_its_first_byte() -> None:
    async def main() -> None:
        house = House()
        guest = await house.guest()
        house.answer(guest)
        house.now += IDLE_S - 1
        house.connections.begins(guest)
        house.now += HEAD_S - 1
        assert house.connections.see_late_ones_off() == 0
        house.now += 1
        assert house.connections.see_late_ones_off() == 1

    asyncio.run(main())


def test_the_idlest_makes_room() -> None:
    async def main() -> None:
        house = House(most=3)
        guests = [await house.guest() for _ in range(3)]
        for guest in (guests[1], guests[0], guests[2]):
            house.now += 1
            house.answer(guest)
        house.connections.is_answered(guests[2])
        await house.guest()
        assert [guest.is_gone for guest in guests] == [False, True, False]
        assert house.connections.count == 3

    asyncio.run(main())


def test_who_sends_nothing_makes_room_too_but_not_at_once() -> None:
    async def main() -> None:
        house = House(most=2)
        silent = await house.guest()
        house.now += 5
        just_here = await house.guest()
        await house.guest()
        assert (silent.is_gone, just_here.is_gone) == (True, False)

    asyncio.run(main())


def test_after_a_handshake_a_head_has_all_of_its_time() -> None:
    async def main() -> None:
        house = House()
        guest = await house.guest()
        other = await house.guest()
        house.now += HEAD_S - 1
        house.connections.came(guest)
        house.now += 1
        assert house.connections.see_late_ones_off() == 1
        assert (guest.is_gone, other.is_gone) == (False, True)
        house.now += HEAD_S - 1
        assert house.connections.see_late_ones_off() == 1
        assert house.connections.count == 0

    asyncio.run(main())


def test_where_all_are_busy_the_next_waits_for_one_to_leave() -> None:
    async def main() -> None:
        house = House(most=1)
        busy = await house.guest()
        house.connections.is_answered(busy)
        waiting = asyncio.ensure_future(house.guest())
        await asyncio.sleep(0)
        assert not waiting.done()
        house.now += 1000
        busy.hang_up()
        await waiting
        assert house.connections.count == 1

    asyncio.run(main())


def test_who_gives_up_waiting_takes_no_place() -> None:
    async def main() -> None:
        house = House(most=1)
        busy = await house.guest()
        house.connections.is_answered(busy)
        waiting = asyncio.ensure_future(house.guest())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        busy.hang_up()
        assert house.connections.count == 0

    asyncio.run(main())


def test_the_end_comes_when_the_last_answer_is_sent() -> None:
    async def main() -> None:
        house = House()
        idle, fresh, first, second = [await house.guest() for _ in range(4)]
        house.answer(idle)
        for guest in (first, second):
            house.connections.is_answered(guest)
        end = asyncio.ensure_future(house.connections.end())
        await asyncio.sleep(0)
        assert (idle.is_gone, fresh.is_gone, first.is_gone) == (True, True, False)
        house.connections.rests(first)
        await asyncio.sleep(0)
        assert first.is_gone
        assert not end.done()
        house.connections.rests(second)
        await end
        assert house.connections.see_all_off() == 0

    asyncio.run(main())


def test_in_the_end_answers_are_cut() -> None:
    async def main() -> None:
        house = House()
        busy = await house.guest()
        house.connections.is_answered(busy)
        assert house.connections.see_all_off() == 1
        assert busy.is_gone
        assert house.connections.count == 0

    asyncio.run(main())
