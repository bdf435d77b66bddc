"""OCI layouts: those of other tools are read strictly and changed carefully, ours are what others read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertee.disk.locks import lock_directory
from layertee.errors import (
    DigestMismatch,
    DocumentError,
    InvalidReference,
    LayerteeError,
    LocalError,
    NotFound,
    SizeMismatch,
    SourceUnreadable,
    StoreBusy,
    StoreCorrupt,
)
from layertee.image.document import Descriptor, Digest, Platform
from layertee.image.media import OCI_INDEX, OCI_MANIFEST
from layertee.store.gc import reachable
from layertee.store.layout import Layout
from layertee.store.layout_index import REF_NAME
from tests.support.compress import digest_number, digest_of
from tests.support.disk import Disk
from tests.support.rig.images import BuiltImage, build_image, build_index
from tests.support.rig.layers import text_layer
from tests.support.store import AMD64

ARM = Platform("linux", "arm64", "v8")


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "built", [text_layer({"a": "1"}), text_layer({"b": "2"})], ref="first")


@pytest.fixture
def layout(image: BuiltImage) -> Layout:
    return Layout.open(image.root)


def put(root: Path, document: object) -> dict[str, Any]:
    """Store a document by hand; return its descriptor."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    path = root / "blobs" / "sha256" / digest_of(raw)[7:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return {"mediaType": OCI_INDEX, "digest": digest_of(raw), "size": len(raw)}


def index_of(root: Path) -> dict[str, Any]:
    document = json.loads((root / "index.json").read_bytes())
    assert isinstance(document, dict)
    return document


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# --- opening ------------------------------------------------------------------------


def test_a_layout_of_another_tool_is_read(layout: Layout, image: BuiltImage) -> None:
    entry = layout.find("first")
    assert entry.digest == image.digest
    assert layout.find(None) == entry
    assert layout.read_blob(entry) == image.manifest
    found = layout.resolve("first", AMD64)
    assert found.config.raw == image.config
    assert [layer.digest for layer in found.layers] == [layer.digest for layer in image.layers]
    assert found.index_digest is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, NotFound),
        ({}, StoreCorrupt),
        ({"readme": b"hello"}, StoreCorrupt),
        ({"oci-layout": b"{}"}, StoreCorrupt),
        ({"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, StoreCorrupt),
        ({"oci-layout": b"[]"}, StoreCorrupt),
        ({"oci-layout": b"["}, StoreCorrupt),
        ({"oci-layout": b"[" * 60_000}, StoreCorrupt),
        ({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}, StoreCorrupt),
        ({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b"{}"}, StoreCorrupt),
        ({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b"["}, StoreCorrupt),
        ({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b"[" * (1 << 20)}, StoreCorrupt),
        (
            {
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                "index.json": b'{"schemaVersion":2,"manifests":{}}',
            },
            StoreCorrupt,
        ),
    ],
)
def test_what_is_no_layout_is_a_typed_error_that_names_it(
    tmp_path: Path, content: dict[str, bytes] | None, error: type[LayerteeError]
) -> None:
    root = tmp_path / "some"
    if content is not None:
        root.mkdir()
        for name, data in content.items():
            (root / name).write_bytes(data)
    with pytest.raises(error, match=str(root)):
        Layout.open(root)


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_the_files_of_a_layout_are_plain_files(image: BuiltImage, name: str, kind: str) -> None:
    path = image.root / name
    path.rename(image.root / "moved")
    if kind == "symlink":
        path.symlink_to("moved")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(LocalError):
        Layout.open(image.root)


def test_a_layout_without_images_says_so(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "new", private=False)
    with pytest.raises(NotFound, match="no images"):
        layout.find(None)


# --- finding ------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_those_there_are(layout: Layout, image: BuiltImage) -> None:
    build_image(image.root, [text_layer({"c": "3"})], ref="second")
    with pytest.raises(NotFound, match=r"'third'.*first, second"):
        layout.find("third")
    with pytest.raises(InvalidReference, match=r"several.*first, second"):
        layout.find(None)


def test_the_platform_is_chosen_through_indexes(tmp_path: Path) -> None:
    images = [
        build_image(tmp_path / name.replace("/", "-"), [text_layer({"a": name})], platform=name)
        for name in ("linux/amd64", "linux/arm64/v8")
    ]
    index = build_index(tmp_path / "both", images, ref="multi")
    layout = Layout.open(tmp_path / "both")
    for image, platform in zip(images, (AMD64, ARM), strict=True):
        found = layout.resolve("multi", platform)
        assert found.manifest.raw == image.manifest
        assert found.index_digest == index.digest
    with pytest.raises(NotFound, match="linux/amd64"):
        layout.resolve("multi", Platform("linux", "s390x"))


@pytest.mark.parametrize(("depth", "fits"), [(1, True), (2, True), (3, False)])
def test_indexes_may_be_nested_two_deep(image: BuiltImage, depth: int, fits: bool) -> None:
    layout = Layout.open(image.root)
    top: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    for _ in range(depth):
        top = put(image.root, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top]})
    layout.set_entry("deep", Descriptor(OCI_INDEX, Digest(top["digest"]), top["size"]))
    if fits:
        found = layout.resolve("deep", AMD64)
        assert found.manifest.digest == image.digest
        assert found.index_digest == top["digest"]
    else:
        with pytest.raises(DocumentError, match="nested"):
            layout.resolve("deep", AMD64)


def test_entries_of_one_name_are_told_apart_by_platform(tmp_path: Path) -> None:
    root = tmp_path / "built"
    entries = []
    for name in ("amd64", "arm64"):
        one = build_image(root, [text_layer({"a": name})], platform=f"linux/{name}", ref=name)
        platform = {"os": "linux", "architecture": name}
        entry = {
            "mediaType": OCI_MANIFEST,
            "digest": one.digest,
            "size": len(one.manifest),
            "platform": platform,
        }
        entries.append({**entry, "annotations": {REF_NAME: "same"}})
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    layout = Layout.open(root)
    assert str(layout.resolve("same", Platform("linux", "arm64")).config.platform) == "linux/arm64"
    assert str(layout.resolve("same", AMD64).config.platform) == "linux/amd64"


# --- blobs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.unlink(), NotFound),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), SizeMismatch),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), SizeMismatch),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), DigestMismatch),
        (lambda path: path.symlink_to(path.rename(anybody(path.parents[3]) / "x")), SourceUnreadable),
        (lambda path: path.symlink_to(path.rename(path.parents[3] / "x").with_name("y")), NotFound),
        (as_fifo, StoreCorrupt),
    ],
)
def test_a_document_that_is_not_what_its_name_says_is_refused(
    layout: Layout, image: BuiltImage, damage: Any, error: type[LayerteeError]
) -> None:
    damage(image.blob_path(image.digest))
    with pytest.raises(error, match=image.digest[7:]):
        layout.resolve("first", AMD64)


def test_a_document_above_four_mebibytes_is_not_read(layout: Layout) -> None:
    with pytest.raises(DocumentError, match="too large"):
        layout.read_blob(Descriptor(OCI_MANIFEST, digest_number(1), (4 << 20) + 1))


@pytest.mark.parametrize("text", ["sha256:../../../etc/passwd", "../x", "sha256:" + "a" * 63 + "/"])
def test_no_path_is_made_from_text(layout: Layout, text: Any) -> None:
    with pytest.raises(TypeError):
        layout.blob_path(text)


def test_only_names_of_blobs_are_listed(layout: Layout, image: BuiltImage) -> None:
    expected = sorted({image.digest, image.config_digest, *image.layer_digests})
    (image.root / "blobs" / "sha256" / "README").write_bytes(b"")
    (image.root / "blobs" / "stray").write_bytes(b"")
    (image.root / "blobs" / "md5").mkdir()
    (image.root / "blobs" / "md5" / ("a" * 32)).write_bytes(b"")
    assert list(layout.blobs()) == expected


# --- creating -----------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
def test_a_new_layout_has_what_the_specification_demands(tmp_path: Path, private: bool) -> None:
    root = tmp_path / "some" / "where" / "new"
    layout = Layout.create(root, private=private)
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert index_of(root)["manifests"] == []
    assert (root / "blobs" / "sha256").is_dir()
    assert layout.entries() == ()
    modes = {stat.S_IMODE((root / name).stat().st_mode) for name in (".", "blobs", "blobs/sha256")}
    assert modes == ({0o700} if private else {0o755})
    assert stat.S_IMODE((root / "index.json").stat().st_mode) == (0o600 if private else 0o644)


def test_creating_again_opens(layout: Layout, image: BuiltImage) -> None:
    before = (image.root / "index.json").read_bytes()
    assert Layout.create(image.root, private=False).entries() == layout.entries()
    assert (image.root / "index.json").read_bytes() == before


def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"years of work")
    with pytest.raises(StoreCorrupt, match=r"thesis\.tex"):
        Layout.create(tmp_path, private=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_fresh_filesystem_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    Layout.create(tmp_path, private=True)
    assert Layout.open(tmp_path).entries() == ()


def test_a_lost_index_is_not_replaced_by_an_empty_one(image: BuiltImage) -> None:
    (image.root / "index.json").unlink()
    with pytest.raises(StoreCorrupt, match=r"index\.json is missing"):
        Layout.create(image.root, private=False)
    assert not (image.root / "index.json").exists()


def test_whichever_call_fails_creating_can_be_repeated(tmp_path: Path) -> None:
    disk = Disk()
    n = 0
    while True:
        n += 1
        root = tmp_path / str(n)
        with disk.watched(n), suppress(LocalError):
            Layout.create(root, private=True)
        assert Layout.create(root, private=True).entries() == ()
        if not disk.tripped:
            break
    assert n > 40


# --- changing the index -----------------------------------------------------------------


def test_a_name_is_added_moved_and_removed(layout: Layout, image: BuiltImage) -> None:
    entry = layout.find("first")
    layout.set_entry(
        "docker.io/library/x:1", Descriptor(entry.media_type, entry.digest, entry.size, platform=ARM)
    )
    assert layout.refs() == ["first", "docker.io/library/x:1"]
    assert layout.find("docker.io/library/x:1").platform == ARM
    other = Descriptor(OCI_MANIFEST, digest_number(5), 7)
    layout.set_entry("first", other)
    assert layout.refs() == ["first", "docker.io/library/x:1"]
    assert layout.find("first").digest == other.digest
    layout.remove_entry("first")
    assert layout.refs() == ["docker.io/library/x:1"]
    with pytest.raises(NotFound, match=r"library/x:1"):
        layout.remove_entry("first")


def test_an_entry_without_a_name_is_not_added_twice(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "x", private=False)
    one, two = (Descriptor(OCI_MANIFEST, digest_number(n), 3) for n in (1, 2))
    for entry in (one, two, one):
        layout.set_entry(None, entry)
    assert [entry.digest for entry in layout.entries()] == [one.digest, two.digest]


def test_what_other_tools_wrote_is_kept(layout: Layout, image: BuiltImage) -> None:
    index = index_of(image.root)
    index["x-tool"] = {"deep": [1, 2.5, None, "ünï"], "big": 12345678901234567890}
    index["annotations"] = {"a": "b"}
    index["manifests"][0]["x-entry"] = True
    index["manifests"].append({**index["manifests"][0], "annotations": {REF_NAME: "two", "other": "kept"}})
    index["manifests"].append({"mediaType": "application/x-unknown", "digest": digest_number(9), "size": 1})
    (image.root / "index.json").write_text(json.dumps(index))
    layout.set_entry("new", layout.find("first"))
    after = index_of(image.root)
    assert after["manifests"][:-1] == index["manifests"]
    del after["manifests"], index["manifests"]
    assert after == index
    layout.remove_entry("new")
    layout.remove_entry("two")
    assert layout.refs() == ["first"]


def test_the_mode_of_the_index_stays(layout: Layout, image: BuiltImage) -> None:
    (image.root / "index.json").chmod(0o640)
    layout.set_entry("other", layout.find("first"))
    assert stat.S_IMODE((image.root / "index.json").stat().st_mode) == 0o640


def test_an_index_is_not_made_larger_than_anyone_would_read(layout: Layout, image: BuiltImage) -> None:
    index = index_of(image.root)
    entry = index["manifests"][0]
    index["manifests"] = [{**entry, "annotations": {REF_NAME: f"n{n}", "x": "y" * 4000}} for n in range(900)]
    (image.root / "index.json").write_text(json.dumps(index))
    before = (image.root / "index.json").read_bytes()
    with pytest.raises(StoreCorrupt, match="larger than 4194304"):
        layout.set_entry("one-more", replace(layout.find("n1"), annotations={"x": "y" * 700_000}))
    assert (image.root / "index.json").read_bytes() == before


def test_more_images_than_an_index_of_a_registry_may_have(layout: Layout, image: BuiltImage) -> None:
    index = index_of(image.root)
    entry = index["manifests"][0]
    index["manifests"] = [{**entry, "annotations": {REF_NAME: f"n{n}"}} for n in range(1500)]
    (image.root / "index.json").write_text(json.dumps(index))
    layout.set_entry("one-more", layout.find("n1400"))
    assert len(layout.refs()) == 1501


# --- what other tools leave in an index ---------------------------------------------------


@pytest.mark.parametrize(
    "rest", [{}, {"annotations": None}, {"mediaType": OCI_INDEX}, {"made-by": {"x": []}}]
)
def test_null_is_an_empty_list_of_images(tmp_path: Path, image: BuiltImage, rest: dict[str, Any]) -> None:
    root = tmp_path / "other"
    root.mkdir()
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, **rest, "manifests": None}))
    layout = Layout.open(root)
    assert layout.refs() == []
    with pytest.raises(NotFound, match="no images"):
        layout.find(None)
    layout = Layout.create(root, private=False)
    layout.set_entry("new", Layout.open(image.root).find("first"))
    assert layout.find("new").digest == image.digest
    found = index_of(root)
    assert len(found.pop("manifests")) == 1
    assert found == {"schemaVersion": 2, **rest}


def test_an_index_without_a_list_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (tmp_path / "index.json").write_text('{"schemaVersion":2}')
    with pytest.raises(StoreCorrupt):
        Layout.open(tmp_path)


GOOD: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": str(digest_number(1)), "size": 1}
BROKEN: dict[str, Any] = {
    "null": None,
    "text": "sha256:" + "0" * 64,
    "nothing in it": {},
    "no type": {"digest": str(digest_number(1)), "size": 1},
    "no size": {"mediaType": OCI_MANIFEST, "digest": str(digest_number(1))},
    "size is text": {**GOOD, "size": "1"},
    "size is huge": {**GOOD, "size": 1 << 60},
    "other hash": {**GOOD, "digest": "blake3:" + "0" * 64},
    "a path": {**GOOD, "digest": "sha256:../../../etc/passwd"},
    "notes are a list": {**GOOD, "annotations": []},
    "note is a number": {**GOOD, "annotations": {REF_NAME: 7}},
    "platform is text": {**GOOD, "platform": "x"},
    "data of another blob": {**GOOD, "data": "eA=="},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("first", [True, False])
def test_an_entry_that_makes_no_sense_spoils_only_itself(
    layout: Layout, image: BuiltImage, broken: Any, first: bool
) -> None:
    index = index_of(image.root)
    index["manifests"].insert(0 if first else 1, broken)
    (image.root / "index.json").write_text(json.dumps(index))
    assert Layout.open(image.root).refs() == ["first"]
    assert layout.find(None) == layout.find("first")
    assert layout.resolve("first", AMD64).manifest.digest == image.digest
    layout.set_entry("second", layout.find("first"))
    layout.set_entry("first", layout.find("second"))
    layout.remove_entry("second")
    assert index_of(image.root) == index, "what others wrote stays as they wrote it"
    with pytest.raises(StoreCorrupt, match="nothing was removed"):
        reachable(layout)


def test_an_entry_that_is_asked_for_and_makes_no_sense_says_why(layout: Layout, image: BuiltImage) -> None:
    index = index_of(image.root)
    index["manifests"].append({"digest": "?", "annotations": {REF_NAME: "broken"}})
    (image.root / "index.json").write_text(json.dumps(index))
    with pytest.raises(StoreCorrupt, match=r"manifests\[1\] digest is not sha256"):
        layout.find("broken")
    index["manifests"] = index["manifests"][1:]
    (image.root / "index.json").write_text(json.dumps(index))
    with pytest.raises(StoreCorrupt, match="digest is not sha256"):
        layout.find(None)


def test_an_image_takes_the_place_of_an_entry_that_makes_no_sense(layout: Layout, image: BuiltImage) -> None:
    entry = layout.find("first")
    index = index_of(image.root)
    index["manifests"] = [None, {"annotations": {REF_NAME: "first"}}]
    (image.root / "index.json").write_text(json.dumps(index))
    layout.set_entry("first", entry)
    assert layout.find("first").digest == image.digest
    assert index_of(image.root)["manifests"][0] is None
    assert len(index_of(image.root)["manifests"]) == 2


@pytest.mark.parametrize("ambiguous", ['"manifests":[],"manifests":[]', '"manifests":[],"Manifests":[]'])
def test_what_two_readers_would_read_differently_is_refused(tmp_path: Path, ambiguous: str) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (tmp_path / "index.json").write_text('{"schemaVersion":2,' + ambiguous + "}")
    with pytest.raises(StoreCorrupt, match="ambiguous"):
        Layout.open(tmp_path)


# --- blobs that are links -----------------------------------------------------------------


def test_a_blob_may_be_a_link_to_a_file_of_the_same_layout(image: BuiltImage) -> None:
    for digest in (image.digest, image.config_digest, image.layers[0].digest):
        path = image.blob_path(digest)
        target = image.root / "files" / path.name[:8]
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        path.symlink_to(f"../../files/{target.name}")
    layout = Layout.open(image.root)
    assert layout.resolve("first", AMD64).config.digest == image.config_digest
    layer = image.layers[0]
    assert layout.blob_size(Digest(layer.digest)) == layer.size
    with closing(layout.content(Digest(layer.digest)).open()) as reader:
        room = bytearray(layer.size + 1)
        assert reader.readinto(memoryview(room)) == layer.size
        assert digest_of(bytes(room[: layer.size])) == layer.digest


def anybody(beside: Path) -> Path:
    """A directory that others may write to."""
    found = beside / "anybody"
    found.mkdir()
    found.chmod(0o777)
    return found


@pytest.mark.parametrize("absolute", [False, True])
def test_a_blob_may_be_a_link_to_any_file_that_nobody_else_can_change(
    image: BuiltImage, tmp_path: Path, absolute: bool
) -> None:
    for digest in (image.digest, image.config_digest, image.layers[0].digest):
        path = image.blob_path(digest)
        target = tmp_path / "cache" / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        path.symlink_to(target if absolute else os.path.relpath(target, path.parent))
    layout = Layout.open(image.root)
    assert layout.resolve("first", AMD64).config.digest == image.config_digest
    layer = image.layers[0]
    layout.check_blob(Descriptor(layer.media_type, Digest(layer.digest), layer.size))
    with closing(layout.content(Digest(layer.digest)).open()) as reader:
        assert reader.readinto(memoryview(bytearray(layer.size + 1))) == layer.size


def test_a_blob_is_no_link_to_where_others_write(image: BuiltImage, tmp_path: Path) -> None:
    digest = Digest(image.layers[0].digest)
    path = image.blob_path(digest)
    path.rename(anybody(tmp_path) / "moved")
    path.symlink_to(tmp_path / "anybody/moved")
    layout = Layout.open(image.root)
    assert layout.blob_size(digest) is None
    says = f"{path} is a symlink out of the layout, .* others may write to {tmp_path}/anybody"
    with pytest.raises(SourceUnreadable, match=says):
        layout.content(digest)


def test_a_private_layout_has_no_links(image: BuiltImage) -> None:
    digest = Digest(image.layers[0].digest)
    path = image.blob_path(digest)
    target = image.root / "moved"
    path.rename(target)
    path.symlink_to(target)
    layout = Layout.open(image.root, private=True)
    assert layout.blob_size(digest) is None
    with pytest.raises(SourceUnreadable):
        layout.content(digest).open()


@pytest.mark.parametrize("kind", ["pipe", "directory", "nothing", "itself"])
def test_a_link_to_what_is_no_file_is_no_blob(image: BuiltImage, kind: str) -> None:
    digest = Digest(image.digest)
    path = image.blob_path(digest)
    path.unlink()
    target = image.root / "target"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "directory":
        target.mkdir()
    path.symlink_to(path.name if kind == "itself" else target)
    layout = Layout.open(image.root)
    assert layout.blob_size(digest) is None
    with pytest.raises((LocalError, NotFound)):
        layout.resolve("first", AMD64)


@pytest.mark.parametrize("ref", ["", "two words", "line\nbreak", "tab\t", "\x00"])
def test_a_name_must_be_one_word(layout: Layout, ref: str) -> None:
    with pytest.raises(ValueError, match="reference name"):
        layout.set_entry(ref, layout.find("first"))


def test_whichever_call_fails_the_index_is_the_old_or_the_new_one(layout: Layout, image: BuiltImage) -> None:
    entry = layout.find("first")
    disk = Disk()
    n = 0
    while True:
        n += 1
        with disk.watched(n):
            try:
                layout.set_entry(f"try-{n}", entry)
            except LocalError:
                failed = True
            else:
                failed = False
        refs = layout.refs()
        assert refs[:1] == ["first"]
        assert failed or f"try-{n}" in refs
        if not disk.tripped:
            break
    assert n > 12
    layout.remove_leftovers()
    assert sorted(path.name for path in image.root.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_a_writer_waits_for_the_other_and_gives_up_in_the_end(layout: Layout, monkeypatch: Any) -> None:
    monkeypatch.setattr("layertee.store.layout.LOCK_S", 0.01)
    entry = layout.find("first")
    with lock_directory(layout.path, timeout=1), pytest.raises(StoreBusy, match=str(layout.path)):
        layout.set_entry("second", entry)
    layout.set_entry("second", entry)


@pytest.mark.slow
def test_processes_add_names_without_losing_any(image: BuiltImage) -> None:
    script = (
        "import sys; from pathlib import Path; from layertee.store.layout import Layout\n"
        "layout = Layout.open(Path(sys.argv[1])); entry = layout.find('first')\n"
        "for n in range(20): layout.set_entry(f'{sys.argv[2]}-{n}', entry)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(image.root), str(n)]) for n in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert sorted(Layout.open(image.root).refs()) == sorted(
        ["first", *(f"{c}-{n}" for c in range(4) for n in range(20))]
    )


def test_leftovers_of_dead_writers_are_removed_and_nothing_else(layout: Layout, image: BuiltImage) -> None:
    for name in (".index.json-1-ab.part", ".oci-layout-2-cd.part", ".hidden", "index.json.bak"):
        (image.root / name).write_bytes(b"")
    assert layout.remove_leftovers() == 2
    assert {".hidden", "index.json.bak", "index.json"} <= {path.name for path in image.root.iterdir()}


@given(
    raw=st.binary(max_size=300)
    | st.text(alphabet='{}[]":,0123456789abcdefgmnst', max_size=300).map(str.encode)
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_for_an_index_give_an_index_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    root.mkdir(exist_ok=True)
    (root / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (root / "index.json").write_bytes(raw)
    with suppress(LayerteeError):
        assert Layout.open(root).index().where == str(root / "index.json")
