"""Removing from the store what no image needs.

Marking begins at the entries of ``index.json`` and errs towards keeping: an image that cannot be read
stops everything, before anything is removed; a document of an unknown kind keeps whatever digests
occur in it. Sweeping takes the catalog's rows first, then the files, then syncs the directory, so a
crash leaves at most files without rows. Leftovers and files without rows go before all that: on a
full disk they make the room that changing the catalog needs. While the catalog cannot be changed,
files that have a row stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..disk.files import disk_error, sync_directory
from ..disk.locks import try_lock
from ..disk.part import PART_SUFFIX
from ..errors import DocumentError, LayerteeError, StoreCorrupt, UnsupportedImage
from ..image.document import MAX_DOCUMENT, Descriptor, Digest, Manifest, parse_document
from .layout import ORIGINAL_MANIFEST, Layout
from .layout_index import REF_NAME
from .layout_reader import is_document
from .store import EXCLUSIVE_WAIT_S, Store

_ANY_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}(?![0-9a-f])|sha512:[0-9a-f]{128}(?![0-9a-f])")
_EMPTY = Digest.of(b"")


@dataclass(slots=True)
class GCReport:
    """What was removed and what stays."""

    blobs_removed: int = 0
    bytes_freed: int = 0
    blobs_kept: int = 0
    parts_removed: int = 0
    warnings: list[str] = field(default_factory=list)


def gc(store: Store, *, timeout: float = EXCLUSIVE_WAIT_S, keep_quarantine: bool = False) -> GCReport:
    """Remove blobs that no image needs, leftovers of dead processes, empty files, and the quarantine.

    Takes the store exclusively: raises StoreBusy while somebody pulls. Raises StoreCorrupt, having
    removed nothing, when an image cannot be read; CatalogError when the store runs without its catalog
    or the catalog cannot be changed (what has no row is then already gone); LocalError.
    """
    if store.catalog_error is not None:
        raise store.catalog_error
    report = GCReport()
    with store.exclusive(timeout):
        needed = reachable(store.layout)
        _sweep_ingest(store, report)
        report.parts_removed += store.layout.remove_leftovers()
        if not keep_quarantine:
            for path in _files(store.quarantined):
                report.bytes_freed += _unlink(path)
        _sweep_blobs(store, needed, report)
        _sweep_images(store, report)
    return report


def trim(store: Store, limit_of: Callable[[int], int], *, keep: Collection[Digest] = ()) -> GCReport:
    """Remove blobs that no image needs, those first that were not used for longest, down to a limit.

    ``limit_of`` is told how many bytes they have, and says how many may stay; ``keep`` stay in any case. Does
    not wait: raises StoreBusy while somebody pulls, and the rest as ``gc``.
    """
    if store.catalog_error is not None:
        raise store.catalog_error
    report = GCReport()
    with store.exclusive(0.0):
        needed = reachable(store.layout) | set(keep)
        unneeded: list[tuple[float, Digest, int]] = []
        for digest in store.layout.blobs():
            with suppress(FileNotFoundError):
                found = os.stat(store.layout.blob_path(digest), follow_symlinks=False)
                if digest not in needed:
                    unneeded.append((found.st_mtime, digest, found.st_size))
        total = sum(size for _, _, size in unneeded)
        limit = limit_of(total)
        dead: set[Digest] = set()
        for _, digest, size in sorted(unneeded):
            if total <= limit:
                break
            dead.add(digest)
            total -= size
        _sweep_ingest(store, report)
        _drop(store, dead, {row.digest for row in store.catalog.holdings()} & dead, report)
    return report


def reachable(layout: Layout) -> set[Digest]:
    """Every blob that the entries of the layout need. Raises StoreCorrupt, LocalError."""
    keep: set[Digest] = set()
    index = layout.index()
    try:
        index.refuse_broken(None)
    except StoreCorrupt as exc:
        raise StoreCorrupt(f"{exc}; nothing was removed", path=exc.path) from exc
    read: set[Digest] = set()  # apart from ``keep``: one image's layer may be another one's manifest
    for entry in index.entries:
        try:
            _mark(layout, entry, keep, read)
        except LayerteeError as exc:
            name = entry.annotations.get(REF_NAME, entry.digest)
            raise StoreCorrupt(
                f"image {name} cannot be read ({exc}); nothing was removed: pull it again, or remove it",
                path=str(layout.path),
            ) from exc
    return keep


def _mark(layout: Layout, root: Descriptor, keep: set[Digest], read: set[Digest]) -> None:
    """Add what ``root`` needs to ``keep``. It must be readable; what only an index names need not be here."""
    todo = [root]
    while todo:
        descriptor = todo.pop()
        keep.add(descriptor.digest)
        if descriptor.digest in read:
            continue
        read.add(descriptor.digest)
        if not is_document(descriptor):
            _keep_mentioned(layout, descriptor.digest, keep)
            continue
        if descriptor is not root and layout.blob_size(descriptor.digest) is None:
            continue
        raw = layout.read_blob(descriptor)
        try:
            document = parse_document(raw, descriptor.media_type)
        except (DocumentError, UnsupportedImage):
            _keep_mentioned(layout, descriptor.digest, keep)
            continue
        if isinstance(document, Manifest):
            keep.update(blob.digest for blob in (document.config, *document.layers))
            with suppress(ValueError):
                keep.add(Digest(document.annotations.get(ORIGINAL_MANIFEST, "")))
        else:
            todo.extend(document.manifests)


def _keep_mentioned(layout: Layout, start: Digest, keep: set[Digest]) -> None:
    """Keep every digest that occurs in a file, and in the files those name: of what kind, nobody knows."""
    todo, read = [start], set[Digest]()
    while todo:
        digest = todo.pop()
        size = layout.blob_size(digest)
        if digest in read or size is None or size > MAX_DOCUMENT:
            continue
        read.add(digest)
        path = layout.blob_path(digest)
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise disk_error(exc, "reading", path) from exc
        if content.startswith(b"{"):
            found = {Digest(match.decode()) for match in _ANY_DIGEST.findall(content)}
            keep |= found
            todo.extend(found)


def _sweep_blobs(store: Store, needed: set[Digest], report: GCReport) -> None:
    present = list(store.layout.blobs())
    dead = {digest for digest in present if digest not in needed or _is_hollow(store.layout, digest)}
    report.blobs_kept = len(present) - len(dead)
    rows = {row.digest for row in store.catalog.holdings()}
    _drop(store, dead, (rows & dead) | (rows - set(present)), report)


def _drop(store: Store, dead: set[Digest], rows: set[Digest], report: GCReport) -> None:
    """Remove the files of ``dead``, and ``rows`` of the catalog before the files that they are of."""
    _remove_blobs(store.layout, dead - rows, report)
    if rows:
        store.catalog.forget(*rows)
    _remove_blobs(store.layout, dead & rows, report)


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


def _is_hollow(layout: Layout, digest: Digest) -> bool:
    """An empty file under the name of something: what other tools leave when the power fails."""
    return layout.blob_size(digest) == 0 and digest != _EMPTY


def _sweep_images(store: Store, report: GCReport) -> None:
    named = set(store.layout.refs())
    for row in store.catalog.images():
        if row.name not in named:
            store.catalog.remove_image(row.name)


def _sweep_ingest(store: Store, report: GCReport) -> None:
    """Parts and lock files, but for those somebody holds although the store is locked: not our doing."""
    busy: set[str] = set()
    for path in _files(store.locks):
        held = try_lock(path)
        if held is None:
            busy.add(path.name)
            report.warnings.append(f"{path} is held by a process that did not lock the store; its part stays")
        else:
            held.discard()
    for path in _files(store.ingest):
        if path.name.removesuffix(PART_SUFFIX) not in busy:
            report.bytes_freed += _unlink(path)
            report.parts_removed += 1


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
