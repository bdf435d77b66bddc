"""The map, read by a program that may not or does not want to write to it."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from layertee.errors import CatalogError
from layertee.image.media import Compression
from layertee.store.catalog import Catalog, Stored
from tests.support.compress import pack
from tests.support.hostile_sqlite import UNUSABLE
from tests.support.stock import snapshot
from tests.support.store import measure

RESULT = measure(pack(b"content", Compression.GZIP), Compression.GZIP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A catalog in a directory of its own, which knows ``RESULT``."""
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / "catalog.sqlite"
    with Catalog(path) as catalog:
        catalog.record(RESULT, Stored.BLOB)
    return path


def test_it_answers_what_the_one_that_writes_would_and_leaves_no_trace(path: Path) -> None:
    before = snapshot(path.parent)
    with Catalog.to_read(path) as catalog:
        assert catalog.diff_id(RESULT.digest) == RESULT.diff_id
        assert [pair.digest for pair in catalog.digests(RESULT.diff_id)] == [RESULT.digest]
        assert catalog.holds(RESULT.digest) is not None
    assert snapshot(path.parent) == before


def test_a_file_that_cannot_be_written_to_is_enough(path: Path) -> None:
    path.chmod(0o400)
    path.with_name("catalog.sqlite.lock").unlink()
    path.parent.chmod(0o500)
    with Catalog.to_read(path) as catalog:
        assert catalog.diff_id(RESULT.digest) == RESULT.diff_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    path.parent.chmod(0o700)


def test_to_write_is_a_misuse(path: Path) -> None:
    with Catalog.to_read(path) as catalog:
        with pytest.raises(RuntimeError, match="read only"):
            catalog.record(RESULT)
        with pytest.raises(RuntimeError, match="read only"):
            catalog.forget(RESULT.digest)


def test_what_is_written_meanwhile_is_seen(path: Path) -> None:
    other = measure(pack(b"other", Compression.ZSTD), Compression.ZSTD)
    with Catalog.to_read(path) as reader, Catalog(path) as writer:
        assert reader.diff_id(other.digest) is None
        writer.record(other)
        assert reader.diff_id(other.digest) == other.diff_id


@pytest.mark.parametrize(
    "spoiled", ["gone", "empty", "no database", "another one", "newer", "log", "symlink"]
)
def test_what_is_no_catalog_that_can_be_read_so_is_left_as_it_is(path: Path, spoiled: str) -> None:
    if spoiled == "gone":
        path.unlink()
    elif spoiled in ("empty", "no database"):
        path.write_bytes(b"" if spoiled == "empty" else b"x" * 8192)
    elif spoiled == "symlink":
        os.rename(path, path.with_name("real"))
        path.symlink_to("real")
    else:
        sql = {
            "another one": "CREATE TABLE more (x)",
            "newer": "PRAGMA user_version = 2",
            "log": "PRAGMA journal_mode = WAL",
        }[spoiled]
        with closing(sqlite3.connect(path)) as db:
            db.execute(sql)
            db.commit()
    before = snapshot(path.parent)
    with pytest.raises(CatalogError):
        Catalog.to_read(path)
    assert snapshot(path.parent) == before


def test_while_a_transaction_is_being_written_it_is_not_opened(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM holding")
        before = snapshot(path.parent)
        with pytest.raises(CatalogError, match="being written to"):
            Catalog.to_read(path)
        assert snapshot(path.parent) == before
        db.execute("ROLLBACK")
    with Catalog.to_read(path) as catalog:
        assert catalog.holds(RESULT.digest) is not None


@pytest.mark.parametrize("table", ["pair", "image"])
@pytest.mark.parametrize("harm", UNUSABLE.values(), ids=list(UNUSABLE))
def test_a_file_made_to_do_harm_does_none(path: Path, harm: Callable[[Path, str], None], table: str) -> None:
    harm(path, table)
    before = snapshot(path.parent)
    began = time.monotonic()
    with suppress(CatalogError), Catalog.to_read(path) as catalog:
        assert catalog.diff_id(RESULT.digest) in (None, RESULT.diff_id)
        catalog.images()
    assert time.monotonic() - began < 20
    assert snapshot(path.parent) == before
