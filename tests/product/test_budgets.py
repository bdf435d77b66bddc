"""What an image may cost, as a user sets it and meets it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.credentials import BearerAuth
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer, zeros_layer

MIB = 1 << 20


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Six layers of a few kilobytes, each of which is 64 MiB and a little uncompressed."""
    layers = [zeros_layer(64 * MIB + 1000 * n) for n in range(6)]
    return build_image(tmp_path_factory.mktemp("growing"), layers, compression="zstd")


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_what_all_layers_inflate_to_is_bounded_together(
    growing: BuiltImage, form: str, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "home")
    with FaultServer(growing) as server:
        ran = cli.run("pull", PLAIN, "--layers", form, "--max-output", "200Mi", server.reference, code=3)
        assert "[OUTPUT_BUDGET]" in ran.err
        assert cli.leftovers() == []
        cli.run("pull", PLAIN, "--layers", form, server.reference)  # within what such an image may
        cli.verified()


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_what_a_place_has_instead_of_a_layer_uses_up_nothing_of_the_images_budget(
    form: str, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": str(n)}) for n in range(6)])

    def claim(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"] = [layer.diff_id for layer in image.layers]

    layers = [zeros_layer(64 * MIB + 1000 * n) for n in range(6)]
    place = build_image(tmp_path / "place", layers, compression="zstd", edit_config=claim)
    cli = Cli(tmp_path / "home")
    with FaultServer(image) as server:
        options = ("--layers", form, "--max-output", "100Mi", "--from", f"oci:{place.root}")
        assert cli.pull(*options, server.reference).actions == ["fetch"] * 6
    assert cli.leftovers() == []
    cli.verified()


def test_files_that_are_no_layers_are_not_read_again_and_again(tmp_path: Path) -> None:
    """Each place has, under a layer's DiffID, a file of zeros of which no one can tell that it is wrong."""
    image = build_image(tmp_path / "image", [text_layer({"a": "b"})])
    sparse = []
    for n in range(20):
        place = build_image(tmp_path / str(n), [text_layer({"other": str(n)})])
        false = place.blob_path(image.layers[0].diff_id)
        false.touch()
        os.truncate(false, 64 * MIB - n)
        sparse.append(false)
    cli = Cli(tmp_path / "home")
    options = [f"--from=oci:{false.parents[2]}" for false in sparse]
    with FaultServer(image) as server:
        (layer,) = cli.pull("-v", *options, server.reference).json["layers"]
    assert layer["action"] == "fetch"
    assert "inflate to more than" in layer["reason"], "the places that were not tried any more"
    cli.verified()


def test_a_pull_that_is_late_ends_and_keeps_what_it_has(tmp_path: Path) -> None:
    image = build_image(
        tmp_path / "image", [incompressible_layer(2 * MIB), text_layer({"a": "b"})], compression="gzip"
    )
    cli, gate = Cli(tmp_path / "home"), Gate()
    with FaultServer(image, [on("blob", Held(gate, MIB), reference=image.layers[0].digest)]) as server:
        late = cli.run("pull", PLAIN, "--deadline", "1s", server.reference, code=4)
        assert "[DEADLINE]" in late.err and "not done after 1 s" in late.err
        assert cli.leftovers() == []
        gate.open()
        again = cli.pull("--deadline", "1h", server.reference)
    assert again.actions == ["fetch", "have"]


@pytest.mark.parametrize("kind", ["manifest", "token"])
@pytest.mark.parametrize("fault", ["stall-no-reply", "unavailable-for-an-hour"])
def test_a_deadline_counts_from_the_first_request_on(kind: str, fault: str, tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": "b"})])
    cli = Cli(tmp_path / "home")
    with FaultServer(image, [on(kind, CATALOGUE[fault])], auth=BearerAuth()) as server:
        began = time.monotonic()
        late = cli.run("pull", PLAIN, "--deadline", "1s", "--patience", "2h", server.reference, code=4)
        assert "[DEADLINE]" in late.err
        assert time.monotonic() - began < 20


def test_a_deadline_that_is_none_is_refused(tmp_path: Path) -> None:
    for wrong in ("", "0s", "-1s", "soon", "10"):
        assert "is not a duration" in Cli(tmp_path).run("pull", f"--deadline={wrong}", "a/b", code=1).err
    assert "more than nothing" in Cli(tmp_path).run("pull", "--max-output", "0", "a/b", code=1).err
