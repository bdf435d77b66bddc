"""HTTP exchanges with real servers on 127.0.0.1, good and bad, under both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from layertee import Engine, Options
from layertee.errors import (
    ConnectFailed,
    DocumentError,
    LayerteeError,
    SizeMismatch,
    Timeout,
    TLSFailed,
    TransportError,
    TruncatedBody,
    WebPage,
)
from layertee.registry.http import Body, TLSPolicy, Transport
from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import (
    Behaviour,
    Chunked,
    Header,
    HugeHeader,
    LongBody,
    NoLength,
    Ok,
    Raw,
    Reset,
    ShortBody,
    Stall,
    TruncatedHead,
)
from tests.support.rig.certs import Flaw
from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import free_port

T = TypeVar("T")
MIB = 1 << 20
SECRET = "planted-signature"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(
    loop: str, main: Callable[[Transport], Coroutine[Any, Any, T]], *, patience_s: float | None = None
) -> T:
    """``main`` with a transport of its own, which waits ``patience_s`` for an answer. No task may be left
    behind.
    """

    async def bounded() -> T:
        async with asyncio.timeout(100):
            if patience_s is None:
                transport = Transport(user_agent="layertee-test/1")
            else:
                transport = Transport(user_agent="layertee-test/1", connect_s=patience_s, answer_s=patience_s)
            try:
                return await main(transport)
            finally:
                await transport.close()
                assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds; :func:`run` ends a test in which it never does."""
    while not condition():  # noqa: ASYNC110 - the server is in a thread of its own
        await asyncio.sleep(0.001)


@dataclass
class Sink:
    """A receiver with ``n_free`` buffers of ``step`` bytes, then none until it is given more.

    ``n_refused``: how often it had none to give, which is when reading pauses.
    """

    step: int = 256 << 10
    n_free: int = 1 << 30
    n_refused: int = 0
    data: bytearray = field(default_factory=bytearray)
    on_landed: Callable[[], None] = lambda: None
    _view: memoryview = field(default_factory=lambda: memoryview(b""))

    def get_buffer(self) -> memoryview | None:
        if self.n_free == 0:
            self.n_refused += 1
            return None
        self.n_free -= 1
        self._view = memoryview(bytearray(self.step))
        return self._view

    def landed(self, nbytes: int) -> None:
        self.data += self._view[:nbytes]
        self._view = self._view[nbytes:]
        self.on_landed()


def blob_url(server: FaultServer, digest: str, query: str = "") -> str:
    return f"{server.url}/v2/rig/image/blobs/{digest}{query}"


def policy(server: FaultServer) -> TLSPolicy:
    return TLSPolicy(cert_dir=server.cert_dir)


async def receive(
    transport: Transport, server: FaultServer, digest: str, sink: Sink, nbytes: int, *, exact: bool = False
) -> Body:
    body = await transport.open(blob_url(server, digest), headers={}, tls=policy(server))
    await body.receive(sink, nbytes, exact=exact)
    return body


# --- bodies into buffers ----------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_bodies_land_in_the_buffers_and_the_connection_is_used_again(
    built: BuiltImage, loop: str, tls: bool, step: int
) -> None:
    big, little = built.layers[0 if step > 1000 else 1], built.layers[1]
    order = [big.digest, little.digest, built.config_digest, big.digest, little.digest]

    async def main(transport: Transport) -> None:
        for digest in order:
            want = built.blob_path(digest).read_bytes()
            sink = Sink(step)
            body = await receive(transport, server, digest, sink, len(want), exact=True)
            assert bytes(sink.data) == want
            assert (body.status, body.content_length) == (200, len(want))
            body.close()
            small = await transport.fetch(
                "GET", f"{server.url}/v2/", headers={}, limit=100, tls=policy(server)
            )
            assert small.body == b"{}"

    with FaultServer(built, tls=tls) as server:
        run(loop, main)
        assert server.max_connections == 1
        assert len(server.connections()) == 1


@dataclass(frozen=True)
class WithHead:
    """The first ``nbytes`` of the body in one write with the head."""

    nbytes: int

    async def respond(self, exchange: Exchange) -> None:
        plan = exchange.plan()
        assert exchange.entity is not None
        assert exchange.entity.path is not None
        early = exchange.entity.path.read_bytes()[: self.nbytes]
        await exchange.send_raw_head(exchange.head(plan) + early, 200)
        await exchange.send_body(plan, skip=self.nbytes)


@pytest.mark.parametrize("nbytes", [1, 10_000, 60_000, 1 << 20])
def test_bytes_that_came_with_the_head_are_not_lost(built: BuiltImage, loop: str, nbytes: int) -> None:
    digest = built.layers[0].digest
    want = built.blob_path(digest).read_bytes()

    async def main(transport: Transport) -> None:
        for pause in (False, True):
            sink = Sink(7777)
            body = await transport.open(blob_url(server, digest), headers={})
            if pause:
                await until(lambda: server.requests("blob")[-1].body_bytes > 0)  # more of it has arrived
            await body.receive(sink, len(want), exact=True)
            assert bytes(sink.data) == want

    with FaultServer(built, [on("blob", WithHead(nbytes))]) as server:
        run(loop, main)
        assert server.max_connections == 1


@pytest.mark.parametrize(
    "behaviour", [Chunked(), NoLength(), Chunked(n_trailers=20), Chunked(chunk=7)], ids=str
)
def test_a_body_without_a_length_is_received_all_the_same(
    built: BuiltImage, loop: str, behaviour: Behaviour
) -> None:
    digest = built.layers[1].digest
    want = built.blob_path(digest).read_bytes()

    async def main(transport: Transport) -> None:
        for exact in (True, False):
            sink = Sink(5000)
            body = await receive(transport, server, digest, sink, len(want), exact=exact)
            assert bytes(sink.data) == want
            assert body.content_length is None

    with FaultServer(built, [on("blob", behaviour)]) as server:
        run(loop, main)


def test_less_than_the_body_may_be_asked_for(built: BuiltImage, loop: str) -> None:
    digest = built.layers[0].digest
    want = built.blob_path(digest).read_bytes()

    async def main(transport: Transport) -> None:
        for nbytes in (1, 70_000, 3 * MIB, 0):
            sink = Sink()
            await receive(transport, server, digest, sink, nbytes)
            assert bytes(sink.data) == want[:nbytes]

    with FaultServer(built) as server:
        run(loop, main)
        server.wait_closed()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_without_a_buffer_the_server_waits_and_goes_on_when_there_is_one(
    built: BuiltImage, loop: str, tls: bool
) -> None:
    digest, size = built.layers[0].digest, built.layers[0].size

    async def main(transport: Transport) -> None:
        sink = Sink(64 << 10, n_free=3)
        body = await transport.open(blob_url(server, digest), headers={}, tls=policy(server))
        receiving = asyncio.create_task(body.receive(sink, size))
        await until(lambda: sink.n_refused == 1)
        assert len(sink.data) == 3 * (64 << 10)
        body.resume()  # to no avail: there is still no buffer
        await until(lambda: sink.n_refused == 2)
        assert len(sink.data) == 3 * (64 << 10)
        sink.n_free = 2
        body.resume()
        await until(lambda: sink.n_refused == 3)
        assert len(sink.data) == 5 * (64 << 10)
        body.pause()
        sink.n_free = 1 << 30
        for _ in range(3):  # the loop goes round, and the server's next bytes are in the kernel's buffers
            await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=100, tls=policy(server))
        assert len(sink.data) == 5 * (64 << 10)
        assert server.bytes_sent("blob") < size
        body.resume()
        await receiving
        assert bytes(sink.data) == built.blob_path(digest).read_bytes()

    with FaultServer(built, tls=tls, send_buffer=64 << 10) as server:
        run(loop, main)


@pytest.mark.parametrize("behaviour", [Ok(), Chunked()], ids=["length", "chunked"])
def test_a_receiver_that_has_enough_ends_the_connection(
    built: BuiltImage, loop: str, behaviour: Behaviour
) -> None:
    async def main(transport: Transport) -> None:
        body = await transport.open(blob_url(server, built.layers[0].digest), headers={})
        sink = Sink(64 << 10)
        sink.on_landed = lambda: body.stop() if len(sink.data) > 300_000 else None
        await body.receive(sink, built.layers[0].size)
        assert 300_000 < len(sink.data) < MIB
        await asyncio.to_thread(server.wait_closed)

    with FaultServer(built, [on("blob", behaviour)]) as server:
        run(loop, main)


@pytest.mark.parametrize("behaviour", [Stall(5000), Ok(), Chunked(chunk=1000)], ids=str)
def test_an_abort_is_what_the_receiver_raises(built: BuiltImage, loop: str, behaviour: Behaviour) -> None:
    async def main(transport: Transport) -> None:
        body = await transport.open(blob_url(server, built.layers[0].digest), headers={})
        sink = Sink(1000, n_free=4)
        receiving = asyncio.create_task(body.receive(sink, built.layers[0].size))
        await until(lambda: sink.n_refused == 1)
        error = Timeout("too slow for me")
        body.abort(error)
        with pytest.raises(Timeout) as caught:
            await receiving
        assert caught.value is error
        await asyncio.to_thread(server.wait_closed)

    with FaultServer(built, [on("blob", behaviour)]) as server:
        run(loop, main)


def test_a_cancelled_receiver_closes_the_connection(built: BuiltImage, loop: str) -> None:
    async def main(transport: Transport) -> None:
        for n_free in (0, 2, 1 << 30):
            body = await transport.open(blob_url(server, built.layers[0].digest), headers={})
            sink = Sink(1000, n_free=n_free)
            receiving = asyncio.create_task(body.receive(sink, built.layers[0].size))
            await until(lambda sink=sink: sink.n_refused > 0 or len(sink.data) > 10_000)  # type: ignore[misc]
            receiving.cancel()
            await asyncio.wait([receiving])
            assert receiving.cancelled()
            await asyncio.to_thread(server.wait_closed)

    with FaultServer(built, rate_per_connection=10e6) as server:
        run(loop, main)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("behaviour", [ShortBody(100_000), Reset(100_000), ShortBody(0)], ids=str)
def test_a_body_that_breaks_off_says_how_far_it_came(
    built: BuiltImage, loop: str, tls: bool, behaviour: Behaviour
) -> None:
    layer = built.layers[0]

    async def main(transport: Transport) -> None:
        sink = Sink(30_000)
        with pytest.raises(TruncatedBody, match=server.host) as caught:
            await receive(transport, server, layer.digest, sink, layer.size, exact=True)
        assert (caught.value.got, caught.value.want) == (len(sink.data), layer.size)
        assert len(sink.data) <= 100_000
        assert not isinstance(behaviour, ShortBody) or len(sink.data) == behaviour.nbytes

    with FaultServer(built, [on("blob", behaviour)], tls=tls) as server:
        run(loop, main)


def test_a_chunked_body_that_goes_on_is_an_error_where_it_must_end(built: BuiltImage, loop: str) -> None:
    layer = built.layers[0]

    async def main(transport: Transport) -> None:
        with pytest.raises(SizeMismatch, match="sends more than"):
            await receive(transport, server, layer.digest, Sink(), layer.size - 1, exact=True)
        with pytest.raises(TruncatedBody):
            await receive(transport, server, layer.digest, Sink(), layer.size + 1)

    with FaultServer(built, [on("blob", Chunked())]) as server:
        run(loop, main)


def test_a_surplus_after_the_body_does_not_reach_the_next_one(built: BuiltImage, loop: str) -> None:
    layer = built.layers[1]
    want = built.blob_path(layer.digest).read_bytes()

    async def main(transport: Transport) -> None:
        for _ in range(8):
            sink = Sink()
            try:
                await receive(transport, server, layer.digest, sink, layer.size, exact=True)
                assert bytes(sink.data) == want
            except TransportError:  # the surplus came in one piece with the body
                assert want.startswith(bytes(sink.data))
            await until(lambda: server.requests("blob")[-1].finished)  # the surplus has been sent

    with FaultServer(built, [on("blob", LongBody(declared=False))]) as server:
        run(loop, main)


# --- small exchanges -------------------------------------------------------------------------------------


def test_a_document_above_its_limit_is_refused(built: BuiltImage, loop: str) -> None:
    size = len(built.config)

    async def main(transport: Transport) -> None:
        url = blob_url(server, built.config_digest)
        exactly = await transport.fetch("GET", url, headers={}, limit=size)
        assert (exactly.status, exactly.body) == (200, built.config)
        for _ in range(2):
            with pytest.raises(DocumentError, match=f"larger than {size - 1} bytes"):
                await transport.fetch("GET", url, headers={}, limit=size - 1)
            body = await transport.open(url, headers={})
            with pytest.raises(DocumentError):
                await body.read(size - 1)
        body = await transport.open(url, headers={})
        assert await body.read(size) == built.config

    for behaviour in (Ok(), Chunked(), NoLength()):
        with FaultServer(built, [on("blob", behaviour)]) as server:
            run(loop, main)


def test_of_a_large_page_its_status_or_its_kind_is_told(loop: str) -> None:
    async def main(transport: Transport) -> None:
        answer = await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=1000)
        assert (answer.status, answer.body) == (502, b"x" * 1000)
        with pytest.raises(WebPage, match=f"{server.host}.*text/html"):
            await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=1000)

    page = b"Content-Type: text/html\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000
    script = [
        on("ping", Raw(b"HTTP/1.1 502 Bad\r\n" + page), last=1),
        on("ping", Raw(b"HTTP/1.1 200 OK\r\n" + page)),
    ]
    with FaultServer(script=script) as server:
        run(loop, main)


def test_a_status_is_an_answer_and_a_redirect_is_not_followed(built: BuiltImage, loop: str) -> None:
    async def main(transport: Transport) -> None:
        response = await transport.fetch("GET", f"{server.url}/v2/x/blobs/none", headers={}, limit=1000)
        assert (response.status, b"MANIFEST_UNKNOWN" in response.body) == (404, True)
        assert response.field("content-type") == "application/json"
        assert response.fields("X-None") == []
        moved = await transport.fetch("GET", f"{server.url}/hop/3/v2/", headers={}, limit=1000)
        assert moved.status == 307

    with FaultServer(built) as server:
        run(loop, main)
        assert len(server.requests()) == 2


def test_a_server_that_does_not_answer_is_a_timeout(built: BuiltImage, loop: str) -> None:
    async def main(transport: Transport) -> None:
        for _ in range(2):
            with pytest.raises(Timeout, match=server.host):
                await transport.fetch("GET", blob_url(server, built.config_digest), headers={}, limit=1 << 20)

    for behaviour in (Stall(), Stall(10)):
        with FaultServer(built, [on("blob", behaviour)]) as server:
            run(loop, main, patience_s=0.1)


# --- what is not sent ------------------------------------------------------------------------------------


def test_neither_cookies_nor_netrc_nor_headers_of_the_library_are_sent(
    built: BuiltImage, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login planted password planted\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    async def main(transport: Transport) -> None:
        url = blob_url(server, built.config_digest)
        for _ in range(2):
            await transport.fetch("GET", url, headers={"X-Ours": "1"}, limit=1 << 20)
            body = await transport.open(url, headers={"X-Ours": "1"})
            await body.read(1 << 20)

    with FaultServer(built, [on("blob", Header("Set-Cookie", "planted=1; Path=/"))]) as server:
        run(loop, main)
        assert len(server.requests()) == 4
        for request in server.requests():
            assert dict(request.headers) == {
                "Host": server.host,
                "X-Ours": "1",
                "User-Agent": "layertee-test/1",
            }


def test_every_request_of_a_pull_asks_for_the_bytes_as_they_are(
    built: BuiltImage, tmp_path: Path, loop: str
) -> None:
    async def main(_: Transport) -> None:
        async with Engine(tmp_path, options=Options(tls_verify=False)) as engine:
            await engine.pull(await engine.plan(server.reference))

    with FaultServer(built) as server:
        run(loop, main)
        assert {request.header("Accept-Encoding") for request in server.requests()} == {"identity"}
        assert {request.header("Cookie") for request in server.requests()} == {None}
        (agent,) = {request.header("User-Agent") for request in server.requests()}
        assert agent is not None
        assert agent.startswith("layertee/")


# --- what cannot be connected to or trusted --------------------------------------------------------


async def failure(transport: Transport, url: str, tls: TLSPolicy | None = None) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.fetch("GET", url, headers={}, limit=100, tls=tls)
    assert caught.value.__cause__ is not None
    assert SECRET not in str(caught.value)
    return caught.value


def test_a_refused_connection_names_the_host(loop: str) -> None:
    host = f"127.0.0.1:{free_port()}"

    async def main(transport: Transport) -> None:
        for scheme in ("http", "https"):
            error = await failure(transport, f"{scheme}://{host}/v2/?{SECRET}")
            assert isinstance(error, ConnectFailed)
            assert f"{host}: " in str(error)
            assert "refused" in str(error).lower()

    run(loop, main)


def test_a_name_that_does_not_resolve_is_named(loop: str) -> None:
    async def main(transport: Transport) -> None:
        error = await failure(transport, f"https://registry.invalid/v2/?{SECRET}")
        assert isinstance(error, ConnectFailed)
        assert str(error).startswith("registry.invalid: ")

    run(loop, main)


@pytest.mark.parametrize("url", ["http://[::1", "http://a..b/", "http:///x", "http://xn--\x80/", "ftp://h/"])
def test_a_url_that_is_none_is_a_transport_error(loop: str, url: str) -> None:
    async def main(transport: Transport) -> None:
        with pytest.raises(LayerteeError):
            await transport.fetch("GET", url, headers={}, limit=100)

    run(loop, main)


@pytest.mark.parametrize("flaw", [flaw for flaw in Flaw if flaw is not Flaw.NONE])
def test_a_certificate_that_cannot_be_trusted_is_refused_by_name(
    built: BuiltImage, loop: str, flaw: Flaw
) -> None:
    async def main(transport: Transport) -> None:
        url = f"{server.url}/v2/?{SECRET}"
        for tls in (TLSPolicy(cert_dir=server.cert_dir), TLSPolicy()):
            error = await failure(transport, url, tls)
            assert isinstance(error, TLSFailed)
            assert not error.retryable
            assert f"{server.host}: the certificate cannot be trusted: " in str(error)
        waived = await transport.fetch("GET", url, headers={}, limit=100, tls=TLSPolicy(verify=False))
        assert waived.status == 200

    with FaultServer(built, tls=flaw) as server:
        run(loop, main)


def test_a_good_certificate_is_trusted_only_with_its_authority(built: BuiltImage, loop: str) -> None:
    async def main(transport: Transport) -> None:
        url = f"{server.url}/v2/"
        assert (await transport.fetch("GET", url, headers={}, limit=100, tls=policy(server))).status == 200
        assert isinstance(await failure(transport, url), TLSFailed)

    with FaultServer(built, tls=True) as server:
        run(loop, main)


def test_a_server_that_does_not_speak_tls_is_a_tls_failure(built: BuiltImage, loop: str) -> None:
    async def main(transport: Transport) -> None:
        error = await failure(transport, f"https://{server.host}/v2/?{SECRET}")
        assert isinstance(error, TLSFailed)
        assert error.hint == "plain-http"
        assert server.host in str(error)

    with FaultServer(built) as server:
        run(loop, main)


# --- answers that are none --------------------------------------------------------------------------

BAD_HEADS = [
    HugeHeader(1 << 20),
    Header("X-Nul", "a\0b"),
    TruncatedHead(0),
    TruncatedHead(30),
    Raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    Raw(b"HTTP/1.1 two hundred fine\r\n\r\n"),
    Raw(b"HTTP/1.1 200 OK\r\nthis line has none\r\n\r\n"),
    Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    Raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc"),
    Raw(b"\0" * 100_000),
]


@pytest.mark.parametrize("behaviour", BAD_HEADS, ids=lambda behaviour: str(behaviour)[:50])
def test_a_head_that_is_none_is_an_error_and_the_next_exchange_works(
    built: BuiltImage, loop: str, behaviour: Behaviour
) -> None:
    async def main(transport: Transport) -> None:
        url = blob_url(server, built.config_digest, f"?sig={SECRET}")
        for _ in range(2):
            error = await failure(transport, url)
            assert server.host in str(error)
            assert "\n" not in str(error)
        response = await transport.fetch("GET", f"{server.url}/v2/", headers={}, limit=100)
        assert response.status == 200

    with FaultServer(built, [on("blob", behaviour)]) as server:
        run(loop, main)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_whatever_a_server_does_errors_are_typed_and_keep_secrets(
    built: BuiltImage, loop: str, name: str
) -> None:
    layer = built.layers[1]

    async def main(transport: Transport) -> None:
        url = blob_url(server, layer.digest, f"?sig={SECRET}")
        for how in (None, "bytes=100-1999"):
            try:
                async with asyncio.timeout(0.25):
                    body = await transport.open(url, headers={"Range": how} if how else {})
                    try:
                        await body.receive(Sink(), layer.size if how is None else 1900)
                    finally:
                        body.close()
            except LayerteeError as error:
                assert SECRET not in str(error)
                assert str(error)
            except TimeoutError:  # the fetcher's watch sees to these
                assert any(word in name for word in ("stall", "slow", "endless"))

    with FaultServer(built, [on("blob", CATALOGUE[name])]) as server:
        run(loop, main, patience_s=0.1)
