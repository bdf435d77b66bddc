"""Images of the store: which manifest is kept, under which name, and that other tools read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import (
    NotFound,
    StoreCorrupt,
)
from layertee.image.document import Digest, Manifest, parse_document
from layertee.image.holding import Form
from layertee.image.media import Compression
from layertee.image.rewrite import ORIGINAL_MANIFEST, Types, local_manifest
from layertee.pulling.plan import Action
from layertee.store.gc import gc
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import text_layer
from tests.support.store import (
    AMD64,
    assert_store_is_sound,
    bring,
    gzip_layer,
    pull,
    visible_blobs,
)

TAR, BLOB, RESULT = gzip_layer("one layer")


# --- images -------------------------------------------------------------------------


def test_an_image_kept_as_it_is_keeps_its_digest(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "docker.io/x/y:1")
    (found,) = store.images.all()
    assert (found.name, found.digest, found.original) == ("docker.io/x/y:1", image.digest, image.digest)
    assert (found.config, found.platform) == (image.config_digest, "linux/amd64")
    assert found.nbytes == sum(layer.size for layer in image.layers)
    assert found.pulled_at is not None
    kept = store.layout.resolve("docker.io/x/y:1", AMD64)
    assert kept.manifest.raw == image.manifest
    assert set(visible_blobs(store.root)) == {image.digest, image.config_digest, *image.layer_digests}
    assert_store_is_sound(store.root)


def test_an_image_kept_uncompressed_keeps_its_id_and_its_origin(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "docker.io/x/y:1", Form.UNCOMPRESSED)
    (found,) = store.images.all()
    assert found.original == image.digest != found.digest
    assert found.config == image.config_digest
    kept = store.layout.resolve("docker.io/x/y:1", AMD64)
    assert [layer.digest for layer in kept.layers] == [layer.diff_id for layer in image.layers]
    assert all(layer.media_type == "application/vnd.oci.image.layer.v1.tar" for layer in kept.layers)
    assert kept.manifest.annotations == {"org.example": "kept", ORIGINAL_MANIFEST: image.digest}
    assert store.layout.blob_path(Digest(image.digest)).read_bytes() == image.manifest
    assert_store_is_sound(store.root)


def test_the_same_content_in_another_compression_is_not_brought_again(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    pull(store, image.root, "latest", "x:1")
    other = recompress(image, "zstd", tmp_path / "zstd")
    again = pull(store, other.root, "latest", "x:2")
    assert again.bytes_to_fetch == 0
    assert again.layers_to(Action.FETCH) == ()
    kept = store.layout.resolve("x:2", AMD64)
    assert [layer.digest for layer in kept.layers] == [layer.digest for layer in image.layers]
    assert kept.manifest.annotations[ORIGINAL_MANIFEST] == other.digest
    assert kept.config.digest == other.config_digest
    assert_store_is_sound(store.root)


def test_a_local_manifest_is_the_same_whoever_writes_it(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "two") as second:
        for where in (store, second):
            pull(where, image.root, "latest", "x:1", Form.UNCOMPRESSED)
        assert store.images.all()[0].digest == second.images.all()[0].digest
    raw = store.layout.read_blob(store.layout.find("x:1"))
    assert raw == json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("types", list(Types))
def test_a_docker_manifest_is_kept_unless_told_otherwise(store: Store, tmp_path: Path, types: Types) -> None:
    image = build_image(tmp_path / "docker", [text_layer({"a": "1"})], media="docker")
    origin = Layout.open(image.root).resolve("latest", AMD64)
    blob = image.blob_path(image.layers[0].digest).read_bytes()
    held = [bring(store, blob, Compression.GZIP)]
    raw = local_manifest(origin.manifest, origin.layers, held, types)
    assert (raw == image.manifest) == (types is Types.AS_PULLED)
    kept = parse_document(raw, None)
    assert isinstance(kept, Manifest)
    assert kept.layers[0].digest == image.layers[0].digest
    if types is Types.OCI:
        assert "docker" not in raw.decode()
        assert kept.annotations[ORIGINAL_MANIFEST] == image.digest


def test_annotations_of_the_compressed_bytes_do_not_outlive_them(store: Store, tmp_path: Path) -> None:
    def annotate(document: dict[str, Any]) -> None:
        document["layers"][0]["annotations"] = {
            "io.github.containers.zstd-chunked.manifest-checksum": "sha256:x",
            "containerd.io/snapshot/stargz/toc.digest": "sha256:y",
            "ostree.component": "kept",
        }

    image = build_image(tmp_path / "a", [text_layer({"a": "1"})], edit_manifest=annotate)
    pull(store, image.root, "latest", "x:1", Form.UNCOMPRESSED)
    pull(store, image.root, "latest", "x:2")  # held as a tar by now
    for name in ("x:1", "x:2"):
        kept = store.layout.resolve(name, AMD64)
        assert kept.layers[0].descriptor.annotations == {"ostree.component": "kept"}


def test_an_image_with_a_missing_layer_gets_no_name(store: Store, image: BuiltImage) -> None:
    origin = Layout.open(image.root).resolve("latest", AMD64)
    with pytest.raises(StoreCorrupt, match="x:1"):
        store.images.put("x:1", origin.manifest, origin.config, origin.manifest.raw)
    assert store.images.all() == []


def test_a_manifest_of_another_image_is_misuse(store: Store, image: BuiltImage, tmp_path: Path) -> None:
    origin = Layout.open(image.root).resolve("latest", AMD64)
    other = build_image(tmp_path / "other", [text_layer({"z": "z"})])
    with pytest.raises(ValueError, match="not one of this image"):
        store.images.put("x:1", origin.manifest, origin.config, other.manifest)


def test_a_removed_image_is_gone_and_an_unknown_one_is_not_found(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1")
    store.images.remove("x:1")
    assert store.images.all() == []
    assert store.catalog.images() == []
    with pytest.raises(NotFound):
        store.images.remove("x:1")


def test_an_image_may_have_no_name(store: Store, image: BuiltImage) -> None:
    origin = Layout.open(image.root).resolve("latest", AMD64)
    for layer in origin.layers:
        bring(store, image.blob_path(layer.digest).read_bytes(), layer.compression)
    for _ in range(2):
        store.images.put(None, origin.manifest, origin.config, origin.manifest.raw)
    assert [(found.name, found.digest) for found in store.images.all()] == [("", image.digest)]
    assert store.layout.resolve(None, AMD64).manifest.raw == image.manifest
    gc(store)
    assert store.images.all()[0].problem is None
    assert_store_is_sound(store.root)


def test_an_unreadable_image_is_listed_with_its_problem(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1")
    store.layout.blob_path(Digest(image.digest)).unlink()
    (found,) = store.images.all()
    assert found.problem is not None
    assert "missing" in found.problem
    found_layers = store.images.layers()
    assert found_layers.layers == ()
    assert any("x:1" in warning for warning in found_layers.warnings)
