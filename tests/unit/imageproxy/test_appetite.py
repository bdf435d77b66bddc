"""What may be brought before a client asks for it: the decisions, as tables of moves and what follows.

A game is played with the blobs of an image, numbered in the order of asking, whose sizes are in MiB::

    begins(0, 1)      these are begun unasked now, and no others
    ask(2)            the client asks for it, and it must be begun; has(2): it is begun already
    here(0)           it has arrived; failed(0), wrong(0): it has not
    reads(12)         the client has read that many MiB of what it got last
    waits(0, 10, s)   with 10 MiB of it here, it waits for s seconds
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from layertee.image.document import Digest
from layertee.imageproxy.appetite import AHEAD, PATIENCE_S, POLL_S, YIELD_S, Appetite

MIB = 1 << 20
Move = Callable[[Appetite], None]


def name_of(number: int) -> Digest:
    return Digest("sha256:" + f"{number:064x}")


def appetite(*sizes: float, has: tuple[int, ...] = (), **options: Any) -> Callable[[], Appetite]:
    wanted = {name_of(at): int(size * MIB) for at, size in enumerate(sizes)}
    return partial(Appetite, wanted, client_has={name_of(at) for at in has}, **options)


def play(made: Callable[[], Appetite], *moves: Move) -> None:
    one = made()
    for move in moves:
        move(one)


def begins(*numbers: int) -> Move:
    def move(one: Appetite) -> None:
        begun = []
        while (name := one.next()) is not None:
            begun.append(name)
        assert begun == [name_of(number) for number in numbers]

    return move


def ask(number: int) -> Move:
    def move(one: Appetite) -> None:
        assert one.ask(name_of(number)) is True

    return move


def has(number: int) -> Move:
    def move(one: Appetite) -> None:
        assert one.ask(name_of(number)) is False

    return move


def here(*numbers: int) -> Move:
    def move(one: Appetite) -> None:
        for number in numbers:
            one.arrived(name_of(number))

    return move


def failed(number: int) -> Move:
    return lambda one: one.failed(name_of(number), for_good=False)


def wrong(number: int) -> Move:
    return lambda one: one.failed(name_of(number), for_good=True)


def reads(mib: float) -> Move:
    return lambda one: one.read(int(mib * MIB))


def waits(number: int, done: float, seconds: float | None, *, now: float = 0.0, busy: bool = False) -> Move:
    def move(one: Appetite) -> None:
        assert one.wait_s(name_of(number), int(done * MIB), now, busy=busy) == seconds

    return move


def awaited(expected: bool) -> Move:
    def move(one: Appetite) -> None:
        assert one.is_awaited is expected

    return move


def hungry(expected: bool) -> Move:
    def move(one: Appetite) -> None:
        assert one.is_hungry is expected

    return move


GAMES: dict[str, tuple[Callable[[], Appetite], tuple[Move, ...]]] = {
    "two at once are begun unasked, up to the limit": (
        appetite(10, 10, 10, 10, 10, 10),
        (begins(0, 1), here(0), begins(2), here(1, 2), begins(), hungry(True)),
    ),
    "asking makes room for the one after the last": (
        appetite(10, 10, 10, 10, 10),
        (begins(0, 1), here(0, 1), begins(2), here(2), begins(), has(0), begins(3)),
    ),
    "what is asked for is begun at once, however large it is": (
        appetite(1, 64, 1),
        (begins(0), ask(1), begins(2), waits(1, 63, 0.0)),
    ),
    "of one that is larger than the limit comes a part, less what the kernels may hold": (
        appetite(96, 1),
        (begins(0), waits(0, 10, 0.0), waits(0, 12, POLL_S), has(0), waits(0, 12, 0.0), waits(0, 95, 0.0)),
    ),
    "one that does not fit is not begun where too little room is left": (
        appetite(9, 96),
        (begins(0), here(0), begins(), has(0), begins(1)),
    ),
    "one that fits is never held back": (appetite(20, 12), (begins(0, 1), waits(0, 19, 0.0))),
    "what the client reads makes room": (
        appetite(64, 128),
        (
            *(begins(0), has(0), here(0), begins(1), waits(1, 12, POLL_S)),
            *(reads(20), waits(1, 12, 0.0), waits(1, 31, 0.0), waits(1, 32, POLL_S), hungry(False)),
        ),
    ),
    "what the client reads makes room for another": (
        appetite(15, 15, 15, 15),
        (
            *(begins(0, 1), here(0, 1), has(0), begins(2), here(2), begins()),
            *(reads(12), begins(), reads(13), begins(3)),
        ),
    ),
    "a client that is given the next one begins to read anew": (
        appetite(15, 15, 30, 30),
        (begins(0, 1), here(0, 1), has(0), reads(15), begins(2), here(2), reads(0), has(1), begins()),
    ),
    "the processor is left to what the client waits for": (
        appetite(10, 10),
        (
            *(begins(0, 1), awaited(False), waits(1, 1, 0.0, busy=True)),
            *(has(0), awaited(True), waits(1, 2, YIELD_S, busy=True), waits(0, 2, 0.0, busy=True)),
            *(waits(1, 3, 0.0, busy=False), here(0), awaited(False), waits(1, 4, 0.0, busy=True)),
        ),
    ),
    "nothing is begun unasked where that is not wanted": (
        appetite(1, 1, ahead=0),
        (begins(), ask(1), begins(), here(1), reads(1), begins()),
    ),
    "what the client has is left out": (
        appetite(1, 1, 1, has=(0, 1)),
        (begins(2), hungry(False), here(2), has(2), begins()),
    ),
    "a client that asks for what it has will ask for the rest of it too": (
        appetite(1, 1, 1, 1, has=(0, 1, 2, 3)),
        (begins(), hungry(False), ask(1), hungry(True), begins(2, 3)),
    ),
    "what was passed over no longer counts": (
        appetite(15, 15, 15, 15, 15),
        (begins(0, 1), here(0, 1), begins(), ask(2), begins(3, 4)),
    ),
    "what was passed over and is asked for after all is begun, and the order goes on": (
        appetite(1, 1, 1, 1, has=(0,)),
        (begins(1, 2), here(1, 2), has(2), begins(3), has(1), begins()),
    ),
    "a client that asks for the largest first is understood": (
        appetite(1, 2, 3, 40, 20),
        (begins(0, 1), here(0, 1), ask(3), begins(4, 2)),
    ),
    "a failure stops what is unasked, and is told to the client that asks": (
        appetite(1, 1, 1, 1, 1),
        (begins(0, 1), wrong(1), here(0), begins(), hungry(False), has(0), begins(2, 3), has(1)),
    ),
    "what failed is begun again when it is asked for, and not before": (
        appetite(1, 1, 1),
        (begins(0, 1), failed(0), begins(), here(1), has(1), begins(2), ask(0), has(0)),
    ),
    "what waits too long for its client is given up until the client asks for anything": (
        appetite(96, 1),
        (
            *(begins(0), waits(0, 12, POLL_S, now=1.0), waits(0, 12, POLL_S, now=0.9 + PATIENCE_S)),
            *(waits(0, 12, None, now=1.0 + PATIENCE_S), begins(), hungry(False), ask(0), begins(1)),
        ),
    ),
    "a client that reads on is waited for anew": (
        appetite(64, 128),
        (
            *(begins(0), has(0), here(0), begins(1), waits(1, 12, POLL_S, now=0.0)),
            *(reads(5), waits(1, 12, 0.0, now=PATIENCE_S), waits(1, 17, POLL_S, now=PATIENCE_S)),
            *(waits(1, 17, POLL_S, now=2 * PATIENCE_S - 1), waits(1, 17, None, now=2 * PATIENCE_S)),
        ),
    ),
    "empty blobs take no room": (appetite(0, 0, 0), (begins(0, 1), here(0, 1), begins(2))),
    "an image without blobs wants nothing": (appetite(), (begins(), hungry(False), awaited(False))),
}


@pytest.mark.parametrize("game", GAMES)
def test_the_game(game: str) -> None:
    made, moves = GAMES[game]
    play(made, *moves)


def test_after_a_stop_nothing_is_begun_unasked() -> None:
    play(appetite(1, 1, 1), begins(0, 1), lambda one: one.stop(), here(0, 1), begins(), hungry(False))


def test_a_blob_of_another_image_cannot_be_asked_for() -> None:
    def ask_another(one: Appetite) -> None:
        with pytest.raises(KeyError):
            one.ask(name_of(1))

    play(appetite(1), ask_another, begins(0))


def test_never_more_is_taken_unasked_than_is_allowed() -> None:
    """Whatever the sizes are: what was begun and not asked for fits, but for one that fits nowhere."""
    for size in (1, 5, 7, 16, 31, 32, 33, 100):
        one = appetite(*[size] * 40)()
        begun = 0
        while (name := one.next()) is not None:
            one.arrived(name)
            begun += 1
        assert begun == max(AHEAD // (size * MIB), 1)
