"""``layertee pull --to``: archives, directories and podman's store, with skopeo and podman as the judges."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import PLAIN, Cli, flip_a_byte, snapshot
from tests.support.rig.images import BuiltImage, build_image, run_tool, upload
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/name": "one\n"}), incompressible_layer(400_000, seed=9)]
    return build_image(tmp_path_factory.mktemp("to"), layers)


@pytest.fixture(scope="module")
def name(image: BuiltImage, registry: RegistryServer) -> str:
    return upload(image, "to/app:1", registry)


@pytest.fixture(scope="module")
def next_name(image: BuiltImage, registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another image, with the first layer of ``image``."""
    layers = [text_layer({"etc/name": "one\n"}), text_layer({"etc/new": "two\n"})]
    return upload(build_image(tmp_path_factory.mktemp("next"), layers), "to/app:2", registry)


def inspected(where: str, *options: str) -> dict[str, Any]:
    """What skopeo sees there."""
    found: dict[str, Any] = json.loads(run_tool("skopeo", "inspect", *options, where))
    return found


def test_an_archive_is_the_image_and_the_same_bytes_each_time(
    user: Cli, image: BuiltImage, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "os.tar"
    path.write_text("what is there before")
    refused = user.run("pull", PLAIN, "--to", f"oci-archive:{path}:app:1", name, code=1).err
    assert "[STORE_IO]" in refused and "remove it, or name another" in refused
    assert path.read_text() == "what is there before"
    path.write_text("")
    ran = user.run("pull", PLAIN, "--to", f"oci-archive:{path}:app:1", name)
    assert f"{name} is in oci-archive:{path}:app:1" in ran.out
    found = inspected(f"oci-archive:{path}:app:1")
    assert (found["Digest"], found["Layers"]) == (image.digest, [layer.digest for layer in image.layers])
    run_tool("skopeo", "copy", "--quiet", f"oci-archive:{path}", f"oci:{tmp_path}/copy")  # every byte
    assert sorted(os.listdir(tmp_path)) == ["copy", "home", "os.tar"]

    other = tmp_path / "other.tar"
    user.run("pull", "-q", "--to", f"oci-archive:{other}:app:1", f"oci-archive:{path}")
    assert other.read_bytes() == path.read_bytes()
    assert user.run("ls", "--json").json["images"][0]["name"] == name


def test_a_directory_is_what_skopeo_makes(
    user: Cli, image: BuiltImage, name: str, next_name: str, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    user.run("pull", PLAIN, "-q", "--to", f"dir:{ours}", name)
    run_tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"dir:{theirs}")
    assert {name: digest for name, (_, digest) in snapshot(ours).items()} == {
        name: digest for name, (_, digest) in snapshot(theirs).items()
    }
    assert inspected(f"dir:{ours}")["Digest"] == image.digest

    (ours / "signature-1").write_text("of the image that is there")
    user.run("pull", PLAIN, "-q", "--to", f"dir:{ours}", next_name)
    run_tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{next_name}", f"dir:{theirs}")
    assert {name: digest for name, (_, digest) in snapshot(ours).items()} == {
        name: digest for name, (_, digest) in snapshot(theirs).items()
    }


def test_a_directory_keeps_the_manifest_of_docker(
    user: Cli, registry: RegistryServer, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "built", [text_layer({"a": "b"})], media="docker")
    name = upload(image, "to/docker:1", registry)
    user.run("pull", PLAIN, "-q", "--to", f"dir:{tmp_path}/d", name)
    assert inspected(f"dir:{tmp_path}/d")["Digest"] == image.digest
    user.run("pull", PLAIN, "-q", "--to", f"oci-archive:{tmp_path}/a", name)
    assert inspected(f"oci-archive:{tmp_path}/a")["Layers"] == [layer.digest for layer in image.layers]


def test_plain_tars_go_out_as_they_are_kept(user: Cli, image: BuiltImage, name: str, tmp_path: Path) -> None:
    user.run("pull", PLAIN, "-q", "--layers=uncompressed", "--to", f"oci-archive:{tmp_path}/a", name)
    assert inspected(f"oci-archive:{tmp_path}/a")["Layers"] == [layer.diff_id for layer in image.layers]
    user.run("pull", PLAIN, "-q", "--to", f"dir:{tmp_path}/d", name)  # the blobs are fetched for it
    assert inspected(f"dir:{tmp_path}/d")["Digest"] == image.digest


def test_podmans_store_has_it_under_the_name(user: Cli, image: BuiltImage, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="lt-") as short:  # podman takes no long path
        root = f"[vfs@{short}/root+{short}/run]"
        ran = user.run("pull", PLAIN, "--to", f"containers-storage:{root}localhost/app:1", name)
        assert "is in containers-storage:" in ran.out
        podman = ("podman", f"--root={short}/root", f"--runroot={short}/run", "--storage-driver=vfs")
        found = json.loads(run_tool(*podman, "image", "inspect", "localhost/app:1"))[0]
    assert (found["Digest"], found["Id"]) == (image.digest, image.config_digest.partition(":")[2])
    told = user.run("pull", PLAIN, "--to", "containers-storage:[vfs@/x+/y]", name, code=1).err
    assert "write containers-storage:NAME" in told


@pytest.mark.parametrize("target", ["oci-archive:{}/out/a.tar", "dir:{}/out/d"])
def test_a_sandbox_leaves_the_command_what_it_writes_to(
    user: Cli, image: BuiltImage, name: str, tmp_path: Path, target: str
) -> None:
    where = target.format(tmp_path)
    (tmp_path / "out").mkdir()
    user.run("pull", PLAIN, "-q", "--sandbox=auto", "--to", where, name)
    assert inspected(where)["Digest"] == image.digest


def test_without_skopeo_nothing_is_fetched(user: Cli, name: str, registry: RegistryServer) -> None:
    registry.reset()
    told = user.run("pull", PLAIN, "--to", "containers-storage:x", name, code=1, PATH="/nonexistent").err
    assert "[STORE_IO]" in told and "hint: the package skopeo has it" in told
    assert registry.accesses() == []


def test_a_place_that_has_something_else_is_left(user: Cli, name: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    before = snapshot(taken)
    assert "neither empty nor" in user.run("pull", PLAIN, "--to", f"dir:{taken}", name, code=1).err
    assert "[STORE_IO]" in user.run("pull", PLAIN, "--to", f"oci-archive:{taken}", name, code=1).err
    assert snapshot(taken) == before
    full = user.run("pull", PLAIN, "--keep-free=100%", "--to", f"oci-archive:{tmp_path}/a", name, code=5)
    assert "[STORE_FULL]" in full.err and sorted(os.listdir(tmp_path)) == ["home", "taken"]


def test_two_results_cannot_have_one_file(user: Cli, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    file, same = tmp_path / "x.prom", tmp_path / "link/x.prom"
    for options in (
        ("--digestfile", file, "--metrics-file", same),
        ("--to", f"oci-archive:{file}:a", "--digestfile", same),
        ("--dry-run", "--to", f"oci-archive:{same}", "--metrics-file", file),
    ):
        told = user.run("pull", PLAIN, *options, "127.0.0.1:1/os:1", code=1).err
        assert f"both name {file}" in told and "[BAD_REF]" in told
    assert not file.exists() and not user.store.exists()


@pytest.mark.parametrize("where", ["oci-archive:{}/index.json", "oci-archive:{}/new.tar", "dir:{}/new"])
def test_nothing_is_written_into_the_store_nor_to_what_is_no_file(
    user: Cli, name: str, next_name: str, registry: RegistryServer, tmp_path: Path, where: str
) -> None:
    user.pull(name)
    before = snapshot(user.store)
    registry.reset()
    os.mkfifo(tmp_path / "pipe")
    for target in (where.format(user.store), f"oci-archive:{tmp_path}/pipe", "oci-archive:/dev/stdout"):
        told = user.run("pull", PLAIN, "--to", target, next_name, code=1).err
        assert "[STORE_IO]" in told
    for option in ("--digestfile", "--metrics-file"):
        for file in (user.store / "new.prom", user.store / "blobs/new.prom"):
            told = user.run("pull", PLAIN, option, file, next_name, code=1).err
            assert "is in the store" in told
    assert registry.accesses() == [] and (tmp_path / "pipe").is_fifo()
    user.run("export", "--to", where.format(user.store).replace("dir:", "oci:"), name, code=1)
    assert snapshot(user.store) == before


def test_a_blob_that_the_disk_has_changed_gets_no_further(
    user: Cli, image: BuiltImage, name: str, tmp_path: Path
) -> None:
    user.pull(name)
    flip_a_byte(user.blob(image.layers[1].digest))
    for target in ("oci-archive:{}/a", "dir:{}/d"):
        told = user.run("pull", PLAIN, "--to", target.format(tmp_path), name, code=3).err
        assert "[DIGEST_MISMATCH]" in told
    assert not (tmp_path / "a").exists() and not (tmp_path / "d/manifest.json").exists()
