"""A real docker-registry as pull-through cache, which ranges hurt: for each request for a blob that it has
not got yet, it fetches the whole blob from upstream.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from layertee import Engine, Options
from layertee.sync import run
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.fault_server import FaultServer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow
LIMITS = FetchLimits(range_nbytes=1 << 20)
RATE = 3e6


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Three layers; at RATE, the largest takes 3 s."""
    sizes = (9 << 20, 5 << 20, 3 << 20)
    layers = [incompressible_layer(size, seed=30 + index) for index, size in enumerate(sizes)]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression="gzip-fast")


def pull(host: str, store: Path) -> None:
    async def main() -> None:
        async with Engine(store, options=Options(tls_verify=False, limits=LIMITS)) as engine:
            await engine.pull(await engine.plan(f"{host}/rig/image:latest"))

    run(asyncio.wait_for(main(), 60))


def blob_gets(upstream: FaultServer, digest: str) -> int:
    upstream.settle()
    return len([r for r in upstream.requests("blob", digest) if r.method == "GET"])


def read_once(proxy: RegistryServer, digest: str) -> None:
    connection = proxy.connection()
    connection.request("GET", f"/v2/rig/image/blobs/{digest}")
    response = connection.getresponse()
    assert response.status == 200
    response.read()
    connection.close()


def test_a_cold_cache_is_asked_once_for_each_blob_and_asks_upstream_no_more_than_that(
    image: BuiltImage, tmp_path: Path
) -> None:
    with FaultServer(image, rate_per_connection=RATE, send_buffer=64 << 10) as upstream:
        with RegistryServer(proxy_of=upstream.url) as proxy:
            read_once(proxy, image.layers[2].digest)
            # distribution 2.8 sends what it receives to the client, and fetches it once more to keep it.
            of_one_request = blob_gets(upstream, image.layers[2].digest)
            assert of_one_request in (1, 2)
        upstream.forget()
        with RegistryServer(proxy_of=upstream.url) as proxy:
            pull(proxy.host, tmp_path / "store")
            asked = [access for access in proxy.accesses() if access.reference in image.layer_digests]
            assert sorted(str(access.reference) for access in asked) == sorted(image.layer_digests)
            assert {access.status for access in asked} == {200}
            for digest in image.layer_digests:
                assert blob_gets(upstream, digest) <= of_one_request


def test_a_slow_registry_that_has_the_blob_is_asked_for_ranges(image: BuiltImage, tmp_path: Path) -> None:
    """The same layers at the same rate, but from a server that offers ranges: the test above can fail."""
    with FaultServer(image, rate_per_connection=RATE, send_buffer=64 << 10) as server:
        pull(server.host, tmp_path / "store")
        assert len(server.requests("blob", image.layers[0].digest)) > 1


def test_a_cache_that_has_the_blobs_is_a_fast_registry(image: BuiltImage, tmp_path: Path) -> None:
    with (
        FaultServer(image) as upstream,
        RegistryServer(proxy_of=upstream.url) as proxy,
    ):
        pull(proxy.host, tmp_path / "first")
        proxy.accesses()
        upstream.settle()
        upstream.forget()
        proxy.reset()
        pull(proxy.host, tmp_path / "second")
        assert all(blob_gets(upstream, digest) == 0 for digest in image.layer_digests)
        assert proxy.blob_bytes(digests=image.layer_digests) == sum(layer.size for layer in image.layers)
