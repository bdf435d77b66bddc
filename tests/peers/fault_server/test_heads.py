"""Answers whose heads are odd in ways that others read, and how they may arrive."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import pytest
import uvloop

from layertee.errors import TransportError
from layertee.registry.http import Transport
from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Behaviour, Raw
from tests.support.rig.images import BuiltImage

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
OK = b"HTTP/1.1 200 OK\r\n"
TWICE = b"Content-Length: 7\r\nContent-Length: 7\r\n\r\n"
CHUNKED = b'Transfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n7\r\n{"a":1}\r\n0\r\n\r\n'
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
ODD = b"{}\r\ncontent-length: 2\r\n\r\n "
GOOD = {
    "a length twice": OK + TWICE + b'{"a":1}',
    "a length as a list": OK + b'Content-Length: 7, 7\r\n\r\n{"a":1}',
    "chunks and a length": OK + CHUNKED,
    "after others": INTERIM + OK + TWICE + b'{"a":1}',
    "lines of another kind": b"HTTP/1.1 200 OK\nContent-Length: 26\n\n" + ODD,
    "a space in a name": OK + b"Bad Header: x\r\nX-A : y\r\n" + TWICE + b'{"a":1}',
    "many fields": OK + b"".join(b"X-%d: 1\r\n" % n for n in range(400)) + TWICE + b'{"a":1}',
}
BAD = {
    "two lengths": OK + b'Content-Length: 7\r\nContent-Length: 8\r\n\r\n{"a":1} ',
    "chunks that are none": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n{}",
    "an end within the head": OK + b"Content-Length: 7\r\nContent-Le",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@dataclass(frozen=True)
class Dribble:
    """These bytes in pieces of 12, then the end."""

    data: bytes

    async def respond(self, exchange: Exchange) -> None:
        exchange.keep_alive = False
        await exchange.connection.write(self.data, 600 if len(self.data) < 600 else None)


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fetch(loop: str, built: BuiltImage, behaviour: Behaviour) -> tuple[int, bytes]:
    """What comes through the small way and through the other, which must be one. Raises as they do."""

    async def main() -> tuple[int, bytes]:
        transport = Transport(user_agent="layertee-test/1")
        url = f"{server.url}/v2/rig/image/blobs/{built.config_digest}"
        try:
            async with asyncio.timeout(20):
                answer = await transport.fetch("GET", url, headers={}, limit=1000)
                body = await transport.open(url, headers={})
                assert (body.status, await body.read(1000)) == (answer.status, answer.body)
                good = await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=1000)
                assert good.status == 200
                return answer.status, answer.body
        finally:
            await transport.close()

    with (
        FaultServer(built, [on("blob", behaviour)]) as server,
        asyncio.Runner(loop_factory=LOOPS[loop]) as runner,
    ):
        return runner.run(main())


@pytest.mark.parametrize("make", [Raw, Dribble])
@pytest.mark.parametrize("name", GOOD)
def test_answers_that_others_can_read_are_read(
    loop: str, built: BuiltImage, name: str, make: Callable[[bytes], Behaviour]
) -> None:
    status, body = fetch(loop, built, make(GOOD[name]))
    assert status == 200
    assert body == (b'{"a":1}' if name != "lines of another kind" else ODD)


@pytest.mark.parametrize("make", [Raw, Dribble])
@pytest.mark.parametrize("name", BAD)
def test_answers_that_nobody_can_read_are_errors_at_once(
    loop: str, built: BuiltImage, name: str, make: Callable[[bytes], Behaviour]
) -> None:
    with pytest.raises(TransportError):
        fetch(loop, built, make(BAD[name]))


FLOODS = {
    "endless-continues": "too much before the answer",
    "endless-early-hints": "too much before the answer",
    "endless-empty-lines": "too much before the answer",
    "endless-chunk-extension": "the body ended early",
    "endless-chunk-size": "the body ended early",
}


@pytest.mark.parametrize("name", FLOODS)
def test_what_never_becomes_an_answer_is_not_read_for_as_long_as_it_comes(
    built: BuiltImage, loop: str, name: str
) -> None:
    async def main() -> None:
        transport = Transport(user_agent="layertee-test")
        try:
            async with asyncio.timeout(30):
                with pytest.raises(TransportError, match=FLOODS[name]):
                    await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=1000)
        finally:
            await transport.close()

    with FaultServer(built, [on("ping", CATALOGUE[name])]) as server:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())
        server.settle()
        (request,) = server.requests()
        assert request.body_bytes < 16 << 20


@pytest.mark.parametrize(
    "name", ["error-body-stall", "error-body-slow", "error-body-cut", "error-body-endless"]
)
def test_of_a_refusal_the_status_counts_however_its_body_comes(
    built: BuiltImage, loop: str, name: str
) -> None:
    async def main() -> None:
        transport = Transport(user_agent="layertee-test", answer_s=0.3)
        try:
            async with asyncio.timeout(30):
                answer = await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=1000)
            assert answer.status == 404
            assert len(answer.body) <= 1000
        finally:
            await transport.close()

    with (
        FaultServer(built, [on("ping", CATALOGUE[name])]) as server,
        asyncio.Runner(loop_factory=LOOPS[loop]) as runner,
    ):
        runner.run(main())


def test_an_answer_is_forgotten_though_its_connection_is_kept(built: BuiltImage, loop: str) -> None:
    async def main() -> None:
        transport = Transport(user_agent="layertee-test")
        try:
            for n in range(12):
                await transport.fetch("GET", url, headers={}, limit=layer.size)
                if n == 1:
                    gc.collect()
                    before = readers()
            gc.collect()
            assert readers() <= before
        finally:
            await transport.close()

    def readers() -> int:
        return sum(isinstance(found, aiohttp.StreamReader) for found in gc.get_objects())

    layer = built.layers[0]  # large: it is still coming when its head has been read
    with FaultServer(built) as server:
        url = f"{server.url}/v2/rig/image/blobs/{layer.digest}"
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())
        assert len(server.connections()) == 1
