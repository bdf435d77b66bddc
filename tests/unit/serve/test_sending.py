"""Files that go to clients: right when they are sent, or not sent to their end."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Coroutine
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from layertee.disk.blob_file import Extent, FileContent
from layertee.errors import DigestMismatch, SourceUnreadable
from layertee.image.document import Digest
from layertee.places.oci_archive import Archive
from layertee.serve.filehashes import FileHashes
from layertee.serve.offer import Sendable
from layertee.serve.outgoing import OpenPiece
from layertee.serve.sending import Sending
from tests.support.sending import Gate, open_files, sent

BLOB = bytes(range(256)) * 5000
NAME = Digest.of(BLOB)


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


def spoil(path: Path, how: str) -> None:
    """Write to the file, in place."""
    stamp = path.stat()
    with path.open("r+b") as writer:
        if how == "cut short":
            writer.truncate(100)
        else:
            writer.seek(0, os.SEEK_END if how == "longer" else os.SEEK_SET)
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
def test_a_file_that_is_written_to_while_it_is_sent_is_never_ended_normally(file: Path, how: str) -> None:
    async def main() -> None:
        sending = Sending()
        outgoing = await sending.open(offered(file), 0, len(BLOB))
        spoil(file, how)
        with pytest.raises(SourceUnreadable):
            outgoing.check()
        await outgoing.close()
        with pytest.raises((DigestMismatch, SourceUnreadable)):
            await sending.open(offered(file), 0, len(BLOB))
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


# --- one pass for all --------------------------------------------------------------------------


def piece_of(path: Path) -> OpenPiece:
    return OpenPiece(Extent(os.open(path, os.O_RDONLY), 0, path.stat().st_size), "x")


def test_many_who_want_one_file_wait_for_one_pass_and_one_who_leaves_takes_nobody_along(file: Path) -> None:
    async def main() -> None:
        threads = Gate()
        hashes = FileHashes(threads, asyncio.Semaphore(2))
        pieces = [piece_of(file) for _ in range(20)]
        waiting = [asyncio.create_task(hashes.check(piece, NAME)) for piece in pieces]
        await threads.is_used.wait()
        waiting[0].cancel()
        waiting[7].cancel()
        threads.gate.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in done if one is not None] == [asyncio.CancelledError] * 2
        await hashes.check(pieces[3], NAME)
        assert threads.begun == 1
        os.utime(file)
        again = piece_of(file)
        await hashes.check(again, NAME)
        assert threads.begun == 2
        for piece in (*pieces, again):
            piece.close()
        threads.shutdown()

    run(main())


def test_a_pass_that_nobody_waits_for_any_more_ends(file: Path) -> None:
    async def main() -> None:
        threads = Gate()
        hashes = FileHashes(threads, asyncio.Semaphore(1))
        piece = piece_of(file)
        waiting = [asyncio.create_task(hashes.check(piece, NAME)) for _ in range(3)]
        await threads.is_used.wait()
        for one in waiting:
            one.cancel()
        await asyncio.sleep(0)
        threads.gate.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in done} == {asyncio.CancelledError}
        await hashes.check(piece, NAME)  # nothing of the first pass is left
        assert threads.begun == 2
        piece.close()
        threads.shutdown()

    run(main())


def test_what_was_hashed_longest_ago_is_forgotten_first(tmp_path: Path) -> None:
    async def main() -> None:
        threads = Gate()
        threads.gate.set()
        hashes = FileHashes(threads, asyncio.Semaphore(1), limit=2)
        pieces = []
        for n in range(3):
            (tmp_path / str(n)).write_bytes(BLOB)
            pieces.append(piece_of(tmp_path / str(n)))
        for n in (0, 1, 0, 2, 0):
            await hashes.check(pieces[n], NAME)
        assert threads.begun == 3
        await hashes.check(pieces[1], NAME)
        assert threads.begun == 4
        for piece in pieces:
            piece.close()
        threads.shutdown()

    run(main())
