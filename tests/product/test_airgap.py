"""``layertee export`` and ``import``: what another store lacks, carried to it in a file or a layout."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from layertee.cli.main import main
from tests.support.jsonshapes import check
from tests.support.process import Cli, flip_a_byte
from tests.support.rig.images import BuiltImage, build_image, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = pytest.mark.slow
OLD, NEW, NEXT = "registry.example/os:1", "registry.example/os:2", "registry.example/os:3"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    """Three images on one base, of which the old one is compressed in another way."""
    root = tmp_path_factory.mktemp("gap")
    base = incompressible_layer(300_000, seed=4)
    return {
        name: build_image(root / tag, [base, text_layer({"v": tag})], compression=compression, ref=name)
        for name, tag, compression in ((OLD, "1", "zstd"), (NEW, "2", "gzip"), (NEXT, "3", "gzip"))
    }


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory, images: dict[str, BuiltImage]) -> Cli:
    """It has the new images. No test changes its store."""
    user = Cli(tmp_path_factory.mktemp("sender"))
    for name in (NEW, NEXT):
        user.run("pull", "-q", f"oci:{images[name].root}:{name}")
    return user


@pytest.fixture
def receiver(tmp_path: Path, images: dict[str, BuiltImage]) -> Cli:
    """It has the old image."""
    user = Cli(tmp_path / "receiver")
    user.run("pull", "-q", f"oci:{images[OLD].root}:{OLD}")
    return user


def have(user: Cli, path: Path) -> Path:
    """The list of what a user's store has."""
    path.write_text(user.run("export", "--have").out)
    return path


def exported(user: Cli, *words: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(user.run("export", "--json", *words).out)
    check("export", value)
    return value


@pytest.mark.parametrize("kind", ["oci-archive", "oci"])
def test_only_what_the_other_store_lacks_is_carried_and_taken_in(
    sender: Cli, receiver: Cli, images: dict[str, BuiltImage], tmp_path: Path, kind: str
) -> None:
    there = have(receiver, tmp_path / "have.json")
    check("have", json.loads(there.read_text()))
    target = f"{kind}:{tmp_path}/update"
    told = exported(sender, "--to", target, "--lacking", there, NEW, NEXT)
    base = images[NEW].layers[0]
    for image in told["images"]:
        assert image["manifest_digest"] == images[image["name"]].digest
        assert [layer["exported"] for layer in image["layers"]] == [False, True]
    assert told["bytes_left_out"] == base.size and told["bytes_written"] < 5_000

    taken = json.loads(receiver.run("import", "--json", target).out)
    check("pulls", taken)
    assert [image["manifest_digest"] for image in taken["images"]] == [
        images[NEW].digest,
        images[NEXT].digest,
    ]
    assert [[layer["action"] for layer in image["layers"]] for image in taken["images"]] == [
        ["have", "reuse"]
    ] * 2
    assert {image["name"] for image in receiver.run("ls", "--json").json["images"]} == {OLD, NEW, NEXT}
    receiver.verified()
    again = exported(sender, "--to", target, "--lacking", have(receiver, there), NEW, NEXT)
    assert all(not layer["exported"] for image in again["images"] for layer in image["layers"])


def test_what_is_not_complete_is_refused_and_the_rest_taken_in(
    sender: Cli, receiver: Cli, images: dict[str, BuiltImage], tmp_path: Path
) -> None:
    target = f"oci-archive:{tmp_path}/update"
    exported(sender, "--to", target, "--lacking", have(receiver, tmp_path / "have.json"), NEW)
    stranger = Cli(tmp_path / "stranger")
    told = stranger.run("import", target, code=2).err
    assert "[NOT_FOUND]" in told and images[NEW].layers[0].digest in told
    assert told.count("hint: ") == 1 and "export --have" in told
    assert stranger.run("ls", "--json").json["images"] == []

    exported(sender, "--to", target, NEW, NEXT)
    run_tool("skopeo", "copy", "--quiet", f"{target}:{NEW}", f"oci:{tmp_path}/whole")
    assert stranger.run("import", target, "absent", code=2).err.count("[NOT_FOUND]") == 1
    assert stranger.run("import", "-q", "--sandbox=auto", target, NEXT).out.split() == [images[NEXT].digest]
    assert [image["name"] for image in stranger.run("ls", "--json").json["images"]] == [NEXT]


def test_bytes_that_were_changed_on_the_way_are_refused(
    sender: Cli, images: dict[str, BuiltImage], tmp_path: Path
) -> None:
    layout = tmp_path / "update"
    exported(sender, "--to", f"oci:{layout}", NEW)
    flip_a_byte(layout / "blobs/sha256" / images[NEW].layers[0].digest.partition(":")[2])
    stranger = Cli(tmp_path / "stranger")
    assert "[" in stranger.run("import", f"oci:{layout}", code=3).err
    assert stranger.run("ls", "--json").json["images"] == []
    exported(sender, "--to", f"oci:{layout}", NEW)  # writes the blob again
    stranger.run("import", f"oci:{layout}")
    stranger.verified()


def test_a_list_comes_on_standard_input_too_and_archives_are_the_same_each_time(
    sender: Cli, receiver: Cli, tmp_path: Path
) -> None:
    there = have(receiver, tmp_path / "have.json")
    exported(sender, "--to", f"oci-archive:{tmp_path}/a", "--lacking", there, NEW, NEXT)
    command = sender.command("export", "--to", f"oci-archive:{tmp_path}/b", "--lacking", "-", NEW, NEXT)
    done = subprocess.run(
        command,
        input=there.read_text(),
        text=True,
        capture_output=True,
        env=sender.environment(),
        check=False,
    )
    assert done.returncode == 0 and "are left out" in done.stdout, done.stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with tarfile.open(tmp_path / "a") as tar:
        index = tar.extractfile("index.json")
        assert index is not None and len(json.load(index)["manifests"]) == 2


def test_what_makes_no_sense_is_refused(
    sender: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no-list").write_text('{"images": []}')
    to = ("--to", f"oci-archive:{tmp_path}/x")
    for words, code, text in (
        ((*to, "absent"), 2, "[NOT_FOUND]"),
        ((*to, "--lacking", tmp_path / "no-list", NEW), 3, "is no list of layers"),
        ((*to, "--lacking", tmp_path / "none", NEW), 1, "[STORE_IO]"),
        ((*to, "--keep-free=100%", NEW), 5, "[STORE_FULL]"),
        (("--to", "dir:x", NEW), 1, "[BAD_REF]"),
        (("--to", f"oci:{tmp_path}/x:ref", NEW), 1, "write oci-archive:FILE or oci:DIR"),
        ((NEW,), 1, "--to"),
        (("--have", NEW), 1, "--have"),
    ):
        assert main(["export", "--store", str(sender.store), *map(str, words)]) == code
        assert text in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    store = ["import", "--store", str(tmp_path / "none")]
    assert main([*store, f"oci-archive:{tmp_path}/x"]) == 2
    assert "[NOT_FOUND]" in capsys.readouterr().err
    assert main([*store, "registry.example/os"]) == 1
    assert "write oci-archive:FILE" in capsys.readouterr().err
