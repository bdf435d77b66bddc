"""Zstd layers that ask for more memory than usual, as a user meets and allows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer, zeros_layer

MIB = 1 << 20


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"far": "away " * 1000}), text_layer({"near": "by"})]
    return build_image(tmp_path_factory.mktemp("far"), layers, compression=["zstd-long", "zstd"])


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_a_larger_window_is_refused_with_its_numbers_and_allowed_by_an_option(
    cli: Cli, far: BuiltImage, form: str
) -> None:
    with FaultServer(far) as server:
        ran = cli.run("pull", PLAIN, "--layers", form, server.reference, code=3)
        assert "wants a window of 256 MiB, and may have 128 MiB [ZSTD_WINDOW]" in ran.err
        assert "hint: --zstd-window SIZE allows more" in ran.err
        short = cli.run("pull", PLAIN, "--zstd-window", "255Mi", server.reference, code=3)
        assert "may have 255 MiB" in short.err
        cli.pull("--layers", form, "--zstd-window", "256Mi", server.reference)
        # What was inflated once is no risk any more, and is checked without the option.
        cli.verified()
        assert cli.pull("--layers", form, server.reference).actions == ["have", "have"]


def test_the_option_also_counts_for_layers_of_this_machine(cli: Cli, far: BuiltImage) -> None:
    ran = cli.run("pull", f"oci:{far.root}", code=3)
    assert "[ZSTD_WINDOW]" in ran.err
    cli.run("pull", "--zstd-window", "2Gi", f"oci:{far.root}")
    cli.verified()


@pytest.mark.parametrize("size", ["2049Mi", "1023", "0", "many"])
def test_a_window_that_no_decoder_has_is_refused(user: Cli, far: BuiltImage, size: str) -> None:
    ran = user.run("pull", "--zstd-window", size, f"oci:{far.root}", code=1)
    assert "--zstd-window" in ran.err


def far_apart(seed: int) -> LayerSpec:
    """Noise, and the same again 300 MiB later."""
    noise = incompressible_layer(4 * MIB, seed).entries
    return LayerSpec((*noise, *zeros_layer(300 * MIB).entries, *noise), "far apart")


@pytest.mark.slow
def test_layers_with_windows_of_512_mib_take_as_much_memory_as_one_of_them(user: Cli, tmp_path: Path) -> None:
    """As ``zstd --long=29`` writes them. Layers are inflated several at a time, but no two of these."""
    image = build_image(tmp_path / "image", [far_apart(1), far_apart(2)], compression="zstd-512m")
    assert all(layer.size < 5 * MIB for layer in image.layers), "the second noise is a match"
    with FaultServer(image) as server:
        ran = user.run("pull", PLAIN, server.reference, code=3)
        assert "wants a window of 512 MiB, and may have 128 MiB [ZSTD_WINDOW]" in ran.err
        assert "hint: --zstd-window SIZE allows more" in ran.err
        allowed = ("--zstd-window", "512Mi", "--layers", "as-is")
        peak = user.peak_kib("pull", PLAIN, *allowed, server.reference) << 10
    assert 304 * MIB < peak < (304 + 128) * MIB
