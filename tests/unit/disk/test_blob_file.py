"""Files by their descriptors: the bytes that were looked at, whatever becomes of the name."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from layertee.disk.blob_file import FileContent, OpenFile
from layertee.disk.part import BlobWriter
from layertee.errors import LocalError, SourceUnreadable
from layertee.image.document import Digest

DATA = b"what was checked" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


def swap(path: Path) -> None:
    """Put another file of the same size in its place."""
    other = path.with_name("other")
    other.write_bytes(b"\0" * path.stat().st_size)
    os.replace(other, path)


def content_of(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def read(content: OpenFile | FileContent) -> bytes:
    reader = content.open()
    try:
        buffer = bytearray(len(DATA) + 1)
        return bytes(buffer[: reader.readinto(memoryview(buffer))])
    finally:
        reader.close()


@pytest.mark.parametrize("change", [swap, Path.unlink])
def test_an_open_file_is_the_same_whatever_becomes_of_its_name(path: Path, change: object) -> None:
    file = OpenFile.at(path)
    assert callable(change)
    change(path)
    assert file.size == len(DATA)
    assert read(file) == content_of(file.descriptor()) == DATA
    file.close()


def test_a_name_is_looked_up_each_time(path: Path) -> None:
    content = FileContent(path)
    assert read(content) == DATA
    swap(path)
    assert read(content) == b"\0" * len(DATA)


def test_every_descriptor_is_for_reading_and_has_an_offset_of_its_own(path: Path) -> None:
    file = OpenFile.at(path)
    one, two = file.descriptor(), file.descriptor()
    try:
        for fd in (one, two):
            assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            assert not os.get_inheritable(fd)
        assert os.read(one, 4) == DATA[:4]
        assert read(file) == DATA
        assert os.read(two, 4) == DATA[:4]
    finally:
        file.close()
        os.close(one)
        os.close(two)


def test_a_descriptor_outlives_the_file_that_it_is_of(path: Path) -> None:
    file = OpenFile.at(path)
    fd = file.descriptor()
    file.close()
    file.close()
    assert content_of(fd) == DATA
    with pytest.raises(LocalError, match="opening again"):
        file.descriptor()


def test_only_a_regular_file_can_be_opened(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (link, tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceUnreadable, match=str(name)):
            OpenFile.at(name)


def test_a_part_is_read_by_who_wrote_it_after_it_was_published(tmp_path: Path) -> None:
    ingest, blobs = tmp_path / "ingest", tmp_path / "blobs" / "sha256"
    ingest.mkdir()
    blobs.mkdir(parents=True)
    writer = BlobWriter(ingest, blobs, "key")
    writer.write(DATA)
    file = writer.reopen()
    published = writer.commit(Digest.of(DATA), len(DATA))
    fd = file.descriptor()
    assert os.path.samestat(os.fstat(fd), published.stat())
    published.unlink()
    assert content_of(fd) == read(file) == DATA
    file.close()
    with pytest.raises(RuntimeError):
        writer.reopen()


def test_of_a_part_that_found_its_name_taken_the_bytes_that_were_written_are_read(tmp_path: Path) -> None:
    """A file of the same name and size stays; it is not what this writer knows."""
    ingest, blobs = tmp_path / "ingest", tmp_path / "blobs" / "sha256"
    ingest.mkdir()
    blobs.mkdir(parents=True)
    (blobs / Digest.of(DATA).hex).write_bytes(b"\0" * len(DATA))
    writer = BlobWriter(ingest, blobs, "key")
    writer.write(DATA)
    file = writer.reopen()
    published = writer.commit(Digest.of(DATA), len(DATA))
    assert published.read_bytes() != DATA
    assert read(file) == DATA
    file.close()
