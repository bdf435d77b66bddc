"""A blob info cache: made by a real tool that has one in SQLite, or with that tool's own statements.

The machine's own is never touched: the tool runs in a mount namespace of its own, where another directory
lies over ``/var/lib/containers/cache``. Needs root.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from tests.support.rig import prebuild
from tests.support.rig.images import run_tool

FILE = "blob-info-cache-v1.sqlite"
_FIRST_WITH_SQLITE = (1, 14)  # skopeo with containers/image 5.29
# As containers/image 5.36 creates them.
_TABLES = (
    "CREATE TABLE DigestUncompressedPairs(anyDigest TEXT PRIMARY KEY NOT NULL,"
    "uncompressedDigest TEXT NOT NULL)",
    "CREATE INDEX DigestUncompressedPairs_index_uncompressedDigest"
    " ON DigestUncompressedPairs(uncompressedDigest)",
    "CREATE TABLE DigestCompressors(digest TEXT PRIMARY KEY NOT NULL,compressor TEXT NOT NULL)",
    "CREATE TABLE KnownLocations(transport TEXT NOT NULL,scope TEXT NOT NULL,digest TEXT NOT NULL,"
    "location TEXT NOT NULL,time TIMESTAMP NOT NULL,PRIMARY KEY (transport, scope, digest, location))",
    "CREATE TABLE DigestTOCUncompressedPairs(tocDigest TEXT PRIMARY KEY NOT NULL,"
    "uncompressedDigest TEXT NOT NULL)",
    "CREATE TABLE DigestSpecificVariantCompressors(digest TEXT PRIMARY KEY NOT NULL,"
    "specificVariantCompressor TEXT NOT NULL,specificVariantAnnotations BLOB NOT NULL)",
)


def writer() -> list[str]:
    """A tool that writes the cache, a command to end in ``SOURCE DESTINATION``. Raises prebuild.NotBuilt.

    Where the machine's skopeo is older, it is ``imagecopy``, over the newest library, with skopeo's options.
    """
    if skopeo := shutil.which("skopeo"):
        version = re.search(r"(\d+)\.(\d+)", run_tool(skopeo, "--version"))
        if version and (int(version[1]), int(version[2])) >= _FIRST_WITH_SQLITE:
            return [skopeo, "copy", "-q"]
    return [str(prebuild.program("imagecopy"))]


def run_with_cache(cache: Path, *command: str) -> str:
    """Run ``command`` where ``cache``, a directory, is root's blob info cache. What it prints."""
    cache.mkdir(parents=True, exist_ok=True)
    usual = Path("/var/lib/containers/cache")
    usual.mkdir(parents=True, exist_ok=True)
    script = f'mount --bind "$0" {usual} && exec "$@"'
    return run_tool("unshare", "-m", "sh", "-c", script, str(cache), *command)


def write_cache(
    path: Path, pairs: Iterable[tuple[str, str]], compressors: Mapping[str, str] | None = None
) -> Path:
    """A cache with these (blob digest, uncompressed digest) in ``path``, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in _TABLES:
            db.execute(statement)
        db.executemany("INSERT INTO DigestUncompressedPairs VALUES (?, ?)", pairs)
        db.executemany("INSERT INTO DigestCompressors VALUES (?, ?)", (compressors or {}).items())
    return path
