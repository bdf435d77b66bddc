"""Removing from the store what no image needs: what that is, and the two ways to do it.

Marking begins at the entries of ``index.json`` and errs towards keeping: an image that cannot be read
stops everything, before anything is removed; a document of an unknown kind keeps whatever digests
occur in it. How files are taken away: sweep.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from ..disk.files import disk_error
from ..disk.keeping import KeepPartials
from ..errors import DocumentError, LayerteeError, StoreCorrupt, UnsupportedImage
from ..image.document import MAX_DOCUMENT, Descriptor, Digest, Manifest, parse_document
from ..image.rewrite import ORIGINAL_MANIFEST
from . import beside
from .layout_index import REF_NAME
from .layout_reader import is_document
from .store import EXCLUSIVE_WAIT_S, Store
from .sweep import GCReport, drop, sweep_images, sweep_ingest, sweep_parts, sweep_quarantine

if TYPE_CHECKING:
    from .layout import Layout

_ANY_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}(?![0-9a-f])|sha512:[0-9a-f]{128}(?![0-9a-f])")
_EMPTY = Digest.of(b"")


_NEVER = KeepPartials(0.0)


def gc(
    store: Store,
    *,
    timeout: float = EXCLUSIVE_WAIT_S,
    keep_quarantine: bool = False,
    keep_parts: KeepPartials = _NEVER,
) -> GCReport:
    """Remove blobs that no image needs, leftovers of dead processes, empty files, and the quarantine.

    The beginnings of layers stay as ``keep_parts`` has it.

    Takes the store exclusively: raises StoreBusy while somebody pulls. Raises StoreCorrupt, having
    removed nothing, when an image cannot be read; CatalogError when the store runs without its catalog
    or the catalog cannot be changed (what has no row is then already gone); LocalError.
    """
    if store.catalog_error is not None:
        raise store.catalog_error
    report = GCReport()
    with store.exclusive(timeout):
        needed = reachable(store.layout)
        # What has no row first: on a full disk it makes the room that changing the catalog needs.
        sweep_ingest(store.room, report)
        sweep_parts(store.parts, keep_parts, report)
        report.parts_removed += store.layout.remove_leftovers()
        report.parts_removed += store.seen.remove_leftovers()
        if not keep_quarantine:
            sweep_quarantine(store.room, report)
        present = set(store.layout.blobs())
        dead = {digest for digest in present if digest not in needed or _is_hollow(store.layout, digest)}
        report.blobs_kept = len(present) - len(dead)
        rows = {row.digest for row in store.catalog.holdings()}
        drop(store.layout, store.catalog, dead, (rows & dead) | (rows - present), report)
        sweep_images(store.layout, store.catalog)
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
        sweep_ingest(store.room, report)
        rows = {row.digest for row in store.catalog.holdings()}
        drop(store.layout, store.catalog, dead, rows & dead, report)
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
    beside_it = beside.root(layout, root)
    todo = [root] if beside_it is None else [root, beside_it]
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
            if document.unreadable:
                _keep_mentioned(layout, descriptor.digest, keep)


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


def _is_hollow(layout: Layout, digest: Digest) -> bool:
    """An empty file under the name of something: what other tools leave when the power fails."""
    return layout.blob_size(digest) == 0 and digest != _EMPTY
