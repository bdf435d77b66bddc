"""Removal: all that no image needs, nothing else, and in an order that a crash cannot spoil."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import (
    CatalogError,
    LocalError,
    StoreCorrupt,
)
from layertee.image.document import Descriptor, Digest
from layertee.image.holding import Form
from layertee.image.media import OCI_INDEX, Compression
from layertee.store.catalog import Catalog
from layertee.store.gc import gc, reachable
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.support.disk import Disk
from tests.support.rig.images import BuiltImage, build_image, build_index
from tests.support.rig.layers import text_layer
from tests.support.store import assert_store_is_sound, bring, fill, gzip_layer, pull, visible_blobs

TAR, BLOB, RESULT = gzip_layer("one layer")


# --- gc -----------------------------------------------------------------------------


def test_gc_removes_what_no_image_needs_and_nothing_else(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    pull(store, image.root, "latest", "keep:1", Form.UNCOMPRESSED)
    kept = set(visible_blobs(store.root))
    other = build_image(tmp_path / "other", [text_layer({"z": "z"}), text_layer({"a": "1"})])
    pull(store, other.root, "latest", "drop:1")
    store.images.remove("drop:1")
    (store.room.ingest / "dead.part").write_bytes(b"12345")
    held = store.blobs.lock(RESULT.digest)
    assert held is not None
    held.release()
    report = gc(store)
    assert set(visible_blobs(store.root)) == kept
    assert report.blobs_kept == len(kept)
    assert (
        report.blobs_removed == 4
    )  # two manifests (as pulled, as kept), a config, a layer; one layer is shared
    assert report.bytes_freed > 5
    assert report.parts_removed == 1
    assert list(store.room.ingest.iterdir()) == list(store.room.locks.iterdir()) == []
    assert_store_is_sound(store.root)
    assert gc(store).blobs_removed == 0


def test_gc_keeps_the_manifest_as_it_was_pulled(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1", Form.UNCOMPRESSED)
    gc(store)
    assert store.layout.blob_path(Digest(image.digest)).read_bytes() == image.manifest
    assert store.images.all()[0].original == image.digest != store.images.all()[0].digest


def test_gc_forgets_rows_first_so_that_a_crash_leaves_files_without_rows(store: Store) -> None:
    disk = Disk()
    for fail_at in range(1, 200):
        bring(store, BLOB, Compression.GZIP)
        with disk.watched(fail_at), suppress(LocalError, CatalogError):
            gc(store)
        name, arguments = disk.calls[fail_at - 1]
        if name == "unlink" and f"sha256/{RESULT.digest.hex}" in str(arguments):
            break
        assert (RESULT.digest in visible_blobs(store.root)) >= (
            store.catalog.holds(RESULT.digest) is not None
        )
    assert store.catalog.holdings() == []
    assert RESULT.digest in visible_blobs(store.root)


def test_gc_removes_nothing_while_an_image_cannot_be_read(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1", Form.UNCOMPRESSED)
    bring(store, BLOB, Compression.GZIP)
    store.layout.blob_path(store.layout.find("x:1").digest).unlink()
    before = visible_blobs(store.root)
    with pytest.raises(StoreCorrupt, match=r"x:1.*nothing was removed"):
        gc(store)
    assert visible_blobs(store.root) == before
    store.images.remove("x:1")
    gc(store)
    assert visible_blobs(store.root) == {}


def test_gc_keeps_what_an_entry_of_an_index_names_though_it_makes_no_sense(
    image: BuiltImage, tmp_path: Path
) -> None:
    index = build_index(tmp_path / "both", [image], ref="multi")
    document = json.loads(index.raw)
    document["manifests"][0]["size"] = -1
    raw = json.dumps(document).encode()
    named = Digest.of(raw)
    (index.root / "blobs" / "sha256" / named.hex).write_bytes(raw)
    layout = Layout.open(index.root)
    layout.set_entry("multi", Descriptor(OCI_INDEX, named, len(raw)))
    assert reachable(layout) >= {named, image.digest, image.config_digest, *image.layer_digests}


def test_gc_follows_indexes_that_are_not_complete(store: Store, tmp_path: Path) -> None:
    images = [
        build_image(tmp_path / name, [text_layer({"a": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64")
    ]
    index = build_index(tmp_path / "both", images, ref="multi")
    shutil.copytree(tmp_path / "both" / "blobs", store.root / "blobs", dirs_exist_ok=True)
    entry = Layout.open(tmp_path / "both").find("multi")
    store.layout.set_entry("multi", entry)
    store.layout.blob_path(Digest(images[1].digest)).unlink()
    gc(store)
    left = set(visible_blobs(store.root))
    assert left == {index.digest, images[0].digest, images[0].config_digest, *images[0].layer_digests}


def test_gc_keeps_what_a_document_of_an_unknown_kind_mentions(store: Store) -> None:
    layer, config = (store.images.put_document(data) for data in (b"any bytes", b'{"a":1}'))
    unknown = json.dumps({"strange": [{"digest": layer}], "nested": {"config": config}}).encode()
    top = store.images.put_document(unknown)
    garbage = store.images.put_document(b"garbage")
    store.layout.set_entry("strange", Descriptor("application/x-strange+json", top, len(unknown)))
    gc(store)
    assert set(visible_blobs(store.root)) == {top, layer, config}
    assert garbage not in visible_blobs(store.root)


def test_gc_is_not_misled_by_an_image_that_lists_anothers_manifest_as_a_layer(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    def list_it(document: dict[str, Any]) -> None:
        entry = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": image.digest}
        document["layers"].append({**entry, "size": len(image.manifest)})

    pull(store, image.root, "latest", "good:1")
    evil = build_image(tmp_path / "evil", [text_layer({"e": "e"})], edit_manifest=list_it)
    shutil.copytree(evil.root / "blobs", store.root / "blobs", dirs_exist_ok=True)
    good = store.layout.find("good:1")
    store.layout.remove_entry("good:1")
    store.layout.set_entry("evil:1", Layout.open(evil.root).find("latest"))
    store.layout.set_entry("good:1", good)
    assert image.layer_digests <= reachable(store.layout)


def test_gc_removes_empty_files_under_names_of_something(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1")
    path = store.layout.blob_path(Digest(image.layers[0].digest))
    path.unlink()
    path.write_bytes(b"")
    empty = store.images.put_document(b"")
    gc(store)
    assert not path.exists()
    assert empty not in visible_blobs(store.root)
    assert store.catalog.holds(Digest(image.layers[0].digest)) is None
    assert pull(store, image.root, "latest", "x:1").bytes_to_fetch == image.layers[0].size


def test_gc_forgets_rows_whose_file_is_gone_and_images_without_a_name(
    store: Store, image: BuiltImage
) -> None:
    pull(store, image.root, "latest", "x:1")
    holding = bring(store, BLOB, Compression.GZIP)
    assert holding.path is not None
    holding.path.unlink()
    store.layout.remove_entry("x:1")
    gc(store)
    assert store.catalog.holdings() == []
    assert store.catalog.images() == []


def test_gc_empties_the_quarantine_unless_told_not_to(store: Store) -> None:
    bring(store, BLOB, Compression.GZIP)
    store.blobs.quarantine(RESULT.digest)
    gc(store, keep_quarantine=True)
    assert len(list(store.room.quarantine.iterdir())) == 1
    assert gc(store).bytes_freed == len(BLOB)
    assert list(store.room.quarantine.iterdir()) == []


def test_gc_keeps_files_with_rows_while_the_catalog_cannot_be_changed(store: Store, monkeypatch: Any) -> None:
    bring(store, BLOB, Compression.GZIP)
    store.images.put_document(b"no row")
    (store.room.ingest / "dead.part").write_bytes(b"12345")

    def fail(*args: object) -> Any:
        raise CatalogError("database or disk is full")

    monkeypatch.setattr(Catalog, "forget", fail)
    with pytest.raises(CatalogError):
        gc(store)
    assert list(visible_blobs(store.root)) == [RESULT.digest]
    assert list(store.room.ingest.iterdir()) == []


def test_gc_leaves_the_part_of_a_process_that_forgot_to_lock_the_store(store: Store) -> None:
    held = store.blobs.lock(RESULT.digest)
    assert held is not None
    with held, store.blobs.writer(RESULT.digest) as writer:
        report = gc(store)
        store.blobs.commit(fill(writer, BLOB), RESULT, Form.AS_IS)
    assert RESULT.digest.hex in report.warnings[0]
    assert_store_is_sound(store.root)


def test_gc_needs_the_catalog_of_the_store(root: Path) -> None:
    with Store.open(root) as store:
        bring(store, BLOB, Compression.GZIP)
    db = sqlite3.connect(root / "layertee" / "catalog.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with Store.open(root) as store, pytest.raises(CatalogError, match="newer version"):
        gc(store)
    assert list(visible_blobs(root)) == [RESULT.digest]
