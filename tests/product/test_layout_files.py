"""The files of a layout that an image is pulled from: links as build tools make them, and damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.trees import skopeo_reads

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "built", [text_layer({"etc/a": "one"}), incompressible_layer(90_000)])


def test_a_layout_of_links_into_a_build_s_cache_is_pulled_as_skopeo_reads_it(
    image: BuiltImage, cli: Cli, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in sorted((image.root / "blobs/sha256").iterdir()):
        path.rename(cache / path.name)
        path.symlink_to(os.path.relpath(cache / path.name, path.parent))
    assert skopeo_reads(f"oci:{image.root}", tmp_path / "read") == [layer.digest for layer in image.layers]
    ran = cli.run("pull", "--json", "--to", f"oci:{tmp_path}/out:one", f"oci:{image.root}")
    assert ran.actions == ["reuse"] * 2
    assert ran.json["manifest_digest"] == image.digest
    blobs = sorted((tmp_path / "out/blobs/sha256").iterdir())
    assert [path.is_symlink() for path in blobs] == [False] * 4
    cache.chmod(0o777)
    said = cli.run("pull", "--to", f"oci:{tmp_path}/out:two", f"oci:{image.root}", code=1).err
    assert f"others may write to {cache}" in said


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (lambda path: path.unlink(), 2, "{path} is not there [NOT_FOUND]"),
        (lambda path: path.write_bytes(b""), 3, "{path} has 0 bytes, the image says {size} [SIZE_MISMATCH]"),
        (lambda path: os.truncate(path, 10), 3, "{path} has 10 bytes, the image says {size} [SIZE_MISMATCH]"),
    ],
)
def test_what_is_wrong_with_a_layer_is_the_error(
    image: BuiltImage, cli: Cli, tmp_path: Path, damage: object, code: int, says: str
) -> None:
    layer = image.layers[1]
    path = image.blob_path(layer.digest)
    assert callable(damage)
    damage(path)
    for command in (("pull", "--to", f"oci:{tmp_path}/out:one"), ("pull", "--dry-run"), ("inspect",)):
        lines = cli.run(*command, f"oci:{image.root}", code=code).err.splitlines()
        error = lines.index(f"layertee: {says.format(path=path, size=layer.size)}")
        assert lines[error + 1] == f"  that is layer 1 ({layer.digest}) of the image"
