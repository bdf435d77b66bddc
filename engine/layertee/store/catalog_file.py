"""The SQLite file under the catalog: its schema, how it is opened and checked, how it is given up.

SQLite's rollback journal, not WAL: connections that write and checkpoint at once could corrupt a
WAL database up to SQLite 3.51.2 (https://sqlite.org/wal.html#walresetbug), and distributions ship
older ones. ``user_version`` is the schema; a newer one is left alone, anything that is not a sound
catalog is moved aside. Callers hold the writers' lock.

A store may have come here on a disk that somebody else wrote, so the file is opened as disk/database.py has
it, and its schema must be the one made below, statement for statement.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Final

from ..disk.database import BESIDE, SchemaRow, Steps, Unfit, is_wal, refuse_unfit, restrain, schema_of
from ..disk.files import close, disk_error, sync_directory
from ..errors import CatalogError, LocalError

SCHEMA: Final = 1
READ_BUSY_S: Final = 1.0  # whoever only reads goes on without
BUSY_S: Final = 5.0  # how long one process waits for another's write; each takes milliseconds


def _is_hash(column: str) -> str:
    name = f"length({column}) || substr({column}, 1, 7) IN ('71sha256:', '135sha512:')"
    return f"CHECK (typeof({column}) = 'text' AND {name} AND substr({column}, 8) NOT GLOB '*[^0-9a-f]*')"


def _is_count(column: str) -> str:
    return f"CHECK (typeof({column}) = 'integer' AND {column} BETWEEN 0 AND 9007199254740991)"


_BLOB_COLUMNS = f"""
    digest TEXT NOT NULL PRIMARY KEY {_is_hash("digest")},
    diff_id TEXT NOT NULL {_is_hash("diff_id")},
    size INTEGER NOT NULL {_is_count("size")},
    uncompressed_size INTEGER NOT NULL {_is_count("uncompressed_size")},
    compression TEXT NOT NULL CHECK (compression IN ('none', 'gzip', 'zstd')),"""
_TAUTOLOGY = "CHECK (compression <> 'none' OR (digest = diff_id AND size = uncompressed_size))"
_TABLES = (
    f"""CREATE TABLE pair ({_BLOB_COLUMNS}
    decoder TEXT NOT NULL CHECK (decoder <> ''),
    recorded_at INTEGER NOT NULL {_is_count("recorded_at")},
    {_TAUTOLOGY}) WITHOUT ROWID""",
    "CREATE INDEX pair_by_diff_id ON pair (diff_id)",
    f"""CREATE TABLE holding ({_BLOB_COLUMNS}
    verified_at INTEGER NOT NULL {_is_count("verified_at")},
    {_TAUTOLOGY}) WITHOUT ROWID""",
    "CREATE INDEX holding_by_diff_id ON holding (diff_id)",
    f"""CREATE TABLE image (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    manifest_digest TEXT NOT NULL {_is_hash("manifest_digest")},
    local_manifest_digest TEXT NOT NULL {_is_hash("local_manifest_digest")},
    config_digest TEXT NOT NULL {_is_hash("config_digest")},
    platform TEXT NOT NULL,
    pulled_at INTEGER NOT NULL {_is_count("pulled_at")}) WITHOUT ROWID""",
)
# What says that the file is not, or no longer, a catalog; the rest says something about the moment.
_DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_ERROR}
)
_BEYOND_BOUNDS = frozenset({sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG})
_FLUSHES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
_UNREADABLE = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})


class Damaged(Exception):
    """The file cannot serve as a catalog; the text says why."""


def open_memory() -> tuple[sqlite3.Connection, Steps]:
    """An empty catalog that is gone with the connection."""
    db = _connect(":memory:")
    steps = restrain(db)
    _make_tables(db)
    return db, steps


def open_file(path: Path) -> tuple[sqlite3.Connection, Steps]:
    """A checked connection, and what bounds its statements. Raises Damaged, CatalogError."""
    db: sqlite3.Connection | None = None
    try:
        _prepare(path)
        opened = db = _connect(str(path))
        steps = restrain(db)
        version = _number(db, "PRAGMA user_version")
        if version > SCHEMA:
            raise CatalogError(
                f"{path} was written by a newer version of this program (schema {version}, this one knows"
                f" {SCHEMA}); it is left as it is: update the program, or give it another store"
            )
        schema = schema_of(db, steps)
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        if version == 0:
            if schema:
                raise Damaged("not a catalog")
            flushed(lambda: _make_tables(opened) if _number(opened, "PRAGMA user_version") == 0 else None)
        elif schema != _own_schema():
            raise Damaged(f"not a catalog: {_strangest(schema ^ _own_schema())} is another one")
        verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if verdict != "ok":
            raise Damaged(f"damaged ({verdict})")
        return db, steps
    except BaseException as exc:
        if db is not None:
            db.close()
        if isinstance(exc, Unfit):
            raise Damaged(str(exc)) from exc
        if isinstance(exc, sqlite3.Error):
            if says_damage(exc) or (getattr(exc, "sqlite_errorcode", 0) & 0xFF) in _BEYOND_BOUNDS:
                raise Damaged(f"unreadable ({exc})") from exc
            raise CatalogError(f"opening {path}: {exc}") from exc
        raise


def open_to_read(path: Path) -> tuple[sqlite3.Connection, Steps]:
    """A connection that writes nothing, neither the file nor one beside it, and what bounds its statements.

    While a transaction is being written it raises CatalogError, and after a crash until the next writer has
    put the file in order: SQLite would give the journal an owner before it reads it. One thread at a time may
    open and use it: closing a descriptor of the file drops the locks that this process has on it. Raises
    Damaged, CatalogError.
    """
    db: sqlite3.Connection | None = None
    try:
        refuse_unfit(path)
        if journal_of(path) is not None:
            raise CatalogError(f"{path} is being written to, or its last writer died")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.pread(fd, 100, 0)
        finally:
            close(fd)
        if is_wal(head):
            raise Unfit("its journal is a write-ahead log, which cannot be read without writing")
        db = _connect(f"{Path(os.path.abspath(path)).as_uri()}?mode=ro", busy_s=READ_BUSY_S)
        steps = restrain(db)
        db.execute("PRAGMA query_only = ON")
        schema = schema_of(db, steps)
        if _number(db, "PRAGMA user_version") != SCHEMA or schema != _own_schema():
            raise CatalogError(f"{path} is not a catalog that this program knows")
        return db, steps
    except BaseException as exc:
        if db is not None:
            db.close()
        if isinstance(exc, Unfit):
            raise Damaged(str(exc)) from exc
        if isinstance(exc, OSError):
            raise CatalogError(f"opening {path}: {exc.strerror}") from exc
        if isinstance(exc, sqlite3.Error):
            raise CatalogError(f"opening {path}: {exc}") from exc
        raise


def journal_of(path: Path) -> tuple[int, ...] | None:
    """What tells the journal of a transaction that has not ended from others; None where there is none."""
    try:
        found = os.stat(f"{path}-journal", follow_symlinks=False)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found.st_size else None


def _connect(target: str, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    is_uri = target.startswith("file:")
    return sqlite3.connect(target, timeout=busy_s, isolation_level=None, check_same_thread=False, uri=is_uri)


def _make_tables(db: sqlite3.Connection) -> None:
    try:
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


@cache
def _own_schema() -> frozenset[SchemaRow]:
    """What ``_TABLES`` come to in SQLite's own words."""
    db, steps = open_memory()
    with closing(db):
        return schema_of(db, steps)


def _strangest(rows: frozenset[SchemaRow]) -> str:
    """One of the objects that make a schema another one: what is no table first, then by name."""
    row = min(rows, key=lambda row: (row.kind == "table", row.name))
    return f"its {row.kind} {row.name!r:.60}"


def _prepare(path: Path) -> None:
    """An empty 0600 file where there is none; what is there must be fit to be opened. Raises Damaged.

    SQLite itself drops the journal of an empty database, so that of a lost one does no harm.
    """
    try:
        with suppress(FileExistsError):
            close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        refuse_unfit(path)
    except OSError as exc:
        raise CatalogError(str(disk_error(exc, "creating", path))) from exc


def set_aside(path: Path) -> Path:
    """Move the database and what is beside it out of the way; return the new name. Raises CatalogError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    for n in range(1, 1000):
        if not os.path.lexists(aside):
            break
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{n}")
    try:
        os.rename(path, aside)
        for suffix in BESIDE:
            with suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        sync_directory(path.parent)
    except OSError as exc:
        raise CatalogError(str(disk_error(exc, "moving the damaged catalog aside", path))) from exc
    except LocalError as exc:
        raise CatalogError(f"moving the damaged catalog aside: {exc}") from exc
    return aside


def flushed(transaction: Callable[[], None]) -> None:
    """``transaction``, and once more if what failed is a flush. Raises sqlite3.Error.

    A signal may interrupt one (on FUSE and NFS); SQLite does not ask again, nor does it say why it failed.
    All that the transaction changes is then written anew, journal and pages, so nothing is taken for flushed
    that the kernel gave up. A disk that fails does so again. What failed may have been the very last flush,
    so doing it twice must come to the same.
    """
    try:
        transaction()
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", 0) not in _FLUSHES:
            raise
        transaction()


def says_damage(exc: sqlite3.Error) -> bool:
    code = getattr(exc, "sqlite_errorcode", 0)
    return code in _UNREADABLE or (code & 0xFF) in _DAMAGE


def _number(db: sqlite3.Connection, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])
