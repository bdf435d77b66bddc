"""Files of the store are taken away, for gc.py, which says which.

The catalog's rows go first, then the files, then the directory is synced, so a crash leaves at most files
without rows. Files without rows go before all that: on a full disk they make the room that changing the
catalog needs. While the catalog cannot be changed, files that have a row stay.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk.files import disk_error, sync_directory
from ..disk.locks import try_lock
from ..disk.part import PART_SUFFIX

if TYPE_CHECKING:
    from ..disk.keeping import KeepPartials
    from ..image.document import Digest
    from .catalog import Catalog
    from .layout import Layout
    from .parts import Parts
    from .room import Room


@dataclass(slots=True)
class GCReport:
    """What was removed and what stays."""

    blobs_removed: int = 0
    bytes_freed: int = 0
    blobs_kept: int = 0
    parts_removed: int = 0
    warnings: list[str] = field(default_factory=list)


def drop(layout: Layout, catalog: Catalog, dead: set[Digest], rows: set[Digest], report: GCReport) -> None:
    """Remove the files of ``dead``, and ``rows`` of the catalog before the files that they are of.

    Raises CatalogError, having removed what has no row; LocalError.
    """
    _remove_blobs(layout, dead - rows, report)
    if rows:
        catalog.forget(*rows)
    _remove_blobs(layout, dead & rows, report)


def _remove_blobs(layout: Layout, digests: set[Digest], report: GCReport) -> None:
    for digest in sorted(digests):
        report.bytes_freed += _unlink(layout.blob_path(digest))
        report.blobs_removed += 1
    for algorithm in {digest.algorithm for digest in digests}:
        directory = layout.blob_directory(algorithm)
        sync_directory(directory)
        if directory != layout.blob_directory():
            with suppress(OSError):  # the usual case: it is not empty
                os.rmdir(directory)


def sweep_images(layout: Layout, catalog: Catalog) -> None:
    """Forget images that the index no longer names. Raises CatalogError, LocalError."""
    named = set(layout.refs())
    for row in catalog.images():
        if row.name not in named:
            catalog.remove_image(row.name)


def sweep_quarantine(room: Room, report: GCReport) -> None:
    """Remove what was set aside. Raises LocalError."""
    for path in _files(room.quarantine):
        report.bytes_freed += _unlink(path)


def sweep_ingest(room: Room, report: GCReport) -> None:
    """Remove parts and lock files, but for those that a process holds which did not lock the store.

    Raises LocalError.
    """
    busy: set[str] = set()
    for path in _files(room.locks):
        held = try_lock(path)
        if held is None:
            busy.add(path.name)
            report.warnings.append(f"{path} is held by a process that did not lock the store; its part stays")
        else:
            held.discard()
    for path in _files(room.ingest):
        if path.name.removesuffix(PART_SUFFIX) not in busy:
            report.bytes_freed += _unlink(path)
            report.parts_removed += 1


def sweep_parts(parts: Parts, keep: KeepPartials, report: GCReport) -> None:
    """Remove the parts that ``keep`` has no room for, and what is none. Raises LocalError."""
    n_removed, freed = parts.trim(keep)
    report.bytes_freed += freed
    report.parts_removed += n_removed + parts.remove_strange()


def _files(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except OSError as exc:
        raise disk_error(exc, "listing", directory) from exc


def _unlink(path: Path) -> int:
    """Remove a file; return the bytes that frees. Raises LocalError."""
    try:
        found = os.stat(path, follow_symlinks=False)
        os.unlink(path)
    except FileNotFoundError:
        return 0
    except OSError as exc:
        raise disk_error(exc, "removing", path) from exc
    return found.st_size if found.st_nlink == 1 else 0
