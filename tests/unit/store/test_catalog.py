"""The map: what may enter it, what it answers, and that nothing wrong with its file ever matters much."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from layertee.core.result import TeeResult
from layertee.disk.locks import lock
from layertee.errors import CatalogError, DiffIDMismatch
from layertee.image.document import DiffID, Digest
from layertee.image.media import Compression
from layertee.store import catalog_file as catalogfile
from layertee.store.catalog import Catalog, PulledImage, Stored
from tests.support.compress import digest_number, pack
from tests.support.hostile_sqlite import UNUSABLE, journal_that_removes, statements
from tests.support.process import in_child
from tests.support.store import contradicting, gzip_layer, measure

TAR = b"content of a layer\n" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    with Catalog(path) as opened:
        yield opened


def measured(compression: Compression, tar: bytes = TAR) -> TeeResult:
    return measure(pack(tar, compression), compression)


# --- pairs --------------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(Compression))
def test_a_recorded_pair_is_found_from_both_ends(catalog: Catalog, compression: Compression) -> None:
    result = measured(compression)
    catalog.record(result)
    assert catalog.diff_id(result.digest) == result.diff_id
    (pair,) = catalog.digests(result.diff_id)
    assert (pair.digest, pair.size, pair.uncompressed_size) == (result.digest, result.size, len(TAR))
    assert (pair.compression, pair.decoder) == (compression, result.decoder)
    assert catalog.lookup(result.digest) == catalog.lookup(result.diff_id) == catalog.pairs() == [pair]


def test_what_is_not_known_is_not_answered(catalog: Catalog) -> None:
    assert catalog.diff_id(digest_number(1)) is None
    assert catalog.digests(DiffID(digest_number(1))) == []
    assert catalog.lookup(digest_number(1)) == []


def test_several_blobs_may_have_one_content(catalog: Catalog) -> None:
    results = [measured(compression) for compression in Compression]
    catalog.record_many(results)
    found = catalog.digests(results[0].diff_id)
    assert {pair.digest for pair in found} == {result.digest for result in results}
    assert catalog.uncompressed_sizes([results[0].diff_id]) == {results[0].diff_id: len(TAR)}


def test_recording_again_changes_nothing_but_the_time(catalog: Catalog) -> None:
    result = measured(Compression.ZSTD)
    catalog.record(result, Stored.BLOB)
    catalog.record(result)
    assert len(catalog.pairs()) == len(catalog.holdings()) == 1


@pytest.mark.parametrize("stored", [None, *Stored])
def test_a_second_content_for_a_known_blob_is_refused(catalog: Catalog, stored: Stored | None) -> None:
    result = measured(Compression.GZIP)
    catalog.record(result)
    before = catalog.pairs()
    for attempt in (catalog.check, lambda r: catalog.record(r, stored)):
        with pytest.raises(DiffIDMismatch) as caught:
            attempt(contradicting(result))
        assert caught.value.want == result.diff_id
    assert catalog.pairs() == before
    assert catalog.holdings() == []


def test_one_contradiction_in_a_batch_refuses_the_batch(catalog: Catalog) -> None:
    good = measured(Compression.ZSTD)
    known = measured(Compression.GZIP)
    catalog.record(known)
    with pytest.raises(DiffIDMismatch):
        catalog.record_many([good, contradicting(known)], Stored.BLOB)
    assert catalog.diff_id(good.digest) is None


def test_a_tar_that_is_a_gzip_file_does_not_stand_in_the_way_of_its_other_reading(catalog: Catalog) -> None:
    inner = measured(Compression.GZIP)  # as a blob; it is also the content of a gzip in a gzip
    outer = measure(pack(pack(TAR, Compression.GZIP), Compression.GZIP), Compression.GZIP)
    assert str(outer.diff_id) == inner.digest
    catalog.record(outer, Stored.TAR)
    assert catalog.diff_id(inner.digest) is None, "a tar of that name says nothing about the blob"
    catalog.record(inner, Stored.BLOB)
    assert catalog.diff_id(inner.digest) == inner.diff_id


@pytest.mark.parametrize("cheat", [None, "sha256:" + "0" * 64, ("a", "b"), SimpleNamespace(digest=1)])
def test_only_a_measured_result_can_be_recorded(catalog: Catalog, cheat: Any) -> None:
    with pytest.raises(TypeError, match="TeeResult"):
        catalog.record(cheat)
    look_alike: Any = SimpleNamespace(
        **{name: getattr(measured(Compression.GZIP), name) for name in ("digest", "diff_id")}
    )
    with pytest.raises(TypeError, match="TeeResult"):
        catalog.record_many([measured(Compression.ZSTD), look_alike])
    assert catalog.pairs() == []


# --- holdings and images --------------------------------------------------------------


def test_a_holding_as_transferred_has_the_name_and_size_of_the_blob(catalog: Catalog) -> None:
    result = measured(Compression.GZIP)
    catalog.record(result, Stored.BLOB)
    (held,) = catalog.holdings(result.diff_id)
    assert (held.digest, held.size, held.compression) == (result.digest, result.size, Compression.GZIP)
    assert catalog.holds(result.digest) == held


def test_a_holding_as_a_tar_has_the_name_of_its_content(catalog: Catalog) -> None:
    result = measured(Compression.GZIP)
    catalog.record(result, Stored.TAR)
    (held,) = catalog.holdings(result.diff_id)
    assert (str(held.digest), held.size, held.compression) == (result.diff_id, len(TAR), Compression.NONE)
    assert catalog.holds(result.digest) is None
    assert catalog.diff_id(result.digest) == result.diff_id


def test_what_is_forgotten_is_no_longer_held_but_still_known(catalog: Catalog) -> None:
    results = [measured(compression) for compression in (Compression.GZIP, Compression.ZSTD)]
    catalog.record_many(results, Stored.BLOB)
    catalog.forget(results[0].digest)
    assert [held.digest for held in catalog.holdings()] == [results[1].digest]
    assert catalog.diff_id(results[0].digest) == results[0].diff_id
    catalog.forget(*(result.digest for result in results))
    catalog.forget(results[0].digest)
    assert catalog.holdings() == []


def image(name: str, n: int) -> PulledImage:
    return PulledImage(
        name, digest_number(n), digest_number(n + 1), digest_number(n + 2), "linux/amd64", 1_700_000_000
    )


def test_images_are_kept_by_name(catalog: Catalog) -> None:
    one, two = image("docker.io/a:1", 1), image("docker.io/b:1", 10)
    for item in (two, one):
        catalog.put_image(item)
    assert catalog.images() == [one, two]
    newer = image(one.name, 20)
    catalog.put_image(newer)
    assert catalog.image(one.name) == newer
    catalog.remove_image(one.name)
    catalog.remove_image(one.name)
    assert catalog.image(one.name) is None
    assert catalog.images() == [two]


# --- the file ---------------------------------------------------------------------------


def test_what_was_recorded_is_there_for_the_next_process(path: Path) -> None:
    result = measured(Compression.GZIP)
    with Catalog(path) as first:
        first.record(result, Stored.BLOB)
    with Catalog(path) as second:
        assert second.rebuilt is None
        assert second.diff_id(result.digest) == result.diff_id
        assert [held.digest for held in second.holdings()] == [result.digest]


def test_the_file_is_private_and_its_journal_is_not_wal(catalog: Catalog, path: Path) -> None:
    catalog.record(measured(Compression.GZIP))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = sqlite3.connect(path)
    try:
        assert other.execute("PRAGMA user_version").fetchone() == (catalogfile.SCHEMA,)
        assert other.execute("PRAGMA journal_mode").fetchone()[0] != "wal"
    finally:
        other.close()
    db, _steps = catalogfile.open_file(path)  # as the catalog did
    try:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    finally:
        db.close()


GARBAGE = {
    "text": b"this is not a database, though it is long enough to be one\n" * 100,
    "zero page": bytes(4096),
    "header only": b"SQLite format 3\x00" + b"\xff" * 84,
}


@pytest.mark.parametrize(
    "kind", [*GARBAGE, "cut", "scrambled", "directory", "symlink", "stranger", "old table"]
)
def test_a_damaged_file_is_moved_aside_and_a_new_one_serves(path: Path, kind: str) -> None:
    result = measured(Compression.GZIP)
    with Catalog(path) as catalog:
        catalog.record_many(
            [measure(pack(b"%d" % n, Compression.GZIP), Compression.GZIP) for n in range(200)], Stored.BLOB
        )
    _damage(path, kind)
    with Catalog(path) as catalog:
        assert catalog.rebuilt is not None
        assert "moved to" in catalog.rebuilt
        assert catalog.pairs() == []
        catalog.record(result, Stored.BLOB)
    assert len(moved_aside(path)) == 1
    with Catalog(path) as catalog:
        assert catalog.rebuilt is None
        assert catalog.diff_id(result.digest) == result.diff_id


def moved_aside(path: Path) -> list[Path]:
    beside = ("-journal", "-wal", "-shm")
    return [p for p in path.parent.glob("catalog.sqlite.corrupt-*") if not p.name.endswith(beside)]


def _damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind in GARBAGE:
        path.write_bytes(GARBAGE[kind])
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "scrambled":
        path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    elif kind == "directory":
        path.unlink()
        path.mkdir()
    elif kind == "symlink":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
    else:
        db = sqlite3.connect(path)
        if kind == "stranger":
            db.execute("PRAGMA user_version = 0")
        else:
            db.execute("ALTER TABLE pair RENAME COLUMN decoder TO coder")
        db.commit()
        db.close()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["pair", "image"])
@pytest.mark.parametrize("harm", UNUSABLE.values(), ids=list(UNUSABLE))
def test_a_file_made_to_do_harm_is_moved_aside_with_all_that_is_beside_it(
    path: Path, harm: Callable[[Path, str], None], table: str
) -> None:
    result = measured(Compression.GZIP)
    with Catalog(path) as catalog:
        catalog.record(result, Stored.BLOB)
        catalog.put_image(image("docker.io/a:1", 1))
    harm(path, table)
    n_files = len(list(path.parent.iterdir()))
    began = time.monotonic()
    with Catalog(path) as catalog:
        assert catalog.rebuilt is not None
        assert not (catalog.pairs() or catalog.holdings() or catalog.images())
        catalog.record(result, Stored.BLOB)
        catalog.put_image(image("docker.io/a:1", 1))
        assert len(catalog.pairs()) == len(catalog.images()) == 1
    assert time.monotonic() - began < 20
    assert len(moved_aside(path)) == 1
    assert not Path(f"{path}-wal").exists() and not Path(f"{path}-shm").exists()
    assert len(list(path.parent.iterdir())) <= n_files + 2, "nothing of it was removed"
    with Catalog(path) as catalog:
        assert catalog.rebuilt is None


def test_no_journal_has_another_file_removed(path: Path, tmp_path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.record(measured(Compression.GZIP), Stored.BLOB)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal_that_removes(path, victim)
    with Catalog(path) as catalog:
        assert "names another file" in str(catalog.rebuilt)
        assert catalog.pairs() == []
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE holding SET digest = 'sha256:../../x'",
        "UPDATE holding SET size = 'many'",
        "UPDATE pair SET compression = 'none'",
        "UPDATE pair SET diff_id = x'00'",
    ],
)
def test_rows_that_the_schema_would_refuse_are_damage(path: Path, sql: str) -> None:
    with Catalog(path) as catalog:
        catalog.record(measured(Compression.GZIP), Stored.BLOB)
    statements(path, sql)
    with Catalog(path) as catalog:
        assert catalog.rebuilt is not None
        assert catalog.pairs() == []


def test_a_schema_that_lacks_a_check_is_another_one(path: Path) -> None:
    Catalog(path).close()
    with closing(sqlite3.connect(path)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'pair'").fetchone()
    bare = sql.replace("CHECK (decoder <> '')", "")
    assert bare != sql
    statements(path, "DROP TABLE pair", bare, "CREATE INDEX pair_by_diff_id ON pair (diff_id)")
    with Catalog(path) as catalog:
        assert "its table 'pair' is another one" in str(catalog.rebuilt)


def test_a_crash_in_a_transaction_is_rolled_back(path: Path, tmp_path: Path) -> None:
    result = measured(Compression.GZIP)
    with Catalog(path) as catalog:
        catalog.record(result, Stored.BLOB)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        for n in range(2000):
            db.execute(
                "INSERT INTO pair VALUES (?, ?, 1, 1, 'gzip', 'd', 1)",
                (str(digest_number(n)), str(digest_number(n))),
            )
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in (path.name, f"{path.name}-journal"):
            shutil.copy(path.parent / name, crashed / name)
        db.execute("ROLLBACK")
    with Catalog(crashed / path.name) as catalog:
        assert catalog.rebuilt is None
        assert [pair.digest for pair in catalog.pairs()] == [result.digest]


def test_two_damaged_files_in_one_second_are_both_kept(path: Path) -> None:
    for n in range(2):
        path.write_bytes(b"damage %d" % n)
        Catalog(path).close()
    assert len(moved_aside(path)) == 2


def test_a_journal_left_by_a_lost_database_does_not_enter_the_new_one(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.record(measured(Compression.GZIP), Stored.BLOB)
    journal = path.with_name("catalog.sqlite-journal")
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + path.read_bytes())
    path.unlink()
    with Catalog(path) as catalog:
        assert catalog.pairs() == []
        assert catalog.rebuilt is None


def test_a_file_of_a_newer_version_is_left_as_it_is(path: Path) -> None:
    Catalog(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {catalogfile.SCHEMA + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(CatalogError, match="newer version"):
        Catalog(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["catalog.sqlite", "catalog.sqlite.lock"]


def test_the_schema_refuses_rows_that_make_no_sense(path: Path) -> None:
    Catalog(path).close()
    good = (digest_number(1), digest_number(2), 1, 2, "gzip", "d", 3)
    db = sqlite3.connect(path, isolation_level=None)
    insert = "INSERT INTO pair VALUES (?, ?, ?, ?, ?, ?, ?)"
    spoiled: list[tuple[int, Any]] = [
        (0, "sha256:" + "A" * 64),
        (0, "sha256:" + "a" * 63),
        (0, "md5:" + "a" * 67),
        (0, None),
        (1, "sha512:" + "a" * 64),
        (2, -1),
        (2, "many"),
        (2, 1.5),
        (3, 1 << 53),
        (4, "xz"),
        (4, "none"),  # a plain blob is its own content
        (5, ""),
        (6, -1),
    ]
    try:
        for column, value in spoiled:
            row: list[Any] = [str(v) if isinstance(v, str) else v for v in good]
            row[column] = value
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(insert, row)
        db.execute(insert, [str(v) if isinstance(v, str) else v for v in good])
    finally:
        db.close()


def test_a_file_that_cannot_grow_is_a_typed_error_and_leaves_what_was_there(path: Path) -> None:
    kept = measured(Compression.GZIP)
    many = [measure(pack(b"%d" % n, Compression.GZIP), Compression.GZIP) for n in range(200)]

    def write() -> None:
        with Catalog(path) as catalog:
            catalog.record(kept, Stored.BLOB)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
            with pytest.raises(CatalogError):
                catalog.record_many(many, Stored.BLOB)
            assert [pair.digest for pair in catalog.pairs()] == [kept.digest]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            catalog.record_many(many, Stored.BLOB)

    assert in_child(write) == 0
    with Catalog(path) as catalog:
        assert len(catalog.pairs()) == 201


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError):
        Catalog(tmp_path / "not" / "there" / "catalog.sqlite")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CatalogError):
        Catalog(tmp_path / "file" / "catalog.sqlite")


def test_another_writer_is_waited_for_and_then_reported(
    catalog: Catalog, path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("layertee.store.catalog.BUSY_S", 0.01)
    with lock(path.with_name("catalog.sqlite.lock"), timeout=1), pytest.raises(CatalogError, match="locked"):
        catalog.record(measured(Compression.GZIP))
    catalog.record(measured(Compression.GZIP))


def test_reading_does_not_wait_for_a_writer(catalog: Catalog, path: Path) -> None:
    with lock(path.with_name("catalog.sqlite.lock"), timeout=1):
        assert catalog.pairs() == []


def test_threads_share_one_catalog(catalog: Catalog) -> None:
    results = [measure(pack(b"%d" % n, Compression.GZIP), Compression.GZIP) for n in range(40)]

    def work(mine: list[TeeResult]) -> None:
        for result in mine:
            catalog.record(result, Stored.BLOB)
            assert catalog.diff_id(result.digest) == result.diff_id

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, results[n::4]) for n in range(4)]:
            done.result()
    assert len(catalog.pairs()) == 40


@pytest.mark.slow
def test_processes_share_one_file(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from layertee.store.catalog import Catalog;"
        "from layertee.image.document import Digest; from layertee.store.catalog import PulledImage\n"
        "with Catalog(Path(sys.argv[1])) as c:\n"
        "    for n in range(15):\n"
        "        d = Digest.of(b'%d' % n)\n"
        "        c.put_image(PulledImage(f'{sys.argv[2]}-{n}', d, d, d, 'linux/amd64', n))\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    children = [subprocess.Popen([*command, str(n)]) for n in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    with Catalog(path) as catalog:
        assert catalog.rebuilt is None
        assert len(catalog.images()) == 60


def test_a_closed_catalog_and_one_from_before_a_fork_are_misuse(catalog: Catalog, path: Path) -> None:
    def in_the_child() -> None:
        try:
            catalog.pairs()
        except RuntimeError:
            return
        os._exit(3)

    assert in_child(in_the_child) == 0
    catalog.close()
    catalog.close()
    with pytest.raises(RuntimeError, match="closed"):
        catalog.pairs()
    with pytest.raises(RuntimeError, match="closed"):
        catalog.record(measured(Compression.GZIP))


def test_a_catalog_in_memory_serves_one_run(tmp_path: Path) -> None:
    with Catalog(None) as catalog:
        result = measured(Compression.GZIP)
        catalog.record(result, Stored.BLOB)
        assert catalog.diff_id(result.digest) == result.diff_id
    assert list(tmp_path.iterdir()) == []


# --- against a model -----------------------------------------------------------------------

BLOBS = [gzip_layer(f"layer {n}")[2] for n in range(4)] + [measured(c, b"shared") for c in Compression]


class AgainstADict(RuleBasedStateMachine):
    """Any sequence of calls gives what two dicts would give."""

    def __init__(self) -> None:
        super().__init__()
        self.catalog = Catalog(None)
        self.pairs: dict[Digest, DiffID] = {}
        self.held: dict[str, DiffID] = {}

    def teardown(self) -> None:
        self.catalog.close()

    @rule(result=st.sampled_from(BLOBS), stored=st.sampled_from([None, *Stored]))
    def record(self, result: TeeResult, stored: Stored | None) -> None:
        self.catalog.record(result, stored)
        self.pairs[result.digest] = result.diff_id
        if stored is not None:
            self.held[str(result.diff_id if stored is Stored.TAR else result.digest)] = result.diff_id

    @rule(result=st.sampled_from(BLOBS))
    def forget(self, result: TeeResult) -> None:
        self.catalog.forget(result.digest)
        self.held.pop(str(result.digest), None)

    @rule(result=st.sampled_from(BLOBS))
    def contradict(self, result: TeeResult) -> None:
        if result.digest in self.pairs:
            with pytest.raises(DiffIDMismatch):
                self.catalog.record(contradicting(result), Stored.BLOB)

    @invariant()
    def agrees(self) -> None:
        assert {pair.digest: pair.diff_id for pair in self.catalog.pairs()} == self.pairs
        assert {str(held.digest): held.diff_id for held in self.catalog.holdings()} == self.held


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@given(st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_text_but_the_empty_one_may_be_the_name_of_an_image(name: str) -> None:
    with Catalog(None) as catalog:
        row = image(name, 1)
        try:
            catalog.put_image(row)
        except CatalogError:
            assert name == ""
        else:
            assert catalog.image(name) == row
