"""Podman's store as a registry, filled and changed by podman, buildah and skopeo themselves."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import LayerteeError, NotFound
from layertee.image.basis import Basis
from layertee.image.document import DiffID, Digest
from layertee.serve.answers import Refusal
from layertee.serve.offer import Known
from layertee.serve.shelf import stamp_of
from layertee.store.store import Store
from tests.support.podman import NAME, filled_with, small_image
from tests.support.rig.blobcache import write_cache
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import text_layer
from tests.support.rig.storage import StorageRig, replace
from tests.support.sending import sent
from tests.support.stock import Get, asking, assert_all_can_be_had, digests, snapshot, stock_of
from tests.support.store import pull

pytestmark = pytest.mark.needs_root("these tools unpack layers as root")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return small_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def store(image: BuiltImage) -> Iterator[StorageRig]:
    """Its path is short: podman takes no runroot of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="stock-", dir="/tmp") as root:
        made = filled_with(image, Path(root) / "s", "vfs")
        yield made
        made.unmount()


def layers_of(raw: bytes) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = json.loads(raw)["layers"]
    return found


def edit_images(store: StorageRig, **fields: object) -> None:
    rows = json.loads(store.images_json.read_bytes())
    for row in rows:
        row |= {key.replace("_", "-"): value for key, value in fields.items()}
    replace(store.images_json, json.dumps(rows).encode())


_OPENED: list[bytes] | None = None


@contextmanager
def opened_files() -> Iterator[list[bytes]]:
    """The names of files that this process opens meanwhile."""
    global _OPENED
    found: list[bytes] = []
    _OPENED = found
    try:
        yield found
    finally:
        _OPENED = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _OPENED is not None and event == "open" and isinstance(arguments[0], str | bytes | Path):
        _OPENED.append(os.fsencode(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _noted() -> None:
    sys.addaudithook(_note)  # there is no way to take it away


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_pulled_image_is_offered_as_tars_and_its_manifest_by_the_registrys_digest(
    image: BuiltImage, driver: str, tmp_path: Path
) -> None:
    store = filled_with(image, tmp_path / "s", driver)
    before = snapshot(store.root)
    with stock_of(store.name) as stock:
        assert stock.repositories() == ["localhost/os", "os"]
        for repository in stock.repositories():
            assert stock.tags(repository) == ["1"]
            (made,) = stock.named(repository, "1")
            assert made.original == image.digest
            assert [one["digest"] for one in layers_of(made.raw)] == [one.diff_id for one in image.layers]
            assert [one["size"] for one in layers_of(made.raw)] == [
                one.uncompressed_size for one in image.layers
            ]
            assert_all_can_be_had(stock, repository, [made])
            assert digests(stock.named(repository, "1", original=True)) == [image.digest]
            original = stock.document(repository, Digest(image.digest))
            assert original is not None
            assert original.raw == image.manifest
        assert stock.document("other", Digest(image.digest)) is None
        for layer in image.layers[:2]:
            assert stock.blob(Digest(layer.digest)) is None
            assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.ATTESTED)
        assert stock.content_of(Digest(image.layers[2].diff_id)) is None
    with stock_of(store.name) as again:
        assert again.document("os", made.digest) == made
    assert snapshot(store.root) == before


def test_a_built_image_is_offered_as_it_was_built_and_only_its_layer_is_new(
    store: StorageRig, image: BuiltImage, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("new")
    container = store.run("buildah", "from", NAME)
    store.run("buildah", "copy", container, str(tmp_path / "new"), "/etc/new")
    with stock_of(store.name) as stock:
        assert stock.tags("built") is None
        store.run("buildah", "commit", "--quiet", "--rm", container, "localhost/built:1")
        (built,) = stock.named("built", "1")
        assert_all_can_be_had(stock, "built", [built])
        layers = layers_of(built.raw)
        assert [one["digest"] for one in layers[:-1]] == [one.diff_id for one in image.layers]
        assert all(one["mediaType"].endswith(".tar") for one in layers)
        (again,) = stock.named("localhost/built", "1", original=True)
        assert again.digest == built.digest


def test_one_image_with_several_names_and_one_without_any(store: StorageRig) -> None:
    with stock_of(store.name) as stock:
        (before,) = stock.named("os", "1")
        store.run("podman", "tag", NAME, "localhost/os:2", "a.io/x/y:latest", "localhost:5000/z:1")
        assert stock.repositories() == ["a.io/x/y", "localhost/os", "localhost_5000/z", "os", "x/y", "z"]
        assert stock.tags("os") == ["1", "2"]
        assert digests(stock.named("x/y", "latest")) == digests(stock.named("z", "1")) == [before.digest]
        store.run("podman", "untag", NAME)
        assert stock.repositories() == []
        assert stock.document("os", before.digest) is None
        assert stock.blob(Digest(layers_of(before.raw)[0]["digest"])) is not None


def test_a_list_of_podmans_is_offered_to_those_who_can_do_with_diff_ids(
    store: StorageRig, image: BuiltImage
) -> None:
    store.run("podman", "manifest", "create", "localhost/list:1")
    store.run("podman", "manifest", "add", "localhost/list:1", f"containers-storage:{NAME}")
    with stock_of(store.name) as stock:
        found = stock.named("list", "1", original=True)
        assert json.loads(found[0].raw)["manifests"][0]["digest"] == image.digest
        assert digests(found[1:2]) == [image.digest]
        (made,) = stock.named("list", "1")
        assert made.original == image.digest
        assert_all_can_be_had(stock, "list", [made])


def test_an_image_that_podman_removes_is_gone_at_once(store: StorageRig, image: BuiltImage) -> None:
    with stock_of(store.name) as stock:
        (made,) = stock.named("os", "1")
        blob = stock.blob(Digest(image.layers[0].diff_id))
        assert blob is not None
        store.run("podman", "rmi", NAME)
        assert stock.named("os", "1") == []
        assert stock.tags("os") is None
        assert stock.document("os", made.digest) is None
        assert stock.blob(Digest(image.layers[0].diff_id)) is None
        assert stock.blob(Digest(image.config_digest)) is None
        assert stock.content_of(Digest(image.layers[0].digest)) is None


@pytest.mark.parametrize("lost", ["tar-split", "tree", "record", "incomplete", "size"])
def test_an_image_with_a_layer_that_cannot_be_put_together_is_not_offered(
    store: StorageRig, image: BuiltImage, lost: str
) -> None:
    layer = image.layers[1]
    with stock_of(store.name) as stock:
        assert stock.named("os", "1") != []
        if lost == "tar-split":
            store.tarsplit(layer.diff_id).unlink()
        elif lost == "tree":
            os.rename(store.tree(layer.diff_id), store.root / "elsewhere")
        elif lost == "record":
            rows = [row for row in store.rows() if row.get("diff-digest") != layer.diff_id]
            replace(store.layers_json, json.dumps(rows).encode())
        elif lost == "incomplete":
            store.edit(flags={"incomplete": True})
        else:
            store.edit(diff_size=None)
        for original in (False, True):
            with pytest.raises(NotFound, match="localhost/os:1 is not all here"):
                stock.named("os", "1", original=original)
        assert stock.blob(Digest(layer.diff_id)) is None
        found = stock.document("os", Digest(image.digest))
        assert found is not None
        assert found.raw == image.manifest


@pytest.mark.parametrize("how", ["another byte", "gone"])
def test_a_layer_that_was_changed_is_cut_once_and_then_not_there(
    store: StorageRig, image: BuiltImage, how: str
) -> None:
    layer = image.layers[1]
    path = store.tree(layer.diff_id) / "noise"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    if how == "gone":
        path.unlink()

    async def main(get: Get) -> None:
        with pytest.raises((Refusal, LayerteeError)):  # before the first byte, or before the last
            answer = await get(layer.diff_id)
            assert answer.outgoing is not None
            try:
                await sent(answer.outgoing, answer.length)
            except LayerteeError as exc:
                assert answer.failed is not None
                answer.failed(exc)
                raise
        with pytest.raises(Refusal) as caught:
            await get(layer.diff_id)
        assert caught.value.status == 404

    with stock_of(store.name) as stock:
        assert stock.named("os", "1") != []
        asking(stock, main)
        with pytest.raises(NotFound):
            stock.named("os", "1")
    with stock_of(store.name, f"oci:{image.root}") as stock:
        assert digests(stock.named("os", "1")) == [image.digest]


def test_blobs_of_other_places_are_preferred_to_tars(
    store: StorageRig, image: BuiltImage, tmp_path: Path
) -> None:
    with stock_of(store.name, f"oci:{image.root}") as stock:
        (found,) = stock.named("os", "1")
        assert found.raw == image.manifest
        assert_all_can_be_had(stock, "os", [found])
    root = tmp_path / "store"
    with Store.open(root) as own:
        pull(own, image.root, image.ref, "localhost/os:1")
    with stock_of(store.name, "store", store=root) as stock:
        assert stock.places == ("store", store.name)
        (found,) = stock.named("os", "1")
        assert found.raw == image.manifest
        for layer in image.layers:
            blob = stock.blob(Digest(layer.digest))
            assert blob is not None
            assert blob.place == "store"


def test_a_computed_pair_counts_more_than_an_attested_one(
    store: StorageRig, image: BuiltImage, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    with Store.open(root) as own:
        pull(own, image.root, image.ref, "localhost/os:1")
    layer = image.layers[0]
    store.edit(compressed_diff_digest=layer.digest)  # each of them: only one can be right
    with stock_of(store.name) as stock:
        assert stock.content_of(Digest(layer.digest)) is None
    with stock_of(store.name, store=root) as stock:
        assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.COMPUTED)


def test_what_podmans_cache_of_blobs_knows_is_attested_for_the_store_that_it_is_about(
    image: BuiltImage, store: StorageRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = recompress(image, "gzip-fast", tmp_path / "other")
    layer = other.layers[0]
    cache = write_cache(tmp_path / "cache.sqlite", [(layer.digest, layer.diff_id)])
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{store.root}"\nrunroot = "{store.root}.run"\n'
    )
    with stock_of("containers-storage:", cache=cache) as stock:
        assert stock.repositories() == ["localhost/os", "os"]
        assert stock.content_of(Digest(layer.digest)) == Known(DiffID(layer.diff_id), Basis.ATTESTED)
        cache.unlink()
        assert stock.content_of(Digest(layer.digest)) is None
    write_cache(cache, [(layer.digest, layer.diff_id)])
    with stock_of(store.name, cache=cache) as stock:
        assert stock.content_of(Digest(layer.digest)) is None


def test_records_are_read_once_for_as_long_as_they_stay_as_they_are(
    store: StorageRig, image: BuiltImage
) -> None:
    def ask() -> None:
        assert stock.blob(Digest(image.layers[0].diff_id)) is not None
        assert stock.named("os", "1") != []

    for records in (store.layers_json, store.images_json):
        while stamp_of(records) != stamp_of(records):
            pass  # it was written to just now
    with stock_of(store.name) as stock:
        ask()
        with opened_files() as opened:
            ask()
        assert opened
        assert not [name for name in opened if name.endswith((b"layers.json", b"images.json"))]
        store.edit(compressed_size=1)
        with opened_files() as opened:
            ask()
        assert [name for name in opened if name.endswith(b"layers.json")]


def test_an_additional_store_has_what_the_first_has_not(store: StorageRig, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="stock-", dir="/tmp") as root:
        second = StorageRig(Path(root) / "s", "vfs")
        other = build_image(tmp_path / "other", [text_layer({"x": "other"})], ref="x")
        second.take(other.skopeo_name, NAME)
        second.take(other.skopeo_name, "localhost/more:1")
        places = f"containers-storage:[vfs@{store.root}+{store.root}.run:vfs.imagestore={second.root}]"
        with stock_of(places) as stock, stock_of(store.name) as alone:
            assert stock.repositories() == ["localhost/more", "localhost/os", "more", "os"]
            assert digests(stock.named("os", "1")) == digests(alone.named("os", "1"))
            found = stock.named("more", "1")
            assert found[0].original == other.digest
            assert_all_can_be_had(stock, "more", found)


@pytest.mark.parametrize("spoiled", ["no JSON", "no list", "nonsense", "gone", "a pipe"])
@pytest.mark.parametrize("which", ["images", "layers"])
def test_records_that_make_no_sense_offer_nothing_and_harm_no_other_place(
    store: StorageRig, image: BuiltImage, which: str, spoiled: str
) -> None:
    path = store.images_json if which == "images" else store.layers_json
    path.unlink()
    if spoiled == "a pipe":
        os.mkfifo(path)
    elif spoiled != "gone":
        nonsense = [None, 1, {"id": "../../etc"}, {"id": "0" * 64, "names": [1, "a", "A:b:c"], "digest": "x"}]
        path.write_text({"no JSON": "{" * 9, "no list": "{}", "nonsense": json.dumps(nonsense)}[spoiled])
    with stock_of(store.name, f"oci:{image.root}") as stock:
        if which == "images":
            assert [name for name in stock.repositories() if "os" in name] == []
            assert stock.blob(Digest(image.layers[0].diff_id)) is not None
        else:
            assert stock.named("os", "1")[0].raw == image.manifest
            assert stock.blob(Digest(image.layers[0].diff_id)) is None
        assert stock.blob(Digest(image.layers[0].digest)) is not None


@pytest.mark.parametrize("spoiled", ["changed", "symlink", "pipe"])
def test_documents_that_are_not_what_they_are_called_are_not_handed_out(
    store: StorageRig, image: BuiltImage, spoiled: str
) -> None:
    directory = store.images_json.parent / image.config_digest.removeprefix("sha256:")
    for path in directory.iterdir():
        raw = path.read_bytes()
        path.unlink()
        if spoiled == "changed":
            path.write_bytes(raw.replace(b"linux", b"other") + b" ")
        elif spoiled == "symlink":
            path.symlink_to("/etc/passwd")
        else:
            os.mkfifo(path)
    with stock_of(store.name) as stock:
        assert stock.document("os", Digest(image.digest)) is None
        with pytest.raises(NotFound):
            stock.named("os", "1")


def test_an_image_whose_record_names_no_manifest_that_is_one_is_passed_over(store: StorageRig) -> None:
    edit_images(store, digest="", big_data_names=["manifest-x", "more"])
    with stock_of(store.name) as stock:
        assert stock.repositories() == []


def test_a_store_that_is_not_there_has_nothing(tmp_path: Path, image: BuiltImage) -> None:
    with stock_of(f"containers-storage:[vfs@{tmp_path}/none+{tmp_path}/run]", f"oci:{image.root}") as stock:
        assert stock.repositories() == [image.root.name]
        assert stock.blob(Digest(image.layers[0].diff_id)) is None
        assert not (tmp_path / "none").exists()
