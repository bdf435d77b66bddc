"""What an image may cost, as a user sets it and meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_a_deadline_that_is_none_is_refused(tmp_path: Path) -> None:
    for wrong in ("", "0s", "-1s", "soon", "10"):
        assert "is not a duration" in Cli(tmp_path).run("pull", f"--deadline={wrong}", "a/b", code=1).err
    assert "more than nothing" in Cli(tmp_path).run("pull", "--max-output", "0", "a/b", code=1).err
