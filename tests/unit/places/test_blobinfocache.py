"""The cache of podman and skopeo: read without a trace, and believed no further than it goes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from layertee.image.blobname import BlobName, KnownNames
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis, Found, Place
from layertee.image.media import Compression
from layertee.places import blobinfocache as module
from layertee.places.blobinfocache import MAX_NAMES, BlobInfoCache
from layertee.places.names import Attested
from tests.contract.place_suite import STRANGER
from tests.support.compress import digest_number
from tests.support.hostile_sqlite import UNUSABLE, journal_that_removes, statements, thicket
from tests.support.rig.blobcache import FILE, write_cache


def diff(n: int) -> DiffID:
    return DiffID(digest_number(1000 + n))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Content 0 as gzip, as zstd and as itself; content 1 as something of which no more is known."""
    pairs = [
        (digest_number(1), diff(0)),
        (digest_number(2), diff(0)),
        (diff(0), diff(0)),
        (digest_number(3), diff(1)),
    ]
    kinds: dict[str, str] = {digest_number(1): "gzip", digest_number(2): "zstd", diff(0): "uncompressed"}
    return write_cache(tmp_path / "cache" / FILE, pairs, kinds)


def digests(found: Mapping[DiffID, Sequence[BlobName]]) -> dict[DiffID, set[str]]:
    return {diff_id: {blob.digest for blob in blobs} for diff_id, blobs in found.items()}


# --- reading it -------------------------------------------------------------------------------------


def test_the_blobs_of_a_content_are_found(path: Path) -> None:
    cache = BlobInfoCache(path)
    named = cache.blob_names([diff(0), diff(1), STRANGER])
    found = named.names
    assert digests(found) == {diff(0): {digest_number(1), digest_number(2)}, diff(1): {digest_number(3)}}
    kinds = {blob.digest: blob.compression for blobs in found.values() for blob in blobs}
    assert kinds == {
        digest_number(1): Compression.GZIP,
        digest_number(2): Compression.ZSTD,
        digest_number(3): None,
    }
    for blob in [blob for blobs in found.values() for blob in blobs]:
        assert (blob.size, blob.basis, blob.source) == (None, Basis.ATTESTED, f"blob-info-cache:{path}")
    assert named.warnings == ()


def test_more_contents_than_one_query_takes_are_found(tmp_path: Path) -> None:
    wanted = [diff(n) for n in range(1203)]
    path = write_cache(tmp_path / FILE, [(digest_number(5000 + n), one) for n, one in enumerate(wanted)])
    assert set(BlobInfoCache(path).blob_names(wanted).names) == set(wanted)


def test_a_content_with_very_many_names_costs_bounded_memory(tmp_path: Path) -> None:
    pairs = [(digest_number(5000 + n), diff(0)) for n in range(MAX_NAMES + 500)]
    assert (
        len(BlobInfoCache(write_cache(tmp_path / FILE, pairs)).blob_names([diff(0)]).names[diff(0)])
        == MAX_NAMES
    )


def test_reading_leaves_no_file_and_changes_none(path: Path) -> None:
    directory = path.parent
    os.chmod(path, 0o400)
    before = (sorted(os.listdir(directory)), path.read_bytes(), path.stat().st_mtime_ns)
    assert BlobInfoCache(path).blob_names([diff(0)]).names
    assert (sorted(os.listdir(directory)), path.read_bytes(), path.stat().st_mtime_ns) == before
    assert not [link for link in os.listdir("/proc/self/fd") if _leads_to(link, path)]


def _leads_to(link: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{link}") == str(path)
    except FileNotFoundError:  # that of the listing itself
        return False


def test_a_journal_that_a_crash_left_is_not_rolled_back_by_us(path: Path) -> None:
    """A hot journal can only be dealt with by writing: the next of their own tools does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        rows = [(str(digest_number(9000 + n)), str(diff(5))) for n in range(2000)]
        db.executemany("INSERT INTO DigestUncompressedPairs VALUES (?, ?)", rows)
        crashed = path.parent / "crashed" / FILE
        crashed.parent.mkdir()
        for name in (FILE, f"{FILE}-journal"):
            shutil.copy(path.parent / name, crashed.parent / name)
        db.execute("ROLLBACK")
    before = crashed.read_bytes()
    cache = BlobInfoCache(crashed)
    named = cache.blob_names([diff(0)])
    found = named.names
    assert crashed.read_bytes() == before
    assert sorted(os.listdir(crashed.parent)) == [FILE, f"{FILE}-journal"]
    assert (len(named.warnings) == 1) is (found == {})


def test_a_cache_that_is_locked_is_waited_for_briefly(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        cache = BlobInfoCache(path)
        began = time.monotonic()
        named = cache.blob_names([diff(0)])
        assert named.names == {}
        assert 0.5 < time.monotonic() - began < 5
        assert "locked" in named.warnings[0]
        db.execute("ROLLBACK")
        named = cache.blob_names([diff(0)])
        assert named.names
        assert named.warnings == ()


def not_there(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def something_else(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garbled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))


def without_its_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE DigestUncompressedPairs")


def with_a_write_ahead_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize(
    "damage",
    [
        *(not_there, a_directory, a_pipe, of_no_bytes, something_else, cut_short, garbled),
        *(without_its_tables, with_a_write_ahead_log),
    ],
)
def test_a_cache_that_cannot_be_used_answers_nothing_and_warns(path: Path, damage: Any) -> None:
    damage(path)
    before = sorted(os.listdir(path.parent))
    cache = BlobInfoCache(path)
    named = cache.blob_names([diff(0)])
    assert named.names == {}
    (warning,) = named.warnings
    assert warning.startswith(f"blob-info-cache:{path} cannot be read: ")
    assert sorted(os.listdir(path.parent)) == before


@pytest.mark.slow
@pytest.mark.parametrize("table", ["DigestUncompressedPairs", "DigestCompressors"])
@pytest.mark.parametrize("harm", [harm for harm in UNUSABLE.values() if harm is not thicket])
def test_a_cache_made_to_do_harm_answers_nothing_soon(
    path: Path, harm: Callable[[Path, str], None], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 1_000_000)
    harm(path, table)
    before = sorted(os.listdir(path.parent))
    cache = BlobInfoCache(path)
    began = time.monotonic()
    named = cache.blob_names([diff(0)])
    assert named.names == {}
    assert time.monotonic() - began < 20
    (warning,) = named.warnings
    assert warning.startswith(f"blob-info-cache:{path} cannot be read: ")
    assert sorted(os.listdir(path.parent)) == before


def test_rows_without_end_end(path: Path) -> None:
    """Without an index every row is looked at, of which there are more than anybody can read."""
    statements(path, "DROP INDEX DigestUncompressedPairs_index_uncompressedDigest")
    thicket(path, "DigestUncompressedPairs")
    cache = BlobInfoCache(path)
    began = time.monotonic()
    named = cache.blob_names([STRANGER])
    assert named.names == {}
    assert time.monotonic() - began < 30
    assert "interrupted" in named.warnings[0]


def test_the_most_names_for_the_most_contents_are_within_bounds(tmp_path: Path) -> None:
    contents = [diff(n) for n in range(20)]
    pairs = [(digest_number(5000 + n), contents[n % 20]) for n in range(20 * MAX_NAMES)]
    path = write_cache(tmp_path / FILE, pairs, {blob: "gzip" for blob, _ in pairs})
    cache = BlobInfoCache(path)
    named = cache.blob_names(contents)
    assert sum(map(len, named.names.values())) == 20 * MAX_NAMES
    assert named.warnings == ()


def test_no_journal_has_another_file_removed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal = journal_that_removes(path, victim)
    cache = BlobInfoCache(path)
    named = cache.blob_names([diff(0)])
    assert named.names == {}
    assert len(named.warnings) == 1
    assert victim.exists() and journal.exists()


def test_the_files_beside_a_linked_cache_are_those_beside_the_file(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link" / FILE
    link.parent.mkdir()
    link.symlink_to(path)
    assert BlobInfoCache(link).blob_names([diff(0)]).names
    os.mkfifo(f"{path}-journal")
    assert BlobInfoCache(link).blob_names([diff(0)]).names == {}


def test_a_table_of_a_later_version_is_no_harm(path: Path) -> None:
    statements(path, "CREATE TABLE Later (x PRIMARY KEY)", "ALTER TABLE DigestCompressors ADD COLUMN more")
    cache = BlobInfoCache(path)
    named = cache.blob_names([diff(0)])
    assert named.names
    assert named.warnings == ()


@pytest.mark.parametrize("nonsense", ["", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, b"\xff\x00"])
def test_rows_that_make_no_sense_are_passed_over(path: Path, nonsense: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO DigestUncompressedPairs VALUES (?, ?)", (nonsense, str(diff(0))))
        db.execute("UPDATE DigestCompressors SET compressor = x'00' WHERE compressor = 'gzip'")
    cache = BlobInfoCache(path)
    named = cache.blob_names([diff(0)])
    assert digests(named.names) == {diff(0): {digest_number(1), digest_number(2)}}
    assert named.warnings == ()


def test_a_path_that_looks_like_a_uri_is_a_path(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "a?mode=memory#x%20" / FILE, [(digest_number(1), diff(0))])
    assert BlobInfoCache(path).blob_names([diff(0)]).names


# --- what is believed of it -------------------------------------------------------------------------


class Told(Place):
    """Says for each of ``names`` that blob and content belong together; counts how often it is asked."""

    def __init__(self, *names: tuple[int, int, str], warning: str = "") -> None:
        self._names = names
        self._warning = warning
        self.asked = 0

    @property
    def name(self) -> str:
        return "told"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        return Found()

    def blob_names(self, diff_ids: Collection[DiffID]) -> KnownNames:
        self.asked += 1
        said: dict[DiffID, list[BlobName]] = {}
        for blob, content, source in self._names:
            name = BlobName(digest_number(blob), None, None, Basis.ATTESTED, source)
            said.setdefault(diff(content), []).append(name)
        return KnownNames(said, (self._warning,) if self._warning else ())


def attested(*places: Place, known: Mapping[Digest, DiffID] | None = None) -> Attested:
    return Attested([diff(0), diff(1)], places, known=dict(known or {}).get)


def test_what_several_say_is_one_pair() -> None:
    found = attested(Told((1, 0, "a"), (2, 0, "a")), Told((1, 0, "b"), (3, 1, "b")))
    assert [found.diff_id(digest_number(n)) for n in (1, 2, 3, 4)] == [diff(0), diff(0), diff(1), None]
    assert {blob.digest for blob in found.names(diff(0))} == {digest_number(1), digest_number(2)}
    assert found.warnings == ()


def test_two_that_contradict_each_other_are_not_believed() -> None:
    found = attested(Told((1, 0, "a")), Told((1, 1, "b"), (2, 0, "b")))
    assert found.diff_id(digest_number(1)) is None
    assert found.diff_id(digest_number(2)) == diff(0)
    assert found.names(diff(1)) == ()
    (warning,) = found.warnings
    assert "a, b" in warning and digest_number(1) in warning and diff(0) in warning and diff(1) in warning


def test_what_contradicts_a_computed_pair_is_not_believed() -> None:
    found = attested(Told((1, 0, "a"), (2, 1, "a")), known={digest_number(1): diff(7)})
    assert found.diff_id(digest_number(1)) is None
    assert found.diff_id(digest_number(2)) == diff(1)
    (warning,) = found.warnings
    assert f"computed here to be {diff(7)}" in warning


def test_that_the_bytes_are_also_a_tar_by_themselves_is_no_contradiction() -> None:
    itself = DiffID(str(digest_number(1)))
    found = attested(Told((1, 0, "a")), known={digest_number(1): itself})
    assert (found.diff_id(digest_number(1)), found.warnings) == (diff(0), ())


def test_nobody_is_asked_before_it_matters_or_twice() -> None:
    one = Told((1, 0, "a"), warning="half of it cannot be read")
    found = attested(one, BlobInfoCache(Path("/nothing/there")))
    assert (one.asked, found.warnings) == (0, ())
    found.diff_id(digest_number(1))
    found.names(diff(0))
    assert one.asked == 1
    assert found.warnings[0] == "half of it cannot be read"
    assert found.warnings[1].startswith("blob-info-cache:/nothing/there cannot be read")


def test_a_cache_has_no_layers(path: Path) -> None:
    found = BlobInfoCache(path).find([diff(0), diff(1)])
    assert (dict(found), found.warnings) == ({}, ())
