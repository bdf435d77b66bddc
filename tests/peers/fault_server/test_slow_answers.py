"""Servers that take their time: how long an answer is waited for, and what counts as going on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import ResolveResult

from layertee import Engine, FetchLimits, Options
from layertee.cli.arguments import parse
from layertee.cli.shared import options_of
from layertee.errors import Timeout
from layertee.registry.http import ANSWER_S, MORE_PATIENCE, Transport
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Behaviour, Chunked, Slow, Stall
from tests.support.fakes.names import Names
from tests.support.rig.images import BuiltImage


def run(main: Callable[[Transport], Coroutine[Any, Any, None]], *, answer_s: float) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            transport = Transport(user_agent="layertee-test/1", answer_s=answer_s)
            try:
                await main(transport)
            finally:
                await transport.close()

    asyncio.run(bounded())


def config_url(server: FaultServer, built: BuiltImage) -> str:
    return f"{server.url}/v2/rig/image/blobs/{built.config_digest}"


def test_what_was_late_is_given_twice_the_time_and_no_more_than_four_times(built: BuiltImage) -> None:
    async def main(transport: Transport) -> None:
        url = config_url(server, built)

        async def late(query: str = "") -> str:
            with pytest.raises(Timeout) as caught:
                if query:
                    await transport.open(url + query, headers={})
                else:
                    await transport.fetch("GET", url, headers={}, limit=1 << 20)
            return str(caught.value).partition("within ")[2]

        assert [await late() for _ in range(2)] == ["0.05 s", "0.1 s"]
        server.script([])
        got = await transport.fetch("GET", url, headers={}, limit=1 << 20)
        assert got.body == built.config
        server.script([on("blob", Stall())])
        assert await late() == "0.05 s"  # it was there in time, so what was before counts no more
        signed = [await late(f"?signed={n}") for n in range(4)]
        assert signed == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]

    with FaultServer(built, [on("blob", Stall())]) as server:
        run(main, answer_s=0.05)


def test_the_wait_for_an_answer_is_that_for_a_stall(built: BuiltImage, tmp_path: Path) -> None:
    async def main() -> None:
        limits = FetchLimits(stall_s=0.05)
        async with Engine(tmp_path, options=Options(tls_verify=False, limits=limits)) as engine:
            with pytest.raises(Timeout, match=r"no answer within 0\.2 s"):  # the third of three
                await engine.plan(server.reference)

    with FaultServer(built, [on("manifest", Stall())]) as server:
        asyncio.run(main())
        assert len(server.requests("manifest")) == 3


def test_by_default_caches_have_minutes_to_fetch_what_they_are_asked_for() -> None:
    limits = options_of(parse(["pull", "host/image:tag"])).limits
    assert limits.stall_s == FetchLimits().stall_s == ANSWER_S >= 60
    assert MORE_PATIENCE * ANSWER_S >= 240
    given = options_of(parse(["pull", "--stall-timeout", "300", "host/image:tag"])).limits
    assert given.stall_s == 300


@pytest.mark.parametrize("how", ["fetch", "read"])
def test_a_document_that_comes_slowly_is_waited_for(built: BuiltImage, how: str) -> None:
    answer_s = 0.4
    rate = len(built.config) / (3 * answer_s)

    async def main(transport: Transport) -> None:
        begin = asyncio.get_running_loop().time()
        url = config_url(server, built)
        if how == "fetch":
            got = (await transport.fetch("GET", url, headers={}, limit=1 << 20)).body
        else:
            got = await (await transport.open(url, headers={})).read(1 << 20)
        assert got == built.config
        assert asyncio.get_running_loop().time() - begin > 2 * answer_s

    with FaultServer(built, [on("blob", Slow(rate))]) as server:
        run(main, answer_s=answer_s)


@pytest.mark.parametrize("behaviour", [Stall(0), Stall(100), Slow(1), Chunked(stop_after=0)], ids=str)
def test_a_document_that_does_not_go_on_is_given_up(built: BuiltImage, behaviour: Behaviour) -> None:
    async def main(transport: Transport) -> None:
        url = config_url(server, built)
        with pytest.raises(Exception, match=server.host) as caught:
            await transport.fetch("GET", url, headers={}, limit=1 << 20)
        assert isinstance(caught.value, Timeout) != isinstance(behaviour, Chunked)
        if isinstance(caught.value, Timeout):
            assert str(caught.value).endswith("the answer does not go on")
        await asyncio.to_thread(server.wait_closed)

    with FaultServer(built, [on("blob", behaviour)]) as server:
        run(main, answer_s=0.3)


def test_a_connection_that_does_not_come_about_is_given_up() -> None:
    """Nobody accepts it: the kernel does, and TLS gets no answer."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    url = f"https://127.0.0.1:{full.getsockname()[1]}/v2/"

    async def main() -> None:
        transport = Transport(user_agent="layertee-test/1", connect_s=0.2, answer_s=60)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(Timeout, match=r"no connection within 0\.2 s"):
                    await transport.fetch("GET", url, headers={}, limit=1000)
        finally:
            await transport.close()

    with full:
        asyncio.run(main())


def test_a_name_that_is_looked_up_for_too_long_is_given_up() -> None:
    class Mute(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        transport = Transport(
            user_agent="layertee-test/1", connect_s=0.1, answer_s=60, resolver=lambda: Mute({})
        )
        try:
            async with asyncio.timeout(30):
                with pytest.raises(Timeout, match=r"no connection within 0\.3 s"):
                    await transport.fetch("GET", "http://registry.test/v2/", headers={}, limit=1000)
        finally:
            await transport.close()

    asyncio.run(main())
