"""The cache of podman and skopeo, as a real tool writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.image.document import DiffID
from layertee.image.media import Compression
from layertee.places.blobinfocache import BlobInfoCache
from tests.contract.place_suite import diff_ids
from tests.support.rig.blobcache import FILE, run_with_cache, writer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"a": "1" * 5000}), text_layer({"b": "2" * 5000}), text_layer({"c": "3"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression=["gzip", "zstd", "none"])


@pytest.mark.builds("imagecopy")
@pytest.mark.needs_root("mounts over the machine's own cache, in a namespace")
def test_what_a_real_tool_recorded_is_read(image: BuiltImage, tmp_path: Path) -> None:
    try:
        command = writer()
    except NotBuilt as exc:
        pytest.skip(f"no skopeo 1.14 here, and no other tool that writes SQLite: {exc}")
    target = f"dir:{tmp_path / 'copy'}"
    run_with_cache(tmp_path / "cache", *command, "--dest-decompress", image.skopeo_name, target)
    cache = BlobInfoCache(tmp_path / "cache" / FILE)
    gzip, zstd, _ = image.layers
    named = cache.blob_names(diff_ids(image))
    found = named.names
    assert named.warnings == ()
    assert {diff_id: {blob.digest for blob in blobs} for diff_id, blobs in found.items()} == {
        DiffID(gzip.diff_id): {gzip.digest},
        DiffID(zstd.diff_id): {zstd.digest},
    }
    kinds = [blob.compression for blobs in found.values() for blob in blobs]
    assert set(kinds) == {Compression.GZIP, Compression.ZSTD}
