"""Work that several wait for is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from ..aio import until_done

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """What is being done, by what it is for. All methods are called from the event loop's thread."""

    def __init__(self) -> None:
        self._flights: dict[K, tuple[asyncio.Task[T], list[None]]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, begin: Callable[[], Awaitable[T]]) -> T:
        """What came, or what was raised, of the work for ``key``: ``begin`` is called unless it is under way.

        A caller that is cancelled leaves the others waiting; with the last of them the work is cancelled,
        and its end is waited for.
        """
        if key not in self._flights:
            self._flights[key] = asyncio.ensure_future(self._run(key, begin)), []
        flight, waiters = self._flights[key]
        waiters.append(None)
        try:
            return await asyncio.shield(flight)
        finally:
            waiters.pop()
            if not waiters and not flight.done():
                if self._flights.get(key, (None,))[0] is flight:
                    del self._flights[key]
                flight.cancel()
                await until_done(flight)

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        flights = [flight for flight, _ in self._flights.values()]
        for flight in flights:
            flight.cancel()
        for flight in flights:
            await until_done(flight)

    async def _run(self, key: K, begin: Callable[[], Awaitable[T]]) -> T:
        flight = asyncio.current_task()
        try:
            return await begin()
        finally:
            if (found := self._flights.get(key)) is not None and found[0] is flight:
                del self._flights[key]
