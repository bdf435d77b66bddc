"""What podman, buildah and skopeo computed about blobs: containers/image's blob info cache.

The file is SQLite since containers/image 5.29. A row of ``DigestUncompressedPairs`` is written only by a
process that saw both digests of one stream (types.BlobInfoCache, RecordDigestUncompressedPair), so here it
is ``attested``: a statement of another tool of this machine, never to be recorded as our own.

It is their file: opened read-only, for one short query, with the care of disk/database.py, and left as it
was. A cache that is locked, damaged or of another version answers nothing and is a warning.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from ..config.home import User
from ..disk.database import Unfit, is_wal, refuse_programs, refuse_unfit, restrain, schema_of
from ..errors import DocumentError
from ..image.blobname import BlobName, KnownNames
from ..image.document import DiffID, Digest
from ..image.holding import Basis, Found, Place
from ..image.media import Compression

log = logging.getLogger(__name__)

FILE: Final = "blob-info-cache-v1.sqlite"
MAX_NAMES: Final = 1000  # of one content
_BUSY_S: Final = 1.0  # their transactions take milliseconds
_AT_ONCE: Final = 500  # values in one query; SQLite takes 999 at least
_MAGIC: Final = b"SQLite format 3\0"
MAX_STEPS: Final = 100_000_000  # seven times what the most names for the most contents take
_TABLES: Final = {
    "DigestUncompressedPairs": ("anyDigest", "uncompressedDigest"),
    "DigestCompressors": ("digest", "compressor"),
}
_COMPRESSIONS: Final = {
    "gzip": Compression.GZIP,
    "zstd": Compression.ZSTD,
    "zstd:chunked": Compression.ZSTD,
}
# Closing any descriptor of a file drops this process's POSIX locks on it, SQLite's among them: one at a time.
_MUTEX: Final = threading.Lock()


def default_path(user: User | None = None) -> Path:
    """Where the tools keep the cache of this user (containers/image, blobinfocache/default.go).

    Raises NoHome.
    """
    user = user or User.of()
    if user.uid == 0:
        return Path("/var/lib/containers/cache") / FILE
    return user.data_for("podman's blob info cache") / "containers/cache" / FILE


class BlobInfoCache(Place):
    """The cache in ``path``: it has no layers, and knows of blobs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"blob-info-cache:{self._path}"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Nothing: it is a record of blobs."""
        return Found()

    def blob_names(self, diff_ids: Collection[DiffID]) -> KnownNames:
        """The compressed blobs that were seen to inflate to each of ``diff_ids``."""
        found: dict[DiffID, list[BlobName]] = {}
        try:
            with self._opened() as db:
                for diff_id, blob in self._read(db, sorted(diff_ids)):
                    found.setdefault(diff_id, []).append(blob)
        except (OSError, Unfit, sqlite3.Error) as exc:
            reason = getattr(exc, "strerror", None) or exc
            return KnownNames(warnings=(f"{self.name} cannot be read: {reason}",))
        return KnownNames({diff_id: tuple(blobs) for diff_id, blobs in found.items()})

    def content_of(self, digest: Digest) -> DiffID | None:
        """What that blob was seen to inflate to; None also where the cache is not there or cannot be read."""
        if not os.path.lexists(self._path):
            return None
        sql = "SELECT uncompressedDigest FROM DigestUncompressedPairs WHERE anyDigest = ? LIMIT 2"
        try:
            with self._opened() as db:
                rows = db.execute(sql, (str(digest),)).fetchall()
        except (OSError, Unfit, sqlite3.Error) as exc:
            log.info("%s cannot be read: %s", self.name, exc)
            return None
        try:
            (found,) = {DiffID.parse(row[0]) for row in rows}
        except (DocumentError, ValueError):  # none, no digest, or two of them
            return None
        return found

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection that takes ``MAX_STEPS`` at most. Raises OSError, Unfit, sqlite3.Error."""
        with _MUTEX:
            path = Path(os.path.realpath(self._path))  # where SQLite looks for the files beside it
            _check(path)
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as db:
                steps = restrain(db, limit=MAX_STEPS)
                db.execute("PRAGMA query_only = ON")
                refuse_programs(db, schema_of(db, steps), _TABLES)
                yield db

    def _read(self, db: sqlite3.Connection, diff_ids: list[DiffID]) -> Iterator[tuple[DiffID, BlobName]]:
        for start in range(0, len(diff_ids), _AT_ONCE):
            asked = [str(diff_id) for diff_id in diff_ids[start : start + _AT_ONCE]]
            rows = db.execute(
                "SELECT anyDigest, uncompressedDigest, compressor FROM DigestUncompressedPairs"
                " LEFT JOIN DigestCompressors ON digest = anyDigest"
                f" WHERE uncompressedDigest IN ({', '.join('?' * len(asked))})"
                " AND anyDigest != uncompressedDigest"
                f" LIMIT {MAX_NAMES * len(asked)}",
                asked,
            )
            for digest, uncompressed, compressor in rows:
                try:
                    blob, diff_id = Digest.parse(digest), DiffID.parse(uncompressed)
                except DocumentError:
                    continue
                compression = _COMPRESSIONS.get(compressor) if isinstance(compressor, str) else None
                yield diff_id, BlobName(blob, None, compression, Basis.ATTESTED, self.name)


def _check(path: Path) -> None:
    """Raise OSError or Unfit for what SQLite should not be given: it would wait for a pipe, or write."""
    refuse_unfit(path)
    with open(path, "rb", opener=_opener) as file:
        head = file.read(100)
    if not head.startswith(_MAGIC):
        raise Unfit("not a SQLite database")
    if is_wal(head):
        raise Unfit("its journal is a write-ahead log, which cannot be read without writing")


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
