"""Images in the store of podman, buildah and skopeo: found by name, and every document of them hashed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layertee.errors import InvalidReference, LayerteeError, NotFound
from layertee.image.document import DiffID
from layertee.image.media import Compression
from tests.contract.place_suite import diff_ids
from tests.support.podman import NAME, place_of
from tests.support.rig.images import BuiltImage, build_index, recompress, run_tool
from tests.support.rig.storage import StorageRig, replace

pytestmark = pytest.mark.needs_root("these tools unpack layers as root")


def test_an_image_is_its_documents_as_they_were_pulled(filled: StorageRig, image: BuiltImage) -> None:
    one = place_of(filled).resolve(NAME)
    assert one.image_id == image.config_digest.removeprefix("sha256:")
    assert one.names == (NAME,)
    assert one.image.manifest.raw == image.manifest
    assert one.image.config.raw == image.config
    assert [layer.digest for layer in one.image.layers] == [layer.digest for layer in image.layers]
    assert [layer.diff_id for layer in one.image.layers] == diff_ids(image)
    assert one.documents == (one.image.manifest,)
    assert one.image.index_digest is None


def test_the_blobs_that_layers_came_from_are_known(filled: StorageRig, image: BuiltImage) -> None:
    known = place_of(filled).blob_names(diff_ids(image))
    assert known.warnings == ()
    blobs = known.names
    for layer in image.layers[:2]:
        (blob,) = blobs[DiffID(layer.diff_id)]
        assert (blob.digest, blob.size) == (layer.digest, layer.size)
        assert blob.compression is Compression(layer.compression)
    assert DiffID(image.layers[2].diff_id) not in blobs, "made from the plain tar"


def test_every_stored_manifest_is_found(store: StorageRig, image: BuiltImage, tmp_path: Path) -> None:
    again = recompress(image, "gzip-members", tmp_path / "again")
    store.take(again.skopeo_name, "localhost/again:1")
    place = place_of(store)
    one = place.resolve(NAME)
    assert {document.digest for document in one.documents} == {image.digest, again.digest}
    assert one.image.manifest.digest == again.digest, "the one written last"
    assert place.resolve(f"localhost/os@{image.digest}").image.manifest.raw == image.manifest
    assert place.resolve(f"localhost/os@{again.digest}").image.manifest.raw == again.manifest


def test_the_index_that_an_image_came_from_is_known(image: BuiltImage, tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", [image])
    store = StorageRig(tmp_path / "store", "vfs")
    store.take(index.skopeo_name, NAME)
    one = place_of(store).resolve(NAME)
    assert one.image.index_digest == index.digest
    assert one.image.manifest.raw == image.manifest


@pytest.mark.parametrize(
    "name", ["localhost/os:1", "localhost/os:2", "localhost/latest", "id", "sha256", "short"]
)
def test_an_image_is_found_under_all_its_names(store: StorageRig, image: BuiltImage, name: str) -> None:
    store.run("podman", "tag", NAME, "localhost/os:2", "localhost/latest:latest")
    store.unmount()
    hexes = image.config_digest.removeprefix("sha256:")
    spelled = {"id": f"@{hexes}", "sha256": image.config_digest, "short": hexes[:12]}.get(name, name)
    assert place_of(store).resolve(spelled).image_id == hexes


@pytest.mark.parametrize(
    "name", ["localhost/os", "localhost/os:3", "os:1", "@", "", "abc", "localhost/os@sha256:0"]
)
def test_an_image_that_is_not_there_is_said_to_be_missing(filled: StorageRig, name: str) -> None:
    with pytest.raises(NotFound, match=NAME):
        place_of(filled).resolve(name)


def test_a_name_that_two_images_have_is_refused(store: StorageRig, image: BuiltImage) -> None:
    (row,) = json.loads(store.images_json.read_bytes())
    replace(store.images_json, json.dumps([row, {**row, "id": "a" * 64}]).encode())
    with pytest.raises(InvalidReference, match="2 images"):
        place_of(store).resolve(NAME)


@pytest.mark.parametrize("document", ["manifest", "config"])
@pytest.mark.parametrize("damage", ["changed", "gone", "symlink"])
def test_documents_that_are_damaged_are_found_out(
    store: StorageRig, image: BuiltImage, document: str, damage: str, tmp_path: Path
) -> None:
    directory = store.images_json.parent / image.config_digest.removeprefix("sha256:")
    sizes = {len(image.config): "config", len(image.manifest): "manifest"}
    for path in directory.iterdir():
        if sizes.get(path.stat().st_size) != document:
            continue
        if damage == "changed":
            path.write_bytes(path.read_bytes().replace(b"linux", b"linuX").replace(b"json", b"jsom"))
        else:
            os.rename(path, tmp_path / path.name)
            if damage == "symlink":
                path.symlink_to(tmp_path / path.name)
    place = place_of(store)
    with pytest.raises(LayerteeError) as caught:
        place.resolve(NAME)
    assert not isinstance(caught.value, NotFound)


def test_what_could_not_be_read_is_said_where_an_image_is_not_found(store: StorageRig) -> None:
    (store.root / f"{store.driver}-images" / "images.json").write_bytes(b"{")
    with pytest.raises(NotFound, match=r"it has: none; .*images\.json is not JSON"):
        place_of(store).resolve(NAME)


def test_the_name_of_a_place_reads_as_other_tools_write_it(filled: StorageRig) -> None:
    name = place_of(filled).name
    listed = json.loads(run_tool("skopeo", "inspect", "--config", f"{name}{NAME}"))
    filled.unmount()
    assert listed["os"] == "linux"
