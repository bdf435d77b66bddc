"""A registries.conf with real registries behind it: an origin, a mirror, and a cache that pulls through."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.imageproxy import ImageProxy
from tests.support.mirrors import At, write_conf
from tests.support.process import Cli, wait_until
from tests.support.rig.images import BuiltImage, build_image, push, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

PREFIX = "quay.test/fleet"
NAME = f"{PREFIX}/os:1"
LARGE = 200 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    specs = [incompressible_layer(3 << 20, seed=7), text_layer({"etc/os": "os\n" * 5000})]
    return build_image(tmp_path_factory.mktemp("mirrored"), specs, compression="gzip")


@dataclass
class Site:
    """The origin and two mirrors of it, each a docker-registry: the second one pulls through."""

    origin: RegistryServer
    mirror: RegistryServer
    cache: RegistryServer
    conf: Path

    def reset(self) -> None:
        for server in (self.origin, self.mirror, self.cache):
            server.reset()

    def asked(self) -> tuple[int, int, int]:
        """Requests at the mirror, at the cache and at the origin."""
        return len(self.mirror.accesses()), len(self.cache.accesses()), len(self.origin.accesses())


@pytest.fixture
def site(image: BuiltImage, tmp_path: Path) -> Iterator[Site]:
    with RegistryServer() as origin, RegistryServer() as mirror, RegistryServer(proxy_of=origin) as cache:
        push(image, "team/os:1", origin)
        push(image, "copies/os:1", mirror)
        mirrors = [At(f"{mirror.host}/copies"), At(f"{cache.host}/team")]
        conf = write_conf(tmp_path, PREFIX, mirrors, At(f"{origin.host}/team"))
        site = Site(origin, mirror, cache, conf)
        site.reset()
        yield site


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def served(report: dict[str, object]) -> list[int]:
    endpoints = report["endpoints"]
    assert isinstance(endpoints, list)
    return [endpoint["bytes_fetched"] for endpoint in endpoints]


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_the_first_mirror_serves_and_the_next_when_it_is_gone(
    site: Site, image: BuiltImage, user: Cli, tmp_path: Path, by: str
) -> None:
    name = NAME if by == "tag" else f"{PREFIX}/os@{image.digest}"
    report = user.run("pull", "--json", name, CONTAINERS_REGISTRIES_CONF=str(site.conf)).json
    assert report["manifest_digest"] == image.digest
    assert served(report) == [image.blob_bytes, 0, 0]
    assert site.mirror.blob_bytes(digests=image.layer_digests) == image.blob_bytes
    assert site.asked()[1:] == (0, 0)

    site.mirror.stop()
    other = Cli(tmp_path / "other")
    second = other.run("pull", "--json", name, CONTAINERS_REGISTRIES_CONF=str(site.conf))
    assert served(second.json) == [0, image.blob_bytes, 0]
    assert site.cache.blob_bytes(digests=image.layer_digests) == image.blob_bytes
    assert any("mirror" in warning for warning in second.json["warnings"])
    assert {a.user_agent.partition("/")[0] for a in site.origin.accesses()} <= {
        "Go-http-client"
    }  # the cache's


def test_skopeo_and_podman_beside_us_get_the_same_from_the_same(
    site: Site, image: BuiltImage, user: Cli, tmp_path: Path
) -> None:
    conf = str(site.conf)
    run_tool(
        "skopeo", "--registries-conf", conf, "copy", "--quiet", f"docker://{NAME}", f"dir:{tmp_path / 'd'}"
    )
    ours = user.run("inspect", "--json", NAME, CONTAINERS_REGISTRIES_CONF=conf).json
    assert digest_of((tmp_path / "d/manifest.json").read_bytes()) == ours["manifest_digest"] == image.digest
    if os.geteuid() == 0:
        with tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as root:  # podman wants it short
            store = ("--root", f"{root}/s", "--runroot", f"{root}/r", "--storage-driver", "vfs")
            podman = ("env", f"CONTAINERS_REGISTRIES_CONF={conf}", "podman", *store)
            run_tool(*podman, "pull", "--quiet", NAME)
            listed = json.loads(run_tool(*podman, "image", "inspect", NAME))
        assert listed[0]["Digest"] == image.digest
    assert site.asked()[1:] == (0, 0)
    assert len({access.user_agent.partition("/")[0] for access in site.mirror.accesses()}) >= 2


def test_what_is_blocked_is_not_asked_by_any_command(site: Site, user: Cli, tmp_path: Path) -> None:
    host = site.origin.host
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    conf = write_conf(blocked, host, [], blocked=True)
    name = f"{host}/team/os:1"
    said = f"{host} is blocked by the administrator ({conf}:1)"
    for command in ("pull", "inspect"):
        assert (
            said
            in user.run(command, "--tls-verify=false", name, code=1, CONTAINERS_REGISTRIES_CONF=str(conf)).err
        )
    assert said in user.run("doctor", name, code=1, CONTAINERS_REGISTRIES_CONF=str(conf)).out
    with ImageProxy(
        user.command("image-proxy"), user.environment(CONTAINERS_REGISTRIES_CONF=str(conf))
    ) as proxy:
        proxy.call("Initialize")
        assert said in proxy.refused("OpenImage", f"docker://{name}")
    assert site.asked() == (0, 0, 0)


def test_a_blocked_origin_is_had_from_its_mirrors_alone(site: Site, image: BuiltImage, user: Cli) -> None:
    text = site.conf.read_text().replace("insecure = true", "insecure = true\nblocked = true", 1)
    site.conf.write_text(text)
    report = user.run("pull", "--json", NAME, CONTAINERS_REGISTRIES_CONF=str(site.conf)).json
    assert [endpoint["mirror"] for endpoint in report["endpoints"]] == [True, True]
    site.mirror.stop()
    site.cache.stop()
    gone = user.run(
        "inspect", f"{PREFIX}/os@{image.digest}", code=4, CONTAINERS_REGISTRIES_CONF=str(site.conf)
    )
    assert site.origin.host not in gone.err
    assert [access for access in site.origin.accesses() if "layertee" in access.user_agent] == []


def test_each_endpoint_has_certificates_of_its_own(image: BuiltImage, user: Cli, tmp_path: Path) -> None:
    with RegistryServer(tls=True) as origin, RegistryServer(tls=True) as mirror:
        push(image, "team/os:1", origin)
        push(image, "copies/os:1", mirror)
        own = user.home / ".config/containers"
        for server in (origin, mirror):
            assert server.ca_file is not None
            directory = own / "certs.d" / server.host
            directory.mkdir(parents=True)
            (directory / "ca.crt").write_bytes(server.ca_file.read_bytes())
        write_conf(
            own,
            PREFIX,
            [At(f"{mirror.host}/copies", insecure=False)],
            At(f"{origin.host}/team", insecure=False),
        )
        assert served(user.run("pull", "--json", NAME).json) == [image.blob_bytes, 0]
        (own / "certs.d" / mirror.host / "ca.crt").unlink()  # the origin's vouches for the origin alone
        other = Cli(tmp_path / "home")
        other.store = tmp_path / "other"
        report = other.run("pull", "--json", NAME).json
        assert served(report) == [0, image.blob_bytes]
        assert any("certificate" in warning for warning in report["warnings"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    specs = [incompressible_layer(LARGE, seed=11)]
    return build_image(tmp_path_factory.mktemp("large"), specs, compression="gzip-fast")


@pytest.mark.parametrize("layers", ["as-is", "uncompressed"])
@pytest.mark.alone
def test_a_mirror_that_is_killed_in_a_large_layer_costs_no_new_start(
    large: BuiltImage, user: Cli, tmp_path: Path, layers: str
) -> None:
    with RegistryServer() as origin, RegistryServer() as mirror:
        push(large, "team/os:1", origin)
        push(large, "copies/os:1", mirror)
        conf = write_conf(tmp_path, PREFIX, [At(f"{mirror.host}/copies")], At(f"{origin.host}/team"))
        origin.reset()
        command = ("--json", "--max-rate", "80M", "--layers", layers, "--registries-conf", conf, NAME)
        process = user.start("pull", *command)
        parts = user.store / "layertee/parts"

        def has_come() -> bool:
            found = parts.iterdir() if parts.is_dir() else ()
            return sum(path.stat().st_size for path in found if path.exists()) > 0.3 * LARGE

        wait_until(has_come, "a third of the layer")
        os.kill(mirror.pid, signal.SIGKILL)
        report = user.finish(process).json
        assert report["bytes_fetched"] <= 1.1 * large.blob_bytes
        from_mirror, from_origin = served(report)
        assert from_mirror >= 0.25 * large.blob_bytes
        asked = [a for a in origin.accesses() if a.kind == "blob" and a.reference in large.layer_digests]
        assert {access.status for access in asked} == {206}  # only what was missing
        assert sum(access.nbytes for access in asked) == from_origin <= 0.8 * large.blob_bytes
        user.verified()
