"""Images in the store of podman, buildah and skopeo: found by name, and every document of them hashed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from layertee.errors import InvalidReference, LayerteeError, NotFound
from layertee.image.document import DiffID, Platform
from layertee.image.media import Compression
from tests.contract.place_suite import diff_ids
from tests.support.compress import digest_of
from tests.support.podman import NAME, place_of, spoilable
from tests.support.rig.images import BuiltImage, build_image, build_index, recompress, run_tool
from tests.support.rig.layers import text_layer
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
    "name", ["localhost/os", "localhost/os:3", "os:1", "abc", "f" * 64, "library/os@abcde"]
)
def test_an_image_that_is_not_there_is_said_to_be_missing(filled: StorageRig, name: str) -> None:
    with pytest.raises(NotFound, match=NAME if "@" not in name else "begins with abcde"):
        place_of(filled).resolve(name)


@pytest.mark.parametrize(
    "name",
    ["@", "", "localhost/os@", "localhost/os@sha256:0", "localhost/OS:1", "os:1:2", "localhost/os:-", "a b"],
)
def test_what_cannot_be_the_name_of_an_image_is_refused(filled: StorageRig, name: str) -> None:
    with pytest.raises(InvalidReference):
        place_of(filled).resolve(name)


SPELLINGS = [
    *(
        "os",
        "os:1",
        "os:2",
        "library/os:1",
        "docker.io/os:1",
        "docker.io/library/os:1",
        "index.docker.io/os:1",
    ),
    *(
        "hub/os:1",
        "localhost/os:1",
        "localhost/os",
        "localhost/latest",
        "LOCALHOST/os:1",
        "localhost:5000/os:1",
    ),
    *("reg.example/a/b:v1", "reg.example/a/b", "REG.example/a/b:v1", "os:1:2", "os/", "/os:1", "Os:1"),
    *("{id}", "@{id}", "{id:.8}", "@{id:.8}", "{id:.3}", "{id:.2}", "@{id:.2}", "abcdef01"),
    *(
        "os:1@{id}",
        "os@{id:.6}",
        "localhost/os@{id}",
        "localhost/other@{id}",
        "os:nothere@{id}",
        "os:1@{other}",
    ),
    *("os@{digest}", "os:1@{digest}", "os:7@{digest}", "localhost/x@{digest}", "@{digest}", "{digest}"),
    *("os@{digest}@{id}", "os@{digest}@{id:.9}", "os@sha256:00", "os@{other}", "{other}", "@{other:.5}"),
    *(
        "os@" + "0" * 64,
        "0" * 64,
        "os@sha256:" + "0" * 64,
        "@",
        "os@",
        "os:",
        "os@@{id}",
        "face",
        "face:latest",
    ),
]


def test_names_mean_what_they_mean_to_skopeo(store: StorageRig, image: BuiltImage, tmp_path: Path) -> None:
    """``face`` is the name of an image, and no id begins like that."""
    hexes = image.config_digest.removeprefix("sha256:")
    other = build_image(tmp_path / "other", [text_layer({"etc/other": "one"})])
    for name in ("docker.io/library/os:1", "localhost/latest:latest", "reg.example/a/b:v1"):
        store.take(image.skopeo_name, name)
    store.take(other.skopeo_name, "docker.io/library/face:latest")
    facts = {"id": hexes, "other": other.config_digest.removeprefix("sha256:"), "digest": image.digest}
    differ = []
    for spelling in SPELLINGS:
        name = spelling.format(**facts)
        asked = ["skopeo", "inspect", "--raw", "--config", f"{store.name}{name}"]
        ran = subprocess.run(asked, check=False, capture_output=True)
        theirs = digest_of(ran.stdout) if ran.returncode == 0 else None
        try:
            ours = f"sha256:{place_of(store).resolve(name).image_id}"
        except (NotFound, InvalidReference):
            ours = None
        if ours != theirs:
            differ.append((spelling, ours, theirs, ran.stderr))
    store.unmount()
    assert differ == []


def test_the_beginning_of_several_ids_is_refused(store: StorageRig) -> None:
    (row,) = json.loads(store.images_json.read_bytes())
    unlike = "b" if row["id"][10] == "a" else "a"
    replace(
        store.images_json,
        json.dumps([row, {**row, "id": row["id"][:10] + unlike * 54, "names": []}]).encode(),
    )
    for name in (row["id"][:10], f"@{row['id'][:8]}"):
        with pytest.raises(InvalidReference, match="2 images"):
            place_of(store).resolve(name)
    assert place_of(store).resolve(row["id"][:11]).image_id == row["id"]


def test_a_list_of_podman_s_is_the_image_for_the_platform(
    store: StorageRig, image: BuiltImage, tmp_path: Path
) -> None:
    """``podman manifest`` keeps a list as an image of its own, whose images are elsewhere in the store."""
    arm = build_image(tmp_path / "arm", [text_layer({"etc/arm": "one"})], platform="linux/arm64")
    store.take(arm.skopeo_name, "localhost/arm:1")
    with spoilable(store) as at:
        at.run("podman", "manifest", "create", "localhost/list:1")
        for name, architecture in ((NAME, "amd64"), ("localhost/arm:1", "arm64")):
            local = ("--arch", architecture, "localhost/list:1", f"{at.name}{name}")
            at.run("podman", "manifest", "add", *local)
        at.unmount()
        place = place_of(at)
        for wanted, architecture in ((image, "amd64"), (arm, "arm64")):
            found = place.resolve("localhost/list:1", Platform("linux", architecture, None))
            assert found.image.manifest.raw == wanted.manifest
            assert found.image.config.raw == wanted.config
            assert found.image_id == wanted.config_digest.removeprefix("sha256:")
            assert found.names == ("localhost/list:1",)
            assert found.image.index_digest is not None
        with pytest.raises(NotFound, match="no image for platform linux/s390x"):
            place.resolve("localhost/list:1", Platform("linux", "s390x", None))
        at.run("podman", "rmi", "localhost/arm:1")
        at.unmount()
        with pytest.raises(NotFound, match=f"the list localhost/list:1, but not its image {arm.digest}"):
            place.resolve("localhost/list:1", Platform("linux", "arm64", None))


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
