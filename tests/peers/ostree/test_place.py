"""An ostree repository as a place: what is there, how that is known, and what is not believed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis, Place
from layertee.image.media import Compression
from layertee.image.roles import Role
from layertee.places.ostree.place import LayerCommit, OSTreePlace, Pairs, no_pairs
from layertee.store.catalog import Catalog
from tests.contract.place_suite import STRANGER, diff_ids
from tests.contract.presence_suite import PresenceSuite
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.ostree import IMAGES, OSTreeRig, layer_ref
from tests.support.store import measure

LOCAL = "containers-storage:localhost/os:1"
REMOTE = "docker://registry.example.com/os:1"
LAYERS = [text_layer({"etc/a": "first"}), incompressible_layer(30_000), text_layer({"etc/b": "third"})]


@pytest.fixture
def plain(tmp_path: Path) -> BuiltImage:
    """An image as it is in podman's store: tars named by their DiffIDs."""
    return build_image(tmp_path / "plain", LAYERS, compression="none")


@pytest.fixture
def packed(tmp_path: Path) -> BuiltImage:
    """An image as a registry has it."""
    return build_image(tmp_path / "packed", LAYERS, compression=["gzip", "zstd", "gzip"])


@pytest.fixture
def rig(tmp_path: Path) -> OSTreeRig:
    return OSTreeRig.create(tmp_path / "repo")


def place_of(rig: OSTreeRig, known: Pairs = no_pairs, attested: Pairs = no_pairs) -> OSTreePlace:
    return OSTreePlace(rig.root, known=known, attested=attested)


def pairs_of(image: BuiltImage) -> Pairs:
    return {Digest(layer.digest): DiffID(layer.diff_id) for layer in image.layers}.get


def found_in(place: OSTreePlace, image: BuiltImage) -> dict[DiffID, LayerCommit]:
    found = place.find(diff_ids(image))
    assert all(isinstance(holding, LayerCommit) for holding in found.values())
    return {diff_id: held for diff_id, held in found.items() if isinstance(held, LayerCommit)}


def bases(place: OSTreePlace, image: BuiltImage) -> list[Basis]:
    found = found_in(place, image)
    return [found[diff_id].basis for diff_id in diff_ids(image) if diff_id in found]


class TestOSTree(PresenceSuite):
    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        rig = OSTreeRig.create(tmp_path / "suite")
        rig.take(image, REMOTE, tmp_path)
        return place_of(rig)

    def take_away(self, place: Place, diff_id: DiffID) -> None:
        held = place.find([diff_id])[diff_id]
        assert isinstance(held, LayerCommit)
        rig = OSTreeRig(Path(place.name.removeprefix("ostree:")))
        rig.run("refs", "--delete", layer_ref(held.imported))


# --- how it is known ------------------------------------------------------------------


def test_a_layer_named_by_its_diff_id_is_computed(rig: OSTreeRig, plain: BuiltImage, tmp_path: Path) -> None:
    commits = rig.take(plain, LOCAL, tmp_path)
    place = place_of(rig)
    found = found_in(place, plain)
    assert {str(diff_id): held.commit for diff_id, held in found.items()} == commits
    for diff_id, held in found.items():
        assert (held.basis, held.readable, held.path, held.size) == (Basis.COMPUTED, False, None, 0)
        assert str(held.imported) == str(held.digest) == diff_id
        assert held.place == place.name == f"ostree:{rig.root}"
        assert held.role is Role.DERIVED
    assert place.find(diff_ids(plain)).warnings == ()


def test_only_what_was_asked_for_is_answered(rig: OSTreeRig, plain: BuiltImage, tmp_path: Path) -> None:
    rig.take(plain, LOCAL, tmp_path)
    one = diff_ids(plain)[0]
    assert set(place_of(rig).find([one, STRANGER])) == {one}
    assert place_of(rig).find([]) == {}


def test_a_blob_that_was_inflated_here_is_computed(
    rig: OSTreeRig, packed: BuiltImage, tmp_path: Path
) -> None:
    commits = rig.take(packed, None, tmp_path)
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        for layer in packed.layers:
            blob = packed.blob_path(layer.digest).read_bytes()
            catalog.record(measure(blob, Compression(layer.compression)))
        found = found_in(place_of(rig, catalog.diff_id), packed)
    assert {str(held.imported): held.commit for held in found.values()} == commits
    assert {held.basis for held in found.values()} == {Basis.COMPUTED}
    assert {held.role for held in found.values()} == {None}


def test_a_blob_that_nobody_knows_is_not_found(rig: OSTreeRig, packed: BuiltImage, tmp_path: Path) -> None:
    rig.take(packed, None, tmp_path)
    assert found_in(place_of(rig), packed) == {}


def test_the_pair_of_another_tool_is_attested(rig: OSTreeRig, packed: BuiltImage, tmp_path: Path) -> None:
    rig.take(packed, None, tmp_path)
    assert bases(place_of(rig, attested=pairs_of(packed)), packed) == [Basis.ATTESTED] * 3
    assert bases(place_of(rig, pairs_of(packed), pairs_of(packed)), packed) == [Basis.COMPUTED] * 3


@pytest.mark.parametrize(
    "ref",
    [
        f"{IMAGES}/docker_3A__2F__2F_registry_2E_example_2E_com/os_3A_1",
        "ostree/container/baseimage/bootc/0",
        "ostree/0/1/0",
        "ostree/1/1/1",
        "rpmostree/base/0",
    ],
)
def test_a_stored_image_claims(rig: OSTreeRig, packed: BuiltImage, tmp_path: Path, ref: str) -> None:
    rig.take(packed, None, tmp_path, ref=ref)
    assert bases(place_of(rig), packed) == [Basis.CLAIMED] * 3
    assert bases(place_of(rig, attested=pairs_of(packed)), packed) == [Basis.ATTESTED] * 3


def test_the_strongest_of_several_names_is_the_one_that_counts(
    rig: OSTreeRig, plain: BuiltImage, packed: BuiltImage, tmp_path: Path
) -> None:
    rig.take(packed, REMOTE, tmp_path)
    rig.take(plain, LOCAL, tmp_path)
    found = found_in(place_of(rig), plain)
    assert {held.basis for held in found.values()} == {Basis.COMPUTED}
    assert all(str(held.imported) == diff_id for diff_id, held in found.items())


def test_layers_of_an_ostree_commit_are_told_from_derived_ones(rig: OSTreeRig, tmp_path: Path) -> None:
    layers = [text_layer({f"etc/{n}": str(n)}) for n in range(4)]
    bare = build_image(tmp_path / "bare", layers, compression="none")
    image = build_image(
        tmp_path / "image",
        layers,
        compression="none",
        labels={"ostree.final-diffid": bare.layers[2].diff_id},
    )
    rig.take(image, LOCAL, tmp_path)
    found = found_in(place_of(rig), image)
    roles = [found[diff_id].role for diff_id in diff_ids(image)]
    assert roles == [Role.BASE, Role.CHUNK, Role.CHUNK, Role.DERIVED]


# --- what is not believed -------------------------------------------------------------


def lying(root: Path, instead: str) -> BuiltImage:
    """The same blobs under a config that says the first one's DiffID is ``instead``."""

    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = instead

    return build_image(root, LAYERS, compression=["gzip", "zstd", "gzip"], edit_config=lie)


def test_a_claim_that_contradicts_a_computed_pair_is_dropped(
    rig: OSTreeRig, packed: BuiltImage, tmp_path: Path
) -> None:
    rig.take(lying(tmp_path / "lying", STRANGER), REMOTE, tmp_path)
    place = place_of(rig, pairs_of(packed))
    found = place.find([*diff_ids(packed), STRANGER])
    assert set(found) == set(diff_ids(packed))
    assert [packed.layers[0].digest in warning for warning in found.warnings] == [True]


def test_images_that_disagree_about_a_blob_say_nothing_of_it(
    rig: OSTreeRig, packed: BuiltImage, tmp_path: Path
) -> None:
    commits = rig.take(packed, REMOTE, tmp_path)
    liar = lying(tmp_path / "lying", STRANGER)
    rig.take_documents(liar, f"{IMAGES}/liar", list(commits.values()))
    place = place_of(rig)
    found = place.find([*diff_ids(packed), STRANGER])
    assert set(found) == set(diff_ids(packed)[1:])
    assert [packed.layers[0].digest in warning for warning in found.warnings] == [True]


@pytest.mark.parametrize("how", ["computed", "attested", "claimed"])
def test_a_compressed_blob_is_not_taken_for_a_tar(
    rig: OSTreeRig, packed: BuiltImage, tmp_path: Path, how: str
) -> None:
    """An image may name as a DiffID what is known to be the digest of a gzip blob."""
    rig.take(packed, REMOTE if how == "claimed" else None, tmp_path)
    pairs = pairs_of(packed)
    place = place_of(rig, pairs if how == "computed" else no_pairs, pairs if how == "attested" else no_pairs)
    assert place.find([DiffID(packed.layers[0].digest)]) == {}


# --- what is damaged ------------------------------------------------------------------


def test_a_place_that_is_absent_or_something_else_holds_nothing_and_warns(
    tmp_path: Path, plain: BuiltImage
) -> None:
    for path in (tmp_path / "absent", tmp_path, plain.root / "index.json"):
        place = OSTreePlace(path, known=no_pairs)
        found = place.find(diff_ids(plain))
        assert found == {}
        assert [str(path) in warning for warning in found.warnings] == [True]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [Path.unlink, cut], ids=["gone", "short"])
def test_a_layer_without_a_whole_commit_is_not_held(
    rig: OSTreeRig, plain: BuiltImage, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    commits = rig.take(plain, LOCAL, tmp_path)
    first = plain.layers[0].digest
    damage(rig.commit_path(commits[first]))
    place = place_of(rig)
    found = place.find(diff_ids(plain))
    assert set(found) == set(diff_ids(plain)[1:])
    assert [first in warning for warning in found.warnings] == [True]


def test_presence_is_looked_at_and_not_remembered(rig: OSTreeRig, plain: BuiltImage, tmp_path: Path) -> None:
    rig.take(plain, LOCAL, tmp_path)
    place = place_of(rig)
    assert len(place.find(diff_ids(plain))) == 3
    rig.run("refs", "--delete", layer_ref(plain.layers[0].digest))
    assert set(place.find(diff_ids(plain))) == set(diff_ids(plain)[1:])


@pytest.mark.parametrize(
    "spoil",
    [
        {"ostree.manifest": "{"},
        {"ostree.manifest": json.dumps({"schemaVersion": 2})},
        {"ostree.container.image-config": "null"},
    ],
    ids=["no json", "no manifest", "no config"],
)
def test_one_image_that_cannot_be_read_does_not_hide_the_others(
    rig: OSTreeRig, packed: BuiltImage, tmp_path: Path, spoil: dict[str, str]
) -> None:
    commits = rig.take(packed, REMOTE, tmp_path)
    documents = {
        "ostree.manifest": packed.manifest.decode(),
        "ostree.container.image-config": packed.config.decode(),
    } | spoil
    rig.run(
        *("commit", f"--branch={IMAGES}/broken", f"--tree=ref={commits[packed.layers[0].digest]}"),
        *(f"--add-metadata-string={key}={value}" for key, value in documents.items()),
    )
    place = place_of(rig)
    assert bases(place, packed) == [Basis.CLAIMED] * 3
    warnings = place.find(diff_ids(packed)).warnings
    assert [f"{IMAGES}/broken" in warning for warning in warnings] == [True]


def test_refs_of_strangers_among_the_layers_are_named_once(
    rig: OSTreeRig, plain: BuiltImage, tmp_path: Path
) -> None:
    commits = rig.take(plain, LOCAL, tmp_path)
    for name in ("something", "sha256_3A_short"):
        rig.run("refs", f"--create=ostree/container/blob/{name}", commits[plain.layers[0].digest])
    place = place_of(rig)
    found = place.find(diff_ids(plain))
    assert len(found) == 3
    assert ["2 refs of layers name no blob" in warning for warning in found.warnings] == [True]


# --- how long it takes ----------------------------------------------------------------


@pytest.mark.alone
def test_thousands_of_refs_are_read_within_a_second(
    rig: OSTreeRig, plain: BuiltImage, tmp_path: Path
) -> None:
    commit = rig.take(plain, LOCAL, tmp_path)[plain.layers[0].digest]
    n = 5000
    for number in range(n):
        rig.ref_path(f"sha256:{number:064x}").write_text(f"{commit}\n")
    assert len(rig.run("refs", "--list", "ostree/container/blob").splitlines()) == n + 3
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        place = place_of(rig, catalog.diff_id)
        began = time.monotonic()
        found = place.find([*diff_ids(plain), DiffID(f"sha256:{n - 1:064x}")])
        took = time.monotonic() - began
    assert len(found) == 4
    assert took < 1, f"{took:.2f} s"


def test_recompressed_layers_are_the_layers(rig: OSTreeRig, packed: BuiltImage, tmp_path: Path) -> None:
    """The test's own premise: three forms of one image, one set of DiffIDs."""
    again = recompress(packed, "zstd", tmp_path / "again")
    assert diff_ids(again) == diff_ids(packed)
    assert not again.layer_digests & {packed.layers[0].digest, packed.layers[2].digest}
