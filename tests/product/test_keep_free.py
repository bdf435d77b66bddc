"""How much of a disk a pull may fill: the rule, and the option, on filesystems of a known size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.docker_archive import saved, write
from tests.support.fakes.fault_server import FaultServer
from tests.support.mounts import tmpfs
from tests.support.process import PLAIN, Cli, flip_a_byte, wait_until
from tests.support.rig.images import BuiltImage, build_image, push, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Of 3 MiB that no compression makes less."""
    layers = [incompressible_layer(MIB, seed=seed) for seed in (1, 2, 3)]
    return build_image(tmp_path_factory.mktemp("room"), layers)


@pytest.fixture(scope="module")
def name(image: BuiltImage, registry: RegistryServer) -> str:
    return push(image, "room/os:1", registry)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def test_a_small_tmpfs_can_be_used_but_for_a_twentieth(cli: Cli, name: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "60m"):
        ran = cli.pull("--store", disk / "store", name)
        assert ran.actions == ["fetch"] * 3
        told = cli.run("doctor", "--store", disk / "store").out
        assert "MiB free, 3.0 MiB of it stay free for the system" in told
        assert cli.run("doctor", "--store", disk / "store", LAYERTEE_KEEP_FREE="7M").out.count("6.7 MiB") == 1


def test_what_stays_free_is_the_option_s_or_the_environment_s_to_say(
    cli: Cli, name: str, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "10m"):
        registry.reset()
        to = ("--store", disk / "store")
        refused = cli.pull(*to, "--keep-free", "80%", name, code=5)
        assert "this pull needs 3.0 MiB in" in refused.err
        assert "and 8.0 MiB must stay free; free 1." in refused.err
        assert "--keep-free SIZE or N%, or LAYERTEE_KEEP_FREE in the environment" in refused.err
        refused = cli.pull(*to, name, code=5, LAYERTEE_KEEP_FREE="100%")
        assert "and 10.0 MiB must stay free" in refused.err
        assert cli.pull(*to, "--keep-free", "5T", name, code=5).err.count("4.5 TiB must stay free") == 1
        assert registry.blob_bytes(digests=image.layer_digests) == 0
        assert "not a size like 5Gi" in cli.pull(*to, "--keep-free", "some", name, code=1).err
        assert "LAYERTEE_KEEP_FREE: 'x' is not" in cli.pull(*to, name, code=1, LAYERTEE_KEEP_FREE="x").err
        # The option holds where both speak.
        done = cli.pull(*to, "--keep-free", "0", name, LAYERTEE_KEEP_FREE="100%")
        assert done.actions == ["fetch"] * 3
        # An image that is all here needs no room.
        assert cli.pull(*to, "--keep-free", "100%", name).actions == ["have"] * 3


def test_all_but_what_stays_free_can_be_filled(cli: Cli, name: str, tmp_path: Path) -> None:
    """A disk that 3 MiB fit into, and one that they do not, by what stays free of it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "6m"):
        error = cli.pull("--store", disk / "store", "--keep-free", "3Mi", name, code=5).json["error"]
        assert error["code"] == "STORE_FULL" and error["need"] > 3 << 20 and error["floor"] == 3 << 20
        cli.pull("--store", disk / "store", "--keep-free", "2Mi", name)


def test_a_tmpfs_without_a_limit_is_no_full_disk(cli: Cli, name: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "0"):
        assert os.statvfs(disk).f_blocks == 0
        assert cli.pull("--store", disk / "store", name).actions == ["fetch"] * 3


@pytest.mark.parametrize("keep_free", ["0", "1Mi"])
def test_a_disk_that_another_program_fills_meanwhile_is_told_with_what_is_still_needed(
    cli: Cli, tmp_path: Path, keep_free: str
) -> None:
    """Two layers; the larger one is on its way when the room goes, and comes slowly."""
    layers = [incompressible_layer(4 * MIB, seed=4), text_layer({"a": "small"})]
    image = build_image(tmp_path / "image", layers)
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "10m"), FaultServer(image, rate_per_connection=4 * MIB) as server:
        cli.store = disk / "store"
        small = cli.blob(image.layers[1].digest)
        process = cli.start("pull", PLAIN, "-q", "--keep-free", keep_free, server.reference)
        wait_until(lambda: small.exists() or process.poll() is not None, "the small layer does not come")
        with (disk / "ballast").open("xb") as ballast:
            free = os.statvfs(disk)
            os.posix_fallocate(ballast.fileno(), 0, free.f_bavail * free.f_frsize)
        ran = cli.finish(process, 5)
        first, *others = ran.err.splitlines()
        assert first.startswith("layertee: ") and str(disk) in first and first.endswith("[STORE_FULL]")
        assert sum("what is still to come needs 4.0 MiB, and " in line for line in others) == 1
        (disk / "ballast").unlink()
        assert cli.pull("--keep-free", keep_free, server.reference).actions == ["fetch", "have"]
        cli.verified()


@pytest.mark.parametrize(("size", "action"), [("10m", "fetch"), ("100m", "reuse")])
def test_what_a_place_has_leaves_room_for_what_is_fetched(
    cli: Cli, registry: RegistryServer, tmp_path: Path, size: str, action: str
) -> None:
    """One place has the layer damaged, another as a large tar, which the plan did not count on."""
    image = build_image(tmp_path / "image", [text_layer({"etc/text": "line\n" * 800_000})])
    damaged = recompress(image, "zstd", tmp_path / "damaged")
    flip_a_byte(damaged.blob_path(damaged.layers[0].digest))
    archive = write(tmp_path / "os.tar", saved(image))
    name = push(image, f"room/place-{size}:1", registry)
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, size):
        places = ("--from", f"oci:{damaged.root}", "--from", f"docker-archive:{archive}")
        ran = cli.pull("--store", disk / "store", *places, name)
        assert ran.actions == [action]
        if action == "fetch":
            assert "of the little that is free" in ran.layers[0]["reason"]
