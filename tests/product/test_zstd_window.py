"""Zstd layers that ask for more memory than usual, as a user meets and allows them."""

from __future__ import annotations

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer


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
