"""This machine's own store as a registry."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layertee.errors import NotFound
from layertee.image.basis import Basis
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Form
from layertee.image.media import Compression
from layertee.serve.offer import Known
from layertee.serve.shelf import stamp_of
from layertee.store.beside import BesideDocument
from layertee.store.gc import gc
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.support.compress import pack
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.stock import (
    AMD64,
    assert_all_can_be_had,
    assert_blob_is_right,
    digests,
    put_artifact,
    snapshot,
    stock_of,
)
from tests.support.store import measure, pull
from tests.support.users import bound_by_modes, closed

NAME = "registry.example.com/os/image:stable"
SHORT = "os/image"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000)]
    return build_image(tmp_path / "registry", layers, compression=["gzip", "zstd"])


def fill(root: Path, image: BuiltImage, form: Form, name: str = NAME) -> None:
    with Store.open(root) as store:
        pull(store, image.root, image.ref, name, form)


def settle(*paths: Path) -> None:
    """Until none of them was changed just now: then what is known of them is kept."""
    while any(stamp_of(path) != stamp_of(path) for path in paths):
        pass


@contextmanager
def untouched(*roots: Path) -> Iterator[None]:
    """What is done inside writes nothing there."""
    before = snapshot(*roots)
    yield
    assert snapshot(*roots) == before


def test_an_image_that_is_kept_as_it_was_transferred_is_the_registrys(root: Path, image: BuiltImage) -> None:
    fill(root, image, Form.AS_IS)
    with untouched(root), stock_of("store", store=root) as stock:
        assert stock.repositories() == [SHORT, "registry.example.com/os/image"]
        found = stock.named(SHORT, "stable")
        assert [one.raw for one in found] == [image.manifest]
        assert_all_can_be_had(stock, SHORT, found)
        for layer in image.layers:
            blob = stock.blob(Digest(layer.digest))
            assert blob is not None
            assert blob.is_checked
            assert blob.place == "store"
            assert blob.content.path == root / "blobs/sha256" / layer.digest.removeprefix("sha256:")
            assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.COMPUTED)
            assert stock.content_of(Digest(layer.diff_id)) is None


def test_an_image_that_is_kept_as_tars_is_offered_as_kept_and_by_digest_as_it_was_pulled(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.UNCOMPRESSED)
    with untouched(root), stock_of("store", store=root) as stock:
        (kept,) = stock.named(SHORT, "stable")
        assert kept.original == image.digest
        assert [one["digest"] for one in json.loads(kept.raw)["layers"]] == [
            layer.diff_id for layer in image.layers
        ]
        assert_all_can_be_had(stock, SHORT, [kept])
        assert digests(stock.named(SHORT, "stable", original=True)) == [image.digest]
        original = stock.document(SHORT, Digest(image.digest))
        assert original is not None
        assert original.raw == image.manifest
        for layer in image.layers:
            assert stock.blob(Digest(layer.digest)) is None
            assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.COMPUTED)
            tar = stock.blob(Digest(layer.diff_id))
            assert tar is not None
            assert tar.is_checked


def test_the_registrys_manifest_is_the_answer_where_another_place_has_its_blobs(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.UNCOMPRESSED)
    with stock_of("store", f"oci:{image.root}", store=root) as stock:
        found = stock.named(SHORT, "stable", original=True)
        assert found[0].digest == image.digest
        assert stock.named(SHORT, "stable")[0].original == image.digest


def test_a_layer_whose_tar_is_gone_is_offered_as_another_blob_that_was_computed_to_hold_it(
    root: Path, image: BuiltImage, tmp_path: Path
) -> None:
    other = recompress(image, "gzip-fast", tmp_path / "other", ref="x")
    fill(root, image, Form.UNCOMPRESSED)
    with Store.open(root) as store:
        blob = other.blob_path(other.layers[0].digest).read_bytes()
        store.blobs.record(measure(blob, Compression.GZIP))
    (root / "blobs/sha256" / image.layers[0].diff_id.removeprefix("sha256:")).unlink()
    with stock_of("store", store=root) as stock, pytest.raises(NotFound):
        stock.named(SHORT, "stable")
    with stock_of("store", f"oci:{other.root}", store=root) as stock:
        (made,) = stock.named(SHORT, "stable")
        said = json.loads(made.raw)["layers"][0]
        assert said["digest"] == other.layers[0].digest
        assert said["mediaType"].endswith("+gzip")
        assert made.original == image.digest
        assert_all_can_be_had(stock, SHORT, [made])


def test_what_was_pulled_by_its_digest_alone_is_offered_by_that(root: Path, image: BuiltImage) -> None:
    fill(root, image, Form.AS_IS, f"registry.example.com/os/image@{image.digest}")
    with stock_of("store", store=root) as stock:
        assert stock.repositories() == [SHORT, "registry.example.com/os/image"]
        assert stock.tags(SHORT) == []
        found = stock.document(SHORT, Digest(image.digest))
        assert found is not None
        assert_all_can_be_had(stock, SHORT, [found])


def test_an_image_without_a_name_or_with_a_place_for_a_name_is_offered_under_none(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.AS_IS, f"oci:{image.root}:latest")
    with stock_of("store", store=root) as stock:
        assert stock.repositories() == []
        assert_blob_is_right(stock, image.layers[0].digest, image.layers[0].size)


def test_an_image_that_says_what_was_computed_to_be_wrong_is_not_offered(
    root: Path, image: BuiltImage, tmp_path: Path
) -> None:
    fill(root, image, Form.AS_IS)

    def lie(config: dict[str, dict[str, list[str]]]) -> None:
        config["rootfs"]["diff_ids"].reverse()

    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000)]
    liar = build_image(tmp_path / "liar", layers, compression=["gzip", "zstd"], ref="liar:1", edit_config=lie)
    with stock_of("store", f"oci:{liar.root}", store=root) as stock:
        with pytest.raises(NotFound, match="computed here"):
            stock.named("liar", "1")
        with pytest.raises(NotFound, match="computed here"):
            stock.named("liar", "1", original=True)
        assert digests(stock.named(SHORT, "stable")) == [image.digest]


# --- what the store keeps beside an image ---------------------------------------------------------


def test_what_is_kept_beside_an_image_is_offered_with_it(
    root: Path, image: BuiltImage, tmp_path: Path
) -> None:
    tag = image.digest.replace(":", "-") + ".sig"
    scratch = tmp_path / "scratch"
    subject = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    documents = []
    for more in ({}, {"subject": subject, "artifactType": "text/of"}):
        descriptor = put_artifact(scratch, **more)  # type: ignore[arg-type]
        raw = (scratch / "blobs/sha256" / descriptor["digest"][7:]).read_bytes()
        said = json.loads(raw)
        blobs = tuple(
            (scratch / "blobs/sha256" / one["digest"][7:]).read_bytes()
            for one in [said["config"], *said["layers"]]
        )
        documents.append(BesideDocument(raw, said["mediaType"], "" if more else tag, blobs))
    fill(root, image, Form.AS_IS)
    with Store.open(root) as store:
        resolved = Layout.open(image.root).resolve(image.ref, AMD64)
        store.images.put(NAME, resolved.manifest, resolved.config, image.manifest, beside=documents)
    with untouched(root), stock_of("store", store=root) as stock:
        assert stock.tags(SHORT) == [tag, "stable"]
        signature = stock.named(SHORT, tag)
        assert [one.raw for one in signature] == [documents[0].raw]
        assert_all_can_be_had(stock, SHORT, signature)
        (referrer,) = stock.referrers(SHORT, Digest(image.digest))
        assert referrer["artifactType"] == "text/of"
        found = stock.document(SHORT, Digest.of(documents[1].raw))
        assert found is not None
        assert_all_can_be_had(stock, SHORT, [found])


# --- whose store, and in which state -----------------------------------------------------------------


def test_a_store_that_is_not_there_has_nothing_and_is_not_made(root: Path, image: BuiltImage) -> None:
    with stock_of("store", f"oci:{image.root}", store=root) as stock:
        assert stock.repositories() == ["registry"]
        assert stock.content_of(Digest(image.layers[0].digest)) is None
        assert not root.exists()
        fill(root, image, Form.AS_IS)
        assert stock.repositories() == [SHORT, "registry", "registry.example.com/os/image"]
        assert stock.content_of(Digest(image.layers[0].digest)) is not None


@pytest.mark.parametrize(
    "spoiled", ["gone", "damaged", "newer", "write-ahead log", "a crash", "empty", "a pipe"]
)
def test_a_store_whose_catalog_is_of_no_use_is_offered_and_nothing_in_it_vouched_for(
    root: Path, image: BuiltImage, spoiled: str, tmp_path: Path
) -> None:
    fill(root, image, Form.AS_IS)
    path = root / "layertee/catalog.sqlite"
    if spoiled == "gone":
        path.unlink()
    elif spoiled in ("damaged", "empty"):
        path.write_bytes(b"x" * 5000 if spoiled == "damaged" else b"")
    elif spoiled == "a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        with sqlite3.connect(path) as db:
            if spoiled == "newer":
                db.execute("PRAGMA user_version = 999")
            elif spoiled == "write-ahead log":
                db.execute("PRAGMA journal_mode = WAL")
            else:  # a transaction is under way; what is on the disk now is what a crash would leave
                db.execute("PRAGMA cache_size = 1")
                db.execute("PRAGMA cache_spill = 1")
                db.execute("BEGIN IMMEDIATE")
                db.execute("DELETE FROM holding")
                db.executemany(
                    "INSERT INTO image VALUES (?, ?, ?, ?, '', 0)",
                    [(f"x{n}", *[f"sha256:{n:064x}"] * 3) for n in range(2000)],
                )
                crashed = tmp_path / "crashed"
                crashed.mkdir()
                for name in ("catalog.sqlite", "catalog.sqlite-journal"):
                    shutil.copy(path.with_name(name), crashed)
                db.rollback()
        db.close()
        if spoiled == "a crash":
            for name in ("catalog.sqlite", "catalog.sqlite-journal"):
                os.replace(crashed / name, path.with_name(name))
    with untouched(root), stock_of("store", store=root) as stock:
        found = stock.named(SHORT, "stable")
        assert digests(found) == [image.digest]
        assert_all_can_be_had(stock, SHORT, found)
        for layer in image.layers:
            blob = stock.blob(Digest(layer.digest))
            assert blob is not None
            assert not blob.is_checked
            assert stock.content_of(Digest(layer.digest)) is None


def test_a_store_that_cannot_be_written_to_is_enough(root: Path, image: BuiltImage) -> None:
    fill(root, image, Form.UNCOMPRESSED)
    paths = [root, *root.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        with bound_by_modes(), untouched(root), stock_of("store", store=root) as stock:
            found = stock.named(SHORT, "stable")
            assert_all_can_be_had(stock, SHORT, found)
            blob = stock.blob(Digest(image.layers[0].diff_id))
            assert blob is not None
            assert blob.is_checked
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize("which", ["", "blobs", "blobs/sha256", "index.json", "layertee"])
def test_a_store_that_may_not_be_looked_into_harms_no_other_place(
    root: Path, image: BuiltImage, which: str
) -> None:
    fill(root, image, Form.AS_IS)
    with closed(root / which), stock_of("store", f"oci:{image.root}", store=root) as stock:
        found = stock.named("registry", "latest")
        assert digests(found) == [image.digest]
        assert_all_can_be_had(stock, "registry", found)
        assert not [
            one for one in image.layers if (blob := stock.blob(Digest(one.digest))) and blob.is_checked
        ]


@pytest.mark.parametrize("which", ["", "blobs", "blobs/sha256", "layertee", "layertee/catalog.sqlite"])
def test_a_store_that_others_may_write_to_vouches_for_nothing(
    root: Path, image: BuiltImage, which: str
) -> None:
    fill(root, image, Form.AS_IS)
    path = root / which
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002)
    settle(*(root / name for name in ("", "blobs", "blobs/sha256", "layertee", "layertee/catalog.sqlite")))
    with stock_of("store", store=root) as stock:
        found = stock.named(SHORT, "stable")
        assert digests(found) == [image.digest]
        for layer in image.layers:
            blob = stock.blob(Digest(layer.digest))
            assert blob is not None
            assert not blob.is_checked
            assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.ATTESTED)
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o002)
        checked = stock.blob(Digest(image.layers[0].digest))
        assert checked is not None
        assert checked.is_checked


def test_one_file_that_others_may_write_to_is_not_vouched_for(root: Path, image: BuiltImage) -> None:
    fill(root, image, Form.AS_IS)
    one, two = (root / "blobs/sha256" / layer.digest.removeprefix("sha256:") for layer in image.layers)
    one.chmod(0o602)
    two.unlink()
    shutil.copy(image.blob_path(image.layers[1].digest), two.with_name("x"))
    two.symlink_to("x")
    with stock_of("store", store=root) as stock:
        blob = stock.blob(Digest(image.layers[0].digest))
        assert blob is not None
        assert not blob.is_checked
        assert stock.blob(Digest(image.layers[1].digest)) is None


def test_a_file_of_another_size_than_was_computed_is_not_offered_from_any_place(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.AS_IS)
    with Store.open(root) as store:
        store.images.remove(NAME)
        gc(store)
    path = image.blob_path(image.layers[0].digest)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with stock_of("store", f"oci:{image.root}", store=root) as stock:
        assert stock.blob(Digest(image.layers[0].digest)) is None
        path.write_bytes(whole)
        assert_blob_is_right(stock, image.layers[0].digest, len(whole))


def test_what_gc_takes_away_is_not_found(root: Path, image: BuiltImage) -> None:
    fill(root, image, Form.AS_IS)
    with stock_of("store", store=root) as stock:
        assert stock.named(SHORT, "stable") != []
        with Store.open(root) as store:
            store.images.remove(NAME)
            assert stock.named(SHORT, "stable") == []
            assert stock.document(SHORT, Digest(image.digest)) is None
            assert stock.blob(Digest(image.layers[0].digest)) is not None
            gc(store)
        assert stock.blob(Digest(image.layers[0].digest)) is None
        assert stock.content_of(Digest(image.layers[0].digest)) is not None


def test_the_catalog_is_used_for_other_places_where_the_store_is_not_on_offer(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.AS_IS)
    with stock_of(f"oci:{image.root}", store=root) as stock:
        layer = image.layers[0]
        assert stock.repositories() == ["registry"]
        blob = stock.blob(Digest(layer.digest))
        assert blob is not None
        assert not blob.is_checked
        assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.COMPUTED)


def test_a_blob_that_is_no_layer_of_anything_is_not_said_to_hold_something(
    root: Path, image: BuiltImage
) -> None:
    fill(root, image, Form.AS_IS)
    with stock_of("store", store=root) as stock:
        assert stock.content_of(Digest.of(pack(b"x", Compression.GZIP))) is None
        assert stock.content_of(Digest(image.config_digest)) is None
