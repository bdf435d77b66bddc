"""SQLite files that anybody may have made, opened so that nothing in them decides what this process does.

A database file is also a program: its schema may hold views that compute for ever, triggers that change what
is written, tables whose reads are calls, columns that are expressions. And the files beside it are orders to
SQLite: a ``-journal`` is written back into the database, a super-journal named at its end is *removed*
afterwards, and a pipe under the journal's name is waited for. (https://sqlite.org/security.html, "Untrusted
SQLite Database Files"; ``pager_delsuper`` in pager.c.) So:

1. before SQLite is given a path, what is there is looked at: plain files of bounded size, no write-ahead log,
   no super-journal (``refuse_unfit``);
2. a connection is restrained before it reads the schema: nothing in it is trusted, values and statements are
   of bounded length, every statement takes a bounded number of steps (``restrain``);
3. the schema is read as rows, before any other statement, and must consist of what the caller expects
   (``schema_of``, ``refuse_programs``).

All of these raise Unfit, or sqlite3.Error. What is done about it is for the owner of the file to say.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from .files import close

MAX_FILE: Final = 1 << 30  # some millions of rows; far beyond what blobs of one machine come to
# SQLite's machine makes some 75 million steps a second; a row of a few columns takes about ten.
STEPS: Final = 1_000_000_000
_SCHEMA_STEPS: Final = 200_000  # parsing the statements of a schema costs far more than reading its rows
_STEPS_AT_ONCE: Final = 10_000
_MAX_OBJECTS: Final = 200
_MAX_VALUE: Final = 16 << 10  # bytes of a value or of a row: names of blobs and images
_CACHE_KIB: Final = 2000  # SQLite's own default; a file may ask for any other

_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_WAL_MODE: Final = 2  # https://sqlite.org/fileformat.html, "File format version numbers"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
BESIDE: Final = ("-journal", "-wal", "-shm")  # what SQLite puts beside a database


class Unfit(Exception):
    """The file is none that SQLite should be given, or not the database it should be. The text says why."""


class SchemaRow(NamedTuple):
    """An object of a database: what it is, and the statement that made it ("" for an automatic index)."""

    kind: str
    name: str
    table: str
    sql: str


class Steps:
    """A bound on what statements cost: SQLite stops one with SQLITE_INTERRUPT that goes beyond."""

    def __init__(self, db: sqlite3.Connection, limit: int = STEPS) -> None:
        self._limit = limit
        self._left = limit
        db.set_progress_handler(self._is_used_up, _STEPS_AT_ONCE)

    def begin(self, limit: int | None = None) -> None:
        """What follows may take ``limit`` steps, or as many as it always may."""
        self._left = self._limit if limit is None else limit

    def _is_used_up(self) -> bool:
        self._left -= _STEPS_AT_ONCE
        return self._left < 0


def refuse_unfit(path: Path) -> None:
    """Raise Unfit unless ``path`` and what is beside it are files that SQLite can be given. Raises OSError.

    Only names are looked at, and the journal: closing a descriptor of the database itself would drop the
    locks that other connections of this process have on it.
    """
    if not _is_plain(path):
        raise Unfit("not a plain file")
    journal, *log = (path.with_name(path.name + suffix) for suffix in BESIDE)
    for other in log:
        if os.path.lexists(other):
            raise Unfit(f"there is a write-ahead log beside it ({other.name})")
    if not os.path.lexists(journal):
        return
    if not _is_plain(journal):
        raise Unfit("its journal is not a plain file")
    fd = os.open(journal, _READ)
    try:
        end = os.fstat(fd).st_size
        if end >= len(_JOURNAL_MAGIC) and os.pread(fd, 8, end - 8) == _JOURNAL_MAGIC:
            raise Unfit("its journal names another file")
    except FileNotFoundError:
        return  # a transaction ended just now
    finally:
        close(fd)


def is_wal(head: bytes) -> bool:
    """Whether ``head``, the beginning of a database, says that its journal is a write-ahead log."""
    return _WAL_MODE in head[18:20]


def restrain(db: sqlite3.Connection, *, limit: int = STEPS) -> Steps:
    """Bound what ``db`` may do, before it reads its schema. Raises sqlite3.Error.

    ``limit``: the steps that one statement, or what is done between two calls of ``Steps.begin``, may take.
    """
    steps = Steps(db, limit)
    for category, most in (
        (sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4 * _MAX_VALUE),
        (sqlite3.SQLITE_LIMIT_COLUMN, 100),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 5),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
    ):
        db.setlimit(category, most)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        db.execute(f"PRAGMA {pragma}")
    return steps


def schema_of(db: sqlite3.Connection, steps: Steps) -> frozenset[SchemaRow]:
    """All objects of the database, read as rows. Raises Unfit, sqlite3.Error."""
    steps.begin(_SCHEMA_STEPS)
    try:
        rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(_MAX_OBJECTS + 1)
    except (UnicodeDecodeError, MemoryError) as exc:
        # SQLite's error has a name of the schema in it, which is no text; or a few bytes ask for more memory
        # than there is.
        raise Unfit("its schema is damaged") from exc
    if len(rows) > _MAX_OBJECTS:
        raise Unfit(f"it has more than {_MAX_OBJECTS} tables and indexes")
    found = set()
    for row in rows:
        if not all(isinstance(text, str) for text in (row[:3] if row[3] is None else row)):
            raise Unfit("its schema is damaged")
        found.add(SchemaRow(row[0], row[1], row[2], " ".join((row[3] or "").split())))
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")  # needs the schema, as the file's own wish is in there
    steps.begin()
    return frozenset(found)


def refuse_programs(
    db: sqlite3.Connection, schema: Collection[SchemaRow], wanted: Mapping[str, Collection[str]]
) -> None:
    """Raise Unfit unless all objects are plain tables and indexes, with the ``wanted`` columns among theirs.

    For the file of another tool, which may have more tables and columns than this program knows.
    """
    for row in schema:
        words = row.sql.upper().split(None, 2)[:2]
        if row.kind not in ("table", "index") or (row.kind == "table" and words != ["CREATE", "TABLE"]):
            kind = "virtual table" if row.kind == "table" else row.kind
            raise Unfit(f"it has a {kind!s:.20} ({row.name!r:.60})")
    tables = {row.name for row in schema if row.kind == "table"}
    for table, columns in wanted.items():
        if table not in tables:
            raise Unfit(f"it has no table {table}")
        # name → 0 for a column that is stored; others are computed as they are read
        kinds = dict(db.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall())
        for column in columns:
            if kinds.get(column) != 0:
                raise Unfit(f"its table {table} has no column {column} that is stored")


def _is_plain(path: Path) -> bool:
    """Raises Unfit (too large), OSError."""
    found = os.stat(path, follow_symlinks=False)
    if found.st_size > MAX_FILE:
        raise Unfit(f"{path.name} has {found.st_size} bytes, more than such a file ever needs")
    return stat.S_ISREG(found.st_mode)
