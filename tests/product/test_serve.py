"""``layertee serve`` as it is typed: what it answers, whom it lets in, how it begins and ends."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client.parser import text_string_to_metric_families

from tests.support.process import Cli, snapshot, wait_until
from tests.support.rig.certs import Certificates, make_certificates
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.serving import Answer, Served, ask, head_of, read_answer, rest_of, serving

pytestmark = pytest.mark.slow

ABSENT = "sha256:" + "ab" * 32
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ALWAYS = {"docker-distribution-api-version": "registry/2.0", "x-content-type-options": "nosniff"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/os-release": "ID=os\n"}), incompressible_layer(12 << 20)]
    return build_image(tmp_path_factory.mktemp("image") / "os", layers, ref="localhost/os:1")


@pytest.fixture(scope="module")
def place(image: BuiltImage) -> str:
    return f"oci:{image.root}"


@pytest.fixture(scope="module")
def served(place: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Cli(tmp_path_factory.mktemp("home")), "--place", place) as served:
        yield served


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def small(image: BuiltImage) -> bytes:
    return image.blob_path(image.layers[0].digest).read_bytes()


# --- the table of what is answered ------------------------------------------------------------------------


def test_manifests_and_blobs_are_what_the_place_has(served: Served, image: BuiltImage) -> None:
    for reference in ("1", image.digest):
        answer = served.get(f"/v2/os/manifests/{reference}", f"Accept: {OCI_MANIFEST}")
        assert (answer.status, answer.body) == (200, image.manifest)
        assert answer.head["content-type"] == image.media_type
        assert answer.head["docker-content-digest"] == image.digest
        assert answer.head["etag"] == f'"{image.digest}"'
        assert answer.head["layertee-diff-ids"] == "1"
        assert answer.head["vary"] == "Accept, Layertee-Diff-IDs"
    assert served.get(f"/v2/os/blobs/{image.config_digest}").body == image.config
    for layer in image.layers:
        answer = served.get(f"/v2/os/blobs/{layer.digest}")
        assert (answer.status, answer.body) == (200, image.blob_path(layer.digest).read_bytes())
        assert answer.head["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("target", "fields", "status", "code"),
    [
        ("/v2/", (), 200, None),
        ("/v2/_catalog", (), 200, None),
        ("/v2/os/tags/list", (), 200, None),
        (f"/v2/os/referrers/{ABSENT}", (), 200, None),
        ("/metrics", (), 200, None),
        ("/v2/os/manifests/2", (), 404, "MANIFEST_UNKNOWN"),
        ("/v2/os/manifests/1", ("Accept: text/html",), 404, "MANIFEST_UNKNOWN"),
        (f"/v2/os/manifests/{ABSENT}", (), 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/1", (), 404, "NAME_UNKNOWN"),
        ("/v2/other/tags/list", (), 404, "NAME_UNKNOWN"),
        (f"/v2/os/blobs/{ABSENT}", (), 404, "BLOB_UNKNOWN"),
        ("/v2/os/blobs/sha256:ab", (), 400, "DIGEST_INVALID"),
        ("/v2/OS/manifests/1", (), 400, "NAME_INVALID"),
        ("/v2/os/tags/list?n=x", (), 400, "PAGINATION_NUMBER_INVALID"),
        ("/elsewhere", (), 404, "UNSUPPORTED"),
    ],
)
def test_what_is_asked_has_its_status_and_code(
    served: Served, target: str, fields: tuple[str, ...], status: int, code: str | None
) -> None:
    answer = served.get(target, *fields)
    assert answer.status == status
    assert answer.head.items() >= ALWAYS.items()
    if code is not None:
        assert answer.code == code
    head = served.get(target, *fields, method="HEAD")
    assert (head.status, head.body) == (status, b"")
    if target != "/metrics":
        assert head.head["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_is_written(served: Served, method: str) -> None:
    answer = served.get("/v2/os/blobs/uploads/", method=method)
    assert (answer.status, answer.code, answer.head["allow"]) == (405, "UNSUPPORTED", "GET, HEAD")


def test_lists_are_of_what_is_there(served: Served) -> None:
    assert "os" in served.get("/v2/_catalog").json["repositories"]
    assert served.get("/v2/os/tags/list").json == {"name": "os", "tags": ["1"]}
    index = served.get(f"/v2/os/referrers/{ABSENT}?artifactType=a/b")
    assert index.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert index.head["oci-filters-applied"] == "artifactType"


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=5000000-5000009", slice(5_000_000, 5_000_010)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=12000000-", slice(12_000_000, None)),
        ("bytes=0-99999999", slice(None)),
    ],
)
def test_a_part_of_a_blob_is_sent(served: Served, image: BuiltImage, field: str, part: slice) -> None:
    digest = image.layers[1].digest
    raw = image.blob_path(digest).read_bytes()
    answer = served.get(f"/v2/os/blobs/{digest}", f"Range: {field}")
    start, stop, _ = part.indices(len(raw))
    assert (answer.status, answer.body) == (206, raw[part])
    assert answer.head["content-range"] == f"bytes {start}-{stop - 1}/{len(raw)}"


def test_a_part_that_is_not_there_or_not_wanted_any_more_is_not_sent(
    served: Served, image: BuiltImage
) -> None:
    digest, size = image.layers[0].digest, image.layers[0].size
    target = f"/v2/os/blobs/{digest}"
    none = served.get(target, f"Range: bytes={size}-")
    assert (none.status, none.head["content-range"]) == (416, f"bytes */{size}")
    assert served.get(target, "Range: bytes=0-1", 'If-Range: "another"').body == small(image)
    assert served.get(target, "Range: bytes=0-1", f'If-Range: "{digest}"').body == small(image)[:2]
    assert served.get(target, "Range: bytes=0-1,3-4").body == small(image)
    assert served.get(target, f'If-None-Match: "{digest}"').status == 304


def test_metrics_count(served: Served) -> None:
    def blobs_unknown() -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(served.get("/metrics").body.decode())
            for sample in family.samples
            if sample.labels == {"kind": "blob", "status": "404"}
        )

    before = blobs_unknown()
    served.get(f"/v2/os/blobs/{ABSENT}")
    assert blobs_unknown() == before + 1


# --- the store --------------------------------------------------------------------------------------------


def test_the_store_is_what_is_offered_and_nothing_is_written_to_it(user: Cli, image: BuiltImage) -> None:
    user.run("pull", "--insecure-policy", f"{image.skopeo_name}")
    before = snapshot(user.store)
    with serving(user) as served:
        (name,) = [one for one in served.get("/v2/_catalog").json["repositories"] if "/" not in one]
        (tag,) = served.get(f"/v2/{name}/tags/list").json["tags"]
        assert served.get(f"/v2/{name}/manifests/{tag}").body == image.manifest
        assert served.get(f"/v2/{name}/blobs/{image.layers[0].digest}").body == small(image)
    assert snapshot(user.store) == before


def test_a_store_that_is_not_there_is_not_made(user: Cli) -> None:
    with serving(user) as served:
        assert served.get("/v2/_catalog").json == {"repositories": []}
    assert not user.store.exists()


def test_a_blob_that_is_damaged_is_not_sent(image: BuiltImage, user: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(image.root, copy)
    victim = copy / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")
    victim.write_bytes(b"x" * image.layers[0].size)
    with serving(user, "--place", f"oci:{copy}") as served:
        assert served.get(f"/v2/os/blobs/{image.layers[0].digest}").code == "BLOB_UNKNOWN"


# --- who is let in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_other_machines_are_not_listened_to_without_tls(user: Cli, address: str) -> None:
    ran = user.run("serve", "--listen", address, code=1)
    assert "[SERVE_CONFIG]" in ran.err
    assert "hint: --tls-cert FILE and --tls-key FILE" in ran.err


def test_unless_it_is_wanted(user: Cli, place: str) -> None:
    with serving(user, "--place", place, "--insecure-listen", listen="0.0.0.0:0") as served:
        port = int(served.out.split("\n")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            assert ask(sock, "/v2/").status == 200
        assert f"{socket.gethostname()}:{port}/os:1" in served.out


@pytest.mark.parametrize(
    "options",
    [
        ("--tls-cert", "{chain}"),
        ("--tls-key", "{key}"),
        ("--client-ca", "{authority}"),
        ("--tls-cert", "{chain}", "--tls-key", "{chain}"),
        ("--tls-cert", "{missing}", "--tls-key", "{key}"),
        ("--tls-cert", "{chain}", "--tls-key", "{key}", "--client-ca", "{key}"),
        ("--htpasswd", "{key}"),
        ("--htpasswd", "{missing}"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    user: Cli, certificates: Certificates, options: tuple[str, ...]
) -> None:
    names = {name: str(getattr(certificates, name)) for name in ("chain", "key", "authority")}
    names["missing"] = str(user.home / "missing")
    ran = user.run("serve", "--listen", "127.0.0.1:0", *(word.format(**names) for word in options), code=1)
    assert "[SERVE_CONFIG]" in ran.err
    assert "--" in ran.err or any(name in ran.err for name in names.values())


def test_it_says_what_is_likely_wrong_with_a_key(
    user: Cli, certificates: Certificates, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
    pkcs8, passphrase = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, passphrase))
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing")
    cases = [
        (certificates.chain, locked, "has a passphrase"),
        (certificates.key, certificates.chain, "were they exchanged?"),
        (nothing, certificates.key, "no certificate (PEM)"),
        (certificates.chain, nothing, "no key (PEM)"),
    ]
    for cert, key_file, said in cases:
        ran = user.run("serve", "--listen=127.0.0.1:0", "--tls-cert", cert, "--tls-key", key_file, code=1)
        assert said in ran.err
        assert "PEM lib" not in ran.err


def tls_ask(served: Served, context: ssl.SSLContext, target: str, *fields: str) -> Answer:
    with served.connect() as sock, context.wrap_socket(sock, server_hostname="127.0.0.1") as wrapped:
        return ask(wrapped, target, *fields)


def test_over_tls_the_same_is_sent(
    user: Cli, image: BuiltImage, place: str, certificates: Certificates
) -> None:
    options = ("--place", place, "--tls-cert", certificates.chain, "--tls-key", certificates.key)
    with serving(user, *options) as served:
        assert served.out.startswith("https://127.0.0.1:")
        context = certificates.client_context()
        for layer in image.layers:
            answer = tls_ask(served, context, f"/v2/os/blobs/{layer.digest}")
            assert answer.body == image.blob_path(layer.digest).read_bytes()
        part = tls_ask(served, context, f"/v2/os/blobs/{image.layers[1].digest}", "Range: bytes=70000-70009")
        assert part.body == image.blob_path(image.layers[1].digest).read_bytes()[70000:70010]
        with served.connect() as plain:
            plain.sendall(head_of("/v2/"))
            assert not rest_of(plain).startswith(b"HTTP/1.1 200")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificates.authority)
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            tls_ask(served, old, "/v2/")
        assert tls_ask(served, context, "/v2/").status == 200


def test_a_certificate_is_read_again(
    user: Cli, place: str, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    renewed = make_certificates(tmp_path / "renewed")

    def put(found: Certificates) -> None:
        key.write_bytes(found.key.read_bytes())
        cert.write_bytes(found.chain.read_bytes())

    put(certificates)
    with serving(user, "--place", place, "-v", "--tls-cert", cert, "--tls-key", key) as served:
        assert tls_ask(served, certificates.client_context(), "/v2/").status == 200
        cert.write_text("nonsense")
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the certificate stays as it was" in served.err, "it has been looked at")
        assert tls_ask(served, certificates.client_context(), "/v2/").status == 200
        put(renewed)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the certificate was read again" in served.err, "it has been read")
        assert tls_ask(served, renewed.client_context(), "/v2/").status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            tls_ask(served, certificates.client_context(), "/v2/")


def test_with_an_authority_for_clients_only_they_are_served(
    user: Cli, place: str, certificates: Certificates, tmp_path: Path
) -> None:
    strangers = make_certificates(tmp_path / "strangers")
    options = ("-v", "--tls-cert", certificates.chain, "--tls-key", certificates.key)
    with serving(user, "--place", place, *options, "--client-ca", certificates.authority) as served:
        with served.connect() as plain:
            plain.sendall(head_of("/v2/"))
            rest_of(plain)
        served.connect().close()
        for found, is_served in ((None, False), (strangers, False), (certificates, True)):
            context = certificates.client_context()
            if found is not None:
                context.load_cert_chain(found.chain, found.key)
            if is_served:
                assert tls_ask(served, context, "/v2/").status == 200
            else:
                with pytest.raises((OSError, EOFError)):
                    tls_ask(served, context, "/v2/")
        whys = (
            "the client speaks http,",
            "the client left",
            "has no certificate",
            "certificate verify failed",
        )
        for why in whys:
            wait_for_line(served, rf"127\.0\.0\.1:\d+: the TLS handshake failed: .*{why}")


def wait_for_line(served: Served, like: str) -> None:
    wait_until(lambda: re.search(like, served.err) is not None, f"{like} is in the log")


def test_without_a_login_nothing_is_told(user: Cli, place: str) -> None:
    htpasswd = user.home / "htpasswd"
    htpasswd.write_bytes(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    right = f"Authorization: Basic {base64.b64encode(b'ann:secret').decode()}"
    wrong = f"Authorization: Basic {base64.b64encode(b'ann:secret2').decode()}"
    with serving(user, "--place", place, "--htpasswd", htpasswd) as served:
        assert "podman login" in served.out
        for target in ("/v2/", "/metrics", "/v2/os/manifests/1", "/elsewhere"):
            for fields in ((), (wrong,)):
                answer = served.get(target, *fields)
                assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
                assert answer.head["www-authenticate"].startswith('Basic realm="')
            assert served.get(target, right).status in (200, 404)
        assert "secret" not in served.err


# --- sockets of systemd -----------------------------------------------------------------------------------


# As systemd hands over two sockets: at 3 and 4, and to the process that it knows.
ACTIVATE = """\
import os, sys
for n, fd in enumerate(sys.argv[1:3]):
    os.dup2(int(fd), 100 + n)
for n in range(2):
    os.dup2(100 + n, 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_sockets_that_are_handed_over_are_listened_at(user: Cli, place: str, image: BuiltImage) -> None:
    path = str(user.home / "s")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as tcp,
        closing(socket.socket(socket.AF_UNIX)) as unix,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd,
    ):
        unix.bind(path)
        unix.listen()
        systemd.bind(str(user.home / "notify"))
        systemd.settimeout(60)
        fds = (tcp.fileno(), unix.fileno())
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", ACTIVATE, *map(str, fds), *user.command("serve", "--place", place)],
            env=user.environment(NOTIFY_SOCKET=str(user.home / "notify"), WATCHDOG_USEC="60000000"),
            pass_fds=fds,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=at 127.0.0.1:")
            with socket.create_connection(tcp.getsockname()) as sock:
                assert ask(sock, "/v2/os/manifests/1").body == image.manifest
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                assert ask(sock, f"/v2/os/blobs/{image.layers[0].digest}").body == small(image)
            assert systemd.recv(1000) == b"WATCHDOG=1"
        finally:
            process.terminate()
        while (told := systemd.recv(1000)) == b"WATCHDOG=1":
            pass
        assert told == b"STOPPING=1"
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out.splitlines()[:2] == [f"http://127.0.0.1:{tcp.getsockname()[1]}", f"unix:{path}"]


# --- how it begins and ends -------------------------------------------------------------------------------


def test_it_says_what_to_type_elsewhere(served: Served) -> None:
    lines = served.out.splitlines()
    assert lines[0] == f"http://{served.address}"
    for line in (
        f"podman pull {served.address}/os:1",
        f"layertee pull {served.address}/os:1",
        f"bootc switch --transport registry {served.address}/os:1",
        f'location = "{served.address}"',
        "insecure = true",
    ):
        assert f"  {line}" in served.out


def test_quietly_it_says_where_it_is_and_no_more(user: Cli, place: str) -> None:
    with serving(user, "-q", "--place", place) as served:
        assert served.out == f"http://{served.address}\n"


def test_what_is_removed_while_it_is_sent_is_sent_to_its_end_and_then_gone(
    user: Cli, image: BuiltImage, tmp_path: Path
) -> None:
    """A server that runs for weeks keeps nobody from cleaning up, and no cleaning spoils an answer."""
    big = image.layers[1]
    user.pull(f"oci:{image.root}:{image.ref}")
    (name,) = (found["name"] for found in user.run("ls", "--json").json["images"])
    with serving(user, "--place", "store") as served, served.connect() as sock:
        (repository,) = served.get("/v2/_catalog").json["repositories"][-1:]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        sock.sendall(head_of(f"/v2/{repository}/blobs/{big.digest}"))
        assert sock.recv(1, socket.MSG_PEEK)
        user.run("rm", name)
        user.run("gc")
        assert not user.blob(big.digest).exists()
        assert read_answer(sock).body == image.blob_path(big.digest).read_bytes()
        assert served.get(f"/v2/{repository}/blobs/{big.digest}").status == 404
        assert served.get("/v2/_catalog").json["repositories"] == []


def test_a_service_is_not_ended_by_what_asks_it_to_read_its_files_again(user: Cli, place: str) -> None:
    with serving(user, "-v", "--place", place) as served:
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "no certificate" in served.err, "it has said that it has none")
        with served.connect() as sock:
            assert ask(sock, "/v2/").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_running_answers_are_sent(
    user: Cli, place: str, image: BuiltImage, number: int
) -> None:
    big = image.layers[1]
    with serving(user, "--place", place) as served, served.connect() as sock, served.connect() as idle:
        assert ask(idle, "/v2/").status == 200
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        sock.sendall(head_of(f"/v2/os/blobs/{big.digest}"))
        first = sock.recv(1, socket.MSG_PEEK)
        served.process.send_signal(number)
        assert rest_of(idle) == b""
        assert first == b"H"
        assert read_answer(sock).body == image.blob_path(big.digest).read_bytes()
        assert served.process.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):
            served.connect()


def test_answers_that_do_not_end_are_cut(user: Cli, place: str, image: BuiltImage) -> None:
    big = image.layers[1]
    options = ("--place", place, "--grace", "0.5", "--max-rate", "100k")
    with serving(user, *options) as served, served.connect() as sock:
        sock.sendall(head_of(f"/v2/os/blobs/{big.digest}"))
        assert sock.recv(1)
        started = time.monotonic()
        served.end()
        assert 0.4 < time.monotonic() - started < 10
        assert len(rest_of(sock)) < big.size
        assert "cut" in served.err


def test_the_second_signal_does_not_wait(user: Cli, place: str, image: BuiltImage) -> None:
    options = ("--place", place, "--grace", "600", "--max-rate", "100k")
    with serving(user, *options) as served, served.connect() as sock:
        sock.sendall(head_of(f"/v2/os/blobs/{image.layers[1].digest}"))
        assert sock.recv(1)
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not can_connect(served), "nobody is accepted any more")
        wait_until(lambda: "answers that are still being sent: 1." in served.err, "it says what it waits for")
        assert "They have 600 s; Ctrl-C once more" in served.err
        served.end(signal.SIGTERM)


def can_connect(served: Served) -> bool:
    try:
        served.connect().close()
    except OSError:
        return False
    return True


def test_a_rate_is_for_all_together(user: Cli, place: str, image: BuiltImage) -> None:
    big = image.layers[1]
    took: list[float] = []

    def download(served: Served) -> None:
        started = time.monotonic()
        assert len(served.get(f"/v2/os/blobs/{big.digest}").body) == big.size
        took.append(time.monotonic() - started)

    with serving(user, "--place", place, "--max-rate", "24M") as served:
        threads = [threading.Thread(target=download, args=(served,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert min(took) > 0.8  # 25 MB in all, and nobody is first
    assert max(took) / min(took) < 1.5


def test_a_port_that_is_taken_is_an_error(user: Cli, served: Served) -> None:
    ran = user.run("serve", "--listen", served.address, code=1)
    assert re.search(
        r"nothing can listen at 127\.0\.0\.1 port \d+: Address already in use \[SERVE_CONFIG\]", ran.err
    )


def test_requests_are_logged_where_that_is_wanted(user: Cli, place: str) -> None:
    with serving(user, "--place", place, "-v") as served:
        served.get("/v2/os/tags/list")
        wait_until(lambda: "GET /v2/os/tags/list 200 " in served.err, "the line is there")
        wanted = json.dumps({"name": "os", "tags": ["1"]})
        assert re.search(rf"127\.0\.0\.1:\d+ GET /v2/os/tags/list 200 {len(wanted)} \d+\.\d\d\ds", served.err)
