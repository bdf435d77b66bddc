"""Archives that skopeo and podman write, under the command as it is typed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from layertee import Engine, sync
from layertee.image.document import DiffID
from layertee.places.oci_archive import OCIArchivePlace
from tests.contract.place_suite import diff_ids
from tests.support.archives import blob_name, by_skopeo, members, write
from tests.support.compress import digest_of
from tests.support.mounts import tmpfs
from tests.support.podman import content, spoilable
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import Entry, LayerSpec, incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.trees import skopeo_reads


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000), text_layer({"etc/b": "third"})]
    return build_image(tmp_path / "built", layers, compression=["gzip", "zstd", "none"])


@pytest.mark.parametrize("written", ["by skopeo", "by tar"])
def test_what_skopeo_writes_is_what_a_layout_has(image: BuiltImage, tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.tar"
    by_skopeo(image, path) if written == "by skopeo" else write(path, members(image))
    place = OCIArchivePlace(path, known=lambda _: None)
    found = place.find(diff_ids(image))
    assert found.warnings == ()
    read = [digest_of(content(found[diff_id], 1 << 20)) for diff_id in diff_ids(image)]
    assert read == [layer.digest for layer in image.layers]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image with layers of more than one buffer."""
    entries = LayerSpec(tuple(Entry(f"usr/f{n}", seed=n % 2, size=70_000) for n in range(60)))
    layers = [
        text_layer({"etc/os-release": "NAME=os\n" * 4000}),
        entries,
        text_layer({"etc/motd": "hello\n"}),
    ]
    return build_image(tmp_path_factory.mktemp("large"), layers, compression=["gzip", "zstd", "none"])


@pytest.fixture(scope="module")
def saved(large: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``podman save`` makes of the image in its store."""
    if os.geteuid() != 0:
        pytest.skip("podman unpacks layers as root")
    root = tmp_path_factory.mktemp("saved")
    store = StorageRig(root / "store", "vfs")
    store.take(large.skopeo_name, "localhost/os:1")
    with spoilable(store) as at_a_short_path:
        save = ("save", "--quiet", "--format", "oci-archive", "-o", str(root / "os.tar"))
        at_a_short_path.run("podman", *save, "localhost/os:1")
    return root / "os.tar"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_an_image_goes_from_an_archive_into_a_layout(
    large: BuiltImage, cli: Cli, tmp_path: Path, form: str
) -> None:
    path = by_skopeo(large, tmp_path / "os.tar")
    ran = cli.run(
        "pull", "--json", "--layers", form, "--to", f"oci:{tmp_path}/out:one", f"oci-archive:{path}:v1"
    )
    assert ran.actions == ["reuse"] * 3
    assert {layer["place"] for layer in ran.layers} == {f"oci-archive:{path}"}
    assert (ran.json["manifest_digest"], ran.json["config_digest"]) == (large.digest, large.config_digest)
    assert (ran.json["local_manifest_digest"] == large.digest) == (form == "as-is")
    digests = [layer.digest if form == "as-is" else layer.diff_id for layer in large.layers]
    assert skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read") == digests


def test_a_layer_of_an_archive_is_a_stream_like_any_other(image: BuiltImage, tmp_path: Path) -> None:
    path = by_skopeo(image, tmp_path / "os.tar")

    async def main() -> list[DiffID]:
        async with Engine(tmp_path / "store") as engine:
            plan = await engine.plan(f"oci-archive:{path}")
            measured = []
            for step in plan.layers:
                async with engine.open_layer(step) as tar:
                    nbytes = sum([len(piece) async for piece in tar])
                assert tar.result is not None
                assert nbytes == tar.result.uncompressed_size
                measured.append(tar.result.diff_id)
            return measured

    assert sync.run(main()) == diff_ids(image)


@pytest.mark.slow
def test_what_podman_saved_is_an_image_and_a_place(
    saved: Path, large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    name = f"oci-archive:{saved}"
    told = cli.run("inspect", "--json", f"{name}:localhost/os:1")
    assert [layer["diff_id"] for layer in told.layers] == diff_ids(large)
    assert told.json["config_digest"] == large.config_digest
    assert told.json["registry_manifest_digest"] is None
    ran = cli.run("pull", "--json", "--to", f"oci:{tmp_path}/out:one", name)
    assert ran.json["config_digest"] == large.config_digest
    assert len(skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read")) == 3
    pushed = push(recompress(large, "zstd", tmp_path / "twin"), "archives/saved:1", registry)
    registry.reset()
    ran = cli.pull("--from", name, pushed)
    assert ran.actions == ["reuse"] * 3
    assert registry.blob_bytes(digests=[layer["digest"] for layer in ran.layers]) == 0
    cli.verified()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_layers_that_an_archive_has_are_not_fetched(
    large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path, form: str
) -> None:
    name = push(large, f"archives/same:{form}", registry)
    where = f"oci-archive:{by_skopeo(large, tmp_path / 'os.tar')}"
    planned = cli.pull("--dry-run", "--from", where, "--trust", "computed", name)
    assert planned.actions == ["fetch", "fetch", "reuse"], "claims, and a tar under its own name"
    registry.reset()
    ran = cli.pull("--from", where, "--layers", form, name)
    assert ran.actions == ["reuse"] * 3
    assert [layer["basis"] for layer in ran.layers] == ["claimed", "claimed", "computed"]
    assert registry.blob_bytes(digests=large.layer_digests) == 0
    assert (ran.json["local_manifest_digest"] == large.digest) == (form == "as-is")
    cli.verified()


@pytest.mark.slow
def test_a_layer_that_is_wrong_in_the_archive_is_fetched(
    large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    found = members(large)
    spoilt = bytearray(found[blob_name(large, 1)])
    spoilt[len(spoilt) // 2] ^= 0x55
    path = write(tmp_path / "os.tar", found | {blob_name(large, 1): bytes(spoilt)})
    name = push(large, "archives/wrong:1", registry)
    registry.reset()
    ran = cli.pull("--from", f"oci-archive:{path}", name)
    assert ran.actions == ["reuse", "fetch", "reuse"]
    assert registry.blob_bytes(digests=large.layer_digests) == large.layers[1].size
    cli.verified()
    alone = cli.run("pull", "--to", f"oci:{tmp_path}/out:one", f"oci-archive:{path}", code=3)
    assert large.layers[1].digest in alone.err


@pytest.mark.slow
def test_what_is_wrong_with_an_archive_is_said_in_one_line(
    large: BuiltImage, cli: Cli, tmp_path: Path
) -> None:
    path = by_skopeo(large, tmp_path / "os.tar")
    into = ("pull", "--to", f"oci:{tmp_path}/out")
    assert "it has: v1" in cli.run(*into, f"oci-archive:{path}:v2", code=2).err
    assert "is not there" in cli.run(*into, f"oci-archive:{path}.gz", code=2).err
    found = members(large)
    del found[blob_name(large, 0)]
    write(path, found)
    assert "is not there" in cli.run(*into, f"oci-archive:{path}", code=2).err
    path.write_bytes(b"no tar at all" * 100)
    assert "there is no header at byte 0" in cli.run(*into, f"oci-archive:{path}", code=1).err
    run_tool("gzip", str(path))
    assert "there is no header at byte 0" in cli.run(*into, f"oci-archive:{path}.gz", code=1).err
    path.with_name("os.tar.gz").write_bytes(gzip.compress(bytes(10_000))[:-10])
    assert "cannot be unpacked: gzip:" in cli.run(*into, f"oci-archive:{path}.gz", code=1).err
    assert (
        "write oci:DIR" in cli.run("pull", "--to", f"docker-archive:{path}", "host.example/os:1", code=1).err
    )


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_archive_is_pulled_like_a_plain_one(
    large: BuiltImage, cli: Cli, tmp_path: Path, tool: str
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool}")
    path = by_skopeo(large, tmp_path / "os.tar")
    packed = tmp_path / "os.packed"
    with packed.open("wb") as file:
        subprocess.run([tool, "-c", path], stdout=file, check=True)
    path.unlink()
    room = tmp_path / "room"
    room.mkdir()
    name = f"oci-archive:{packed}:v1"
    told = cli.run("inspect", "-v", "--json", name, TMPDIR=str(room))
    assert f"unpacked into a temporary file in {room}" in told.err
    assert [layer["diff_id"] for layer in told.layers] == [layer.diff_id for layer in large.layers]
    ran = cli.run("pull", "--json", "--to", f"oci:{tmp_path}/out:one", name, TMPDIR=str(room))
    assert ran.actions == ["reuse"] * 3
    assert ran.json["manifest_digest"] == large.digest
    assert skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read") == [one.digest for one in large.layers]
    assert list(room.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_is_pulled_from_standard_input(
    large: BuiltImage, cli: Cli, tmp_path: Path, packed: bool
) -> None:
    path = by_skopeo(large, tmp_path / "os.tar")
    source = subprocess.Popen(["gzip" if packed else "cat", *(["-c"] if packed else []), path], stdout=-1)
    command = cli.command("pull", "--json", "oci-archive:/dev/stdin:v1")
    ran = subprocess.run(
        command, stdin=source.stdout, env=cli.environment(), capture_output=True, check=False
    )
    assert source.stdout is not None
    source.stdout.close()
    assert (source.wait(), ran.returncode) == (0, 0), ran.stderr
    assert json.loads(ran.stdout)["manifest_digest"] == large.digest
    cli.verified()


@pytest.mark.slow
def test_room_that_an_archive_has_not_is_told(large: BuiltImage, cli: Cli, tmp_path: Path) -> None:
    """The temporary file's disk is another one than the store's."""
    path = by_skopeo(large, tmp_path / "os.tar")
    run_tool("gzip", str(path))
    room = tmp_path / "room"
    room.mkdir()
    with tmpfs(room, "64k"):
        name = f"oci-archive:{path}.gz"
        told = cli.run("pull", "--to", f"oci:{tmp_path}/out:one", name, code=5, TMPDIR=str(room)).err
        assert f"takes more room than there is in {room}" in told
        assert "TMPDIR=DIR in the environment" in told
