"""The image-proxy under rough conditions: hostile registries, clients and parents that die, signals.

Whatever happens, what a client gets is what the image names, or an error and no descriptor; and what is left
is a store that holds finished layers and nothing else.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, OtherBody, Reset, ShortBody, Stall
from tests.support.fakes.refusals import Status
from tests.support.imageproxy import (
    ImageProxy,
    assert_clean,
    being_written,
    layertee_proxy,
    parts,
    refusal,
    serving,
    wait_gone,
)
from tests.support.imageproxy_mixed import content, docker, mixed_image
from tests.support.process import wait_until
from tests.support.rig.blobs import BuiltLayer, blob_path
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import empty_layer, incompressible_layer, text_layer

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
OTHER = "sha256:" + "1" * 64


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return mixed_image(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Of a machine that has nothing yet."""
    return tmp_path / "store"


def claiming(at: int, diff_id: str) -> Any:
    """An edit of a config: the layer ``at`` is said to have that DiffID."""

    def edit(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][at] = diff_id

    return edit


# -- what is counted -------------------------------------------------------------------------------


def metrics(path: Path) -> dict[str, str]:
    """Of the file, but for times."""
    rows = [line.rpartition(" ") for line in path.read_text().splitlines() if line[0] != "#"]
    return {name: value for name, _, value in rows if "_seconds{" not in name}


def test_what_a_client_pulled_is_in_a_file_for_prometheus(
    image: BuiltImage, store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bootc.prom"
    gzip = image.layers[0]
    with FaultServer(image) as server:
        for action, nbytes in (("fetch", gzip.size), ("have", 0)):
            with serving(store, "--ahead", "0", "--metrics-file", str(path)) as proxy:
                number = proxy.open(docker(server))
                assert proxy.blob(number, gzip) == content(image, gzip)
            labels = f'command="image-proxy",image="{server.reference}"'
            assert metrics(path) == {
                f"layertee_last_run_exit_code{{{labels}}}": "0.0",
                f"layertee_last_run_fetched_bytes{{{labels}}}": f"{nbytes}.0",
                f"layertee_last_run_reused_bytes{{{labels}}}": f"{gzip.size - nbytes}.0",
                f'layertee_last_run_layers{{action="{action}",{labels}}}': "1.0",
            }
        before = path.read_bytes()
        with serving(store, "--ahead", "0", "--metrics-file", str(path)) as proxy:
            proxy.manifest(proxy.open(docker(server)))
        assert path.read_bytes() == before, "an image that was only looked at"


def test_what_a_client_did_not_get_is_in_the_file_unless_it_got_it_after_all(
    image: BuiltImage, store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bootc.prom"
    bad = image.layers[0]
    with FaultServer(image, [on("blob", Status(404), reference=bad.digest, last=1)]) as server:
        options = ("--ahead", "0", "--metrics-file", str(path))
        labels = f'command="image-proxy",image="{server.reference}"'
        with serving(store, *options) as proxy:
            number = proxy.open(docker(server))
            refusal(proxy.call("GetBlob", number, bad.digest, bad.size))
        assert metrics(path)[f"layertee_last_run_exit_code{{{labels}}}"] == "2.0"
        assert metrics(path)[f'layertee_last_run_error{{code="NOT_FOUND",{labels}}}'] == "1.0"
        server.script([on("blob", Status(404), reference=bad.digest, last=1)])
        with serving(store, *options) as proxy:
            number = proxy.open(docker(server))
            refusal(proxy.call("GetBlob", number, bad.digest, bad.size))
            assert proxy.blob(number, bad) == content(image, bad)
        assert metrics(path)[f"layertee_last_run_exit_code{{{labels}}}"] == "0.0"
        server.script([on("manifest", Status(403))])
        with serving(store, *options) as proxy:
            refusal(proxy.call("OpenImage", docker(server)))
        assert metrics(path)[f'layertee_last_run_error{{code="UNAUTHORIZED",{labels}}}'] == "1.0"


def test_a_file_that_cannot_be_written_keeps_no_client_from_its_image(
    image: BuiltImage, store: Path, tmp_path: Path
) -> None:
    layer = image.layers[0]
    with (
        FaultServer(image) as server,
        layertee_proxy(
            store, "--tls-verify=false", LAYERTEE_METRICS_FILE=str(tmp_path / "none/bootc.prom")
        ) as proxy,
    ):
        proxy.value("Initialize")
        assert proxy.blob(proxy.open(docker(server)), layer) == content(image, layer)
        proxy.hang_up()
        assert proxy.exit_status() == 0
        assert "there will be no metrics: " in proxy.stderr()


# -- what a registry may do ------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("offset", [0, 40])
def test_wrong_bytes_are_refused_and_the_other_layers_are_not(
    image: BuiltImage, store: Path, at: int, offset: int
) -> None:
    bad = image.layers[at]
    script = [on("blob", OtherBody(offset), reference=bad.digest)]
    with FaultServer(image, script) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        for layer in image.layers:
            if layer is bad:
                told = proxy.no_blob(number, bad)
                assert "[DIGEST_MISMATCH]" in told or "[DECODE]" in told
                assert not blob_path(store, bad.digest).exists()
            else:
                assert proxy.blob(number, layer) == content(image, layer)
        proxy.value("CloseImage", number)
        server.script([])
        again = proxy.open(docker(server))
        assert proxy.blob(again, bad) == content(image, bad), "the registry is honest again"


def test_a_connection_that_stalls_is_given_up_and_the_layer_goes_on(image: BuiltImage, store: Path) -> None:
    """Nobody has to kill a client whose registry fell silent in the middle of a layer."""
    layer = max(image.layers, key=lambda one: one.size)
    assert layer.size > 1000
    script = [on("blob", Stall(1000), reference=layer.digest, last=1)]
    with FaultServer(image, script) as server, serving(store, "--stall-timeout", "1") as proxy:
        number = proxy.open(docker(server))
        assert proxy.blob(number, layer) == content(image, layer)
        assert len(server.requests("blob", layer.digest)) == 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_that_is_not_what_the_config_says_is_refused(
    store: Path, tmp_path: Path, compression: str
) -> None:
    layers = [text_layer({"a": "a"}), text_layer({"b": "b" * 9000}), empty_layer()]
    lie = build_image(tmp_path / "lie", layers, compression=compression, edit_config=claiming(1, OTHER))
    with FaultServer(lie) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        assert proxy.blob(number, lie.layers[0]) == content(lie, lie.layers[0])
        told = proxy.no_blob(number, lie.layers[1])
        assert "[DIFFID_MISMATCH]" in told and lie.layers[1].diff_id in told and OTHER in told
        assert "[DIFFID_MISMATCH]" in refusal(proxy.call("GetRawBlob", number, lie.layers[1].digest))
        assert not blob_path(store, lie.layers[1].digest).exists()
        assert proxy.blob(number, lie.layers[2]) == content(lie, lie.layers[2])


def test_a_plain_layer_that_is_not_what_the_config_says_is_refused_at_its_first_byte(
    store: Path, tmp_path: Path
) -> None:
    layers = [text_layer({"a": "a"}), text_layer({"b": "b"})]
    lie = build_image(tmp_path / "lie", layers, compression="none", edit_config=claiming(1, OTHER))
    with FaultServer(lie) as server, serving(store) as proxy:
        told = proxy.no_blob(proxy.open(docker(server)), lie.layers[1])
        assert "[DECODE]" in told and f"the config says {OTHER}" in told
        assert not blob_path(store, lie.layers[1].digest).exists()


def test_a_layer_that_is_cut_off_is_refused(store: Path, tmp_path: Path) -> None:
    whole = build_image(tmp_path / "whole", [incompressible_layer(100_000)])
    cut = content(whole, whole.layers[0])[:-4000]

    def shorten(manifest: dict[str, Any]) -> None:
        manifest["layers"][0] |= {"digest": digest_of(cut), "size": len(cut)}

    image = build_image(tmp_path / "cut", [incompressible_layer(100_000)], edit_manifest=shorten)
    image.blob_path(digest_of(cut)).write_bytes(cut)
    short = BuiltLayer(digest_of(cut), len(cut), OTHER, 0, "gzip", "")
    image = BuiltImage(
        image.root, image.ref, image.manifest, image.media_type, image.config, (short,), image.platform
    )
    with FaultServer(image) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        assert "[DECODE]" in proxy.no_blob(number, short)
        assert not blob_path(store, short.digest).exists()


@pytest.mark.parametrize("fault", [ShortBody(1000), Reset(1000), Reset(), Status(503)], ids=repr)
def test_a_fault_that_passes_is_not_seen_by_the_client(image: BuiltImage, store: Path, fault: Any) -> None:
    script = [on("blob", fault, reference=layer.digest, last=1) for layer in image.layers]
    with FaultServer(image, script) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        for layer in image.layers:
            assert proxy.blob(number, layer) == content(image, layer)


def test_what_the_registry_has_not_is_said(image: BuiltImage, store: Path) -> None:
    gone = image.layers[2]
    with (
        FaultServer(image, [on("blob", Status(404), reference=gone.digest)]) as server,
        serving(store) as proxy,
    ):
        number = proxy.open(docker(server))
        assert gone.digest in proxy.no_blob(number, gone)
        assert proxy.refused("OpenImage", docker(server) + "x")
        assert proxy.value("OpenImageOptional", docker(server) + "x") == 0
        assert proxy.blob(number, image.layers[0]) == content(image, image.layers[0])


@pytest.mark.parametrize("document", ["manifest", "config"])
def test_a_document_that_is_not_what_its_digest_says_is_refused_at_open(
    image: BuiltImage, store: Path, document: str
) -> None:
    rule = (
        on("manifest", OtherBody())
        if document == "manifest"
        else on("blob", OtherBody(), reference=image.config_digest)
    )
    with FaultServer(image, [rule]) as server, serving(store) as proxy:
        for method in ("OpenImage", "OpenImageOptional"):
            proxy.refused(method, f"docker://{server.host}/rig/image@{image.digest}")
        server.settle()
        assert all(server.requests("blob", layer.digest) == [] for layer in image.layers)


# -- a claim against what was computed -------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[BuiltImage, BuiltImage]:
    """An honest image, and one that says of the same blob that it is something else."""
    shared = text_layer({"shared": "s" * 5000})
    honest = build_image(tmp_path / "e1", [shared, text_layer({"one": "1"})])
    liar = build_image(tmp_path / "e2", [shared, text_layer({"two": "2"})], edit_config=claiming(0, OTHER))
    assert honest.layers[0] == liar.layers[0]
    return honest, liar


@pytest.mark.parametrize("restarted", [False, True])
def test_an_image_that_contradicts_a_computed_pair_cannot_be_opened(
    pair: tuple[BuiltImage, BuiltImage], store: Path, restarted: bool
) -> None:
    honest, liar = pair
    with FaultServer({"a/os:1": honest, "b/os:1": liar}) as server:
        with serving(store) as proxy:
            number = proxy.open(f"docker://{server.host}/a/os:1")
            for layer in honest.layers:
                proxy.blob(number, layer)
            proxy.value("CloseImage", number)
            if not restarted:
                assert_contradicted(proxy, server, pair)
        if restarted:
            with serving(store) as proxy:
                assert_contradicted(proxy, server, pair)
        with serving(store) as proxy:
            number = proxy.open(f"docker://{server.host}/a/os:1")
            assert proxy.blob(number, honest.layers[0]) == content(honest, honest.layers[0])


def assert_contradicted(proxy: ImageProxy, server: FaultServer, pair: tuple[BuiltImage, BuiltImage]) -> None:
    """The second image of the pair is refused in every way, and nothing is fetched of it."""
    honest, liar = pair
    server.settle()
    server.forget()
    for method in ("OpenImage", "OpenImageOptional"):
        for name in ("os:1", f"os@{liar.digest}"):
            told = proxy.refused(method, f"docker://{server.host}/b/{name}")
            assert "[DIFFID_MISMATCH]" in told and OTHER in told and honest.layers[0].diff_id in told
    server.settle()
    assert all(server.requests("blob", layer.digest) == [] for layer in liar.layers)


def test_a_pair_that_is_computed_later_counts_for_an_image_that_is_open_already(
    pair: tuple[BuiltImage, BuiltImage], store: Path
) -> None:
    honest, liar = pair
    gate = Gate()
    script = [on("blob", Held(gate), reference=layer.digest) for layer in liar.layers]
    with FaultServer({"a/os:1": honest, "b/os:1": liar}, script) as server, serving(store) as proxy:
        lying = proxy.open(f"docker://{server.host}/b/os:1")
        number = proxy.open(f"docker://{server.host}/a/os:1")
        gate.open()
        assert proxy.blob(number, honest.layers[0]) == content(honest, honest.layers[0])
        assert "[DIFFID_MISMATCH]" in proxy.no_blob(lying, liar.layers[0])


# -- the end of a client, of a parent, of the server -------------------------------------------------

CLIENT = """
import sys
from pathlib import Path
from tests.support.imageproxy import layertee_proxy
store, image, digest, size = sys.argv[1:]
proxy = layertee_proxy(Path(store), "--tls-verify=false")
print(proxy.pid, flush=True)
proxy.value("Initialize")
proxy.call("GetBlob", proxy.open(image), digest, int(size))
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
child.wait()
"""


def held(image: BuiltImage, gate: Gate, layer: BuiltLayer) -> FaultServer:
    """A registry that stops in the middle of ``layer`` until the gate is opened."""
    return FaultServer(image, [on("blob", Held(gate, layer.size // 2), reference=layer.digest)])


def assert_ends_at_once(store: Path, server: FaultServer, gate: Gate, pid: int, since: float) -> None:
    """No process and no leftovers a few seconds after ``since``, with the registry still in the middle."""
    wait_gone(pid)
    assert time.monotonic() - since < 15.0
    assert_clean(store)
    gate.open()  # what waits there does not see that its client is gone
    server.wait_closed()


@pytest.mark.parametrize("end", ["killed", "hangs up", "SIGTERM", "SIGINT"])
def test_an_end_in_the_middle_of_a_layer_leaves_no_process_and_no_leftovers(
    image: BuiltImage, store: Path, end: str
) -> None:
    gate, layer = Gate(), image.layers[2]
    with held(image, gate, layer) as server:
        if end == "killed":
            words = [sys.executable, "-c", CLIENT, str(store), docker(server), layer.digest, str(layer.size)]
            with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE) as client:
                assert client.stdout is not None
                pid = int(client.stdout.readline())
                gate.wait_arrived()
                wait_until(lambda: parts(store), "no layer is on its way")
                since = time.monotonic()
                client.kill()
            assert_ends_at_once(store, server, gate, pid, since)
            return
        with layertee_proxy(store, "--tls-verify=false") as proxy:
            proxy.value("Initialize")
            number = proxy.open(docker(server))
            proxy.begin("GetBlob", number, layer.digest, layer.size)
            gate.wait_arrived()
            wait_until(lambda: parts(store), "no layer is on its way")
            since = time.monotonic()
            if end == "hangs up":
                proxy.hang_up()
                assert proxy.exit_status() == 0
            else:
                number = signal.Signals[end]
                proxy.signal(number)
                assert proxy.exit_status() in (0, 128 + number)
            assert_ends_at_once(store, server, gate, proxy.pid, since)


def test_a_parent_that_dies_takes_the_server_along(image: BuiltImage, store: Path) -> None:
    """Started as bootc starts it, with PR_SET_PDEATHSIG. The socket is open here: nothing else ends it."""
    gate, layer = Gate(), image.layers[2]
    assert shutil.which("setpriv"), "of util-linux"
    server_words = [sys.executable, "-m", "layertee", "image-proxy", "--store", str(store)]
    words = [sys.executable, "-c", PARENT, "setpriv", "--pdeathsig", "TERM", *server_words]
    words += ["--insecure-policy", "--tls-verify=false"]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with held(image, gate, layer) as server, ours:
        with theirs:
            parent = subprocess.Popen(words, stdin=theirs.fileno(), stdout=subprocess.PIPE)
        with parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            ours.settimeout(100)
            for request in (
                {"method": "Initialize", "args": []},
                {"method": "OpenImage", "args": [docker(server)]},
            ):
                ours.send(json.dumps(request).encode())
                assert json.loads(ours.recv(1 << 16))["success"]
            ours.send(json.dumps({"method": "GetBlob", "args": [1, layer.digest, layer.size]}).encode())
            gate.wait_arrived()
            since = time.monotonic()
            parent.kill()
        assert_ends_at_once(store, server, gate, pid, since)


def test_a_registry_that_is_silent_does_not_hold_the_client(image: BuiltImage, store: Path) -> None:
    layer = image.layers[2]
    script = [on("blob", Stall(1000), reference=layer.digest)]
    with FaultServer(image, script) as server:
        with layertee_proxy(store, "--tls-verify=false") as proxy:
            proxy.value("Initialize")
            number = proxy.open(docker(server))
            assert proxy.blob(number, image.layers[0]) == content(image, image.layers[0])
            proxy.begin("GetBlob", number, layer.digest, layer.size)
            wait_until(lambda: server.requests("blob", layer.digest), "nothing is fetched")
            since = time.monotonic()
            proxy.begin("Shutdown")
            proxy.hang_up()
            assert proxy.exit_status() == 0
            assert time.monotonic() - since < 15.0
        server.wait_closed()
    assert_clean(store)


def test_closing_an_image_ends_what_is_fetched_for_it(image: BuiltImage, store: Path) -> None:
    gate, layer = Gate(), image.layers[2]
    with held(image, gate, layer) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        proxy.blob(number, image.layers[0])
        gate.wait_arrived()
        proxy.value("CloseImage", number)
        wait_until(lambda: not being_written(store), "a layer is still fetched")
        gate.open()
        assert proxy.blob(proxy.open(docker(server)), layer) == content(image, layer)
