"""Which addresses a connection may be made to, judged where it is made: on the addresses themselves.

A registry names other hosts: where it redirects to, its token service. What a name leads to is known only to
who looks it up, and the answer may be another one each time. So names are judged by the one look-up whose
addresses are connected to, and each socket once more by its address. The rules are those of origins.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeAlias
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from .heads import Connector
from .origins import peer_problem

MakeResolver: TypeAlias = Callable[[], AbstractResolver]


class PeerRefused(OSError):
    """An address that a host named by a registry may not have. Between here and failures.py only."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"its address {address} is {problem}")


class Lookups(AbstractResolver):
    """Another resolver, and what it has found: ``found`` has the addresses of each host."""

    def __init__(self, resolver: AbstractResolver, found: dict[str, frozenset[str]]) -> None:
        self._resolver = resolver
        self._found = found

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        self._found[host.lower()] = frozenset(result["host"] for result in results)
        return results

    async def close(self) -> None:
        await self._resolver.close()


class _Judged(AbstractResolver):
    """Another resolver, without the addresses that may not be connected to. Raises PeerRefused if all are."""

    def __init__(self, resolver: AbstractResolver, home: Collection[str]) -> None:
        self._resolver = resolver
        self._home = home

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        good = [result for result in results if peer_problem(result["host"], self._home) is None]
        if results and not good:
            _judge(results[0]["host"], self._home)
        return good

    async def close(self) -> None:
        await self._resolver.close()


def _judge(address: str, home: Collection[str]) -> None:
    problem = peer_problem(address, home)
    if problem is not None:
        raise PeerRefused(address, problem)


class Connectors:
    """Makes aiohttp's connectors, without a limit of their connections, and keeps an eye on their sockets."""

    def __init__(self, make_resolver: MakeResolver) -> None:
        self._make_resolver = make_resolver
        self._found: dict[str, frozenset[str]] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def home(self, host: str) -> frozenset[str]:
        """Where the registry ``host`` is, as far as that is known: its addresses, or ``host`` itself."""
        return self._found.get(host.lower(), frozenset({host}))

    def anywhere(self) -> aiohttp.TCPConnector:
        """For hosts that the user has named."""
        return Connector(
            limit=0,
            ttl_dns_cache=60,
            resolver=Lookups(self._make_resolver(), self._found),
            socket_factory=self._socket,
        )

    def near(self, home: frozenset[str]) -> aiohttp.TCPConnector:
        """For hosts that a registry has named which is at ``home``."""

        def judged(address: aiohttp.AddrInfoType) -> socket.socket:
            _judge(str(address[4][0]), home)
            return self._socket(address)

        return Connector(
            limit=0,
            ttl_dns_cache=60,
            resolver=_Judged(self._make_resolver(), home),
            socket_factory=judged,
        )

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    async def wait_closed(self, patience_s: float) -> None:
        """Until no socket is open any more, of connections that were told to close.

        aiohttp does not wait for TLS connections that it closed before, with a request of theirs cancelled:
        they are still taking leave of their peers, and a loop must not end meanwhile.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while (left := [sock for sock in self._sockets if sock.fileno() >= 0]) and loop.time() < until:
            for sock in left:
                with suppress(OSError):  # it is closed already
                    sock.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0.002)
