"""Files that go to clients: right when they are sent, or not sent to their end."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import tarfile
from collections.abc import Coroutine
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from layertee.disk.blob_file import Extent, FileContent, FileReader
from layertee.errors import DigestMismatch, SourceUnreadable
from layertee.image.document import Digest
from layertee.places.oci_archive import Archive
from layertee.serve.blocks import BLOCK
from layertee.serve.offer import Sendable
from layertee.serve.sending import Sending
from tests.support.sending import open_files, sent

BLOB = bytes(range(256)) * 5000
NAME = Digest.of(BLOB)
LARGE = 3 * BLOCK + 100_000


def run(main: Coroutine[Any, Any, None]) -> None:
    """``main``, after which nothing is open that was not open before."""
    before = open_files()
    asyncio.run(main)
    assert open_files() == before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / NAME.hex
    path.write_bytes(BLOB)
    return path


def offered(path: Path, *, is_checked: bool = False) -> Sendable:
    return Sendable(NAME, len(BLOB), FileContent(path), "oci:/mnt", is_checked)


async def get(sending: Sending, blob: Sendable, start: int = 0, stop: int | None = None) -> bytes:
    stop = blob.size if stop is None else stop
    return await sent(await sending.open(blob, start, stop), stop - start)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def spoil(path: Path, how: str, at: int) -> None:
    """Write to the file, in place, at byte ``at`` unless its size is to change."""
    stamp = path.stat()
    with path.open("r+b") as writer:
        if how == "cut short":
            writer.truncate(100)
        else:
            writer.seek(0, os.SEEK_END) if how == "longer" else writer.seek(at)
            writer.write(b"other")
    if "time" in how:
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.parametrize("is_checked", [True, False])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(BLOB)), (0, 1), (1000, 300_000), (len(BLOB) - 1, len(BLOB)), (7, 7)]
)
def test_a_file_is_sent_in_any_part(file: Path, is_checked: bool, start: int, stop: int) -> None:
    async def main() -> None:
        sending = Sending()
        blob = offered(file, is_checked=is_checked)
        assert await get(sending, blob, start, stop) == BLOB[start:stop]
        outgoing = await sending.open(blob, start, stop)
        assert b"".join([bytes(chunk) async for chunk in outgoing]) == BLOB[start:stop]
        await outgoing.close()
        await outgoing.close()
        await sending.close()

    run(main())


def test_a_member_of_an_archive_is_sent_from_the_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": b'{"schemaVersion": 2, "manifests": []}',
            f"blobs/sha256/{NAME.hex}": BLOB,
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))

    async def main() -> None:
        sending = Sending()
        blob = Sendable(NAME, len(BLOB), Archive.open(tmp_path / "a.tar").content(NAME), "oci-archive:a.tar")
        assert await get(sending, blob) == BLOB
        assert await get(sending, blob, 5, 10) == BLOB[5:10]
        await sending.close()

    run(main())


def test_what_does_not_hash_to_its_name_is_not_sent(file: Path) -> None:
    file.write_bytes(BLOB[:-1] + b"x")

    async def main() -> None:
        sending = Sending()
        for _ in range(2):
            with pytest.raises(DigestMismatch) as caught:
                await sending.open(offered(file), 0, 10)
            assert caught.value.want == NAME
        write(file, BLOB)
        assert await get(sending, offered(file)) == BLOB
        await sending.close()

    run(main())


@pytest.mark.parametrize("is_checked", [True, False])
@pytest.mark.parametrize("content", [BLOB[:-1], BLOB + b"x", None])
def test_a_file_of_another_size_or_none_is_not_begun(
    file: Path, is_checked: bool, content: bytes | None
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)

    async def main() -> None:
        sending = Sending()
        with pytest.raises(SourceUnreadable):
            await sending.open(offered(file, is_checked=is_checked), 0, 10)
        await sending.close()

    run(main())


@pytest.mark.parametrize("how", ["changed", "cut short", "longer", "changed, and the time set back"])
def test_a_file_that_is_written_to_while_it_is_sent_is_never_ended_normally(tmp_path: Path, how: str) -> None:
    data = random.Random(3).randbytes(LARGE)
    path = tmp_path / "large"
    path.write_bytes(data)

    async def main() -> None:
        sending = Sending()
        blob = Sendable(Digest.of(data), LARGE, FileContent(path), "oci:/mnt")
        outgoing = await sending.open(blob, 0, LARGE)
        spoil(path, how, LARGE - 5)
        got = b""
        with pytest.raises((DigestMismatch, SourceUnreadable)):
            async for piece in outgoing:
                got += piece
        await outgoing.close()
        assert len(got) < LARGE
        assert got == data[: len(got)]
        with pytest.raises((DigestMismatch, SourceUnreadable)):
            await get(sending, blob, LARGE - 1, LARGE)
        await sending.close()

    run(main())


@pytest.mark.parametrize("start", [0, 2 * BLOCK])
def test_what_a_mapping_writes_is_seen_though_no_time_stamp_says_so(tmp_path: Path, start: int) -> None:
    data = random.Random(3).randbytes(LARGE)
    path = tmp_path / "large"
    path.write_bytes(data)

    async def main() -> None:
        sending = Sending()
        blob = Sendable(Digest.of(data), LARGE, FileContent(path), "oci:/mnt")
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            at = 2 * BLOCK + 5
            mapped[at] = data[at]  # the page is dirty from now on
            assert await get(sending, blob) == data
            stamp = path.stat().st_mtime_ns
            mapped[at] ^= 1
            assert path.stat().st_mtime_ns == stamp
            with pytest.raises(DigestMismatch):
                await get(sending, blob, start)
            assert await get(sending, blob, 0, BLOCK) == data[:BLOCK]  # what is right can still be had
        await sending.close()

    run(main())


def test_a_file_of_others_that_is_removed_while_it_is_sent_ends_well(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(LARGE)
    path = tmp_path / "large"
    path.write_bytes(data)

    async def main() -> None:
        sending = Sending()
        blob = Sendable(Digest.of(data), LARGE, FileContent(path), "oci:/mnt")
        outgoing = await sending.open(blob, 0, LARGE)
        path.unlink()
        assert await sent(outgoing, LARGE) == data
        await sending.close()

    run(main())


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was(file: Path, tmp_path: Path) -> None:
    async def main() -> None:
        sending = Sending()
        outgoing = await sending.open(offered(file, is_checked=True), 0, len(BLOB))
        (tmp_path / "new").write_bytes(b"x" * len(BLOB))
        os.rename(tmp_path / "new", file)
        assert await sent(outgoing, len(BLOB)) == BLOB
        with pytest.raises(DigestMismatch):
            await sending.open(offered(file), 0, len(BLOB))
        await sending.close()

    run(main())


def test_a_blob_of_the_store_that_is_removed_while_it_is_sent_ends_well(file: Path) -> None:
    async def main() -> None:
        sending = Sending()
        outgoing = await sending.open(offered(file, is_checked=True), 0, len(BLOB))
        os.unlink(file)
        assert await sent(outgoing, len(BLOB)) == BLOB
        with pytest.raises(SourceUnreadable):
            await sending.open(offered(file, is_checked=True), 0, len(BLOB))
        await sending.close()

    run(main())


# --- several who want the same --------------------------------------------------------------------------


class Watched:
    """The content of a file. ``is_opened`` is set once it was opened, on the loop of its maker."""

    def __init__(self, path: Path) -> None:
        self._content = FileContent(path)
        self._loop = asyncio.get_running_loop()
        self.path = path
        self.is_opened = asyncio.Event()

    def extent(self) -> Extent:
        self._loop.call_soon_threadsafe(self.is_opened.set)
        return self._content.extent()

    def open(self) -> FileReader:
        return self._content.open()


def test_one_who_leaves_takes_nobody_along_who_wants_the_same_file(file: Path) -> None:
    async def main() -> None:
        sending = Sending()
        blob = Sendable(NAME, len(BLOB), content := Watched(file), "oci:/mnt")
        waiting = [asyncio.create_task(get(sending, blob)) for _ in range(20)]
        await content.is_opened.wait()
        waiting[0].cancel()
        waiting[7].cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [one for one in done if one == BLOB] == [BLOB] * 18
        assert [type(one) for one in done if one != BLOB] == [asyncio.CancelledError] * 2
        await sending.close()

    run(main())
