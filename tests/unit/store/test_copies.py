"""Images of a layout in other forms, whole or not at all, whatever happens in between."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from layertee.disk.space import KeepFree
from layertee.errors import DigestMismatch, LocalError, NoSpace, SizeMismatch, StoreBusy
from layertee.image.document import Digest
from layertee.store.copies import CopyProgress, KeptImage, write_archive, write_directory, write_layout
from layertee.store.layout import Layout
from tests.support.process import flip_a_byte, in_child, snapshot
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

NONE = KeepFree(nbytes=0)


@pytest.fixture
def built(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"a": "b"}), incompressible_layer(50_000, seed=1), text_layer({"c": "d"})]
    return build_image(tmp_path / "built", layers)


@pytest.fixture
def image(built: BuiltImage) -> KeptImage:
    layout = Layout.open(built.root)
    return KeptImage.of(layout, layout.find(None))


class Ends(Layout):
    """A layout that ends the process when its third blob is opened to be copied."""

    def content(self, digest: Digest) -> Any:
        self.opened = getattr(self, "opened", 0) + 1
        if self.opened == 6:  # each blob is opened once to be looked at, and once to be read
            os.kill(os.getpid(), 9)
        return super().content(digest)


def copied(image: KeptImage, target: Path) -> None:
    if target.suffix:
        write_archive([(image, "name")], target, NONE)
    else:
        write_directory(image, target, NONE)


def there(target: Path) -> object:
    return target.read_bytes() if target.is_file() else snapshot(target) if target.exists() else None


@pytest.mark.parametrize("name", ["out.tar", "out"])
def test_a_killed_process_leaves_no_half_image_and_stands_in_nobodys_way(
    built: BuiltImage, image: KeptImage, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    layout = Ends(built.root, private=False)

    def work() -> None:
        copied(KeptImage.of(layout, layout.find(None)), target)

    assert in_child(work) == 9
    assert not target.is_file() and not (target / "manifest.json").exists()
    assert any(path.name.endswith(".part") for path in tmp_path.rglob("*.part"))
    copied(image, target)
    whole = there(target)
    assert list(tmp_path.rglob("*.part")) == []

    assert in_child(work) in (0, 9)  # all blobs of a directory are there: none is opened
    assert there(target) == whole
    copied(image, target)
    assert there(target) == whole


def test_an_archive_has_one_order_and_belongs_to_nobody(image: KeptImage, tmp_path: Path) -> None:
    write_archive([(image, None)], tmp_path / "a.tar", NONE)
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:4]] == ["oci-layout", "index.json", "blobs", "blobs/sha256"]
    blobs = [f"blobs/sha256/{blob.digest.hex}" for blob in image.blobs]
    assert [member.name for member in members[5:]] == blobs == sorted(blobs)
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in members} == {(0, 0, 0, "")}


def test_what_changed_on_the_disk_gets_no_further(
    built: BuiltImage, image: KeptImage, tmp_path: Path
) -> None:
    flip_a_byte(built.blob_path(built.layers[1].digest))
    for target in (tmp_path / "a.tar", tmp_path / "d"):
        with pytest.raises(DigestMismatch):
            copied(image, target)
    with built.blob_path(built.layers[1].digest).open("r+b") as file:
        file.truncate(100)
    for target in (tmp_path / "a.tar", tmp_path / "d"):
        with pytest.raises(SizeMismatch):
            copied(image, target)
    assert not (tmp_path / "a.tar").exists() and not (tmp_path / "d/manifest.json").exists()
    assert list(tmp_path.rglob("*.part")) == []


def test_a_directory_takes_over_what_it_has_and_mends_what_is_wrong(
    built: BuiltImage, image: KeptImage, tmp_path: Path
) -> None:
    target = tmp_path / "d"
    write_directory(image, target, NONE)
    whole = snapshot(target)
    right, wrong, short = (target / layer.digest.partition(":")[2] for layer in built.layers)
    before = right.stat().st_ino
    flip_a_byte(wrong)
    short.write_bytes(b"")
    (target / "signature-1").write_bytes(b"of another image")
    (target / ("0" * 64)).write_bytes(b"of another image")
    write_directory(image, target, NONE)
    assert snapshot(target) == whole and right.stat().st_ino == before


@pytest.mark.parametrize(
    "files", [{"x": ""}, {"version": "1"}, {"manifest.json": "{}"}, {"a" * 64: ""}, {"version": "1", "x": ""}]
)
def test_a_directory_of_something_else_is_left(
    image: KeptImage, tmp_path: Path, files: dict[str, str]
) -> None:
    target = tmp_path / "d"
    target.mkdir()
    for name, content in files.items():
        (target / name).write_text(content)
    before = snapshot(target)
    with pytest.raises(LocalError):
        write_directory(image, target, NONE)
    assert snapshot(target) == before


def test_there_has_to_be_room(image: KeptImage, tmp_path: Path) -> None:
    for target in (tmp_path / "a.tar", tmp_path / "d"):
        with pytest.raises(NoSpace):
            if target.suffix:
                write_archive([(image, None)], target, KeepFree.parse("100%"))
            else:
                write_directory(image, target, KeepFree.parse("100%"))
    assert not (tmp_path / "a.tar").exists() and not (tmp_path / "d/version").exists()


def test_two_do_not_write_one_archive(image: KeptImage, tmp_path: Path) -> None:
    target = tmp_path / "a.tar"

    class Asks(Layout):
        def content(self, digest: Digest) -> Any:
            with pytest.raises(StoreBusy):
                write_archive([(image, None)], target, NONE)
            return super().content(digest)

    layout = Asks(image.layout.path, private=False)
    write_archive([(KeptImage.of(layout, layout.find(None)), None)], target, NONE)
    assert target.exists()


def test_only_an_archive_or_an_empty_file_gives_way_to_one(image: KeptImage, tmp_path: Path) -> None:
    target = tmp_path / "a.tar"
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(__file__, "blobs")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes").write_text("mine" * 9999)
    before = snapshot(tmp_path / "built")
    for name in ("other.tar", "notes", "pipe", "built/index.json"):
        is_file = (tmp_path / name).is_file()
        content = is_file and (tmp_path / name).read_bytes()
        with pytest.raises(LocalError):
            write_archive([(image, None)], tmp_path / name, NONE)
        assert (tmp_path / name).is_file() == is_file
        assert not is_file or (tmp_path / name).read_bytes() == content
    assert snapshot(tmp_path / "built") == before
    with pytest.raises(LocalError, match="is in the store"):
        write_directory(image, tmp_path / "built/x", NONE)
    with pytest.raises(LocalError, match="is in the store"):
        write_layout([(image, None)], tmp_path / "built", NONE)

    target.touch(mode=0o600)
    write_archive([(image, None)], target, NONE)
    whole = target.read_bytes()
    with tarfile.open(tmp_path / "skopeos.tar", "w") as tar, tarfile.open(target) as made:  # names, order
        for member in reversed(made.getmembers()):
            content_of = made.extractfile(member)
            member.name = f"./{member.name}"
            tar.addfile(member, content_of)
    for path in (target, tmp_path / "skopeos.tar"):
        path.chmod(0o600)
        write_archive([(image, None)], path, NONE)
        assert path.read_bytes() == whole and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [write_archive, write_layout])
def test_how_far_it_is_is_told_to_its_end(image: KeptImage, tmp_path: Path, write: Any) -> None:
    told: list[CopyProgress] = []
    without = {image.blobs[0].digest}
    nbytes = write([(image, None)], tmp_path / "out", NONE, without=without, progress=told.append)
    assert [(one.n_total, one.bytes_total) for one in told] == [(3, nbytes)] * len(told)
    assert [one.n_done for one in told] == sorted(one.n_done for one in told)
    assert (told[-1].n_done, told[-1].bytes_done) == (3, nbytes) and 0 < told[0].bytes_done < nbytes


def test_a_link_is_followed(image: KeptImage, tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to("real.tar")
    write_archive([(image, None)], tmp_path / "a.tar", NONE)
    assert (tmp_path / "a.tar").is_symlink() and (tmp_path / "real.tar").is_file()
