"""Images in one tar file: those that tools write and those that nobody should."""

from __future__ import annotations

import asyncio
import bz2
import fcntl
import gzip
import lzma
import os
import sys
import tarfile
import termios
import threading
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest

from layertee.aio import in_thread
from layertee.disk.spool import spool_directory
from layertee.errors import (
    DigestMismatch,
    DocumentError,
    NotFound,
    SizeMismatch,
    SourceUnreadable,
    StoreCorrupt,
)
from layertee.image.document import Descriptor, DiffID, Digest
from layertee.image.holding import Basis, Place
from layertee.image.media import Compression
from layertee.places.oci_archive import Archive, OCIArchivePlace
from tests.contract.place_suite import PlaceSuite, diff_ids
from tests.support.archives import Members, blob_name, members, write
from tests.support.compress import digest_number, digest_of, pack
from tests.support.podman import content
from tests.support.process import until
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import AMD64, measure

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "blobs/sha256/" + "ab" * 32


def nothing_known(digest: Digest) -> DiffID | None:
    return None


def place_of(path: Path, **options: Any) -> OCIArchivePlace:
    return OCIArchivePlace(path, **{"known": nothing_known, **options})


def header(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000), text_layer({"etc/b": "third"})]
    return build_image(tmp_path / "built", layers, compression=["gzip", "zstd", "none"])


class TestOCIArchive(PlaceSuite):
    """Nothing in an archive has a path: what the suite does to files is done to members here."""

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        self.path = write(tmp_path / "image.tar", members(image))
        return place_of(self.path)

    def test_what_is_readable_reads_back_as_what_it_is_called(self, place: Place, image: BuiltImage) -> None:
        found = place.find(diff_ids(image))
        assert {held.compression for held in found.values()} == set(Compression)
        for holding in found.values():
            for at_once in (1 << 20, 1000):
                read = content(holding, at_once)
                assert len(read) == holding.size
                assert digest_of(read) == holding.digest
            measured = measure(read, holding.compression)
            assert measured.diff_id == holding.diff_id
            assert holding.uncompressed_size in (None, measured.uncompressed_size)

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        found = place.find(diff_ids(image))
        assert len(found) == 3
        kept = members(image)
        del kept[blob_name(image, 1)]
        write(self.path, kept)
        found = place.find(diff_ids(image))
        assert set(found) == {diff_ids(image)[0], diff_ids(image)[2]}
        self.path.unlink()
        found = place.find(diff_ids(image))
        assert found == {}
        assert "is not there" in found.warnings[0]

    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        found = members(image)
        found[blob_name(image, 0)] += b"\0"
        write(self.path, found)
        assert set(place.find(diff_ids(image))) == set(diff_ids(image)[1:])

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        found = members(image)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(found.pop(blob_name(image, 0)))
        write(self.path, found, header(blob_name(image, 0), tarfile.SYMTYPE, str(elsewhere)))
        answer = place.find(diff_ids(image))
        assert answer == {}
        assert "not a plain file" in answer.warnings[0]


# --- what is in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "././"])
def test_an_image_is_found_however_its_files_are_written(
    image: BuiltImage, tmp_path: Path, prefix: str, form: int
) -> None:
    archive = Archive.open(write(tmp_path / "a.tar", members(image), prefix=prefix, form=form))
    for name in (None, "latest"):
        found = archive.resolve(name, AMD64)
        assert (found.manifest.digest, found.config.digest) == (image.digest, image.config_digest)
    assert archive.refs() == ["latest"]
    for layer in image.layers:
        assert archive.blob_size(Digest(layer.digest)) == layer.size
    assert archive.blob_size(digest_number(1)) is None
    with pytest.raises(NotFound, match="it has: latest"):
        archive.resolve("other", AMD64)


def test_how_a_content_is_known_is_as_with_a_layout(image: BuiltImage, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", members(image))
    packed, other, plain = diff_ids(image)
    pair = {Digest(image.layers[0].digest): packed}.get
    claimed, computed, attested = Basis.CLAIMED, Basis.COMPUTED, Basis.ATTESTED
    for options, basis in (({}, claimed), ({"known": pair}, computed), ({"attested": pair}, attested)):
        found = place_of(path, **options).find(diff_ids(image))
        assert [found[d].basis for d in (packed, other, plain)] == [basis, claimed, computed]
    lie = {Digest(image.layers[0].digest): plain}.get
    place = place_of(path, known=lie)
    found = place.find(diff_ids(image))
    assert set(found) == {other, plain}
    assert image.layers[0].digest in found.warnings[0]


def test_what_else_is_in_the_tar_is_nobodys_business(image: BuiltImage, tmp_path: Path) -> None:
    """docker save writes a layout, its own manifest.json and old names as links, all in one archive."""
    path = write(
        tmp_path / "a.tar",
        {"manifest.json": b"[]", "repositories": b"{", "blobs/sha256/README": b"?", **members(image)},
        header("blobs", tarfile.DIRTYPE),
        header("0123/layer.tar", tarfile.SYMTYPE, "../blobs/sha256/0123"),
        header("../../etc/passwd", tarfile.REGTYPE),
        header("/index.json", tarfile.REGTYPE),
        header("blobs/../index.json", tarfile.LNKTYPE, "/etc/passwd"),
        header("node", tarfile.CHRTYPE),
    )
    place = place_of(path)
    found = place.find(diff_ids(image))
    assert set(found) == set(diff_ids(image))
    assert found.warnings == ()


def test_an_archive_is_found_through_a_symlink(image: BuiltImage, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path / "a.tar", members(image)))
    assert set(place_of(tmp_path / "link").find(diff_ids(image))) == set(diff_ids(image))


# --- what must not be in it -----------------------------------------------------------------------------


def edited(edit: Callable[[Members], object]) -> Callable[[BuiltImage, Path], Path]:
    def make(image: BuiltImage, path: Path) -> Path:
        found = members(image)
        edit(found)
        return write(path, found)

    return make


def added(*more: tarfile.TarInfo) -> Callable[[BuiltImage, Path], Path]:
    return lambda image, path: write(path, members(image), *more)


def spoiled(spoil: Callable[[bytes], bytes]) -> Callable[[BuiltImage, Path], Path]:
    def make(image: BuiltImage, path: Path) -> Path:
        path.write_bytes(spoil(write(path, members(image)).read_bytes()))
        return path

    return make


def doubled(image: BuiltImage, path: Path) -> Path:
    """As ``tar --append`` leaves a file that was there."""
    write(path, members(image))
    with tarfile.open(path, "a") as tar:
        tar.add(image.root / "index.json", "./index.json")
    return path


HOSTILE: dict[str, tuple[Callable[[BuiltImage, Path], Path], str]] = {
    "index is a link": (
        lambda image, path: write(
            path,
            {name: data for name, data in members(image).items() if name != "index.json"},
            header("index.json", tarfile.LNKTYPE, "oci-layout"),
        ),
        "index.json in it is not a plain file",
    ),
    "blob is a hard link": (added(header(LAYER, tarfile.LNKTYPE, "index.json")), "not a plain file"),
    "blob is a symlink": (added(header(LAYER, tarfile.SYMTYPE, "/etc/shadow")), "not a plain file"),
    "blob is a directory": (added(header(LAYER, tarfile.DIRTYPE)), "not a plain file"),
    "blob is a device": (added(header(LAYER, tarfile.BLKTYPE)), "not a plain file"),
    "blob is of no known kind": (added(header(LAYER, b"Z")), "not a plain file"),
    "blob is contiguous": (added(header(LAYER, tarfile.CONTTYPE)), "not a plain file"),
    "index twice": (doubled, "index.json is in it twice"),
    "no index": (edited(lambda found: found.pop("index.json")), "index.json is missing"),
    "no marker": (edited(lambda found: found.pop("oci-layout")), "no oci-layout"),
    "other version": (
        edited(lambda found: found.update({"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'})),
        "2.0.0",
    ),
    "marker is no JSON": (edited(lambda found: found.update({"oci-layout": b"{"})), "oci-layout"),
    "index is no JSON": (edited(lambda found: found.update({"index.json": b"{"})), "index.json"),
    "index is no index": (edited(lambda found: found.update({"index.json": b"{}"})), "index.json"),
    "index is huge": (
        edited(lambda found: found.update({"index.json": b" " * (5 << 20)})),
        "index.json is larger than 4194304 bytes",
    ),
    "compressed and cut": (
        spoiled(lambda raw: gzip.compress(raw, 1)[:-9]),
        "cannot be unpacked: gzip: it ends at",
    ),
    "compressed twice": (spoiled(lambda raw: bz2.compress(gzip.compress(raw))), "no header at byte 0"),
    "compressed text": (spoiled(lambda raw: gzip.compress(b"an archive" * 100)), "no header at byte 0"),
    "empty": (spoiled(lambda raw: b""), "no oci-layout"),
    "zeros": (spoiled(lambda raw: bytes(10240)), "no oci-layout"),
    "text": (spoiled(lambda raw: b"an archive\n" * 100), "no header at byte 0"),
    "cut": (spoiled(lambda raw: raw[:5000]), "it ends before"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_can_be_read_in_two_ways_or_in_none_is_refused(
    image: BuiltImage, tmp_path: Path, kind: str
) -> None:
    make, says = HOSTILE[kind]
    path = make(image, tmp_path / "a.tar")
    with pytest.raises(StoreCorrupt, match=says) as caught:
        Archive.open(path)
    assert str(path) in str(caught.value)
    place = place_of(path)
    found = place.find(diff_ids(image))
    assert found == {}
    assert found.warnings == (str(caught.value),)


@pytest.mark.parametrize("what", ["nothing", "beneath a file", "a directory", "a fifo", "a device"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    if what == "beneath a file":
        path.write_bytes(b"")
        path = path / "b.tar"
    elif what == "a directory":
        path.mkdir()
    elif what == "a fifo":
        os.mkfifo(path)
    elif what == "a device":
        path = Path("/dev/null")
    with pytest.raises(NotFound if what in ("nothing", "beneath a file") else StoreCorrupt, match=str(path)):
        Archive.open(path)


def test_documents_are_hashed_when_they_are_read(image: BuiltImage, tmp_path: Path) -> None:
    found = members(image)
    name = "blobs/" + image.digest.replace(":", "/")
    for change, error in (
        (found[name].replace(b"gzip", b"zstd"), DigestMismatch),
        (found[name] + b" ", SizeMismatch),
        (None, NotFound),
    ):
        changed = {**found, name: change or b""}
        if change is None:
            del changed[name]
        archive = Archive.open(write(tmp_path / "a.tar", changed))
        with pytest.raises(error, match=image.digest.partition(":")[2]):
            archive.resolve(None, AMD64)
    with pytest.raises(DocumentError, match="too large"):
        archive.read_blob(Descriptor(MANIFEST, Digest(image.digest), 5 << 20))


# --- an archive that changes ----------------------------------------------------------------------------


def test_an_archive_that_was_replaced_is_not_read(image: BuiltImage, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", members(image))
    archive = Archive.open(path)
    holding = place_of(path).find(diff_ids(image))[diff_ids(image)[0]]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 1)
        file.write(b"\0")
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceUnreadable, match="replaced"):
        archive.resolve(None, AMD64)
    with pytest.raises(SourceUnreadable, match="replaced"):
        content(holding)
    path.unlink()
    with pytest.raises(SourceUnreadable, match="No such file"):
        content(holding)


def test_an_archive_that_is_cut_while_it_is_read_ends_with_an_error(
    image: BuiltImage, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tar", members(image))
    reader = Archive.open(path).content(Digest(image.layers[1].digest)).open()
    room = memoryview(bytearray(1000))
    assert reader.readinto(room) == 1000
    os.truncate(path, 0)
    with pytest.raises(SourceUnreadable, match="shorter"):
        reader.readinto(room)
    reader.close()
    reader.close()


def test_a_blob_that_is_not_in_it_cannot_be_opened(image: BuiltImage, tmp_path: Path) -> None:
    archive = Archive.open(write(tmp_path / "a.tar", members(image)))
    with pytest.raises(NotFound, match="is not there"):
        archive.content(Digest.of(b"x"))


def test_holdings_are_equal_by_what_they_say(image: BuiltImage, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", members(image))
    one, two = (place_of(path).find(diff_ids(image)) for _ in range(2))
    assert one == two
    first = diff_ids(image)[0]
    assert one[first] != replaced(two[first], size=1)


# --- compressed, and through a pipe -----------------------------------------------------------------

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda raw: gzip.compress(raw, 1),
    "gzip of members": lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]),
    "zstd": lambda raw: pack(raw, Compression.ZSTD),
    "zstd of frames": lambda raw: pack(raw[:7000], Compression.ZSTD) + pack(raw[7000:], Compression.ZSTD),
    "bzip2": bz2.compress,
    "bzip2 of streams": lambda raw: bz2.compress(raw[:9000]) + bz2.compress(raw[9000:]),
    "xz": lzma.compress,
    "xz of streams": lambda raw: lzma.compress(raw[:9000]) + bytes(8) + lzma.compress(raw[9000:]) + bytes(4),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_compressed_archive_is_what_was_compressed(
    image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "room"))
    (tmp_path / "room").mkdir()
    plain = write(tmp_path / "plain.tar", members(image))
    path = tmp_path / "a.tar.any"
    path.write_bytes(PACKED[kind](plain.read_bytes()))
    place = place_of(path)
    found = place.find(diff_ids(image))
    assert found.warnings == ()
    path.unlink()  # what was found in it is held
    read = [digest_of(content(found[diff_id], 1 << 20)) for diff_id in diff_ids(image)]
    assert read == [layer.digest for layer in image.layers]
    assert list((tmp_path / "room").iterdir()) == []
    assert "is not there" in place.find(diff_ids(image)).warnings[0]


def test_an_archive_is_unpacked_once_while_it_is_in_use(
    image: BuiltImage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.tar", members(image)).read_bytes()))
    caplog.set_level("INFO", "layertee")
    archive = Archive.open(path)
    again = Archive.open(path)
    assert archive.entries() == again.entries()
    assert [record.message for record in caplog.records] == [
        f"{path}: gzip, unpacked into a temporary file in {spool_directory()}"
    ]
    del archive, again
    Archive.open(path)
    assert len(caplog.records) == 2


def test_nothing_stays_open_of_an_archive_that_was_unpacked(image: BuiltImage, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.tar", members(image)).read_bytes()))
    before = set(os.listdir("/proc/self/fd"))
    found = place_of(path).find(diff_ids(image))
    assert len(found) == 3
    del found
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_an_archive_comes_through_a_pipe_and_is_read_as_often_as_need_be(
    image: BuiltImage, tmp_path: Path, packed: str | None
) -> None:
    raw = write(tmp_path / "a.tar", members(image)).read_bytes()
    reading, writing = os.pipe()
    feeding = threading.Thread(target=feed, args=(writing, PACKED[packed](raw) if packed else raw))
    feeding.start()
    try:
        path = Path(f"/dev/fd/{reading}")
        archive = Archive.open(path)
        found = place_of(path).find(diff_ids(image))
        read = [digest_of(content(found[diff_id], 1 << 20)) for diff_id in diff_ids(image)]
        assert read == [layer.digest for layer in image.layers]
        assert archive.resolve(None, AMD64).manifest.raw == image.manifest
    finally:
        feeding.join()
        os.close(reading)


def feed(fd: int, raw: bytes) -> None:
    """A few bytes first, so that nothing can be known from them."""
    with os.fdopen(fd, "wb", buffering=0) as file:
        file.write(raw[:3])
        for at in range(3, len(raw), 5000):
            file.write(raw[at : at + 5000])


def test_a_pipe_that_ends_at_once_is_no_archive(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(StoreCorrupt, match="no oci-layout"):
            Archive.open(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)


def test_a_file_that_has_no_name_any_more_is_read_through_its_descriptor(
    image: BuiltImage, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tar", members(image))
    with path.open("rb") as file:
        path.unlink()
        archive = Archive.open(Path(f"/dev/fd/{file.fileno()}"))
        assert archive.resolve(None, AMD64).manifest.raw == image.manifest


def test_whoever_waits_for_a_pipe_can_give_up(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    async def main() -> None:
        waiting = asyncio.ensure_future(in_thread(Archive.open, Path(f"/dev/fd/{reading}")))
        os.write(writing, b"some")
        await until(lambda: n_bytes_in(reading) == 0, "the pipe is read")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    try:
        asyncio.run(main())
    finally:
        os.close(reading)
        os.close(writing)


def n_bytes_in(pipe: int) -> int:
    room = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, room)
    return int.from_bytes(room, sys.byteorder)
