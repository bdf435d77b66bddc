"""OCI layouts and archives as a registry."""

from __future__ import annotations

import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layertee.errors import InvalidReference, NotFound
from layertee.image.document import Digest, Platform
from layertee.serve.choice import MAX_LISTED
from layertee.serve.documents import Documents
from layertee.serve.layouts import MAX_ENTRIES, LayoutShelf
from layertee.serve.stock import OpenStock
from layertee.serve.wheres import OwnStorePlace, parse_offered
from layertee.store.layout import Layout
from tests.support.rig.images import BuiltImage, build_image, build_index, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.stock import (
    OCI_INDEX,
    OCI_MANIFEST,
    REF_NAME,
    assert_all_can_be_had,
    assert_blob_is_right,
    descriptor_of,
    digests,
    put_artifact,
    put_blob,
    put_document,
    put_index,
    snapshot,
    stock_of,
)

NAME = "registry.example.com/os/image:stable"
SHORT = "os/image"


def small(root: Path, ref: str = NAME, text: str = "first", platform: str = "linux/amd64") -> BuiltImage:
    layers = [text_layer({"etc/a": text}), incompressible_layer(30_000)]
    return build_image(root, layers, compression=["gzip", "zstd"], ref=ref, platform=platform)


def archive_of(root: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(root, ".")
    return path


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return tmp_path / "stick"


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "oci-archive, compressed"])
def test_an_image_is_offered_with_its_registry_and_without(layout: Path, tmp_path: Path, kind: str) -> None:
    image = small(layout)
    place = f"oci:{layout}"
    if kind != "oci":
        mode = "w:gz" if "compressed" in kind else "w"
        place = f"oci-archive:{archive_of(layout, tmp_path / 'stick.tar', mode)}"
    before = snapshot(tmp_path)
    with stock_of(place) as stock:
        assert stock.repositories() == [SHORT, "registry.example.com/os/image"]
        for repository in stock.repositories():
            assert stock.tags(repository) == ["stable"]
            for original in (False, True):
                found = stock.named(repository, "stable", original=original)
                assert [one.raw for one in found] == [image.manifest]
                assert found[0].original is None
                assert_all_can_be_had(stock, repository, found)
        assert stock.tags("image") is None
        assert stock.named("image", "stable") == []
        assert stock.named(SHORT, "other") == []
        assert stock.document("image", Digest(image.digest)) is None
    assert snapshot(tmp_path) == before


def test_names_in_a_layout_may_be_tags_only(tmp_path: Path) -> None:
    layout = tmp_path / "My.Stick"
    image, other = small(layout, "v1"), small(layout, "os:2", "second")
    put_index(layout, [(None, descriptor_of(image.manifest))])
    with stock_of(f"oci:{layout}") as stock:
        assert stock.repositories() == ["my.stick", "os"]
        assert stock.tags("my.stick") == ["latest", "v1"]
        assert digests(stock.named("my.stick", "latest")) == [image.digest]
        assert digests(stock.named("os", "2")) == [other.digest]
        assert stock.document("my.stick", Digest(other.digest)) is None
        assert stock.document("os", Digest(image.digest)) is None


@pytest.mark.parametrize(
    ("name", "repository"), [("Ä", "image"), ("a b", "image"), ("_x", "image"), ("x", "x")]
)
def test_a_directory_whose_name_is_none_is_called_image(tmp_path: Path, name: str, repository: str) -> None:
    small(tmp_path / name, "v1")
    with stock_of(f"oci:{tmp_path / name}") as stock:
        assert stock.repositories() == [repository]


@pytest.mark.parametrize("name", ["stick.tar", "stick.oci.tar.gz", "stick.tgz", "stick.ociarchive"])
def test_an_archive_is_called_as_its_file_without_the_end(tmp_path: Path, name: str) -> None:
    small(tmp_path / "x", "v1")
    with stock_of(f"oci-archive:{archive_of(tmp_path / 'x', tmp_path / name)}") as stock:
        assert stock.repositories() == ["stick"]


def test_what_has_no_name_that_can_be_asked_for_is_left_out_and_that_is_said_once(
    layout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = small(layout)
    put_index(layout, [("a+b", descriptor_of(image.manifest)), ("x:y:z", descriptor_of(image.manifest))])
    with stock_of(f"oci:{layout}") as stock:
        for _ in range(3):
            assert stock.repositories() == [SHORT, "registry.example.com/os/image"]
            os.utime(layout / "index.json")
    assert [("a+b" in line, "x:y:z" in line) for line in caplog.messages] == [(True, False), (False, True)]


def test_a_port_stands_behind_another_sign(layout: Path) -> None:
    image, other = small(layout, "localhost:5000/os:1", "one"), small(layout, "localhost/os:1", "two")
    with stock_of(f"oci:{layout}") as stock:
        assert stock.repositories() == ["localhost/os", "localhost_5000/os", "os"]
        assert digests(stock.named("localhost_5000/os", "1")) == [image.digest]
        assert digests(stock.named("localhost/os", "1")) == [other.digest]
        with pytest.raises(InvalidReference, match="ask for localhost/os:1 or localhost_5000/os:1"):
            stock.named("os", "1")


# --- several images under one name ----------------------------------------------------------------


def test_a_short_name_of_two_registries_is_refused_unless_the_request_names_one(layout: Path) -> None:
    one, two = small(layout, "a.io/os:1", "one"), small(layout, "b.io/os:1", "two")
    with stock_of(f"oci:{layout}") as stock:
        with pytest.raises(InvalidReference, match=r"a\.io/os:1, b\.io/os:1"):
            stock.named("os", "1")
        assert digests(stock.named("os", "1", registry="a.io")) == [one.digest]
        assert digests(stock.named("os", "1", registry="B.io")) == [two.digest]
        assert digests(stock.named("b.io/os", "1")) == [two.digest]
        assert digests(stock.named("b.io/os", "1", registry="a.io")) == [two.digest]
        with pytest.raises(NotFound, match=r"not from c\.io"):
            stock.named("os", "1", registry="c.io")
        assert stock.tags("os") == ["1"]
        for image in (one, two):
            assert stock.document("os", Digest(image.digest)) is not None
        assert stock.document("a.io/os", Digest(two.digest)) is None


def test_a_short_name_of_two_registries_that_is_one_image_is_that(tmp_path: Path) -> None:
    one = small(tmp_path / "a", "a.io/os:1")
    small(tmp_path / "b", "b.io/os:1")
    with stock_of(f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'b'}") as stock:
        assert digests(stock.named("os", "1")) == [one.digest]


def test_an_image_of_no_registry_serves_as_a_mirror_of_any_that_has_none(tmp_path: Path) -> None:
    bare, named = small(tmp_path / "a", "os:1", "bare"), small(tmp_path / "b", "b.io/os:1", "named")
    with stock_of(f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'b'}") as stock:
        assert digests(stock.named("os", "1", registry="c.io")) == [bare.digest]
        assert digests(stock.named("os", "1", registry="b.io")) == [named.digest]


def test_of_two_places_with_one_name_the_first_that_has_all_of_it_is_asked(tmp_path: Path) -> None:
    first, second = small(tmp_path / "a", text="one"), small(tmp_path / "b", text="two")
    places = [f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'b'}"]
    with stock_of(*places) as stock:
        assert digests(stock.named(SHORT, "stable")) == [first.digest]
        first.blob_path(first.layers[0].digest).unlink()
        assert digests(stock.named(SHORT, "stable")) == [second.digest]
    with stock_of(*reversed(places)) as stock:
        assert digests(stock.named(SHORT, "stable")) == [second.digest]


def test_entries_of_one_name_are_one_image_by_platform_or_none(layout: Path) -> None:
    arm, amd = small(layout, "x", platform="linux/arm64"), small(layout, "y", "amd")
    by_platform = [
        (None, descriptor_of(image.manifest) | {"platform": {"os": "linux", "architecture": machine}})
        for image, machine in ((arm, "arm64"), (amd, "amd64"))
    ]
    put_index(layout, by_platform)
    with stock_of(f"oci:{layout}") as stock:
        assert digests(stock.named("stick", "latest")) == [amd.digest]
    with stock_of(f"oci:{layout}", platform=Platform("linux", "arm64")) as stock:
        assert digests(stock.named("stick", "latest")) == [arm.digest]
        put_index(layout, [(None, descriptor_of(arm.manifest))])
        assert digests(stock.named("stick", "latest")) == [arm.digest]
        put_index(layout, [(None, put_artifact(layout))])
        with pytest.raises(InvalidReference, match="any of these images"):
            stock.named("stick", "latest")


# --- what is here of an image -----------------------------------------------------------------------


def test_an_image_with_a_layer_that_is_nowhere_is_not_offered_by_its_tag(layout: Path) -> None:
    image = small(layout)
    with stock_of(f"oci:{layout}") as stock:
        image.blob_path(image.layers[1].digest).unlink()
        for original in (False, True):
            with pytest.raises(NotFound, match=f"layer 1 .* {image.layers[1].digest}"):
                stock.named(SHORT, "stable", original=original)
        by_digest = stock.document(SHORT, Digest(image.digest))
        assert by_digest is not None
        assert by_digest.raw == image.manifest
        assert stock.blob(Digest(image.layers[1].digest)) is None


@pytest.mark.parametrize("spoiled", ["cut short", "empty", "directory", "symlink to nothing", "longer"])
def test_a_layer_that_cannot_be_right_is_not_there(layout: Path, spoiled: str) -> None:
    image = small(layout)
    path = image.blob_path(image.layers[1].digest)
    raw = path.read_bytes()
    path.unlink()
    if spoiled == "directory":
        path.mkdir()
    elif spoiled == "symlink to nothing":
        path.symlink_to("/nowhere")
    else:
        path.write_bytes({"cut short": raw[:-1], "empty": b"", "longer": raw + b"x"}[spoiled])
    with stock_of(f"oci:{layout}") as stock, pytest.raises(NotFound):
        stock.named(SHORT, "stable")


def test_a_layer_that_is_here_as_its_tar_is_offered_as_that_and_the_bytes_are_the_same_after_a_restart(
    layout: Path,
) -> None:
    image = small(layout)
    plain = recompress(image, "none", layout, ref="plain")
    for layer in image.layers:
        image.blob_path(layer.digest).unlink()
    with stock_of(f"oci:{layout}") as stock:
        (made,) = stock.named(SHORT, "stable")
        assert made.original == image.digest
        assert made.raw != image.manifest
        said = json.loads(made.raw)
        assert [one["digest"] for one in said["layers"]] == [one.diff_id for one in image.layers]
        assert said["annotations"] == {"dev.layertee.original-manifest": image.digest}
        assert said["config"]["digest"] == image.config_digest
        assert_all_can_be_had(stock, SHORT, [made])
        originals = stock.named(SHORT, "stable", original=True)
        assert digests(originals) == [image.digest]
        assert digests(stock.named("stick", "plain")) == [plain.digest]
    with stock_of(f"oci:{layout}") as stock:  # which was asked for no tag
        again = stock.document(SHORT, made.digest)
        assert again == made
        assert stock.document("stick", made.digest) is None


def test_who_takes_no_manifests_of_dockers_gets_one_of_ocis_besides(layout: Path) -> None:
    image = build_image(layout, [text_layer({"etc/a": "x"})], ref="os:1", media="docker")
    with stock_of(f"oci:{layout}") as stock:
        assert digests(stock.named("os", "1")) == [image.digest]
        recompress(image, "none", layout, ref="plain")
        image.blob_path(image.layers[0].digest).unlink()
        (made,) = stock.named("os", "1")
        assert made.media_type == OCI_MANIFEST
        found = stock.named("os", "1", original=True)
        assert digests(found) == [image.digest, made.digest]
        assert found[0].media_type == image.media_type
        assert_all_can_be_had(stock, "os", [made])


def test_layers_of_another_place_count(tmp_path: Path) -> None:
    image = small(tmp_path / "a")
    recompress(image, "none", tmp_path / "b", ref="x")
    image.blob_path(image.layers[0].digest).unlink()
    with stock_of(f"oci:{tmp_path / 'a'}") as stock, pytest.raises(NotFound):
        stock.named(SHORT, "stable")
    with stock_of(f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'b'}") as stock:
        (made,) = stock.named(SHORT, "stable")
        layers = [one["digest"] for one in json.loads(made.raw)["layers"]]
        assert layers == [image.layers[0].diff_id, image.layers[1].digest]
        assert_all_can_be_had(stock, SHORT, [made])


def test_of_two_files_under_one_name_the_one_that_the_image_means_is_sent(tmp_path: Path) -> None:
    whole, cut = small(tmp_path / "a"), small(tmp_path / "b")
    layer = whole.layers[0]
    path = cut.blob_path(layer.digest)
    path.write_bytes(path.read_bytes()[:-1])
    places = [f"oci:{tmp_path / 'b'}", f"oci:{tmp_path / 'a'}"]
    with stock_of(*places) as stock:
        assert_blob_is_right(stock, layer.digest, layer.size)
        assert_all_can_be_had(stock, SHORT, stock.named(SHORT, "stable"))


def test_an_image_without_its_config_is_not_offered(layout: Path) -> None:
    image = small(layout)
    image.blob_path(image.config_digest).unlink()
    with stock_of(f"oci:{layout}") as stock, pytest.raises(NotFound, match=image.config_digest):
        stock.named(SHORT, "stable")


# --- indexes ----------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> list[BuiltImage]:
    return [
        small(tmp_path / machine, text=machine, platform=f"linux/{machine}") for machine in ("amd64", "arm64")
    ]


def test_an_index_comes_before_the_manifest_of_the_platform(layout: Path, images: list[BuiltImage]) -> None:
    index = build_index(layout, images, ref=NAME)
    with stock_of(f"oci:{layout}") as stock:
        for original in (False, True):
            found = stock.named(SHORT, "stable", original=original)
            assert digests(found) == [index.digest, images[0].digest]
            assert_all_can_be_had(stock, SHORT, found)
    with stock_of(f"oci:{layout}", platform=Platform("linux", "arm64")) as stock:
        assert digests(stock.named(SHORT, "stable")) == [index.digest, images[1].digest]


def test_an_index_of_which_an_image_is_missing_is_for_those_who_ask_for_originals(
    layout: Path, images: list[BuiltImage]
) -> None:
    index = build_index(layout, images, ref=NAME)
    arm = index.images[1]
    arm.blob_path(arm.digest).unlink()
    with stock_of(f"oci:{layout}") as stock:
        assert digests(stock.named(SHORT, "stable")) == [images[0].digest]
        assert digests(stock.named(SHORT, "stable", original=True)) == [index.digest, images[0].digest]
        assert stock.document(SHORT, Digest(index.digest)) is not None
        assert stock.document(SHORT, Digest(arm.digest)) is None
    with (
        stock_of(f"oci:{layout}", platform=Platform("linux", "arm64")) as stock,
        pytest.raises(NotFound, match="is not here"),
    ):
        stock.named(SHORT, "stable", original=True)


def test_an_index_of_which_a_layer_is_missing_gives_way_to_the_manifest(
    layout: Path, images: list[BuiltImage]
) -> None:
    index = build_index(layout, images, ref=NAME)
    arm = index.images[1]
    arm.blob_path(arm.layers[0].digest).unlink()
    with stock_of(f"oci:{layout}") as stock:
        assert digests(stock.named(SHORT, "stable")) == [images[0].digest]


def test_indexes_may_be_nested_but_not_for_ever(layout: Path, images: list[BuiltImage]) -> None:
    inner = build_index(layout, images, ref="inner")
    descriptor = descriptor_of(inner.raw, OCI_INDEX)
    roots = []
    for depth in range(5):
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}
        descriptor = put_document(layout, document, OCI_INDEX)
        roots.append((f"os:{depth}", descriptor))
    put_index(layout, roots)
    with stock_of(f"oci:{layout}") as stock:
        found = stock.named("os", "0")
        assert digests(found) == [roots[0][1]["digest"], images[0].digest]
        assert_all_can_be_had(stock, "os", found)
        with pytest.raises(NotFound, match="too deep"):
            stock.named("os", "4")


# --- what is no image ---------------------------------------------------------------------------------


def test_referrers_are_found_and_belong_to_the_repository_of_their_subject(layout: Path) -> None:
    image, other = small(layout), small(layout, "other:1", "other")
    subject = descriptor_of(image.manifest)
    one = put_artifact(layout, subject, artifactType="text/a", annotations={"k": "v"})
    two = put_artifact(layout, subject)
    third = put_artifact(layout, one, artifactType="text/of-one")
    unrelated = put_artifact(layout, descriptor_of(other.manifest), artifactType="text/other")
    put_index(layout, [(None, one), (None, two), (None, third), (None, unrelated)])
    with stock_of(f"oci:{layout}") as stock:
        assert "stick" not in stock.repositories()
        found = stock.referrers(SHORT, Digest(image.digest))
        wanted = [
            one | {"artifactType": "text/a", "annotations": {"k": "v"}},
            two | {"artifactType": "application/vnd.oci.empty.v1+json"},
        ]
        assert list(found) == sorted(wanted, key=lambda entry: str(entry["digest"]))
        assert [entry["digest"] for entry in stock.referrers(SHORT, Digest(one["digest"]))] == [
            third["digest"]
        ]
        assert stock.referrers(SHORT, Digest(other.digest)) == []
        assert stock.referrers("nobody", Digest(image.digest)) == []
        for entry in (one, two, third):
            document = stock.document(SHORT, Digest(entry["digest"]))
            assert document is not None
            assert_all_can_be_had(stock, SHORT, [document])
        assert stock.document(SHORT, Digest(unrelated["digest"])) is None


def test_an_attachment_is_a_tag_like_any_other(layout: Path) -> None:
    image = small(layout)
    tag = image.digest.replace(":", "-") + ".sig"
    signature = put_artifact(layout)
    put_index(layout, [(f"registry.example.com/os/image:{tag}", signature)])
    with stock_of(f"oci:{layout}") as stock:
        assert stock.tags(SHORT) == [tag, "stable"]
        found = stock.named(SHORT, tag)
        assert digests(found) == [signature["digest"]]
        assert_all_can_be_had(stock, SHORT, found)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"schemaVersion": 2, "mediaType": "text/plain", "config": {}, "layers": []},
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"},
        {"schemaVersion": 2, "manifests": [], "config": {}, "layers": []},
        {"schemaVersion": 2, "config": "text", "layers": []},
        {"schemaVersion": 2, "config": {}, "layers": [{"digest": "sha256:1"}]},
        [],
        "text",
    ],
)
def test_what_is_neither_manifest_nor_index_is_not_handed_out_as_one(layout: Path, document: object) -> None:
    put_index(layout, [("os:1", put_document(layout, document))])
    with stock_of(f"oci:{layout}") as stock:
        assert stock.tags("os") == ["1"]
        digest = Digest(json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
        assert stock.document("os", digest) is None
        with pytest.raises(NotFound):
            stock.named("os", "1")


def test_a_document_that_is_not_what_its_name_says_or_too_large_is_none(layout: Path) -> None:
    image = small(layout)
    large = put_blob(layout, b" " * (4 << 20) + image.manifest, "application/vnd.oci.image.manifest.v1+json")
    put_index(layout, [("large:1", large)])
    path = image.blob_path(image.digest)
    with stock_of(f"oci:{layout}") as stock:
        assert stock.document("large", Digest(large["digest"])) is None
        path.write_bytes(image.manifest.replace(b"schemaVersion", b"schemaversion"))
    with stock_of(f"oci:{layout}") as stock:
        assert stock.document(SHORT, Digest(image.digest)) is None


# --- as it is now ---------------------------------------------------------------------------------------


def test_what_comes_and_goes_is_seen_at_once(layout: Path, tmp_path: Path) -> None:
    with stock_of(f"oci:{layout}") as stock:
        assert stock.repositories() == []
        image = small(layout)
        assert digests(stock.named(SHORT, "stable")) == [image.digest]
        newer = small(layout, text="newer")
        assert digests(stock.named(SHORT, "stable")) == [newer.digest]
        assert stock.document(SHORT, Digest(image.digest)) is None
        newer.blob_path(newer.digest).unlink()
        assert stock.document(SHORT, Digest(newer.digest)) is None
        assert stock.blob(Digest(newer.layers[0].digest)) is not None
        newer.blob_path(newer.layers[0].digest).unlink()
        assert stock.blob(Digest(newer.layers[0].digest)) is None
        os.rename(layout, tmp_path / "gone")
        assert stock.repositories() == []
        assert stock.blob(Digest(newer.layers[1].digest)) is None
        other = small(tmp_path / "other", "x:1", "other")
        layout.symlink_to(tmp_path / "other")
        assert digests(stock.named("x", "1")) == [other.digest]


def test_an_archive_may_be_replaced(tmp_path: Path) -> None:
    one, two = small(tmp_path / "one", text="one"), small(tmp_path / "two", text="two")
    archive = archive_of(tmp_path / "one", tmp_path / "a.tar")
    with stock_of(f"oci-archive:{archive}") as stock:
        assert digests(stock.named(SHORT, "stable")) == [one.digest]
        os.rename(archive_of(tmp_path / "two", tmp_path / "b.tar"), archive)
        assert digests(stock.named(SHORT, "stable")) == [two.digest]
        assert_all_can_be_had(stock, SHORT, stock.named(SHORT, "stable"))
        assert stock.blob(Digest(one.layers[0].digest)) is None
        archive.write_bytes(b"no tar")
        assert stock.repositories() == []


@pytest.mark.parametrize("spoiled", ["no index", "no marker", "index is no JSON", "a file", "nothing"])
def test_a_place_that_cannot_be_read_has_nothing_and_harms_no_other(
    tmp_path: Path, spoiled: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = small(tmp_path / "good")
    bad = tmp_path / "bad"
    if spoiled == "a file":
        bad.write_text("x")
    elif spoiled != "nothing":
        small(bad, "b.io/os/image:stable", "bad")
        path = bad / ("oci-layout" if spoiled == "no marker" else "index.json")
        path.unlink()
        if spoiled == "index is no JSON":
            path.write_text("{" * 1000)
    with stock_of(f"oci:{bad}", f"oci:{tmp_path / 'good'}") as stock:
        for _ in range(3):
            assert digests(stock.named(SHORT, "stable")) == [image.digest]
            assert stock.blob(Digest(image.layers[0].digest)) is not None
        assert stock.repositories() == [SHORT, "registry.example.com/os/image"]
    assert len([line for line in caplog.messages if str(bad) in line]) == 1


def test_a_layout_that_lists_far_too_much_takes_little_time_and_harms_no_other(
    layout: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = small(tmp_path / "good")
    many = [
        descriptor_of(image.manifest) | {"annotations": {REF_NAME: f"t{n}"}, "digest": f"sha256:{n:064x}"}
        for n in range(3000)
    ]
    listed = put_document(layout, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": many}, OCI_INDEX)
    entry = descriptor_of(image.manifest) | {"annotations": {"dev.layertee.beside": listed["digest"]}}
    put_index(layout, [(f"os:{n}", entry) for n in range(9000)])
    with stock_of(f"oci:{layout}", f"oci:{tmp_path / 'good'}") as stock:
        began = time.monotonic()
        tags = stock.tags("os")
        assert tags is not None
        assert len(tags) <= MAX_ENTRIES
        assert digests(stock.named(SHORT, "stable")) == [image.digest]
        assert stock.document("os", Digest.of(b"")) is None
        assert stock.referrers(SHORT, Digest(image.digest)) == []
        assert time.monotonic() - began < 20
    assert [line for line in caplog.messages if "more than is looked at" in line]


def test_blobs_named_by_sha512_are_not_known(layout: Path) -> None:
    small(layout)
    with stock_of(f"oci:{layout}") as stock:
        digest = Digest("sha512:" + "0" * 128)
        assert stock.blob(digest) is None
        assert stock.document(SHORT, digest) is None
        assert stock.content_of(digest) is None


# --- the words for places -----------------------------------------------------------------------------


def test_places_are_named_as_elsewhere_and_each_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = f"oci:a store oci:{tmp_path}/a oci-archive:x/../b.tar store containers-storage: oci:./a"
    found = parse_offered([*texts.split(), "containers-storage:", "containers-storage:[vfs@/x+/y]"])
    assert [str(one) for one in found] == [
        str(tmp_path / "a"),
        "store",
        f"oci-archive:{tmp_path}/b.tar",
        "containers-storage:",
        "containers-storage:[vfs@/x+/y]",
    ]
    assert isinstance(found[1], OwnStorePlace)


_NO_PLACES = [
    *("x", "oci:", "oci", "oci-archive:"),
    *("oci:a:ref", "oci-archive:a:ref", "docker-archive:a", "dir:a"),
    *("ostree:/x", "auto", "blob-info-cache:", "docker://a.io/b"),
    *("containers-storage:a.io/b", "store:", "store:/x"),
]


@pytest.mark.parametrize("text", ["", "oci:a\n", *_NO_PLACES])
def test_what_is_no_place_to_offer_from_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_offered([text])


def test_many_threads_may_ask_at_once(layout: Path) -> None:
    image = small(layout)

    def ask(stock: OpenStock, n: int) -> list[str]:
        if n % 10 == 0:
            os.utime(layout / "index.json")
        assert stock.blob(Digest(image.layers[n % 2].digest)) is not None
        return digests(stock.named(SHORT, "stable"))

    with stock_of(f"oci:{layout}") as stock, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, stock, n) for n in range(200)]
        assert [one.result() for one in asked] == [[image.digest]] * 200


# --- documents that cost much ---------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_an_index_that_names_the_same_again_and_again_is_looked_at_once(layout: Path) -> None:
    """4,000 times 4,000 entries, of one image."""
    image = small(layout, "x.io/base:1")
    entry = descriptor_of(image.manifest) | {"platform": {"os": "linux", "architecture": "amd64"}}
    for _ in range(2):
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] * 4000}
        entry = put_document(layout, document, OCI_INDEX)
    put_index(layout, [(NAME, entry)])
    with stock_of(f"oci:{layout}") as stock:
        for original in (False, True):
            found = stock.named(SHORT, "stable", original=original)
            assert digests(found)[0] == entry["digest"]
        assert stock.document(SHORT, Digest(image.digest)) is not None


def test_an_index_of_more_than_anybody_needs_is_not_offered_as_a_whole(layout: Path) -> None:
    image = small(layout, "x.io/base:1")
    entry = descriptor_of(image.manifest) | {"platform": {"os": "linux", "architecture": "amd64"}}
    others = [put_artifact(layout, name=str(n)) for n in range(MAX_LISTED + 1)]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry, *others]}
    put_index(layout, [(NAME, put_document(layout, document, OCI_INDEX))])
    with stock_of(f"oci:{layout}") as stock:
        assert digests(stock.named(SHORT, "stable")) == [image.digest]


def test_an_image_that_says_that_it_is_another_one_is_not(layout: Path) -> None:
    """Its annotation names the other's manifest, and its config is its own."""
    one = small(layout, "a.io/os:1", "one")
    other = small(layout, "b.io/os:1", "two")
    manifest = json.loads(other.manifest) | {"annotations": {"dev.layertee.original-manifest": one.digest}}
    put_index(
        layout,
        [
            ("b.io/os:1", put_document(layout, manifest, OCI_MANIFEST)),
            ("a.io/os:1", descriptor_of(one.manifest)),
        ],
    )
    with stock_of(f"oci:{layout}") as stock, pytest.raises(InvalidReference, match=r"a\.io/os:1, b\.io/os:1"):
        stock.named("os", "1")


class Counting(LayoutShelf):
    """Remembers which documents were looked for."""

    def __init__(self, layout: Path) -> None:
        super().__init__("counted", layout / "index.json", lambda: Layout.open(layout), repository="os")
        self.asked: list[Digest] = []

    def document(self, digest: Digest) -> bytes | None:
        self.asked.append(digest)
        return super().document(digest)


def test_what_is_not_there_is_looked_for_once_however_many_name_it(layout: Path) -> None:
    """Two indexes name the same 300 manifests, none of which is here, before the image that is."""
    image = small(layout, "x.io/base:1")
    absent = [descriptor_of(f'{{"n": {n}}}'.encode()) for n in range(300)]
    indexes = []
    for name in ("first", "second"):
        entries = [*absent, descriptor_of(image.manifest)]
        more = {"annotations": {"name": name}}
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}
        indexes.append(Digest(put_document(layout, document, OCI_INDEX)["digest"]))
    shelf = Counting(layout)
    found = Documents([shelf]).beneath(indexes, {})
    assert set(found) == {*indexes, Digest(image.digest)}
    assert len(shelf.asked) == len(set(shelf.asked)) == 300 + 3
