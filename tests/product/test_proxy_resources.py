"""What the image-proxy takes and keeps: descriptors, memory, network ahead of its client, the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy import Disconnected, layertee_proxy, parts, read_all, serving
from tests.support.imageproxy_mixed import content, docker, mixed_image
from tests.support.process import flip_a_byte, wait_until
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

AHEAD = 32 << 20  # bytes that may be fetched before anybody asks for them
SLACK = 1 << 20
KEPT = 8  # connections, at most: how many there are is a matter of which answer came first


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return mixed_image(tmp_path_factory.mktemp("resources"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Of a machine that has nothing yet."""
    return tmp_path / "store"


# -- how much it takes -------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_thousand_images_leave_nothing_behind(
    registry: RegistryServer, store: Path, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": "a" * 2000}), text_layer({"b": "b"})])
    name = f"docker://{push(image, 'resources/thousand:1', registry)}"
    with serving(store) as proxy:

        def cycles(n: int) -> tuple[int, int]:
            for _ in range(n):
                number = proxy.open(name)
                assert proxy.manifest(number)[0] == image.digest
                assert proxy.blob(number, image.layers[0]) == content(image, image.layers[0])
                proxy.close_fd(proxy.piped("GetFullConfig", number).fds[0])  # never finished
                proxy.value("CloseImage", number)
            return proxy.n_fds(), proxy.rss()

        fds, rss = cycles(100)
        fds_later, rss_later = cycles(900)
        assert fds_later <= fds + KEPT
        assert rss_later <= rss + (2 << 20)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """4 MiB, then twelve layers of 8 MiB: three times what may be fetched ahead."""
    layers = [incompressible_layer(4 << 20, seed=50)]
    layers += [incompressible_layer(8 << 20, seed=51 + at) for at in range(12)]
    return build_image(tmp_path_factory.mktemp("long"), layers, compression="gzip-fast")


@pytest.mark.alone
@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_client_that_stops_stops_the_network(long: BuiltImage, store: Path, asked: int) -> None:
    taken = sum(layer.size for layer in long.layers[:asked])
    with FaultServer(long, send_buffer=64 << 10) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        for layer in long.layers[:asked]:
            proxy.blob(number, layer)
        wait_until(lambda: layer_bytes(server, long) > taken, "nothing is fetched ahead")
        sent = settled(server, long)
        assert taken < sent <= taken + AHEAD + SLACK
        for layer in long.layers[asked:]:
            proxy.close_fd(proxy.piped("GetBlob", number, layer.digest, layer.size).fds[0])
        server.settle()
        assert layer_bytes(server, long) <= 1.02 * long.blob_bytes


def test_a_client_that_stops_before_a_large_layer_stops_the_network_in_it(
    store: Path, tmp_path: Path
) -> None:
    specs = [incompressible_layer(n << 20, seed=70 + n) for n in (4, 80, 4)]
    large = build_image(tmp_path / "large", specs, compression="gzip-fast")
    with FaultServer(large, send_buffer=64 << 10) as server, serving(store) as proxy:
        number = proxy.open(docker(server))
        first = proxy.piped("GetBlob", number, large.layers[0].digest, large.layers[0].size)
        sent = settled(server, large)
        assert large.layers[0].size + (8 << 20) < sent <= large.layers[0].size + AHEAD + SLACK
        assert read_all(first.fds[0]) == content(large, large.layers[0])
        wait_until(lambda: layer_bytes(server, large) > sent, "what the client has read makes no room")
        proxy.close_fd(proxy.piped("GetBlob", number, large.layers[1].digest, large.layers[1].size).fds[0])
        server.settle()
        assert server.bytes_sent("blob", large.layers[1].digest) <= 1.02 * large.layers[1].size


def layer_bytes(server: FaultServer, image: BuiltImage) -> int:
    """Body bytes of all layers so far."""
    return sum(server.bytes_sent("blob", layer.digest) for layer in image.layers)


def settled(server: FaultServer, image: BuiltImage) -> int:
    """The same, once it has not changed for two seconds."""
    before, since = layer_bytes(server, image), time.monotonic()
    while time.monotonic() - since < 2.0:
        time.sleep(0.05)
        if (now := layer_bytes(server, image)) != before:
            before, since = now, time.monotonic()
    return before


# -- what stays ----------------------------------------------------------------------------------------


def kept(store: Path, image: BuiltImage) -> set[str]:
    """The digests of the image's layers that are in the store."""
    return {layer.digest for layer in image.layers if blob_path(store, layer.digest).exists()}


def test_layers_stay_until_their_image_is_closed_whatever_the_cache_may_have(
    image: BuiltImage, registry: RegistryServer, store: Path
) -> None:
    name = f"docker://{push(image, 'resources/cache:1', registry)}"
    with serving(store, "--cache-max", "0") as proxy:
        first, second = proxy.open(name), proxy.open(name)
        for layer in image.layers:
            proxy.blob(first, layer)
        proxy.value("CloseImage", first)
        assert kept(store, image) == image.layer_digests, "the other one is open"
        proxy.value("CloseImage", second)
        assert kept(store, image) == set()


def test_what_was_used_last_stays_when_the_cache_is_full(
    image: BuiltImage, registry: RegistryServer, store: Path, tmp_path: Path
) -> None:
    other = build_image(tmp_path / "other", [incompressible_layer(300_000, seed=91)])
    names = [f"docker://{push(one, f'resources/full:{n}', registry)}" for n, one in enumerate((image, other))]
    with serving(store, "--cache-max", str(other.blob_bytes), "--ahead", "0") as proxy:
        for name, one in zip(names, (image, other), strict=True):
            number = proxy.open(name)
            for layer in one.layers:
                proxy.blob(number, layer)
            proxy.value("CloseImage", number)
        assert kept(store, other) == other.layer_digests
        assert kept(store, image) == set()


# -- a second run on the same store --------------------------------------------------------------------


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_an_upgrade_that_was_interrupted_goes_on_where_it_was(
    registry: RegistryServer, image: BuiltImage, store: Path, finished: int
) -> None:
    name = f"docker://{push(image, 'resources/interrupted:1', registry)}"
    with layertee_proxy(store, "--tls-verify=false") as proxy:
        proxy.value("Initialize")
        number = proxy.open(name)
        for layer in image.layers[:finished]:
            proxy.blob(number, layer)
        proxy.kill()
        with pytest.raises(Disconnected):
            proxy.call("GetManifest", number)
    registry.reset()
    kept = {layer.digest for layer in image.layers if blob_path(store, layer.digest).exists()}
    begun = sum(part.stat().st_size for part in parts(store))
    assert kept >= {layer.digest for layer in image.layers[:finished]}
    with layertee_proxy(store, "--tls-verify=false") as proxy:
        proxy.value("Initialize")
        number = proxy.open(name)
        for layer in image.layers:
            assert proxy.blob(number, layer) == content(image, layer)
    assert registry.blob_bytes("resources/interrupted", digests=kept) == 0
    missing = image.layer_digests - kept
    size = sum(layer.size for layer in image.layers if layer.digest in missing)
    assert registry.blob_bytes("resources/interrupted", digests=missing) == size - begun


@pytest.mark.parametrize("damage", ["changed", "shorter", "longer", "empty", "gone"])
@pytest.mark.parametrize("at", [1, 3], ids=["zstd", "plain"])
def test_a_blob_that_was_damaged_on_disk_is_fetched_again(
    registry: RegistryServer, image: BuiltImage, store: Path, at: int, damage: str
) -> None:
    name = f"docker://{push(image, 'resources/damaged:1', registry)}"
    layer = image.layers[at]
    with serving(store) as proxy:
        number = proxy.open(name)
        for one in image.layers:
            proxy.blob(number, one)
    spoil(blob_path(store, layer.digest), damage)
    registry.reset()
    with serving(store) as proxy:
        number = proxy.open(name)
        assert proxy.blob(number, layer) == content(image, layer)
        reply = proxy.call("GetRawBlob", number, layer.digest)
        assert os.pread(reply.fds[0], layer.size + 1, 0) == content(image, layer)
        for one in image.layers:
            assert proxy.blob(number, one) == content(image, one)
    assert registry.blob_bytes("resources/damaged", digests=image.layer_digests) == layer.size


def spoil(path: Path, damage: str) -> None:
    """Change a file and leave its times as they were."""
    before = path.stat()
    match damage:
        case "changed":
            flip_a_byte(path)
        case "gone":
            path.unlink()
            return
        case _:
            size = {"shorter": before.st_size - 1, "longer": before.st_size + 1, "empty": 0}[damage]
            path.chmod(0o600)
            os.truncate(path, size)
            path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_two_servers_share_a_store(registry: RegistryServer, image: BuiltImage, store: Path) -> None:
    name = f"docker://{push(image, 'resources/shared:1', registry)}"
    registry.reset()
    with serving(store) as one, serving(store) as two:
        numbers = [(proxy, proxy.open(name)) for proxy in (one, two)]
        for layer in image.layers:
            for proxy, number in numbers:
                assert proxy.blob(number, layer) == content(image, layer)
    assert registry.blob_bytes("resources/shared", digests=image.layer_digests) == image.blob_bytes
