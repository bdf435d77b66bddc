"""The map: which blob has which DiffID, as computed here; what the store holds; which images it has.

Rules of this file. A pair enters only as a TeeResult, that is, after one pass hashed both ends of
one stream; a pair that contradicts an earlier one is refused. The map never supplies identity (the
image's own config does) and losing it costs time, never a byte: everything in it can be computed
again from the store. So whatever is wrong with the file, it is moved aside and a new one made, and
every failure is a CatalogError that a pull reports and survives.

Writers take turns through a lock file beside the database; catalogfile.py knows the file itself.

A tautology (image/pairs.py) gives way to a compressed reading of the same bytes: that one says something.
"""

from __future__ import annotations

import enum
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from ..core.result import TeeResult
from ..disk.locks import HeldLock, lock
from ..errors import CatalogError, DiffIDMismatch, LocalError
from ..image.document import DiffID, Digest
from ..image.media import Compression
from ..image.pairs import contradicts
from ..record import dataclass
from . import catalog_file as catalogfile
from .catalog_file import BUSY_S, Damaged

_T = TypeVar("_T")
_Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A blob and what it inflates to, as computed on this machine at ``recorded_at`` (Unix time)."""

    digest: Digest
    diff_id: DiffID
    size: int
    uncompressed_size: int
    compression: Compression
    decoder: str
    recorded_at: int


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A layer blob that the store committed after checking it."""

    digest: Digest
    diff_id: DiffID
    size: int
    uncompressed_size: int
    compression: Compression
    verified_at: int


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image of the store. ``local_manifest_digest`` differs where a layer is kept in another form."""

    name: str
    manifest_digest: Digest
    local_manifest_digest: Digest
    config_digest: Digest
    platform: str
    pulled_at: int


class Stored(enum.Enum):
    """What the store has committed of a layer that was measured."""

    BLOB = "blob"  # the bytes as they were transferred, under their digest
    TAR = "tar"  # what came out of them, under its DiffID


class Catalog:
    """The map in the SQLite file ``path``; ``None`` keeps it in memory, for one run. See ``to_read``, too.

    ``rebuilt`` is None, or why an earlier file was moved aside: the caller then scans the store.
    Any thread may call; each call blocks for one small transaction, so coroutines use
    ``asyncio.to_thread``. Every method raises CatalogError; the constructor also when the file
    belongs to a newer version, which is then left untouched.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rebuilt: str | None = None
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._only_reads = False
        if path is None:
            self._db, self._steps = catalogfile.open_memory()
            return
        with self._turn():
            try:
                self._db, self._steps = catalogfile.open_file(path)
            except Damaged as exc:
                aside = catalogfile.set_aside(path)
                self.rebuilt = f"{path}: {exc}; moved to {aside.name} and begun anew"
                try:
                    self._db, self._steps = catalogfile.open_file(path)
                except Damaged as again:
                    raise CatalogError(f"{path}: a new catalog cannot be used either: {again}") from again

    @classmethod
    def to_read(cls, path: Path) -> Self:
        """The map in a file that is there, whosever it is. Nothing is written, to the file or beside it.

        One thread at a time opens, uses and closes those of one file. Raises CatalogError.
        """
        catalog = cls.__new__(cls)
        catalog.path, catalog.rebuilt = path, None
        catalog._mutex, catalog._pid, catalog._closed = threading.Lock(), os.getpid(), False
        catalog._only_reads = True
        try:
            catalog._db, catalog._steps = catalogfile.open_to_read(path)
        except Damaged as exc:
            raise CatalogError(f"{path}: {exc}") from exc
        return catalog

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        with self._mutex:
            self._closed = True
            self._db.close()

    # --- pairs and holdings -------------------------------------------------

    def record(self, result: TeeResult, stored: Stored | None = None) -> None:
        """Keep what one pass computed, and what the store committed of it, if it did.

        Raises DiffIDMismatch when the blob is known to inflate to something else, TypeError for anything
        but a TeeResult.
        """
        self.record_many([result], stored)

    def record_many(self, results: Iterable[TeeResult], stored: Stored | None = None) -> None:
        """``record`` for all of ``results``, in one transaction: all or none."""
        batch = list(results)
        for result in batch:
            if not isinstance(result, TeeResult):
                raise TypeError(f"only a TeeResult can be recorded, not {type(result).__name__}")
        now = _now()

        def change(db: sqlite3.Connection) -> None:
            for result in batch:
                _refuse_contradiction(db, result)
                row = (*_measured(result), result.decoder, now)
                db.execute("INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                if stored is not None:
                    blob = _as_tar(result) if stored is Stored.TAR else _measured(result)
                    db.execute("INSERT OR REPLACE INTO holding VALUES (?, ?, ?, ?, ?, ?)", (*blob, now))

        self._write(change)

    def check(self, result: TeeResult) -> None:
        """Raise DiffIDMismatch when ``record`` would."""
        self._reading(lambda db: _refuse_contradiction(db, result))

    def forget(self, *digests: Digest) -> None:
        """The store no longer holds these blobs. What they inflate to stays known."""
        rows = [(str(digest),) for digest in digests]
        self._write(lambda db: db.executemany("DELETE FROM holding WHERE digest = ?", rows))

    def diff_id(self, digest: Digest) -> DiffID | None:
        """What the blob inflates to, if that was ever computed here."""
        rows = self._select("SELECT * FROM pair WHERE digest = ?", (digest,), _pair)
        return rows[0].diff_id if rows else None

    def digests(self, diff_id: DiffID) -> list[Pair]:
        """Every blob known to inflate to ``diff_id``, newest first."""
        sql = "SELECT * FROM pair WHERE diff_id = ? ORDER BY recorded_at DESC, digest"
        return self._select(sql, (diff_id,), _pair)

    def pairs(self) -> list[Pair]:
        """All pairs, oldest first."""
        return self._select("SELECT * FROM pair ORDER BY recorded_at, digest", (), _pair)

    def lookup(self, either: Digest | DiffID) -> list[Pair]:
        """The pairs in which ``either`` is the blob or the content."""
        sql = "SELECT * FROM pair WHERE digest = ? OR diff_id = ? ORDER BY recorded_at, digest"
        return self._select(sql, (either, either), _pair)

    def uncompressed_sizes(self, diff_ids: Collection[DiffID]) -> dict[DiffID, int]:
        """The size of each of these contents, as far as it was ever measured."""
        sizes: dict[DiffID, int] = {}
        for diff_id in diff_ids:
            for pair in self.digests(diff_id)[:1]:
                sizes[diff_id] = pair.uncompressed_size
        return sizes

    def holdings(self, diff_id: DiffID | None = None) -> list[HeldBlob]:
        """What the store committed: all of it, or the forms in which it holds one content."""
        if diff_id is None:
            return self._select("SELECT * FROM holding ORDER BY digest", (), _held)
        return self._select("SELECT * FROM holding WHERE diff_id = ? ORDER BY digest", (diff_id,), _held)

    def holds(self, digest: Digest) -> HeldBlob | None:
        """The row of one blob of the store."""
        rows = self._select("SELECT * FROM holding WHERE digest = ?", (digest,), _held)
        return rows[0] if rows else None

    # --- images -------------------------------------------------------------

    def put_image(self, image: PulledImage) -> None:
        """Add ``image``, in the place of one with its name."""
        names = (str(image.manifest_digest), str(image.local_manifest_digest), str(image.config_digest))
        row = (image.name, *names, image.platform, image.pulled_at)
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)", row))

    def image(self, name: str) -> PulledImage | None:
        """The image called ``name``."""
        rows = self._select("SELECT * FROM image WHERE name = ?", (name,), _image)
        return rows[0] if rows else None

    def images(self) -> list[PulledImage]:
        """All images, by name."""
        return self._select("SELECT * FROM image ORDER BY name", (), _image)

    def remove_image(self, name: str) -> None:
        """Forget the image called ``name``, if there is one."""
        self._write(lambda db: db.execute("DELETE FROM image WHERE name = ?", (name,)))

    # --- one read, one write ------------------------------------------------

    def _select(self, sql: str, values: tuple[str, ...], make: Callable[[_Row], _T]) -> list[_T]:
        plain = tuple(str(value) for value in values)
        return self._reading(lambda db: [make(row) for row in db.execute(sql, plain)])

    def _reading(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._mutex:
            self._refuse_misuse()
            self._steps.begin()
            try:
                return read(self._db)
            except sqlite3.Error as exc:
                raise self._error("reading", exc) from exc
            except (ValueError, TypeError) as exc:  # a row that the schema's checks would not have let in
                raise CatalogError(f"reading {self._where}: a row makes no sense: {exc}") from exc

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """``change`` in one transaction; once more, from the beginning, where a flush was interrupted."""
        with self._mutex:
            self._refuse_misuse()
            if self._only_reads:
                raise RuntimeError("the catalog was opened to be read only")
            with self._turn():
                self._steps.begin()
                try:
                    catalogfile.flushed(lambda: self._transact(change))
                except sqlite3.Error as exc:
                    raise self._error("writing", exc) from exc

    def _transact(self, change: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            change(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time, across processes. A filesystem without locks has SQLite's own only."""
        held: HeldLock | None = None
        if self.path is not None:
            try:
                held = lock(self.path.with_name(self.path.name + ".lock"), timeout=BUSY_S, required=False)
            except LocalError as exc:
                raise CatalogError(f"the catalog cannot be written: {exc}") from exc
        try:
            yield
        finally:
            if held is not None:
                held.release()

    def _refuse_misuse(self) -> None:
        if self._closed:
            raise RuntimeError("the catalog is closed")
        if (
            os.getpid() != self._pid
        ):  # https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
            raise RuntimeError("a catalog cannot be used in a child process; open it there")

    @property
    def _where(self) -> str:
        return "the catalog in memory" if self.path is None else str(self.path)

    def _error(self, doing: str, exc: sqlite3.Error) -> CatalogError:
        hint = "; the next run rebuilds it" if catalogfile.says_damage(exc) else ""
        return CatalogError(f"{doing} {self._where}: {exc}{hint}")


def _refuse_contradiction(db: sqlite3.Connection, result: TeeResult) -> None:
    sql = "SELECT diff_id FROM pair WHERE digest = ?"
    row = db.execute(sql, (str(result.digest),)).fetchone()
    if row is None or not contradicts(result.digest, result.diff_id, DiffID(str(row[0])), result.compression):
        return
    raise DiffIDMismatch(
        f"blob {result.digest} is known to inflate to {row[0]}, and now gave {result.diff_id}:"
        " a blob has one content, so the disk, the memory or the catalog is not to be trusted",
        want=str(row[0]),
        got=str(result.diff_id),
    )


def _measured(result: TeeResult) -> tuple[str, str, int, int, str]:
    named = str(result.digest), str(result.diff_id)
    return (*named, result.size, result.uncompressed_size, result.compression.value)


def _as_tar(result: TeeResult) -> tuple[str, str, int, int, str]:
    named = str(result.diff_id), str(result.diff_id)
    return (*named, result.uncompressed_size, result.uncompressed_size, Compression.NONE.value)


def _now() -> int:
    return max(0, int(time.time()))


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value


def _pair(row: _Row) -> Pair:
    digest, diff_id, size, uncompressed_size, compression, decoder, recorded_at = row
    return Pair(
        Digest(str(digest)),
        DiffID(str(diff_id)),
        _count(size),
        _count(uncompressed_size),
        Compression(compression),
        str(decoder),
        _count(recorded_at),
    )


def _held(row: _Row) -> HeldBlob:
    digest, diff_id, size, uncompressed_size, compression, verified_at = row
    return HeldBlob(
        Digest(str(digest)),
        DiffID(str(diff_id)),
        _count(size),
        _count(uncompressed_size),
        Compression(compression),
        _count(verified_at),
    )


def _image(row: _Row) -> PulledImage:
    name, manifest, local, config, platform, pulled_at = row
    digests = Digest(str(manifest)), Digest(str(local)), Digest(str(config))
    return PulledImage(str(name), *digests, str(platform), _count(pulled_at))
