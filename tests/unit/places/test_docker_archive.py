"""Images in what ``docker save`` writes, and in what nobody should."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from layertee.errors import (
    DocumentError,
    InvalidReference,
    LayerteeError,
    NotFound,
    SourceUnreadable,
    StoreCorrupt,
    UnsupportedImage,
)
from layertee.image.document import DiffID
from layertee.image.holding import Basis, Place
from layertee.image.media import Compression
from layertee.image.reference import parse_reference
from layertee.image.reference_archive import DockerArchiveReference
from layertee.places.docker_archive import DockerArchive, DockerArchivePlace
from tests.contract.place_suite import PlaceSuite, diff_ids
from tests.support.compress import digest_of
from tests.support.docker_archive import Files, combined, listed, name_of, saved, tars, write
from tests.support.podman import content
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import measure


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000), text_layer({"etc/b": "third"})]
    return build_image(tmp_path / "built", layers, compression=["gzip", "zstd", "none"])


def only(path: Path) -> DockerArchiveReference:
    return DockerArchiveReference(path)


class TestDockerArchive(PlaceSuite):
    """Nothing in an archive has a path: what the suite does to files is done to members here."""

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        self.path = write(tmp_path / "image.tar", combined(image))
        return DockerArchivePlace(self.path)

    def test_what_is_readable_reads_back_as_what_it_is_called(self, place: Place, image: BuiltImage) -> None:
        found = place.find(diff_ids(image))
        assert {held.compression for held in found.values()} == set(Compression)
        for holding in found.values():
            read = content(holding, 1 << 20)
            assert (len(read), digest_of(read)) == (holding.size, holding.digest)
            assert measure(read, holding.compression).diff_id == holding.diff_id
            assert holding.basis is Basis.CLAIMED

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        assert len(place.find(diff_ids(image))) == 3
        kept = combined(image)
        del kept[name_of(image.layers[1].digest)]
        write(self.path, kept)
        found = place.find(diff_ids(image))
        assert set(found) == {diff_ids(image)[0], diff_ids(image)[2]}
        assert "is not in it" in found.warnings[0]
        self.path.unlink()
        assert "is not there" in place.find(diff_ids(image)).warnings[0]

    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        """Only hashing tells: a layer's size is not written down."""
        found = combined(image)
        name = name_of(image.layers[0].digest)
        found[name] = blob_path(image.root, image.layers[0].digest).read_bytes() + b"more"
        write(self.path, found)
        held = place.find(diff_ids(image))[diff_ids(image)[0]]
        assert digest_of(content(held)) != held.digest

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        """One that leads out of the archive."""
        found = combined(image)
        (tmp_path / "elsewhere").write_bytes(b"")
        found[name_of(image.layers[0].digest)] = str(tmp_path / "elsewhere")
        write(self.path, found)
        answer = place.find(diff_ids(image))
        assert set(answer) == set(diff_ids(image)[1:])
        assert "is not in it" in answer.warnings[0]


def test_layers_are_plain_tars_that_are_named_by_what_is_in_them(image: BuiltImage, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", saved(image, "os:1"))
    found = DockerArchive(path).resolve(only(path))
    assert found.config.raw == image.config
    assert [str(layer.digest) for layer in found.layers] == diff_ids(image)
    assert [layer.compression for layer in found.layers] == [Compression.NONE] * 3
    assert [layer.size for layer in found.layers] == [layer.uncompressed_size for layer in image.layers]
    again = DockerArchive(path).resolve(only(path))
    assert again.manifest.raw == found.manifest.raw, "it is the same each time"


def test_blobs_of_a_layout_beside_the_list_are_named_as_there(image: BuiltImage, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", combined(image, "os:1"))
    found = DockerArchive(path).resolve(only(path))
    assert [layer.digest for layer in found.layers] == [layer.digest for layer in image.layers]
    assert [layer.diff_id for layer in found.layers] == diff_ids(image)


def test_a_compressed_layer_is_named_by_its_digest_under_any_name(image: BuiltImage, tmp_path: Path) -> None:
    found = saved(image)
    (_, names) = (
        json.loads(found["manifest.json"])[0]["Config"],
        json.loads(found["manifest.json"])[0]["Layers"],
    )
    blob = gzip.compress(tars(image)[0], mtime=0)
    found[names[0]] = blob
    path = write(tmp_path / "a.tar", found)
    first = DockerArchive(path).resolve(only(path)).layers[0]
    assert (first.digest, first.size, first.compression) == (digest_of(blob), len(blob), Compression.GZIP)
    assert first.diff_id == image.layers[0].diff_id


def test_a_layer_that_is_there_already_is_a_link(tmp_path: Path) -> None:
    same = text_layer({"etc/a": "one"})
    image = build_image(tmp_path / "built", [same, text_layer({"etc/b": "two"}), same])
    files = saved(image)
    assert sum(isinstance(found, str) for found in files.values()) == 1
    path = write(tmp_path / "a.tar", files)
    found = DockerArchivePlace(path).find(diff_ids(image))
    assert found.warnings == ()
    assert [digest_of(content(found[diff_id])) for diff_id in diff_ids(image)] == diff_ids(image)


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("", None),
        (":os", 0),
        (":docker.io/library/os:latest", 0),
        (":host.x:5000/a/b:v1", 1),
        (":os:2", 0),
        (":@0", 0),
        (":@1", 1),
        (":@2", NotFound),
        (":other", NotFound),
        (":host.x:5000/a/b", NotFound),
    ],
)
def test_an_image_is_named_by_a_tag_or_by_its_place(
    image: BuiltImage, tmp_path: Path, text: str, which: int | type[LayerteeError] | None
) -> None:
    other = build_image(tmp_path / "other", [text_layer({"etc/other": "one"})])
    one, two = saved(image, "os:latest", "docker.io/library/os:2"), saved(other, "host.x:5000/a/b:v1")
    both = [json.loads(bytes(files.pop("manifest.json")))[0] for files in (one, two)]  # type: ignore[arg-type]
    path = write(tmp_path / "a.tar", {**one, **two, "manifest.json": json.dumps(both).encode()})
    reference = parse_reference(f"docker-archive:{path}{text}")
    assert isinstance(reference, DockerArchiveReference)
    archive = DockerArchive(path)
    if isinstance(which, int):
        assert archive.resolve(reference).config.raw == (image, other)[which].config
        assert archive.name_of(reference) == reference.ref or (
            reference.ref is None
            and archive.name_of(reference) == ("docker.io/library/os:latest", "host.x:5000/a/b:v1")[which]
        )
        return
    with pytest.raises(InvalidReference if which is None else which) as caught:
        archive.resolve(reference)
    if ":@" not in text:
        assert "docker.io/library/os:latest" in str(caught.value)
        assert "host.x:5000/a/b:v1" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", ":x", ":@1", "/a:", "/a:UPPER", "/a:os@sha256:" + "0" * 64, "/a:@-1", "/a:@x"]
)
def test_what_names_no_image_in_an_archive_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(f"docker-archive:{text}")


def test_a_reference_reads_as_it_was_written() -> None:
    for text in ("docker-archive:/a.tar", "docker-archive:a:docker.io/library/os:1", "docker-archive:a:@7"):
        assert str(parse_reference(text)) == text


# --- what nobody should write ---------------------------------------------------------------------------

Spoil = Callable[[Files, BuiltImage], None]


def without(part: str) -> Spoil:
    def spoil(found: Files, image: BuiltImage) -> None:
        del found[next(name for name in found if name.endswith(part))]

    return spoil


def listing(text: bytes) -> Spoil:
    def spoil(found: Files, image: BuiltImage) -> None:
        found["manifest.json"] = text

    return spoil


def replaced(part: str, new: Callable[[BuiltImage], bytes | str]) -> Spoil:
    def spoil(found: Files, image: BuiltImage) -> None:
        found[next(name for name in found if name.endswith(part))] = new(image)

    return spoil


HOSTILE: dict[str, tuple[Spoil, type[LayerteeError], str]] = {
    "no list": (without("manifest.json"), StoreCorrupt, "it has no manifest.json"),
    "no json": (listing(b"{"), StoreCorrupt, "no list of images"),
    "no array": (listing(b"{}"), StoreCorrupt, "no list of images"),
    "too deep": (listing(b"[" * 100_000), StoreCorrupt, "no list of images"),
    "too large": (listing(b" " * (5 << 20)), StoreCorrupt, "no list of images"),
    "no object": (listing(b"[1]"), StoreCorrupt, "has no sense"),
    "no config": (listing(b'[{"Layers":[]}]'), StoreCorrupt, "has no sense"),
    "layers of numbers": (listing(b'[{"Config":"a","Layers":[1]}]'), StoreCorrupt, "has no sense"),
    "nothing": (listing(b"[]"), NotFound, "has no images"),
    "config outside": (listing(listed(("../../etc/passwd", [], []))), SourceUnreadable, "is not in it"),
    "config gone": (replaced(".json", lambda _: "../../etc/passwd"), SourceUnreadable, "is not in it"),
    "config is no json": (replaced(".json", lambda _: b"{"), DocumentError, "image config"),
    "config is huge": (replaced(".json", lambda _: b" " * (5 << 20)), DocumentError, "image config"),
    "layer gone": (without("layer.tar"), SourceUnreadable, "layer.tar is not in it"),
    "layer is a link to itself": (
        replaced("layer.tar", lambda _: "layer.tar"),
        SourceUnreadable,
        "not a plain file",
    ),
    "bzip2": (replaced("layer.tar", lambda one: bz2.compress(tars(one)[0])), UnsupportedImage, "with bzip2"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_read_is_said(image: BuiltImage, tmp_path: Path, kind: str) -> None:
    spoil, error, says = HOSTILE[kind]
    found = saved(image)
    spoil(found, image)
    path = write(tmp_path / "a.tar", found)
    with pytest.raises(error, match=says) as caught:
        DockerArchive(path).resolve(only(path))
    assert str(path) in str(caught.value) or "image config" in str(caught.value)
    assert len(DockerArchivePlace(path).find(diff_ids(image)).warnings) == (kind != "nothing")


def test_fewer_layers_than_the_config_has_are_no_image(image: BuiltImage, tmp_path: Path) -> None:
    found = saved(image)
    (item,) = json.loads(bytes(found["manifest.json"]))  # type: ignore[arg-type]
    found["manifest.json"] = listed((item["Config"], [], item["Layers"][:2]))
    path = write(tmp_path / "a.tar", found)
    with pytest.raises(DocumentError, match="has 2 layers, its config 3 DiffIDs"):
        DockerArchive(path).resolve(only(path))


def test_a_member_that_is_there_twice_is_nobody_s(image: BuiltImage, tmp_path: Path) -> None:
    found = saved(image)
    layer = next(name for name in found if name.endswith("layer.tar"))
    path = write(tmp_path / "a.tar", found, (layer, b"another"))
    with pytest.raises(SourceUnreadable, match="is there twice"):
        DockerArchive(path).resolve(only(path))


def test_a_layer_that_is_not_what_the_config_says_is_found_out_by_its_hash(
    image: BuiltImage, tmp_path: Path
) -> None:
    found = saved(image)
    layer = next(name for name in found if name.endswith("layer.tar"))
    found[layer] = tars(image)[1]
    held = DockerArchivePlace(write(tmp_path / "a.tar", found)).find([DiffID(image.layers[0].diff_id)])
    (holding,) = held.values()
    assert digest_of(content(holding)) != holding.digest
