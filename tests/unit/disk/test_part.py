"""The commit protocol, on a bare directory and on the two kinds of store."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest

from layertee.disk.files import make_directory
from layertee.disk.part import BlobWriter, PartFile, write_document, write_file
from layertee.errors import LocalError, NoSpace
from layertee.image.document import Digest
from layertee.store.store import Store
from tests.contract.sink_suite import DATA, DIGEST, SinkSuite
from tests.support.disk import Disk
from tests.support.store import fill, measure, visible_blobs


class TestBareDirectory(SinkSuite):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "bare"
        for name in ("blobs/sha256", "ingest"):
            (root / name).mkdir(parents=True)
        return root

    def open(self, root: Path) -> BlobWriter:
        return BlobWriter(root / "ingest", root / "blobs" / "sha256", "key")

    def parts(self, root: Path) -> list[str]:
        return sorted(path.name for path in (root / "ingest").iterdir())


class TestPrivateStore(SinkSuite):
    private = True

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "store"
        Store.open(root, private=self.private).close()
        return root

    def open(self, root: Path) -> BlobWriter:
        with Store.open(root, private=self.private) as store:
            return store.blobs.writer(measure(DATA).digest)

    def parts(self, root: Path) -> list[str]:
        return sorted(path.name for path in (root / "layertee" / "ingest").iterdir())


class TestPublicStore(TestPrivateStore):
    private = False
    mode = None


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory with ``blobs/sha256`` and ``ingest``."""
    make_directory(tmp_path / "blobs" / "sha256", 0o700)
    make_directory(tmp_path / "ingest", 0o700)
    return tmp_path


def writer_in(room: Path) -> BlobWriter:
    return BlobWriter(room / "ingest", room / "blobs" / "sha256", "key")


def test_a_part_that_is_already_there_is_never_written_to(room: Path) -> None:
    part = room / "ingest" / "key.part"
    part.write_bytes(b"somebody's")
    with pytest.raises(LocalError, match=r"key\.part"):
        writer_in(room)
    assert part.read_bytes() == b"somebody's"


def test_a_symlink_in_the_place_of_the_part_is_not_followed(room: Path) -> None:
    target = room / "target"
    target.write_bytes(b"precious")
    (room / "ingest" / "key.part").symlink_to(target)
    with pytest.raises(LocalError):
        writer_in(room)
    assert target.read_bytes() == b"precious"


def test_a_directory_swapped_for_a_symlink_is_refused(room: Path) -> None:
    elsewhere = room / "elsewhere"
    elsewhere.mkdir()
    (room / "ingest").rmdir()
    (room / "ingest").symlink_to(elsewhere)
    with pytest.raises(LocalError):
        writer_in(room)


def test_a_directory_swapped_during_the_write_does_not_move_the_blob(room: Path) -> None:
    writer = fill(writer_in(room), DATA)
    (room / "blobs" / "sha256").rename(room / "blobs" / "moved")
    (room / "blobs" / "sha256").mkdir()
    writer.commit(DIGEST, len(DATA))
    assert (room / "blobs" / "moved" / DIGEST.hex).read_bytes() == DATA
    assert visible_blobs(room) == {f"moved:{DIGEST.hex}": room / "blobs" / "moved" / DIGEST.hex}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_part_has_a_plain_name(room: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        PartFile(room, room, name)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_filesystem_without_hard_links_will_do(room: Path, code: int) -> None:
    for expected in ("committed", "kept"):
        writer = fill(writer_in(room), DATA)
        disk = Disk()
        with disk.watched(_position(room, "link"), code):
            writer.commit(DIGEST, len(DATA))
        assert disk.tripped
        assert ("rename" in disk.names()) == (expected == "committed")
    assert (room / "blobs" / "sha256" / DIGEST.hex).read_bytes() == DATA
    assert list((room / "ingest").iterdir()) == []


def _position(room: Path, call: str) -> int:
    """The number of the first such call in a commit."""
    disk = Disk()
    other = b"another blob"
    writer = fill(BlobWriter(room / "ingest", room / "blobs" / "sha256", "probe"), other)
    with disk.watched():
        path = writer.commit(Digest.of(other), len(other))
    path.unlink()
    return disk.names().index(call) + 1


def test_a_checked_blob_takes_the_place_of_one_that_nobody_checked(room: Path) -> None:
    rotten = room / "blobs" / "sha256" / DIGEST.hex
    rotten.write_bytes(DATA[:-1] + b"?")
    fill(writer_in(room), DATA).commit(DIGEST, len(DATA), replace=True)
    assert rotten.read_bytes() == DATA


def test_a_document_is_kept_under_its_hash(room: Path) -> None:
    digest = write_document(room / "ingest", room / "blobs" / "sha256", b"{}")
    assert digest == Digest.of(b"{}")
    assert (room / "blobs" / "sha256" / digest.hex).read_bytes() == b"{}"
    assert list((room / "ingest").iterdir()) == []


def test_a_document_that_is_there_is_synced_and_not_written_again(room: Path) -> None:
    final = room / "blobs" / "sha256"
    path = final / write_document(room / "ingest", final, b"{}").hex
    inode = path.stat().st_ino
    disk = Disk()
    with disk.watched():
        write_document(room / "ingest", final, b"{}")
    assert path.stat().st_ino == inode
    assert disk.names().count("fsync") == 2
    assert "link" not in disk.names()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{} "])
def test_a_damaged_document_is_written_anew(room: Path, damage: bytes) -> None:
    final = room / "blobs" / "sha256"
    path = final / write_document(room / "ingest", final, b"{}").hex
    path.unlink()
    path.write_bytes(damage)
    write_document(room / "ingest", final, b"{}")
    assert path.read_bytes() == b"{}"


def test_whichever_call_fails_a_document_is_whole_or_absent(room: Path) -> None:
    final = room / "blobs" / "sha256"
    disk = Disk()
    n = 0
    while True:
        n += 1
        with disk.watched(n, errno.ENOSPC), suppress(NoSpace):
            write_document(room / "ingest", final, DATA)
        for path in visible_blobs(room).values():
            assert path.read_bytes() == DATA
            path.unlink()
        if not disk.tripped:
            break
    assert n > 10


def test_whichever_call_fails_a_replaced_file_is_the_old_or_the_new_one(room: Path) -> None:
    disk = Disk()
    n = 0
    while True:
        n += 1
        (room / "index.json").write_bytes(b"old")
        with disk.watched(n), suppress(LocalError):
            write_file(room, "index.json", b"new one", mode=0o600)
        assert (room / "index.json").read_bytes() in (b"old", b"new one")
        if not disk.tripped:
            break
    assert (room / "index.json").read_bytes() == b"new one"
    assert n > 8
