"""The image-proxy protocol, asked of our server and of the real skopeo's: life, packets, arguments, errors.

:mod:`tests.support.imageproxy_pair` has the table of what the two do differently.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.imageproxy import PACKET, Disconnected, ImageProxy, Reply, layertee_proxy, refusal
from tests.support.imageproxy_pair import (
    DIFFERENCES,
    LARGEST,
    NOWHERE,
    PLAIN_HTTP,
    Images,
    Server,
    answers,
    layer_content,
)
from tests.support.rig.registry import RegistryServer, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root("a store of podman's is made as root here"),
]


@pytest.fixture
def proxy(server: Server) -> Iterator[ImageProxy]:
    """A server of the test's own."""
    with server.start() as proxy:
        proxy.value("Initialize")
        yield proxy


def ask(proxy: ImageProxy, packet: bytes) -> Reply:
    """Send a packet as it is."""
    proxy.send(packet)
    return proxy.receive()


# -- a life, from Initialize to the end ---------------------------------------------------------


def test_initialize_tells_the_version_once(server: Server) -> None:
    with server.start() as proxy:
        assert proxy.value("Initialize") == server.does("version")
        assert proxy.refused("Initialize") == "already initialized"
        assert answers(proxy)


def test_nothing_is_done_before_initialize(server: Server, images: Images) -> None:
    with server.start() as proxy:
        for method, *args in (
            ("OpenImage", images.names["docker"]),
            ("CloseImage", 1),
            ("GetManifest", 1),
            ("GetFullConfig", 1),
            ("GetBlob", 1, NOWHERE, 1),
            ("FinishPipe", 1),
            ("Nonsense",),
        ):
            proxy.refused(method, *args)
        assert proxy.value("Initialize") == server.version


def test_every_reply_has_every_key(server: Server, shared: ImageProxy, images: Images) -> None:
    opened = shared.call("OpenImage", images.names["docker"])
    piped = shared.call("GetManifest", opened.value)
    _, finished = shared.drain(piped)
    closed = shared.call("CloseImage", opened.value)
    failed = shared.call("CloseImage", opened.value)
    for reply in (opened, piped, finished, closed, failed):
        assert set(reply.document) >= server.does("keys")
    for reply in (opened, piped, finished, closed):
        assert (reply.success, reply.error, reply.document.get("error_code", "")) == (True, "", "")
    assert (finished.value, closed.value, failed.value) == (None, None, None)
    assert (opened.pipeid, closed.pipeid, failed.pipeid) == (0, 0, 0)
    assert refusal(failed) and failed.document.get("error_code", "other") == "other"


def test_shutdown_ends_it_without_a_reply(server: Server, proxy: ImageProxy) -> None:
    proxy.send(b'{"method": "Shutdown", "args": []}')
    with pytest.raises(Disconnected):
        proxy.receive()
    assert proxy.exit_status() == 0


def test_a_client_that_hangs_up_ends_it(proxy: ImageProxy, images: Images) -> None:
    reply = proxy.piped("GetManifest", proxy.open(images.names["docker"]))
    proxy.hang_up()
    assert proxy.exit_status() == 0
    assert os.fstat(reply.fds[0])


def test_an_empty_packet_is_the_end(proxy: ImageProxy) -> None:
    proxy.send(b"")
    assert proxy.exit_status() == 0


def test_sigterm_ends_it(server: Server, proxy: ImageProxy) -> None:
    proxy.signal(signal.SIGTERM)
    assert proxy.exit_status() in server.does("SIGTERM")


def test_the_socket_may_be_any_descriptor(server: Server, images: Images) -> None:
    with server.start(sockfd=True) as proxy:
        assert proxy.value("Initialize") == server.version
        digest, _ = proxy.manifest(proxy.open(images.names["docker"]))
        assert digest == images.oci.digest
        proxy.hang_up()
        assert proxy.exit_status() == 0


def test_everything_that_a_client_may_put_on_the_command_line_is_taken(
    registry: RegistryServer, images: Images, tmp_path: Path
) -> None:
    certificates, auth = tmp_path / "certs", tmp_path / "auth.json"
    certificates.mkdir()
    auth.write_text("{}")
    auth.chmod(0o600)
    registry.reset()
    for credentials in (["--authfile", str(auth)], ["--no-creds"]):
        options = ["experimental-image-proxy", "--debug", *credentials, "--cert-dir", str(certificates)]
        options += [PLAIN_HTTP, "--user-agent-prefix", "bootc/1.2"]
        with layertee_proxy(tmp_path / "store", *options) as proxy:
            proxy.value("Initialize")
            proxy.manifest(proxy.open(images.names["docker"]))
    agents = {access.user_agent for access in registry.accesses() if access.kind == "manifest"}
    assert agents and all(agent.startswith("bootc/1.2") for agent in agents)


# -- packets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        b"{",
        b"[]",
        b"1",
        b'"Initialize"',
        b"null",
        b"{}",
        b"\0",
        b"\xff\xfe",
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"method": 1, "args": []}',
        b'{"method": null, "args": []}',
        b'{"args": []}',
        b'{"method": "CloseImage"}',
        b'{"method": "CloseImage", "args": null}',
        b'{"method": "CloseImage", "args": {}}',
        b'{"method": "CloseImage", "args": "1"}',
        b'{"method": "CloseImage", "args": [NaN]}',
        b'{"method": "CloseImage", "args": [1e999]}',
        b'{"method": "CloseImage", "args": [' + b"9" * 9000 + b"]}",
        b'{"method": "CloseImage", "args": [1]} trailing',
        b'{"method": "closeimage", "args": [1]}',
        b'{"method": "OpenImage", "args": ["\\u0000"]}',
        b'{"method": "OpenImage", "args": ["\\ud800"]}',
        b'{"method": "\\ud800", "args": []}',
        b"[" * 30_000,
        b'{"a":' * 6_000,
        b" " * 30_000,
    ],
    ids=lambda packet: packet[:40].decode("ascii", "backslashreplace"),
)
def test_a_malformed_packet_is_an_error_and_not_the_end(shared: ImageProxy, packet: bytes) -> None:
    refusal(ask(shared, packet))
    assert answers(shared)


@pytest.mark.parametrize("size", [PACKET - 1, PACKET])
def test_a_packet_may_be_as_large_as_the_protocol_allows(shared: ImageProxy, size: int) -> None:
    small = refusal(shared.call("CloseImage", 0))
    assert refusal(ask(shared, padded(size))) == small


@pytest.mark.parametrize("size", [PACKET + 1, 2 * PACKET])
def test_a_packet_that_is_too_large_is_an_error(shared: ImageProxy, size: int) -> None:
    refusal(ask(shared, padded(size)))
    assert answers(shared)


def padded(size: int) -> bytes:
    """A request of ``size`` bytes, with a key that nobody knows."""
    head = b'{"method": "CloseImage", "args": [0], "unknown": "'
    return head + b"x" * (size - len(head) - 2) + b'"}'


@pytest.mark.parametrize("filling", ["A", "<", "é", "€", "😀", '"', "\\u0001"])
def test_a_reply_is_never_larger_than_a_packet(images: Images, tmp_path: Path, filling: str) -> None:
    text = filling * (30_000 // len(filling.encode()))
    with layertee_proxy(tmp_path / "store", PLAIN_HTTP) as proxy:
        proxy.value("Initialize")
        for method, args in (
            (text, "[]"),
            ("OpenImage", f'["docker://{text}"]'),
            ("OpenImage", f'["{text}"]'),
        ):
            word = method.replace('"', '\\"')
            packet = f'{{"method":"{word}","args":{args}}}'.encode()
            assert len(packet) <= PACKET or filling == '"'
            reply = ask(proxy, packet[:PACKET])
            assert refusal(reply) and reply.nbytes <= PACKET


# -- arguments ----------------------------------------------------------------------------------

IMAGE, BLOB = object(), object()  # an id and a digest that are right
WRONG: dict[str, list[list[Any]]] = {
    "Initialize": [[1]],
    "OpenImage": [
        *([], [1], [None], [["docker://a"]], ["docker://a", "docker://b"]),
        *([""], ["nonsense"], ["nonsense://a"], ["docker://Not A Name"]),
    ],
    "CloseImage": [[], ["1"], [None], [True], [[1]], [{"id": 1}], [IMAGE, IMAGE]],
    "GetManifest": [[], ["1"], [IMAGE, IMAGE]],
    "GetConfig": [[], [True]],
    "GetFullConfig": [[], [None]],
    "GetBlob": [[], [IMAGE], [IMAGE, BLOB], [IMAGE, BLOB, 1, 1], [0, BLOB, 1], [999, BLOB, 1]]
    + [[IMAGE, BLOB, size] for size in ("1", None, True, LARGEST + 1, 2**64, 1e300)]
    + [
        [IMAGE, digest, 1]
        for digest in (1, "", "sha256:", "sha256:abc", "sha256:../../../etc/passwd", NOWHERE)
    ]
    + [["1", BLOB, 1], [IMAGE, NOWHERE, -1]],
    "FinishPipe": [["1"], [None], [True], [LARGEST + 1], [1e300]],
}
WRONG_SINCE: dict[str, list[list[Any]]] = {
    "OpenImageOptional": [[], [1], ["nonsense"]],
    "GetLayerInfo": [[], [0], ["1"]],
    "GetLayerInfoPiped": [[], [999]],
    "GetRawBlob": [[], [IMAGE], [IMAGE, 1], [IMAGE, "sha256:abc"], [IMAGE, NOWHERE], [0, NOWHERE]],
}


def filled(args: list[Any], image: int, images: Images) -> list[Any]:
    """The arguments, with what is right put in."""
    blob = images.oci.layers[0].digest
    return [image if arg is IMAGE else blob if arg is BLOB else arg for arg in args]


@pytest.mark.parametrize(
    ("method", "args"), [(method, args) for method, cases in WRONG.items() for args in cases]
)
def test_wrong_arguments_are_an_error(
    shared: ImageProxy, images: Images, image: int, method: str, args: list[Any]
) -> None:
    shared.refused(method, *filled(args, image, images))
    assert answers(shared)
    assert shared.manifest(image)[0] == images.oci.digest


@pytest.mark.parametrize("number", [0, -1, 999, 2**31, 2**32, LARGEST, LARGEST + 1, 2**63, 2**64, 1e300])
def test_an_id_of_no_image_is_an_error(shared: ImageProxy, image: int, number: float) -> None:
    for method in ("CloseImage", "GetManifest", "GetConfig", "GetFullConfig"):
        shared.refused(method, number)
    shared.refused("GetBlob", number, NOWHERE, 1)


@pytest.mark.parametrize("beyond", [2**32, 2**40, 0.5])
def test_an_id_is_a_whole_number_of_any_length(
    server: Server, proxy: ImageProxy, images: Images, beyond: float
) -> None:
    number = proxy.open(images.names["docker"])
    reply = proxy.call("CloseImage", number + beyond)
    assert reply.success is (server.does("ids that are no uint32") == "cut off")
    assert proxy.call("GetManifest", number).success is not reply.success


def test_a_closed_image_is_gone_and_its_pipes_are_not(proxy: ImageProxy, images: Images) -> None:
    number = proxy.open(images.names["docker"])
    pipe = proxy.piped("GetBlob", number, images.oci.layers[1].digest, images.oci.layers[1].size)
    assert proxy.value("CloseImage", number) is None
    for method in ("CloseImage", "GetManifest", "GetConfig", "GetFullConfig"):
        proxy.refused(method, number)
    proxy.refused("GetBlob", number, images.oci.config_digest, len(images.oci.config))
    content, end = proxy.drain(pipe)
    assert end.success and content == layer_content(images.oci, 1)


def test_images_are_open_side_by_side(proxy: ImageProxy, images: Images) -> None:
    one, two, again = (proxy.open(images.names[name]) for name in ("docker", "schema2", "docker"))
    assert len({one, two, again}) == 3
    proxy.value("CloseImage", one)
    assert proxy.manifest(two)[0] == images.docker.digest
    assert proxy.manifest(again)[0] == images.oci.digest


def test_an_image_that_is_not_there_is_an_error(
    shared: ImageProxy, images: Images, registry: RegistryServer, tmp_path: Path
) -> None:
    for name in (
        f"docker://{registry.host}/proxy/os:nope",
        f"docker://{registry.host}/proxy/nope:1",
        f"docker://127.0.0.1:{free_port()}/proxy/os:1",
        f"oci:{images.oci.root}:nope",
        f"oci:{tmp_path}/nope:1",
        f"{images.names['containers-storage']}nope",
    ):
        assert shared.refused("OpenImage", name)
    assert answers(shared)


@pytest.mark.parametrize(
    ("method", "args"), [(method, args) for method, cases in WRONG_SINCE.items() for args in cases]
)
def test_wrong_arguments_of_the_newer_methods_are_an_error(
    newest: ImageProxy, images: Images, image: int, method: str, args: list[Any]
) -> None:
    newest.refused(method, *filled(args, image, images))
    assert answers(newest)


def test_a_policy_that_rejects(server: Server, images: Images, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    with server.start(policy=policy) as proxy:
        proxy.value("Initialize")
        reply = proxy.call("OpenImage", images.names["docker"])
        if server.does("a policy that rejects") == "refused":
            assert "POLICY" in refusal(reply)
        else:
            assert reply.success


def test_the_table_is_of_the_skopeo_that_is_here() -> None:
    assert all(row.why for row in DIFFERENCES.values())
    version = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout
    if version.startswith("skopeo version 1.9."):
        assert all("0.2.3" in row.theirs for row in DIFFERENCES.values())
