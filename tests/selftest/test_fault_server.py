"""The fault server does what its behaviours say: seen by raw sockets, http.client and the real skopeo."""

from __future__ import annotations

import gc
import http.client
import socket
import time
from pathlib import Path

import pytest

from tests.support.fakes.catalogue import CATALOGUE, HARMLESS
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import (
    Behaviour,
    Chunked,
    ContentEncoding,
    ContentLength,
    ContentRange,
    Gate,
    Held,
    HugeHeader,
    LongBody,
    MultipartByteranges,
    NoLength,
    NoRanges,
    OtherBody,
    Replace,
    Reset,
    ShortBody,
    Slow,
    Stall,
    TruncatedHead,
)
from tests.support.fakes.rawclient import Serve, look, skopeo_copy
from tests.support.fakes.refusals import (
    RETRY_AFTER_FORMS,
    Status,
    too_many,
)
from tests.support.rig.images import BuiltImage, build_image, build_index
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RigError


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Two layers, the first of about 100 kB."""
    layers = [incompressible_layer(100_000), text_layer({"etc/motd": "hello\n"})]
    return build_image(tmp_path_factory.mktemp("image"), layers)


# -- honest ----------------------------------------------------------------------------------


def test_skopeo_pulls_from_an_honest_fault_server(tmp_path: Path, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        skopeo_copy(server, tmp_path)
        server.settle()
        assert {request.kind for request in server.requests()} == {"ping", "manifest", "blob"}
        assert server.bytes_sent("blob") == image.blob_bytes + len(image.config)
        assert all(request.finished and request.status == 200 for request in server.requests())
    assert (tmp_path / "manifest.json").read_bytes() == image.manifest


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_skopeo_pulls_through_every_harmless_behaviour(tmp_path: Path, serve: Serve, name: str) -> None:
    skopeo_copy(serve(CATALOGUE[name]), tmp_path)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_server_survives_every_behaviour_and_serves_on(
    image: BuiltImage, blob: bytes, path: str, name: str
) -> None:
    with FaultServer(image, [on("blob", CATALOGUE[name], last=1)]) as server:
        patience_s = 0.05 if "stall" in name or ("slow" in name and name != "slow") else 5.0
        enough = 1_000 if "slow" in name else 20 << 20
        look(server, path, "Range: bytes=100-4099", patience_s=patience_s, enough=enough)
        after = look(server, path, "Range: bytes=100-4099")
        assert (after.status, after.body, after.end) == (206, blob[100:4100], "eof")


def test_an_index_is_served_with_its_images(tmp_path: Path) -> None:
    platforms = ("linux/amd64", "linux/arm64")
    images = [
        build_image(tmp_path / name[6:], [text_layer({"arch": name})], platform=name) for name in platforms
    ]
    index = build_index(tmp_path / "index", images)
    with FaultServer({"multi/arch:1": index}) as server:
        assert look(server, "/v2/multi/arch/manifests/1").body == index.raw
        for built in images:
            assert look(server, f"/v2/multi/arch/manifests/{built.digest}").body == built.manifest
            assert look(server, f"/v2/multi/arch/blobs/{built.config_digest}").body == built.config
        assert look(server, "/v2/multi/arch/manifests/2").status == 404
        skopeo_copy(server, tmp_path / "out", "--all")


def test_ranges_are_answered_as_asked(image: BuiltImage, blob: bytes, path: str) -> None:
    with FaultServer(image) as server:
        size = len(blob)
        middle = look(server, path, "Range: bytes=10-19")
        assert (middle.status, middle.body) == (206, blob[10:20])
        assert middle.headers("Content-Range") == [f"bytes 10-19/{size}"]
        assert look(server, path, f"Range: bytes={size - 5}-").body == blob[-5:]
        assert look(server, path, f"Range: bytes=0-{size + 5}").body == blob
        beyond = look(server, path, f"Range: bytes={size}-")
        assert (beyond.status, beyond.headers("Content-Range")) == (416, [f"bytes */{size}"])
        assert look(server, path, method="HEAD").body == b""


# -- ranges and bytes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", []),
        ("two", ["bytes 100-199/{size}", "bytes 0-99/{size}"]),
        ("shifted", ["bytes 101-199/{size}"]),
        ("wrong-total", ["bytes 100-199/{more}"]),
        ("unknown-total", ["bytes 100-199/*"]),
        ("unit", ["octets 100-199/{size}"]),
        ("garbage", ["bytes what-ever/you like"]),
        ("past-end", ["bytes 100-1199/{size}"]),
        ("short", ["bytes 100-149/{size}"]),
    ],
)
def test_content_range_is_spoilt_in_each_way(
    serve: Serve, blob: bytes, path: str, kind: str, expected: list[str]
) -> None:
    seen = look(serve(ContentRange(kind)), path, "Range: bytes=100-199")
    assert seen.status == 206
    assert seen.headers("Content-Range") == [
        text.format(size=len(blob), more=len(blob) + 1) for text in expected
    ]
    assert seen.headers("Content-Length") == [str(len(seen.body))]


def test_no_ranges_means_the_whole_body_under_200(serve: Serve, blob: bytes, path: str) -> None:
    seen = look(serve(NoRanges()), path, "Range: bytes=100-199")
    assert (seen.status, seen.body) == (200, blob)


def test_multipart_wraps_the_range(serve: Serve, blob: bytes, path: str) -> None:
    seen = look(serve(MultipartByteranges()), path, "Range: bytes=100-199")
    assert seen.status == 206
    assert seen.headers("Content-Type") == ["multipart/byteranges; boundary=rig-boundary"]
    assert blob[100:200] in seen.body
    assert int(seen.headers("Content-Length")[0]) == len(seen.body)


def test_other_body_differs_from_the_given_offset_on(serve: Serve, blob: bytes, path: str) -> None:
    seen = look(serve(OtherBody(at=1000, etag='"v2"')), path, "Range: bytes=500-1499")
    assert seen.headers("ETag") == ['"v2"']
    assert seen.body[:500] == blob[500:1000]
    assert not any(a == b for a, b in zip(seen.body[500:], blob[1000:1500], strict=True))


def test_a_replaced_manifest_keeps_the_digest_header(image: BuiltImage) -> None:
    with FaultServer(image, [on("manifest", Replace(b"{}", "application/json"))]) as server:
        seen = look(server, "/v2/rig/image/manifests/latest")
        assert (seen.status, seen.body) == (200, b"{}")
        assert seen.headers("Docker-Content-Digest") == [image.digest]
        assert seen.headers("Content-Type") == ["application/json"]


def test_content_encoding_is_claimed_or_real(serve: Serve, blob: bytes, path: str) -> None:
    claimed = look(serve(ContentEncoding()), path)
    assert (claimed.headers("Content-Encoding"), claimed.body) == (["gzip"], blob)
    real = look(serve(ContentEncoding(really=True)), path)
    assert real.body[:2] == b"\x1f\x8b"
    assert real.body != blob


# -- lengths -------------------------------------------------------------------------------------


def test_bodies_are_short_long_or_mislabelled(serve: Serve, blob: bytes, path: str) -> None:
    size = len(blob)
    cases: list[tuple[Behaviour, bytes, str]] = [
        (ShortBody(1000), blob[:1000], str(size)),
        (ShortBody(0), b"", str(size)),
        (LongBody(5), blob + b"X" * 5, str(size + 5)),
        (LongBody(5, declared=False), blob + b"X" * 5, str(size)),
        (ContentLength(7), blob, str(size + 7)),
        (ContentLength(-7), blob, str(size - 7)),
    ]
    for behaviour, body, length in cases:
        seen = look(serve(behaviour), path)
        assert (seen.body, seen.headers("Content-Length"), seen.end) == (body, [length], "eof"), behaviour


def test_no_length_ends_with_the_connection(serve: Serve, blob: bytes, path: str) -> None:
    seen = look(serve(NoLength()), path)
    assert (seen.headers("Content-Length"), seen.headers("Transfer-Encoding")) == ([], [])
    assert seen.body == blob


def test_chunks_are_readable_by_http_client_and_cut_or_broken_on_demand(
    serve: Serve, blob: bytes, path: str
) -> None:
    connection = http.client.HTTPConnection(serve(Chunked()).host)
    connection.request("GET", path)
    assert connection.getresponse().read() == blob
    connection.close()
    cut = look(serve(Chunked(stop_after=1000, chunk=500)), path)
    assert cut.body == b"1f4\r\n" + blob[:500] + b"\r\n1f4\r\n" + blob[500:1000] + b"\r\n"
    broken = look(serve(Chunked(stop_after=500, chunk=500, malformed=True)), path)
    assert broken.body.endswith(b"\r\nzz\r\nthis is no chunk\r\n")
    trailed = look(serve(Chunked(n_trailers=3)), path)
    assert trailed.body.endswith(b"\r\n0\r\nX-Trailer-0: 0\r\nX-Trailer-1: 1\r\nX-Trailer-2: 2\r\n\r\n")


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [None, 0, 1, 70_000])
def test_a_reset_comes_after_exactly_so_many_bytes(
    serve: Serve, blob: bytes, path: str, nbytes: int | None
) -> None:
    seen = look(serve(Reset(nbytes)), path)
    assert seen.end == "reset"
    assert seen.body == blob[: nbytes or 0]
    assert bool(seen.data) == (nbytes is not None)


@pytest.mark.parametrize("nbytes", [None, 0, 1000])
def test_a_stalled_server_is_silent_until_the_client_leaves(
    serve: Serve, blob: bytes, path: str, nbytes: int | None
) -> None:
    server = serve(Stall(nbytes))
    seen = look(server, path, patience_s=0.05)
    assert (seen.body, seen.end) == (blob[: nbytes or 0], "silence")
    server.wait_closed()


def test_heads_are_truncated_huge_or_carry_a_nul(serve: Serve, path: str) -> None:
    assert look(serve(TruncatedHead(12)), path).data == b"HTTP/1.1 200"
    assert look(serve(TruncatedHead(0)), path).data == b""
    assert len(look(serve(HugeHeader(2 << 20)), path).head) > 2 << 20
    assert "X-Nul: a\0b" in look(serve(CATALOGUE["head-nul"]), path).head


@pytest.mark.slow
def test_slow_answers_and_capped_connections_take_their_time(image: BuiltImage, path: str) -> None:
    for script, cap in (([on("blob", Slow(500_000))], None), ([], 500_000)):
        with FaultServer(image, script, rate_per_connection=cap) as server:
            start = time.monotonic()
            look(server, path, "Range: bytes=0-99999")
            assert time.monotonic() - start > 0.18  # 100 kB at 500 kB/s: 0.2 s


def test_bytes_are_counted_per_connection_and_request(serve: Serve, path: str) -> None:
    server = serve(ShortBody(1234))
    seen = look(server, path)
    server.wait_closed()
    (connection,) = server.connections()
    (request,) = server.requests("blob")
    assert connection.bytes_sent == len(seen.data) == request.head_bytes + 1234
    assert (request.body_bytes, connection.n_requests, connection.closed) == (1234, 1, True)
    server.forget()
    assert server.requests() == []


def test_a_gate_holds_exchanges_and_shows_how_many_are_open(
    image: BuiltImage, blob: bytes, path: str
) -> None:
    gate = Gate()
    with FaultServer(image, [on("blob", Held(gate, 1000))]) as server:
        clients = []
        for _ in range(3):
            client = http.client.HTTPConnection(server.host)
            client.request("GET", path)
            clients.append(client)
        gate.wait_arrived(3)
        assert (server.open_connections, server.max_connections, server.max_active) == (3, 3, 3)
        with pytest.raises(TimeoutError):
            server.settle(0.01)
        gate.open()
        for client in clients:
            assert client.getresponse().read() == blob
            client.close()
        server.wait_closed()
        assert (server.open_connections, server.max_connections) == (0, 3)


def test_connections_are_kept_alive(image: BuiltImage, blob: bytes, path: str) -> None:
    with FaultServer(image) as server:
        client = http.client.HTTPConnection(server.host)
        for _ in range(3):
            client.request("GET", path)
            assert client.getresponse().read() == blob
        client.close()
        server.wait_closed()
        assert [connection.n_requests for connection in server.connections()] == [3]


def test_a_behaviour_that_fails_fails_the_test(image: BuiltImage, path: str) -> None:
    class Broken:
        async def respond(self, exchange: Exchange) -> None:
            raise ZeroDivisionError(exchange.request.path)

    with pytest.raises(RigError, match="itself failed"), FaultServer(image, [on("blob", Broken())]) as server:
        look(server, path)


# -- statuses and rules ------------------------------------------------------------------------------


def test_rules_count_the_requests_that_fit_them(image: BuiltImage) -> None:
    first, second = (f"/v2/rig/image/blobs/{layer.digest}" for layer in image.layers)
    rules = [
        on("blob", Status(503), last=2),
        on("blob", Status(502), first=3, last=3),
        on("blob", Status(404), reference=image.layers[1].digest, first=2),
        on("manifest", Status(405), method="HEAD"),
    ]
    with FaultServer(image, rules) as server:
        assert [look(server, first).status for _ in range(4)] == [503, 503, 502, 200]
        assert [look(server, second).status for _ in range(3)] == [200, 404, 404]
        assert look(server, "/v2/rig/image/manifests/latest", method="HEAD").status == 405
        assert look(server, "/v2/rig/image/manifests/latest").status == 200
        server.script([on("blob", Status(418))])
        assert look(server, first).status == 418


@pytest.mark.parametrize("form", RETRY_AFTER_FORMS)
def test_retry_after_is_sent_in_every_form(serve: Serve, path: str, form: str) -> None:
    seen = look(serve(too_many(form)), path)
    assert (seen.status, seen.headers("Retry-After")) == (429, [form])


def test_connections_that_arrive_while_it_stops_are_closed_as_well(image: BuiltImage) -> None:
    with FaultServer(image) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        clients = [socket.create_connection((host, int(port)), timeout=5) for _ in range(30)]
    for client in clients:
        with client:
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                continue
    gc.collect()  # a socket that nobody closed is a warning, and so an error
