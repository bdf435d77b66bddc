"""What somebody who wants to do harm could make of a SQLite database, and put beside it."""

from __future__ import annotations

import itertools
import os
import sqlite3
import struct
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c)"


def statements(path: Path, *sql: str) -> None:
    """Run ``sql`` with everything allowed that usually is not."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("PRAGMA writable_schema = ON")
        for one in sql:
            db.execute(one)


def columns(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def endless_view(path: Path, table: str) -> None:
    """A view in the place of the table, of which there is always another row."""
    names = columns(path, table)
    values = ", ".join(f"x AS {name}" for name in names)
    view = f"CREATE VIEW {table} AS {_ENDLESS} SELECT {values} FROM c"
    statements(path, f"ALTER TABLE {table} RENAME TO moved", view)


def unused_view(path: Path, table: str) -> None:
    statements(path, f"CREATE VIEW beside AS {_ENDLESS} SELECT x FROM c")


def endless_trigger(path: Path, table: str) -> None:
    """A trigger that computes for ever whenever a row is written."""
    work = f"SELECT count(*) FROM ({_ENDLESS} SELECT x FROM c)"
    statements(path, f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN {work}; END")


def computed_column(path: Path, table: str) -> None:
    """The second column is computed out of the first as it is read."""
    first, second, *others = columns(path, table)
    rest = "".join(f", {name}" for name in others)
    statements(
        path,
        f"ALTER TABLE {table} RENAME TO moved",
        f"CREATE TABLE {table} ({first} TEXT, {second} TEXT AS (replace({first}, 'a', 'b')){rest})",
    )


def virtual_table(path: Path, table: str) -> None:
    statements(
        path,
        f"ALTER TABLE {table} RENAME TO moved",
        f"INSERT INTO sqlite_master VALUES ('table', '{table}', '{table}', 0,"
        f" 'CREATE VIRTUAL TABLE {table} USING json_each')",
    )


def other_columns(path: Path, table: str) -> None:
    first = columns(path, table)[0]
    statements(path, f"ALTER TABLE {table} RENAME COLUMN {first} TO renamed")


def very_many_objects(path: Path, table: str) -> None:
    """A schema that takes minutes to be parsed: names are compared with all others."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.executemany(
            "INSERT INTO sqlite_master VALUES ('view', ?, ?, 0, ?)",
            ((f"v{n}", f"v{n}", f"CREATE VIEW v{n} AS SELECT 1") for n in range(100_000)),
        )


def long_statement(path: Path, table: str) -> None:
    statements(path, f"CREATE INDEX i ON {table} ({columns(path, table)[0]}) -- {'long ' * 20_000}")


def statement_that_is_no_text(path: Path, table: str) -> None:
    """SQLite's error has the word in it that it cannot read."""
    content = path.read_bytes()
    assert b"CREATE TABLE" in content
    path.write_bytes(content.replace(b"CREATE TABLE", b"CREATE T\xbbBLE"))


def thicket(path: Path, table: str) -> None:
    """The rows' tree is 18 pages deep, and all children of a page are the same one: more ways than atoms."""
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    leaf = bytes(content[(root - 1) * size : root * size])
    is_table = leaf[0] == 13
    cell = leaf[struct.unpack(">H", leaf[8:10])[0] :][: 1 + leaf[struct.unpack(">H", leaf[8:10])[0]]]
    depth, n_children = 18, 30
    first = len(content) // size + 1
    chain = [root, *range(first, first + depth)]
    content += bytes(size * depth)
    for page, child in itertools.pairwise(chain):
        content[(page - 1) * size : page * size] = _interior(size, is_table, child, n_children, cell)
    content[(chain[-1] - 1) * size : chain[-1] * size] = leaf
    content[28:32] = struct.pack(">I", len(content) // size)
    path.write_bytes(content)


def _interior(size: int, is_table: bool, child: int, n: int, leaf_cell: bytes) -> bytes:
    one = struct.pack(">I", child) + (b"\x01" if is_table else leaf_cell)
    start = size - n * len(one)
    head = struct.pack(">BHHHBI", 5 if is_table else 2, 0, n, start, 0, child)
    pointers = b"".join(struct.pack(">H", start + k * len(one)) for k in range(n))
    return (head + pointers).ljust(start, b"\0") + one * n


def enormous(path: Path, table: str) -> None:
    os.truncate(path, 1 << 40)


def _no_journal(path: Path) -> None:
    Path(f"{path}-journal").unlink(missing_ok=True)


def journal_pipe(path: Path, table: str) -> None:
    _no_journal(path)
    os.mkfifo(f"{path}-journal")


def journal_directory(path: Path, table: str) -> None:
    _no_journal(path)
    os.mkdir(f"{path}-journal")


def journal_link(path: Path, table: str) -> None:
    _no_journal(path)
    os.symlink("/dev/zero", f"{path}-journal")


def write_ahead_log(path: Path, table: str) -> None:
    Path(f"{path}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(1000))


def shared_memory(path: Path, table: str) -> None:
    os.mkfifo(f"{path}-shm")


def pipe(path: Path, table: str) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path, table: str) -> None:
    path.unlink()
    path.mkdir()


# Whatever is asked of such a file, the answer has to come soon, and be that it cannot be used.
UNUSABLE: Mapping[str, Callable[[Path, str], None]] = {
    made.__name__.replace("_", " "): made
    for made in (
        *(endless_view, unused_view, endless_trigger, computed_column, virtual_table, other_columns),
        *(very_many_objects, long_statement, statement_that_is_no_text, thicket, enormous),
        *(journal_pipe, journal_directory, journal_link, write_ahead_log, shared_memory, pipe, directory),
    )
}


def journal_that_removes(path: Path, victim: Path) -> Path:
    """A hot journal beside ``path`` that names ``victim`` as its super-journal; returns the journal.

    SQLite, given such a database to write to, rolls it back and then removes the super-journal.
    """
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
    page = path.read_bytes()[:size]
    n_pages = path.stat().st_size // size
    magic = bytes.fromhex("d9d505f920a163d7")
    nonce = 7
    head = (magic + struct.pack(">IIIII", 1, nonce, n_pages, 512, size)).ljust(512, b"\0")
    total = nonce
    at = size - 200
    while at > 0:
        total += page[at]
        at -= 200
    record = struct.pack(">I", 1) + page + struct.pack(">I", total & 0xFFFFFFFF)
    name = os.fsencode(victim)
    lock_page = (1 << 30) // size + 1
    end = struct.pack(">I", lock_page) + name + struct.pack(">II", len(name), sum(name)) + magic
    journal = Path(f"{path}-journal")
    journal.write_bytes(head + record + end)
    return journal
