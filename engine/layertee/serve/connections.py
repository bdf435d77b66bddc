"""Which connections there are, and which of them have to go: pure bookkeeping, with time as an argument.

A connection is *fresh* until its request has come in whole, *busy* while that is answered, then *idle* until
the next begins to arrive. Only the busy ones cost anything to speak of; the others leave when they are late,
or when another client wants their place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

HEAD_S = 10.0  # for the whole head of a request to arrive, and for the first byte of a new connection
IDLE_S = 60.0
_MANNERS_S = 1.0  # a client that has sent nothing whole for so long is no better than an idle one


class Guest(Protocol):
    """A connection."""

    def hang_up(self) -> None:
        """End it at once. ``Connections.left`` is called soon after."""


class Connections:
    """At most ``most`` at once. Others wait in the queue of the listening socket."""

    def __init__(
        self,
        most: int,
        *,
        head_s: float = HEAD_S,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._head_s = head_s
        self._idle_s = idle_s
        self._clock = clock
        self._fresh: dict[Guest, float] = {}  # both in the order in which they became it
        self._idle: dict[Guest, float] = {}
        self._busy: set[Guest] = set()
        self._count = 0
        self._one_left = asyncio.Event()
        self._calm = asyncio.Event()
        self._is_ending = False

    @property
    def count(self) -> int:
        """All, those included that are still shaking hands."""
        return self._count

    @property
    def n_busy(self) -> int:
        return len(self._busy)

    def is_busy(self, guest: Guest) -> bool:
        """Whether it is being answered."""
        return guest in self._busy

    def is_idle(self, guest: Guest) -> bool:
        """Whether nothing has come since its last answer."""
        return guest in self._idle

    async def room(self) -> None:
        """Wait for a place and take it; ``left`` gives it back. The idlest makes room where it must."""
        while self._count >= self._most:
            self._one_left.clear()
            self._make_room()
            try:  # those that are fresh become worse guests by waiting
                await asyncio.wait_for(self._one_left.wait(), _MANNERS_S)
            except TimeoutError:
                continue
        self._count += 1

    def left(self, guest: Guest) -> None:
        """It is gone."""
        self._forget(guest)
        self._count -= 1
        self._one_left.set()
        self._see_whether_it_is_calm()

    def came(self, guest: Guest) -> None:
        """It is accepted, and has to shake hands; once more when it may send a request."""
        self._fresh.pop(guest, None)
        self._fresh[guest] = self._clock()

    def begins(self, guest: Guest) -> None:
        """Bytes of it arrived."""
        if self._idle.pop(guest, None) is not None:
            self._fresh[guest] = self._clock()

    def is_answered(self, guest: Guest) -> None:
        """Its request is whole."""
        self._forget(guest)
        self._busy.add(guest)

    def rests(self, guest: Guest) -> None:
        """The answer is sent."""
        if guest in self._busy:
            self._busy.discard(guest)
            self._idle[guest] = self._clock()
            self._see_whether_it_is_calm()

    def see_late_ones_off(self) -> int:
        """Hang up where a head or the next request does not come in time; how many heads these were."""
        late = self._late(self._fresh, self._head_s)
        for guest in [*late, *self._late(self._idle, self._idle_s)]:
            self._forget(guest)
            guest.hang_up()
        return len(late)

    async def end(self) -> None:
        """Hang up wherever nothing is being answered, and wait until that is so everywhere."""
        self._is_ending = True
        self._see_whether_it_is_calm()
        await self._calm.wait()

    def see_all_off(self) -> int:
        """Hang up everywhere; how many were in the middle of an answer."""
        busy = len(self._busy)
        for guest in [*self._fresh, *self._idle, *self._busy]:
            guest.hang_up()
        return busy

    def _see_whether_it_is_calm(self) -> None:
        if not self._is_ending:
            return
        for guest in [*self._fresh, *self._idle]:
            self._forget(guest)
            guest.hang_up()
        if not self._busy:
            self._calm.set()

    def _late(self, since: dict[Guest, float], allowed_s: float) -> list[Guest]:
        found = []
        now = self._clock()
        for guest, then in since.items():
            if now - then < allowed_s:
                break  # all others came later
            found.append(guest)
        return found

    def _make_room(self) -> None:
        longest = next(iter(self._idle), None) or next(iter(self._late(self._fresh, _MANNERS_S)), None)
        if longest is not None:
            self._forget(longest)
            longest.hang_up()

    def _forget(self, guest: Guest) -> None:
        self._fresh.pop(guest, None)
        self._idle.pop(guest, None)
        self._busy.discard(guest)
