"""The nginx of the rig: an image read from it by skopeo, ranges, the pace, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rig.certs import make_certificates
from tests.support.rig.images import BuiltImage, build_image, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.nginx import NginxRegistry, process_cpu_s
from tests.support.rig.registry import RigError

pytestmark = pytest.mark.slow  # processes are started throughout

NBYTES = 6 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 6 MiB on the wire, one small."""
    layers = [incompressible_layer(NBYTES), text_layer({"etc/os-release": "ID=rig\n"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression="gzip-fast")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NginxRegistry]:
    """A plain one, for the tests that do not change its settings."""
    with NginxRegistry(tmp_path_factory.mktemp("nginx")) as running:
        yield running


def get(
    server: NginxRegistry, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = server.connection()
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_skopeo_inspects_and_copies_what_is_served(
    tmp_path: Path, server: NginxRegistry, image: BuiltImage
) -> None:
    name = server.add(image, "os/base:stable")
    seen = json.loads(run_tool("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == [layer.digest for layer in image.layers]
    server.reset()
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}:x"]
    run_tool(*copy)
    for digest in image.layer_digests:
        assert (tmp_path / "blobs/sha256" / digest[7:]).read_bytes() == image.blob_path(digest).read_bytes()
    assert server.blob_bytes(digests=image.layer_digests) == image.blob_bytes
    assert server.blob_bytes() == image.blob_bytes + len(image.config)


@pytest.mark.parametrize("media", ["oci", "docker"])
def test_a_manifest_has_its_media_type_and_digest_by_tag_and_by_digest(
    tmp_path: Path, server: NginxRegistry, media: str
) -> None:
    image = build_image(tmp_path, [text_layer({"a": media})], media=media)
    server.add(image, f"kinds/{media}:v1")
    for reference in ("v1", image.digest):
        for method in ("GET", "HEAD"):
            path = f"/v2/kinds/{media}/manifests/{reference}"
            status, headers, body = get(server, path, method=method)
            assert (status, headers["Content-Type"]) == (200, image.media_type)
            assert headers["Docker-Content-Digest"] == image.digest
            assert headers["Content-Length"] == str(len(image.manifest))
            assert body == (image.manifest if method == "GET" else b"")
    assert get(server, f"/v2/kinds/{media}/manifests/v2")[0] == 404
    assert get(server, "/v2/")[0] == 200


def test_a_range_is_answered_with_206_and_logged_with_its_connection(
    server: NginxRegistry, image: BuiltImage
) -> None:
    server.add(image, "ranged:v1")
    layer = image.layers[0]
    path = f"/v2/ranged/blobs/{layer.digest}"
    server.reset()
    connection = server.connection()
    for wanted in ("bytes=1000-1999", "bytes=5-5"):
        connection.request("GET", path, headers={"Range": wanted})
        answer = connection.getresponse()
        first, last = (int(end) for end in wanted.removeprefix("bytes=").split("-"))
        assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes {first}-{last}/{layer.size}")
        assert answer.read() == image.blob_path(layer.digest).read_bytes()[first : last + 1]
    connection.close()
    assert get(server, path)[0] == 200
    first_seen, second, third = server.requests()
    assert [access.range for access in (first_seen, second, third)] == ["bytes=1000-1999", "bytes=5-5", ""]
    assert [access.nbytes for access in (first_seen, second, third)] == [1000, 1, layer.size]
    assert first_seen.connection == second.connection != third.connection
    assert (first_seen.kind, first_seen.reference) == ("blob", layer.digest)


@pytest.mark.alone
def test_the_rate_holds_for_each_connection_of_its_own(tmp_path: Path, image: BuiltImage) -> None:
    layer = image.layers[0]
    rate = 12 << 20
    with NginxRegistry(tmp_path, rate_per_connection=rate) as server:
        server.add(image, "slow:v1")

        def seconds(n_connections: int) -> float:
            path = f"/v2/slow/blobs/{layer.digest}"
            threads = [threading.Thread(target=get, args=(server, path)) for _ in range(n_connections)]
            began = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return time.monotonic() - began

        # the last of nginx's 2 MiB chunks need not be waited for
        least = (layer.size - (2 << 20)) / rate * 0.9
        alone, four = seconds(1), seconds(4)
        assert least < alone < 4 * least
        assert least < four < 0.75 * 4 * alone
        assert server.blob_bytes() == 5 * layer.size


def test_tls_is_served_under_the_given_certificate(tmp_path: Path, image: BuiltImage) -> None:
    with NginxRegistry(tmp_path / "root", certificate=make_certificates(tmp_path / "tls")) as server:
        name = server.add(image, "safe:v1")
        assert server.url.startswith("https://")
        checked = run_tool("skopeo", "inspect", "--cert-dir", str(server.cert_dir), f"docker://{name}")
        assert json.loads(checked)["Digest"] == image.digest
        with pytest.raises(RigError, match="certificate"):
            run_tool("skopeo", "inspect", f"docker://{name}")


def test_its_cpu_time_counts_the_worker(server: NginxRegistry, image: BuiltImage) -> None:
    server.add(image, "busy:v1")
    before = server.cpu_s()
    deadline = time.monotonic() + 30
    while server.cpu_s() == before:
        assert time.monotonic() < deadline
        get(server, f"/v2/busy/blobs/{image.layers[0].digest}")
    before = server.cpu_s()
    server.add(image, "busy:v2")  # the worker that did it has ended
    assert server.cpu_s() >= before > 0
    assert process_cpu_s(os.getpid()) > 0


def test_it_leaves_no_process_and_writes_below_its_root_only(tmp_path: Path, image: BuiltImage) -> None:
    with NginxRegistry(tmp_path / "root") as server:
        server.add(image, "gone:v1")
        master = server.pid
        (worker,) = map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())
        assert not re.search(r"\[(warn|error|crit|alert|emerg)\]", server.diagnostics())
        opened = {os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()}
        files = {name for name in opened if name.startswith("/") and not name.startswith("/dev/")}
        assert files and all(name.startswith(str(tmp_path / "root")) for name in files)
    assert not Path(f"/proc/{master}").exists()
    assert not Path(f"/proc/{worker}").exists()


def test_an_nginx_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="limit_rate"):
        NginxRegistry(tmp_path, rate_per_connection=-1).start()
