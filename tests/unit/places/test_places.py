"""Places: what they hold, how they know it, and that they never believe what can be seen to be wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import CatalogError, LayerteeError, LocalError, NotFound, SizeMismatch, SourceUnreadable
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.holding import Basis, Form, Holding, Place
from layertee.image.media import Compression
from layertee.image.placename import PlaceKind, PlaceName, Where
from layertee.image.reference_storage import StorageReference
from layertee.places import find
from layertee.places import oci_layout as module
from layertee.places.docker_archive import DockerArchive
from layertee.places.oci_archive import Archive
from layertee.places.oci_layout import OCILayoutPlace
from layertee.places.own import OwnStore
from layertee.pulling.plan import Action, Survey, Want, plan
from layertee.store.catalog import Catalog
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.contract.place_suite import PlaceSuite, diff_ids
from tests.contract.presence_suite import PresenceSuite
from tests.support.disk import Disk
from tests.support.fakes.place import FakePlace, shows
from tests.support.rig.images import BuiltImage, build_image, build_index, recompress
from tests.support.rig.layers import text_layer
from tests.support.store import AMD64, measure, planned, pull
from tests.support.users import closed


def nothing_known(digest: Digest) -> DiffID | None:
    return None


def layers_of(image: BuiltImage) -> tuple[Layer, ...]:
    """As an image that asks for them names them."""
    return Layout.open(image.root).resolve(image.ref, AMD64).layers


class TestOwnStore(PlaceSuite):
    form = Form.AS_IS

    @pytest.fixture(autouse=True)
    def _closing(self) -> Iterator[None]:
        self.opened: list[Store] = []
        yield
        for store in self.opened:
            store.close()

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        store = Store.open(tmp_path / "store")
        self.opened.append(store)
        pull(store, image.root, "latest", "x:1", self.form)
        return OwnStore(store, layers=layers_of(image))

    def test_what_the_store_holds_was_computed(self, place: Place, image: BuiltImage) -> None:
        assert {holding.basis for holding in place.find(diff_ids(image)).values()} == {Basis.COMPUTED}


class TestOwnStoreUncompressed(TestOwnStore):
    form = Form.UNCOMPRESSED

    # There is no gzip blob in it to cut short: the suite's test of that would look for one in vain.
    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        holding = next(iter(place.find(diff_ids(image)).values()))
        assert holding.compression is Compression.NONE
        assert holding.path is not None
        content = holding.path.read_bytes()
        holding.path.unlink()
        holding.path.write_bytes(content[:-1])
        assert holding.diff_id not in place.find(diff_ids(image))


class TestOCILayout(PlaceSuite):
    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        return OCILayoutPlace(image.root, known=nothing_known)


class TestFakePlace(PresenceSuite):
    """The fake that other tests use is a place like any other."""

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        return shows(*image.layers)

    def take_away(self, place: Place, diff_id: DiffID) -> None:
        assert isinstance(place, FakePlace)
        del place.holdings[diff_id]


class TestOCILayoutThatIsAStore(PlaceSuite):
    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        with Store.open(tmp_path / "public", private=False) as store:
            pull(store, image.root, "latest", "x:1")
        return OCILayoutPlace(tmp_path / "public", known=nothing_known)


# --- the store ------------------------------------------------------------------------


def test_a_failing_catalog_holds_nothing_and_the_store_warns(
    tmp_path: Path, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> Any:
        raise CatalogError("the map is on fire")

    monkeypatch.setattr(Catalog, "holdings", fail)
    with Store.open(tmp_path / "store") as store:
        place = OwnStore(store, layers=layers_of(image))
        assert place.find(diff_ids(image)) == {}
        assert store.warnings == ("the map is on fire",)


def test_a_failing_disk_holds_nothing_and_warns(tmp_path: Path, image: BuiltImage) -> None:
    with Store.open(tmp_path / "store") as store:
        pull(store, image.root, "latest", "x:1")
        place = OwnStore(store, layers=layers_of(image))
        with Disk().watched(1):
            found = place.find(diff_ids(image))
            assert found == {}
        assert "Input/output error" in found.warnings[0]
        found = place.find(diff_ids(image))
        assert len(found) == 2
        assert found.warnings == ()


# --- other layouts --------------------------------------------------------------------


def place_of(
    root: Path, known: Callable[[Digest], DiffID | None] = nothing_known, **options: Any
) -> OCILayoutPlace:
    return OCILayoutPlace(root, known=known, **options)


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(
        tmp_path / "built", [text_layer({"a": "1"}), text_layer({"b": "2"})], compression=["gzip", "none"]
    )


def test_a_claim_is_a_claim_until_the_blob_was_inflated_here(image: BuiltImage) -> None:
    packed, plain = diff_ids(image)
    found = place_of(image.root).find([packed, plain])
    assert found[packed].basis is Basis.CLAIMED
    assert found[plain].basis is Basis.COMPUTED, "named by its DiffID: reading it decides"
    found = place_of(image.root, {Digest(image.layers[0].digest): packed}.get).find([packed, plain])
    assert found[packed].basis is Basis.COMPUTED


def test_what_another_tool_computed_is_more_than_a_claim_and_less_than_a_pair(image: BuiltImage) -> None:
    packed = diff_ids(image)[0]
    pair = {Digest(image.layers[0].digest): packed}.get
    assert place_of(image.root, attested=pair).find([packed])[packed].basis is Basis.ATTESTED
    assert place_of(image.root, pair, attested=pair).find([packed])[packed].basis is Basis.COMPUTED
    other = {Digest(image.layers[0].digest): DiffID("sha256:" + "0" * 64)}.get
    assert place_of(image.root, attested=other).find([packed])[packed].basis is Basis.CLAIMED
    place = place_of(image.root, other, attested=pair)
    assert place.find([packed]) == {}


def test_a_claim_that_contradicts_a_computed_pair_is_not_a_holding(image: BuiltImage) -> None:
    packed = diff_ids(image)[0]
    place = place_of(image.root, {Digest(image.layers[0].digest): DiffID("sha256:" + "0" * 64)}.get)
    found = place.find([packed])
    assert found == {}
    assert any(image.layers[0].digest in warning for warning in found.warnings)


def test_a_tar_is_found_by_its_name_alone(image: BuiltImage) -> None:
    layout = Layout.create(image.root.parent / "bare", private=False)
    plain = image.layers[1]
    shutil.copy(image.blob_path(plain.digest), layout.blob_path(Digest(plain.digest)))
    (holding,) = place_of(layout.path).find(diff_ids(image)).values()
    assert (str(holding.digest), holding.basis, holding.compression) == (
        plain.diff_id,
        Basis.COMPUTED,
        Compression.NONE,
    )
    assert holding.size == holding.uncompressed_size == plain.uncompressed_size


def test_layers_of_every_platform_and_depth_are_found(tmp_path: Path) -> None:
    images = [
        build_image(tmp_path / name, [text_layer({"a": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64", "s390x")
    ]
    index = build_index(tmp_path / "all", images, ref="multi")
    outer = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "digest": index.digest,
                    "size": len(index.raw),
                }
            ],
        }
    ).encode()
    layout = Layout.open(tmp_path / "all")
    layout.blob_path(Digest.of(outer)).write_bytes(outer)
    layout.remove_entry("multi")
    layout.set_entry(
        "outer", Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(outer), len(outer))
    )
    wanted = [diff_id for image in images for diff_id in diff_ids(image)]
    assert set(place_of(layout.path).find(wanted)) == set(wanted)


def test_platforms_that_were_not_copied_are_no_fault(tmp_path: Path) -> None:
    images = [
        build_image(tmp_path / name, [text_layer({"a": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64")
    ]
    build_index(tmp_path / "both", images, ref="multi")
    images[0].blob_path(images[0].digest).unlink()
    Layout.open(tmp_path / "both").blob_path(Digest(images[0].digest)).unlink()
    place = place_of(tmp_path / "both")
    wanted = [diff_id for image in images for diff_id in diff_ids(image)]
    found = place.find(wanted)
    assert set(found) == set(diff_ids(images[1]))
    assert found.warnings == ()


@pytest.mark.parametrize("victim", ["manifest", "config"])
@pytest.mark.parametrize("damage", ["gone", "changed", "short"])
def test_one_broken_image_does_not_hide_the_others(tmp_path: Path, victim: str, damage: str) -> None:
    root = tmp_path / "two"
    broken = build_image(root, [text_layer({"a": "broken"})], ref="broken")
    whole = build_image(root, [text_layer({"a": "whole"})], ref="whole")
    path = broken.blob_path(broken.digest if victim == "manifest" else broken.config_digest)
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] + b"?" if damage == "changed" else content[:-1])
    place = place_of(root)
    found = place.find(diff_ids(whole) + diff_ids(broken))
    assert set(found) == set(diff_ids(whole))
    assert len(found.warnings) == 1
    assert broken.digest in found.warnings[0]


def test_a_config_and_manifest_of_different_lengths_are_skipped(tmp_path: Path) -> None:
    def shorten(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"].pop()

    image = build_image(tmp_path / "a", [text_layer({"a": "1"}), text_layer({"b": "2"})], edit_config=shorten)
    place = place_of(image.root)
    found = place.find(diff_ids(image))
    assert found == {}
    assert "DiffIDs" in found.warnings[0]


@pytest.mark.parametrize("what", ["nothing", "file", "empty directory", "broken index"])
def test_a_place_that_is_no_layout_holds_nothing_and_warns(tmp_path: Path, what: str) -> None:
    root = tmp_path / "place"
    if what == "file":
        root.write_bytes(b"")
    elif what != "nothing":
        root.mkdir()
    if what == "broken index":
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (root / "index.json").write_text("{")
    place = place_of(root)
    found = place.find([measure(b"x").diff_id])
    assert found == {}
    assert len(found.warnings) == 1
    assert str(root) in found.warnings[0]


def test_a_layout_of_endless_manifests_is_not_read_to_the_end(image: BuiltImage, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENTS", 1)
    build_image(image.root, [text_layer({"c": "3"})], ref="second")
    place = place_of(image.root)
    found = place.find(diff_ids(image))
    assert "more than 1 manifests" in found.warnings[0]


def test_of_several_blobs_the_one_asked_for_is_answered_then_the_cheapest(
    image: BuiltImage, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(image.root, both)
    packed = diff_ids(image)[0]
    zstd = recompress(image, "zstd", both, ref="zstd").layers[0]
    known = {Digest(layer.digest): packed for layer in (zstd, image.layers[0])}
    assert place_of(both, known.get).find([packed])[packed].digest == zstd.digest
    prefer = {packed: Digest(image.layers[0].digest)}
    assert place_of(both, known.get, prefer=prefer).find([packed])[packed].digest == image.layers[0].digest
    known.pop(Digest(image.layers[0].digest))
    assert place_of(both, known.get, prefer=prefer).find([packed])[packed].digest == zstd.digest, (
        "known beats claimed"
    )


def test_whatever_the_disk_does_the_place_answers(image: BuiltImage) -> None:
    disk = Disk()
    n = 0
    while True:
        n += 1
        place = place_of(image.root)
        with disk.watched(n):
            found = place.find(diff_ids(image))
        assert set(found) <= set(diff_ids(image))
        assert found.warnings or len(found) == 2
        if not disk.tripped:
            break
    assert n > 10


def test_symlinks_to_where_others_write_are_not_followed(image: BuiltImage, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    secret = tmp_path / "secret"
    secret.write_bytes(image.manifest)
    path = image.blob_path(image.digest)
    path.unlink()
    path.symlink_to(secret)
    place = place_of(image.root)
    found = place.find(diff_ids(image)[:1])
    assert found == {}
    assert "is a symlink out of the layout" in found.warnings[0]


def test_a_fifo_in_the_place_of_a_document_does_not_stop_everything(image: BuiltImage) -> None:
    path = image.blob_path(image.digest)
    path.unlink()
    os.mkfifo(path)
    place = place_of(image.root)
    found = place.find(diff_ids(image)[:1])
    assert found == {}
    assert found.warnings


def damaged_linked(path: Path) -> str:
    path.rename(path.parent / "other")
    path.symlink_to("/nowhere/other")
    return f"{path} is a symlink to /nowhere/other, which is not there"


def damaged_short(path: Path) -> str:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path} has {size - 1} bytes, the image says {size}"


def damaged_empty(path: Path) -> str:
    size = path.stat().st_size
    path.write_bytes(b"")
    return f"{path} has 0 bytes, the image says {size}"


def damaged_gone(path: Path) -> str:
    path.unlink()
    return f"{path} is not there"


def damaged_kind(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return f"{path}: not a regular file"


DAMAGES: list[tuple[Callable[[Path], str], type[LayerteeError]]] = [
    (damaged_linked, NotFound),
    (damaged_short, SizeMismatch),
    (damaged_empty, SizeMismatch),
    (damaged_gone, NotFound),
    (damaged_kind, SourceUnreadable),
]


@pytest.mark.parametrize(("damage", "error"), DAMAGES)
def test_why_a_blob_of_an_image_cannot_be_used_is_what_is_raised(
    image: BuiltImage, tmp_path: Path, damage: Callable[[Path], str], error: type[LayerteeError]
) -> None:
    layers = layers_of(image)
    said = damage(image.blob_path(image.layers[0].digest))
    found = place_of(image.root).blobs_of(layers)
    assert [diff_id for diff_id, _ in found.holdings] == [layers[1].diff_id]
    assert found.warnings == (said,)
    survey = Survey(origin={layers[1].diff_id: [found.holdings[0][1]]}, refused=found.refused)
    with pytest.raises(error) as caught:
        plan(layers, survey, Want())
    assert str(caught.value) == said
    assert caught.value.__notes__ == [f"that is layer 0 ({layers[0].digest}) of the image"]


def test_a_blob_that_may_not_be_read_is_said_before_it_is_read(image: BuiltImage) -> None:
    path = image.blob_path(image.layers[0].digest)
    with closed(path):
        found = place_of(image.root).blobs_of(layers_of(image))
    assert len(found.holdings) == 1
    (refused,) = found.refused.values()
    assert isinstance(refused, SourceUnreadable)
    assert str(refused) == f"{path}: Permission denied"


# --- together -------------------------------------------------------------------------


def test_a_recompressed_image_on_a_stick_is_not_fetched(image: BuiltImage, tmp_path: Path) -> None:
    stick = recompress(image, "zstd", tmp_path / "stick")
    wanted = Layout.open(image.root).resolve("latest", AMD64)
    with Store.open(tmp_path / "store") as store:
        todo = planned(store, wanted, stick.root, Form.AS_IS)
        assert todo.bytes_to_fetch == 0
        assert [step.action for step in todo.layers] == [Action.REUSE, Action.REUSE]
        for step in todo.layers:
            holding = step.holding
            assert isinstance(holding, Holding)
            assert holding.path is not None
            assert measure(holding.path.read_bytes(), holding.compression).diff_id == step.layer.diff_id


# --- what is no path ----------------------------------------------------------------------

NUL = Path("/tmp/a\0b")
NO_PATHS: list[Where] = [
    NUL,
    *(PlaceName(kind, NUL) for kind in PlaceKind if kind is not PlaceKind.AUTO),
    StorageReference(NUL, None, None, (), None),
    StorageReference(Path("/tmp"), None, NUL, (), None),
]


@pytest.mark.parametrize("where", NO_PATHS, ids=range(len(NO_PATHS)))
def test_a_place_whose_path_is_none_is_refused(where: Where) -> None:
    with pytest.raises(LocalError, match="there is a NUL character in it"):
        find.place(where, known=nothing_known, attested=nothing_known, prefer={})


@pytest.mark.parametrize("private", [False, True])
def test_a_store_whose_path_is_none_is_refused(private: bool) -> None:
    with pytest.raises(LocalError, match="there is a NUL character in it"):
        Store.open(NUL, private=private)


def test_a_layout_or_an_archive_whose_path_is_none_is_refused() -> None:
    for opened in (Layout.open, Archive.open, DockerArchive):
        with pytest.raises(LocalError, match="there is a NUL character in it"):
            opened(NUL)
