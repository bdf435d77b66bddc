"""Who may have blocks in memory: a few at a time, and none who waits for a slow client while others wait."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

IDLE_S: Final = 0.02  # that a client takes for a piece before its turn may go to another
TURN_S: Final = 1.0  # that a turn lasts where others wait


class Holder(Protocol):
    """Who has a turn."""

    def make_way(self) -> None:
        """Give the turn back soon, and take another one when it is needed."""


class Turns:
    """``at_once`` turns. All methods are called from the event loop's thread.

    Who waits ``idle_s`` seconds for a client calls ``idle``.
    """

    def __init__(self, at_once: int, idle_s: float = IDLE_S) -> None:
        self.idle_s = idle_s
        self._turns = asyncio.Semaphore(at_once)
        self._n_waiting = 0
        self._idle: dict[Holder, None] = {}  # the one that has been so for longest first

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._n_waiting > 0

    async def take(self) -> None:
        """Wait for a turn, which is the caller's until it calls ``give_back``; first come, first served."""
        self._n_waiting += 1
        try:
            if self._turns.locked() and self._idle:
                holder = next(iter(self._idle))
                del self._idle[holder]
                holder.make_way()
            await self._turns.acquire()
        finally:
            self._n_waiting -= 1

    def give_back(self) -> None:
        """One turn, of one that was taken."""
        self._turns.release()

    def idle(self, holder: Holder) -> None:
        """``holder`` could do without its turn: it is asked to make way as soon as somebody waits."""
        if self.is_wanted:
            holder.make_way()
        else:
            self._idle[holder] = None

    def busy(self, holder: Holder) -> None:
        """``holder`` is at work again."""
        self._idle.pop(holder, None)
