"""Clients that want no image: each gets a short answer or none, and the next good client is served.

The table is what one connection may send. What takes time, memory or connections is below it.
"""

from __future__ import annotations

import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

import pytest

from tests.support.process import Cli, wait_until
from tests.support.rig.certs import Certificates, make_certificates
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.serving import Served, ask, head_of, read_answer, rest_of, serving

pytestmark = pytest.mark.slow

ANSWER_MAX = 32 << 10
HEX = "ab" * 32
MANY = 2000
OPTIONS = ("-v", "--max-connections", MANY + 500, "--stall-timeout", 5)
RSS_MAX_KIB = 128 << 10


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/os-release": "ID=os\n"}), incompressible_layer(12 << 20)]
    return build_image(tmp_path_factory.mktemp("image") / "os", layers, ref="localhost/os:1")


@pytest.fixture(scope="module")
def served(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    user = Cli(tmp_path_factory.mktemp("home"))
    with serving(user, "--place", f"oci:{image.root}", *OPTIONS) as served:
        yield served


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(
    image: BuiltImage, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    user = Cli(tmp_path_factory.mktemp("secure"))
    tls = ("--tls-cert", certificates.chain, "--tls-key", certificates.key)
    with serving(user, "--place", f"oci:{image.root}", *OPTIONS, *tls) as served:
        yield served
        with (
            served.connect() as sock,
            certificates.client_context().wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
        ):
            assert ask(wrapped, "/v2/os/manifests/1").body == image.manifest


@pytest.fixture(autouse=True)
def a_good_client_is_served_afterwards(served: Served, image: BuiltImage) -> Iterator[None]:
    yield
    assert served.get("/v2/os/manifests/1").body == image.manifest
    small = image.layers[0]
    assert served.get(f"/v2/os/blobs/{small.digest}").body == image.blob_path(small.digest).read_bytes()
    assert served.process.poll() is None
    assert not re.search(r"Traceback|[^\n -~]", served.err.replace("…", "")), served.err


# --- what one connection may send -------------------------------------------------------------------------


class Case(NamedTuple):
    """``raw`` is sent, then no more; ``statuses`` are what may come back; 0: the end and no answer."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


def line(text: str | bytes, *statuses: int) -> Case:
    """A first line."""
    raw = text if isinstance(text, bytes) else text.encode()
    return Case(f"line {raw[:60]!r}", raw + b"\r\nHost: x\r\nConnection: close\r\n\r\n", statuses)


def path(target: str, *statuses: int) -> Case:
    """A target."""
    return Case(f"path {target[:60]} {len(target)}", head_of(target, "Connection: close"), statuses)


def field(text: str | bytes, *statuses: int, target: str = "/v2/os/manifests/1") -> Case:
    """A field of the head, or several."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    return Case(f"field {raw[:60]!r} {len(raw)}", head + raw + b"\r\n\r\n", statuses)


def other(name: str, raw: bytes, *statuses: int) -> Case:
    """Anything else."""
    return Case(name, raw, statuses)


BLOB = f"/v2/os/blobs/sha256:{HEX}"
CASES = [
    # the first line
    line("GET", 400),
    line("GET /v2/", 505),
    line("GET  /v2/  HTTP/1.1", 400, 200),
    line("get /v2/ HTTP/1.1", 400, 405),
    line("BREW /v2/ HTTP/1.1", 400, 405),
    line("G\0T /v2/ HTTP/1.1", 400),
    line("X" * 3000 + " /v2/ HTTP/1.1", 400, 405),
    line("GET /v2/ HTTP/9.9", 400),
    line("GET /v2/ HTTP/2.0", 505),
    line("GET /v2/ HTTP/1.", 400),
    line("GET /v2/ FTP/1.1", 400),
    line("GET /v2/\tHTTP/1.1", 400),
    line("GET /v2/os\x7f/manifests/1 HTTP/1.1", 400),
    line(b"GET /v2/\xff\xfe/manifests/1 HTTP/1.1", 400),
    line("GET /v2/ö/manifests/1 HTTP/1.1", 400),
    line("CONNECT 127.0.0.1:22 HTTP/1.1", 400, 405),
    line("OPTIONS * HTTP/1.1", 405),
    line("TRACE /v2/ HTTP/1.1", 405),
    line("GET http://169.254.169.254/latest/meta-data HTTP/1.1", 400, 404),
    line("GET http://x/v2/ HTTP/1.1", 400),
    line("GET file:///etc/passwd HTTP/1.1", 400),
    line("GET v2/ HTTP/1.1", 400),
    # paths
    path("/", 404),
    path("/etc/passwd", 404),
    path("//etc/passwd", 404),
    path("/../../../etc/passwd", 404),
    path("/v2/../../etc/passwd", 404),
    path("/v2/../../etc/passwd/manifests/1", 400),
    path("/v2/%2e%2e/%2e%2e/etc/passwd/manifests/1", 400),
    path("/v2/..%2f..%2fetc%2fpasswd/manifests/1", 400),
    path("/v2/%252e%252e%252f/manifests/1", 400),
    path("/v2/os/manifests/..%5c..%5cpasswd", 400),
    path("/v2/os/manifests/../../../../etc/passwd", 404),
    path("/v2/os/manifests/%00", 400),
    path("/v2/os/manifests/1%0d%0aX:%20y", 400),
    path("/v2/os/manifests/1#part", 404, 200),
    path("/v2/os/manifests/1;x=y", 404),
    path("/v2/os/blobs/sha256:../../../../etc/passwd", 400, 404),
    path("/v2/os/blobs/sha256/" + HEX, 400, 404),
    path("/v2/os/blobs/sha256:" + HEX.upper(), 400),
    path("/v2/os/blobs/sha1:" + HEX[:40], 400),
    path("/v2/os/blobs/sha512:" + HEX * 2, 404),
    path("/v2/os/blobs/" + "a" * 3000, 400),
    path("/v2/" + "a/" * 1500 + "manifests/1", 400),
    path("/v2/" + "a-" * 100 + "!/manifests/1", 400),
    path("/v2/os/tags/list?n=" + "9" * 3000, 400),
    path("/v2/os/tags/list?" + "&" * 3000, 200),
    path("/v2/os/tags/list?" + "n=1&" * 900, 400),
    path("/v2/os/manifests/1?ns=../../etc", 400),
    path("/v2/os/manifests/1?ns=a%00b", 400),
    path(f"/v2/os/referrers/sha256:{HEX}?artifactType=" + "%41" * 900, 400),
    path("/v2/os/blobs/uploads/", 404),
    path("/v2/_catalog/../../x", 404),
    path("/" + "a" * 5000, 400),
    # fields
    field("A" * 5000 + ": b", 400),
    field("A: " + "b" * 5000, 400),
    field("\r\n".join(f"A{n}: b" for n in range(200)), 400),
    field("A: " + "b" * 200_000, 400),
    field("no colon", 400),
    field("A : b", 400),
    field(": b", 400),
    field(b"A: b\0c", 400),
    field("A: b\r\n folded", 400, 200),
    field("A: b\rX: y", 400),
    field("Content-Length: 1\r\nContent-Length: 2", 400),
    field("Content-Length: -1", 400),
    field("Content-Length: +1", 400),
    field("Content-Length: 99999999999999999999999999", 400, 200),
    field("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    field("Transfer-Encoding: gzip", 400, 200),
    field("Transfer-Encoding: chunked, identity", 400),
    field("Accept: " + "," * 4000, 200),
    field("Accept: " + "a/b;q=0.1," * 380, 404),
    field("Accept: */*;q=" + "0" * 4000, 200),
    field("Range: bytes=" + "0-0," * 1000, 404, target=BLOB),
    field("Range: bytes=" + "9" * 4000 + "-", 404, target=BLOB),
    field("Range: bytes=" + " " * 4000, 404, target=BLOB),
    field("If-None-Match: " + '"a",' * 1000, 200),
    field('If-None-Match: "' + "\x80" * 1000, 200),
    field("If-Range: " + "W/" * 1000, 404, target=BLOB),
    field("Authorization: Basic " + "A" * 4000, 200),
    field("Authorization: " + "\xff" * 1000, 200),
    field("Layertee-Diff-IDs: " + "1" * 3000, 200),
    field("Expect: 100-continue", 200),
    field("Expect: the worst", 200),
    field("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x", 200),
    field("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", 200),
    field("Content-Encoding: br", 200),
    # bodies
    other("a body", head_of("/v2/", "Content-Length: 5") + b"12345", 200),
    other("a body that does not come", head_of("/v2/", "Content-Length: 500"), 200),
    other("a body of a megabyte", head_of("/v2/", "Content-Length: 1000000") + bytes(1_000_000), 200, 0),
    other("chunks", head_of("/v2/", "Transfer-Encoding: chunked") + b"5\r\n12345\r\n0\r\n\r\n", 200),
    other("no chunks", head_of("/v2/", "Transfer-Encoding: chunked") + b"xyz\r\n", 200, 400, 0),
    other("huge chunk", head_of("/v2/", "Transfer-Encoding: chunked") + b"f" * 5000, 200, 400, 0),
    other("an upload", head_of("/v2/os/blobs/uploads/", "Content-Length: 3", method="POST") + b"abc", 405),
    other("a push", head_of("/v2/os/manifests/1", "Content-Length: 2", method="PUT") + b"{}", 405),
    other("a deletion", head_of("/v2/os/manifests/1", "Connection: close", method="DELETE"), 405),
    other("a patch", head_of(BLOB, "Content-Length: 1", method="PATCH") + b"x", 405),
    # other protocols
    other("nothing", b"", 0),
    other("empty lines", b"\r\n" * 1000, 0, 400),
    other("zeros", bytes(100_000), 400, 0),
    other("TLS", bytes.fromhex("16030100f8010000f40303") + bytes(240), 400),
    other("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    other("HTTP/0.9", b"GET /v2/\r\n\r\n", 505),
    other("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    other("PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head_of("/v2/"), 400),
    other("a line without an end", b"GET /" + b"a" * 300_000, 400),
    other("a head without an end", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000, 400),
    other("bare line feeds", b"GET /v2/ HTTP/1.1\nHost: x\nConnection: close\n\n", 200, 400),
    other("half a head", b"GET /v2/ HTTP/1.1\r\nHost", 0),
    other("garbage after a request", head_of("/v2/") + b"\0\xff\0\xff\r\n\r\n", 200, 400),
    other("a second request in a body", head_of("/v2/", "Content-Length: 40") + head_of("/metrics"), 200),
]


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_gets_a_short_answer(served: Served, case: Case) -> None:
    with served.connect(timeout_s=8.0) as sock:
        with suppress(OSError):  # it may have been refused already
            sock.sendall(case.raw)
            sock.shutdown(socket.SHUT_WR)
        came = rest_of(sock, ANSWER_MAX)
    status = int(came[9:12]) if came else 0
    assert status in case.statuses, came[:300]
    assert b"passwd" not in came.partition(b"\r\n\r\n")[2]


# --- how connections may end ------------------------------------------------------------------------------


def reset(sock: socket.socket) -> None:
    """Close it so that the other side sees an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def big(image: BuiltImage) -> str:
    return f"/v2/os/blobs/{image.layers[1].digest}"


@pytest.mark.parametrize("sent", [b"", b"G", head_of("/v2/")[:-3], head_of("/v2/")])
def test_a_connection_may_be_reset_at_any_time(served: Served, sent: bytes) -> None:
    for _ in range(50):
        sock = served.connect()
        sock.sendall(sent)
        reset(sock)


def test_downloads_may_be_given_up(served: Served, image: BuiltImage) -> None:
    before = served.n_files()
    for n in range(60):
        sock = served.connect()
        sock.sendall(head_of(big(image)))
        assert sock.recv(10_000)
        if n % 2:
            reset(sock)
        else:
            sock.close()
    wait_until(lambda: served.n_files() <= before, "what was open is closed")


def test_a_request_may_come_byte_by_byte(served: Served, image: BuiltImage) -> None:
    with served.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head_of("/v2/os/manifests/1"):
            sock.sendall(bytes([byte]))
        assert read_answer(sock).body == image.manifest


def test_a_thousand_requests_may_come_at_once(served: Served, image: BuiltImage) -> None:
    with served.connect() as sock:
        writer = threading.Thread(target=sock.sendall, args=(head_of("/v2/os/manifests/1") * 1000,))
        writer.start()
        for _ in range(1000):
            assert read_answer(sock).body == image.manifest
        writer.join()


def test_requests_whose_answers_nobody_reads_cost_little(served: Served, image: BuiltImage) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(served.connect())
            sock.settimeout(0.2)
            with suppress(TimeoutError):  # it reads no more of them
                sock.sendall(head_of(big(image)) * 5000)
        assert served.rss_kib() < RSS_MAX_KIB


def test_a_message_of_a_client_is_one_line_of_the_log(served: Served) -> None:
    served.get("/v2/os/manifests/1?x=%1b[31m%0aERROR%0d", "User-Agent: %1b")
    wait_until(lambda: "GET /v2/os/manifests/1?x=%1b[31m%0aERROR%0d 200 " in served.err, "it is in the log")


# --- time -------------------------------------------------------------------------------------------------

SLOW: dict[str, Callable[[int], bytes]] = {
    "sends nothing": lambda second: b"",
    "sends a byte a second": lambda second: b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\r\n"[second : second + 1],
    "sends a field a second": lambda second: b"A: b\r\n" if second else b"GET /v2/ HTTP/1.1\r\nHost: x\r\n",
    "sends an empty line a second": lambda second: b"\r\n",
    "sends a long line slowly": lambda second: b"a" * 100 if second else b"GET /",
    "asks again slowly": lambda second: b"G" if second else head_of("/v2/"),
    "sends a body slowly": lambda second: b"1" if second else head_of("/v2/", "Content-Length: 99"),
}


# The same, before there is a request: a handshake that does not come to its end.
SLOW_TLS: dict[str, Callable[[int], bytes]] = {
    "says nothing": lambda second: b"",
    "says hello a byte a second": lambda second: bytes.fromhex("16030100f8010000f40303")[second : second + 1],
    "says half a hello": lambda second: b"" if second else bytes.fromhex("16030100f8010000f40303"),
}


def test_slow_requests_are_not_waited_for(served: Served, secure: Served) -> None:
    """All of them at once: none may take much longer than the ten seconds that a head has."""
    with ExitStack() as stack:
        socks = {name: stack.enter_context(served.connect()) for name in SLOW}
        socks |= {name: stack.enter_context(secure.connect()) for name in SLOW_TLS}
        sends = SLOW | SLOW_TLS
        gone: dict[str, float] = {}
        started = time.monotonic()
        second = 0
        while len(gone) < len(sends):
            elapsed = time.monotonic() - started
            assert elapsed < 30, f"{set(sends) - set(gone)} are still there"
            for name, sock in socks.items():
                if name not in gone and is_gone(sock, sends[name](second) if elapsed >= second else b""):
                    gone[name] = elapsed
            if elapsed >= second:
                second += 1
            time.sleep(0.05)  # between two looks
    assert max(gone.values()) < 15, gone


def is_gone(sock: socket.socket, send: bytes) -> bool:
    """Whether the server has closed; what it sent is read."""
    sock.setblocking(False)
    try:
        if send:
            sock.send(send)
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def test_a_client_that_does_not_read_is_cut(
    served: Served, secure: Served, image: BuiltImage, certificates: Certificates
) -> None:
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((secure.host, secure.port))
        deaf.settimeout(60)
        wrapped = stack.enter_context(
            certificates.client_context().wrap_socket(deaf, server_hostname="127.0.0.1")
        )
        wrapped.sendall(head_of(big(image)))
        socks = []
        for _ in range(5):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((served.host, served.port))
            sock.settimeout(60)
            sock.sendall(head_of(big(image)))
            socks.append(sock)
        wait_until(lambda: served.connections() > len(socks), "they are served")
        wait_until(lambda: served.connections() == 1, "they are cut", timeout_s=40)
        for sock in socks:
            assert len(rest_of(sock, 12 << 20)) < 12 << 20
        wait_until(lambda: "takes its answer too slowly" in secure.err, "that one is cut, too", timeout_s=40)


# --- numbers ----------------------------------------------------------------------------------------------


def test_thousands_of_idle_connections_cost_little(served: Served) -> None:
    before = served.rss_kib()
    with ExitStack() as stack:
        for n in range(MANY):
            sock = stack.enter_context(served.connect())
            if n % 2:
                sock.sendall(head_of("/v2/"))
                read_answer(sock)
        assert served.connections() >= MANY
        assert served.rss_kib() - before < MANY * 24, "KiB for each"
    wait_until(lambda: served.connections() < 50, "they are gone")


def test_clients_of_tls_cost_not_much_more(
    secure: Served, image: BuiltImage, certificates: Certificates
) -> None:
    """Those that wait, and those that do not take what they have asked for."""
    number, before = 200, secure.rss_kib()
    context = certificates.client_context()
    with ExitStack() as stack:
        socks = []
        for _ in range(number):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((secure.host, secure.port))
            wrapped = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
            assert ask(wrapped, "/v2/").status == 200
            socks.append(wrapped)
        assert secure.rss_kib() - before < number * 100, "KiB for each that waits"
        for wrapped in socks:
            wrapped.sendall(head_of(big(image)))
            assert wrapped.recv(1) == b"H"
        assert secure.rss_kib() - before < number * 280, "KiB for each that is sent something"


def test_who_comes_when_there_is_no_room_is_served_in_place_of_an_idle_one(
    image: BuiltImage, user: Cli
) -> None:
    with (
        serving(user, "--place", f"oci:{image.root}", "--max-connections", 3) as small,
        ExitStack() as stack,
    ):
        idle = [stack.enter_context(small.connect()) for _ in range(3)]
        for sock in idle:
            assert ask(sock, "/v2/").status == 200
        assert small.get("/v2/os/manifests/1").body == image.manifest
        assert rest_of(idle[0]) == b"", "the idlest had to go"
        assert ask(idle[2], "/v2/").status == 200


def test_who_says_nothing_in_a_handshake_makes_room(
    image: BuiltImage, user: Cli, certificates: Certificates
) -> None:
    tls = ("--tls-cert", certificates.chain, "--tls-key", certificates.key)
    options = ("--place", f"oci:{image.root}", "--max-connections", 3, *tls)
    with serving(user, *options) as small, ExitStack() as stack:
        silent = [stack.enter_context(small.connect()) for _ in range(6)]
        started = time.monotonic()
        sock = stack.enter_context(small.connect())
        wrapped = stack.enter_context(
            certificates.client_context().wrap_socket(sock, server_hostname="127.0.0.1")
        )
        assert ask(wrapped, "/v2/").status == 200
        assert time.monotonic() - started < 6, "not the ten seconds that a handshake may take"
        assert rest_of(silent[0]) == b""


def test_when_files_run_out_clients_wait_or_are_told_to_come_later(image: BuiltImage, user: Cli) -> None:
    with serving(user, "--place", f"oci:{image.root}") as small, ExitStack() as stack:
        resource.prlimit(small.process.pid, resource.RLIMIT_NOFILE, (small.n_files() + 30,) * 2)
        socks = [stack.enter_context(small.connect()) for _ in range(60)]
        for sock in socks:
            sock.sendall(head_of(big(image)))
        wait_until(lambda: "no client can be accepted for now" in small.err, "no file is left")
        first = [sock.recv(13) for sock in socks[:3]]
        assert set(first) <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 ", b""}
        for sock in socks:
            sock.close()
        assert small.get("/v2/os/manifests/1").body == image.manifest
        assert small.get(big(image)).body == image.blob_path(image.layers[1].digest).read_bytes()


def test_who_comes_when_all_are_busy_waits(image: BuiltImage, user: Cli) -> None:
    with serving(user, "--place", f"oci:{image.root}", "--max-connections", 2) as small, ExitStack() as stack:
        busy = [stack.enter_context(small.connect()) for _ in range(2)]
        for sock in busy:
            sock.sendall(head_of(big(image), "Connection: close"))
            assert sock.recv(1)
        third = stack.enter_context(small.connect())
        third.sendall(head_of("/v2/"))
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1)
        third.settimeout(60)
        busy[0].close()
        assert read_answer(third).status == 200
