"""SQLite files that anybody may have made: what SQLite is not given, and what bounds the rest."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from layertee.disk.database import (
    MAX_FILE,
    Unfit,
    is_wal,
    refuse_programs,
    refuse_unfit,
    restrain,
    schema_of,
)
from tests.support.hostile_sqlite import journal_that_removes, statements

WANTED = {"t": ("a", "b")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "some.sqlite"
    statements(made, "CREATE TABLE t (a TEXT, b TEXT)", "INSERT INTO t VALUES ('x', 'y')")
    return made


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        yield opened


# --- the files ------------------------------------------------------------------------------------


def test_a_plain_database_is_fit(path: Path) -> None:
    refuse_unfit(path)
    path.with_name("some.sqlite-journal").write_bytes(b"")
    refuse_unfit(path)


def test_what_is_not_there_is_the_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        refuse_unfit(tmp_path / "nothing")


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "symlink", "enormous"])
def test_strange_files_are_not_given_to_sqlite(path: Path, suffix: str, kind: str) -> None:
    other = Path(f"{path}{suffix}")
    other.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(other)
    elif kind == "directory":
        other.mkdir()
    elif kind == "symlink":
        other.symlink_to("/dev/zero")
    else:
        other.touch()
        os.truncate(other, MAX_FILE + 1)
    with pytest.raises(Unfit):
        refuse_unfit(path)


def test_a_journal_that_would_have_a_file_removed_is_not_given_to_sqlite(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal_that_removes(path, victim)
    with pytest.raises(Unfit, match="names another file"):
        refuse_unfit(path)
    with closing(sqlite3.connect(path)) as db:  # what is kept from it
        assert db.execute("SELECT * FROM t").fetchall() == [("x", "y")]
    assert not victim.exists()


def test_a_hot_journal_of_one_database_is_fit(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((str(n), "y" * 500) for n in range(500)))
        assert Path(f"{path}-journal").stat().st_size > 0
        refuse_unfit(path)
        db.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("head", "expected"), [(b"\x01\x01", False), (b"\x02\x02", True), (b"\x01\x02", True)]
)
def test_the_head_says_whether_there_is_a_write_ahead_log(head: bytes, expected: bool) -> None:
    assert is_wal(bytes(18) + head + bytes(80)) is expected


# --- the connection -------------------------------------------------------------------------------


def test_a_statement_that_goes_on_for_ever_is_stopped(db: sqlite3.Connection) -> None:
    steps = restrain(db, limit=1_000_000)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute(endless).fetchall()
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    assert time.monotonic() - began < 10
    steps.begin()
    assert db.execute("SELECT * FROM t").fetchall() == [("x", "y")]


def test_each_piece_of_work_has_all_its_steps(db: sqlite3.Connection) -> None:
    steps = restrain(db, limit=1_000_000)
    count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 50000) SELECT count(*) FROM c"
    for _ in range(10):
        steps.begin()
        assert db.execute(count).fetchall() == [(50_000,)]
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        for _ in range(10):
            db.execute(count).fetchall()
    steps.begin(100_000_000)
    for _ in range(10):
        db.execute(count).fetchall()


def test_values_and_attachments_are_bounded(db: sqlite3.Connection, tmp_path: Path) -> None:
    restrain(db)
    with pytest.raises(sqlite3.DataError, match="too big"):
        db.execute("SELECT hex(zeroblob(1000000))").fetchall()
    with pytest.raises(sqlite3.OperationalError):
        db.execute("ATTACH ? AS other", (str(tmp_path / "other"),))
    for pragma, value in (("trusted_schema", 0), ("cell_size_check", 1), ("mmap_size", 0)):
        assert db.execute(f"PRAGMA {pragma}").fetchone() == (value,)


def test_the_size_of_the_cache_is_not_the_wish_of_the_file(path: Path) -> None:
    statements(path, "PRAGMA default_cache_size = 1000000000")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("PRAGMA cache_size").fetchone() == (1_000_000_000,)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema_of(db, restrain(db))
        assert db.execute("PRAGMA cache_size").fetchone() == (-2000,)


# --- the schema -----------------------------------------------------------------------------------


def test_a_schema_is_rows(db: sqlite3.Connection) -> None:
    db.execute("CREATE INDEX i ON\n  t (b)")
    assert schema_of(db, restrain(db)) == {
        ("table", "t", "t", "CREATE TABLE t (a TEXT, b TEXT)"),
        ("index", "i", "t", "CREATE INDEX i ON t (b)"),
    }


def test_plain_tables_and_indexes_are_no_programs(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE unknown (c PRIMARY KEY, d) WITHOUT ROWID")
    db.execute("ALTER TABLE t ADD COLUMN later")
    refuse_programs(db, schema_of(db, restrain(db)), WANTED)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE VIEW v AS SELECT 1", "a view"),
        ("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END", "a trigger"),
        ("ALTER TABLE t RENAME TO other", "no table t"),
        ("ALTER TABLE t RENAME COLUMN b TO c", "no column b"),
        (
            "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'create /**/ virtual table x using y')",
            "a virtual table",
        ),
        (
            "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING y')",
            "a virtual table",
        ),
        ("INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 9, x'00')", "."),
        ("INSERT INTO sqlite_master VALUES ('nonsense', 'x', 'x', 9, 'CREATE')", "."),
        ("INSERT INTO sqlite_master VALUES (NULL, NULL, NULL, NULL, NULL)", "."),
    ],
)
def test_programs_and_other_tables_are_refused(path: Path, sql: str, why: str) -> None:
    statements(path, sql)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        steps = restrain(db)
        with pytest.raises((Unfit, sqlite3.DatabaseError), match=why):
            refuse_programs(db, schema_of(db, steps), WANTED)


@pytest.mark.parametrize("how", ["VIRTUAL", "STORED"])
def test_a_column_that_is_computed_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "computed"
    statements(path, f"CREATE TABLE t (a TEXT, b TEXT AS (upper(a)) {how})")
    with closing(sqlite3.connect(path)) as db:
        steps = restrain(db)
        with pytest.raises(Unfit, match="no column b that is stored"):
            refuse_programs(db, schema_of(db, steps), WANTED)


def test_a_schema_of_very_many_objects_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many"
    statements(path, "BEGIN", *(f"CREATE TABLE t{n} (a)" for n in range(300)), "COMMIT")
    with closing(sqlite3.connect(path)) as db:
        steps = restrain(db)
        with pytest.raises(Unfit, match="more than 200"):
            schema_of(db, steps)
