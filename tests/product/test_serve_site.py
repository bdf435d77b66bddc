"""A site: eight machines, a neighbour that hands on what it has, and a far origin that is to be left alone.

Each machine is a network namespace of its own, whose registries.conf has the neighbour as a mirror.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.fakes.tars import REPOSITORY
from tests.support.hosts import HostCli, Hosts
from tests.support.mirrors import At, write_conf
from tests.support.process import PLAIN, Ran, wait_until
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("ip"),
    pytest.mark.needs_root("makes network namespaces"),
]

N = 8
FORMS = ("as-is", "uncompressed")
PREFIX = "origin.test/os"
NAME = f"{PREFIX}:latest"
CLIENTS = tuple(f"client{number}" for number in range(N))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Twelve layers, 4.5 MB in all."""
    layers = [incompressible_layer(400_000, seed=seed) for seed in range(1, 12)]
    layers.append(text_layer({"a": "again\n" * 20_000}))
    return build_image(tmp_path_factory.mktemp("site"), layers, compression="gzip-fast")


class Site:
    """The origin, the neighbour and the clients, on hosts of their own."""

    def __init__(self, hosts: Hosts, origin: FaultServer, image: BuiltImage, directory: Path) -> None:
        self.image = image
        self.origin = origin
        self.near = HostCli(hosts, "near", directory / "near")
        self.clients = [HostCli(hosts, name, directory / name) for name in CLIENTS]
        self._at_origin = At(f"{origin.host}/{REPOSITORY}")
        self._directory = directory
        self._address = hosts.address("near")
        self._conf = write_conf(directory, PREFIX, [], self._at_origin)

    def near_pulls(self, form: str) -> None:
        self.near.pull("--layers", form, NAME, CONTAINERS_REGISTRIES_CONF=str(self._conf))
        assert self.origin_sent() == self.image.blob_bytes
        self.origin.forget()

    @contextmanager
    def near_serves(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        words = ("--store", str(self.near.store), "--insecure-listen", "--listen", f"{self._address}:0")
        server = self.near.start("serve", *words, *options)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url.startswith(f"http://{self._address}:"), self.near.finish(server, None)
            self._conf = write_conf(
                self._directory, PREFIX, [At(f"{url.removeprefix('http://')}/os")], self._at_origin
            )
            yield server
        finally:
            server.kill()
            server.communicate()

    def clients_begin(self, *options: str) -> list[subprocess.Popen[str]]:
        words, conf = (PLAIN, "--json", *options, NAME), str(self._conf)
        return [client.start("pull", *words, CONTAINERS_REGISTRIES_CONF=conf) for client in self.clients]

    def clients_end(self, pulls: list[subprocess.Popen[str]]) -> list[Ran]:
        """All of them, which must have the image."""
        results = [client.finish(pull) for client, pull in zip(self.clients, pulls, strict=True)]
        for client, ran in zip(self.clients, results, strict=True):
            for told, layer in zip(ran.layers, self.image.layers, strict=True):
                name = layer.diff_id if told["as_tar"] else layer.digest
                assert digest_of(client.blob(name).read_bytes()) == name
        return results

    def missing(self, client: HostCli) -> int:
        """Bytes of the blobs of layers that ``client`` does not have, in either form."""
        layers = {layer.digest: layer for layer in self.image.layers}.values()
        return sum(
            layer.size
            for layer in layers
            if not (client.blob(layer.digest).exists() or client.blob(layer.diff_id).exists())
        )

    def origin_sent(self) -> int:
        """Layer bytes that have left the origin."""
        self.origin.settle()
        return sum(self.origin.bytes_sent("blob", layer) for layer in self.image.layer_digests)


@pytest.fixture
def site(image: BuiltImage, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(["origin", "near", *CLIENTS]))
        origin = stack.enter_context(FaultServer(image, listener=hosts.listener("origin")))
        yield Site(hosts, origin, image, tmp_path)


def test_of_an_image_for_the_whole_site_one_copy_leaves_the_origin(site: Site) -> None:
    """The neighbour keeps tars, and the image has its own digest all the same."""
    site.near_pulls("uncompressed")
    with site.near_serves():
        results = site.clients_end(site.clients_begin())
    assert site.origin.requests() == []
    for ran in results:
        assert [told["as_tar"] for told in ran.layers] == [True] * len(site.image.layers)
        assert ran.json["bytes_fetched"] == site.image.uncompressed_bytes
        assert ran.json["manifest_digest"] == site.image.digest != ran.json["local_manifest_digest"]


def enough_has_come(site: Site) -> bool:
    """Every client has a layer, and all together have more than a quarter."""
    missing = [site.missing(client) for client in site.clients]
    return max(missing) < site.image.blob_bytes and sum(missing) < N * site.image.blob_bytes * 3 // 4


@pytest.mark.parametrize("form", FORMS)
def test_a_neighbour_that_is_killed_in_the_middle_costs_only_what_was_under_way(
    site: Site, form: str
) -> None:
    site.near_pulls(form)
    image, is_tar = site.image, form == "uncompressed"
    with site.near_serves("--max-rate", "8M") as server:
        pulls = site.clients_begin()
        wait_until(lambda: enough_has_come(site), "nothing comes")
        server.kill()
        server.wait()
        missing = sum(map(site.missing, site.clients))
        results = site.clients_end(pulls)
    assert 0 < site.origin_sent() <= missing < N * image.blob_bytes * 3 // 4
    for ran in results:
        by_near, by_origin = (endpoint["bytes_fetched"] for endpoint in ran.json["endpoints"])
        assert by_near > 0
        kept = [layer for told, layer in zip(ran.layers, image.layers, strict=True) if told["as_tar"]]
        others = [layer for layer in image.layers if layer not in kept]
        if is_tar:  # a tar that has begun is of no use where only the blob is to be had
            assert by_near >= sum(layer.uncompressed_size for layer in kept)
            assert kept and by_origin == sum(layer.size for layer in others)
        else:
            assert not kept and image.blob_bytes <= by_near + by_origin < image.blob_bytes * 1.05
