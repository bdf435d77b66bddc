"""The store: an OCI image layout that other tools can read, and a private room beside it.

    ROOT/oci-layout, index.json, blobs/sha256/<hex>     image-spec v1.1 image-layout.md
    ROOT/layertee/catalog.sqlite                        the map (catalog.py)
    ROOT/layertee/ingest/<hex>.part                     bytes on their way in, named by DiffID
    ROOT/layertee/locks/<hex>                           who is bringing that DiffID
    ROOT/layertee/lock                                  shared: a pull; exclusive: gc, verify
    ROOT/layertee/quarantine/                           blobs whose bytes turned out wrong

A layer counts as held when the catalog says that this store checked and committed it *and* the file
is there with its size. A row may be missing for a file (the layer is then checked again, not
fetched); deleting takes the row first. When the catalog itself fails, the store goes on with one in
memory and says so in ``warnings``: nothing but time is lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..config.home import User
from ..core.result import BlobResult, TeeResult
from ..disk.blob_file import FileContent
from ..disk.files import close, disk_error, make_directory, sync_directory
from ..disk.locks import HeldLock, Lock, try_lock, wait_for, when_free
from ..disk.part import BlobWriter, write_document
from ..disk.space import free_space, human
from ..disk.trusted import others_may_write, refuse_foreign, refuse_reachable
from ..errors import CatalogError, LayerteeError, NoHome, NoSpace, NotFound, StoreCorrupt
from ..image.document import Descriptor, DiffID, Digest, ImageConfig, Layer, Manifest, parse_document
from ..image.holding import Basis, Form, Holding
from ..image.media import Compression
from .catalog import Catalog, HeldBlob, PulledImage, Stored
from .layout import Layout
from .layout_index import REF_NAME
from .localimage import StoredImage, describe

PLACE: Final = "store"
SHARED_WAIT_S: Final = 60.0  # gc and verify hold the store for seconds
EXCLUSIVE_WAIT_S: Final = 10.0  # a pull may take long: say so soon

_PRIVATE = "layertee"


def default_root(user: User | None = None) -> Path:
    """``/var/lib/layertee`` for root, else ``layertee`` in the user's XDG_DATA_HOME. Raises NoHome."""
    user = user or User.of()
    if user.uid == 0:
        return Path("/var/lib/layertee")
    try:
        return user.data_for("the store") / "layertee"
    except NoHome as exc:
        raise exc.with_hint("store-place") from None


class Store:
    """The store in ``root``. Calls block: from a coroutine, use ``asyncio.to_thread``.

    ``rebuild_reason`` is None, or why the catalog does not know what the store holds; the caller
    then hashes what ``layers`` names and hands each result to ``adopt``. ``catalog_error`` is None, or
    why this store runs with a catalog in memory.
    """

    def __init__(self, layout: Layout, *, private: bool) -> None:
        """Use ``open``."""
        self.layout = layout
        self.root = layout.path
        self.warnings: list[str] = []
        self._own = self.root / _PRIVATE
        self._lock = self._own / "lock"
        self.ingest = self._own / "ingest"
        self.locks = self._own / "locks"
        self.quarantined = self._own / "quarantine"
        # Others may be meant to write to a layout that is not private. What the catalog says of its files is
        # then not believed: each is hashed again before it counts.
        self._is_shared = not private and others_may_write(self.root)
        if private:
            refuse_reachable(self.root, own=True)
            for directory in (layout.blob_directory().parent, layout.blob_directory()):
                if os.path.lexists(directory):
                    refuse_foreign(directory)
        for directory in (self._own, self.ingest, self.locks, self.quarantined):
            make_directory(directory, 0o700)
        refuse_foreign(self._own)
        has_images = bool(layout.entries())
        self.catalog_error: CatalogError | None = None
        try:
            self.catalog = Catalog(self._own / "catalog.sqlite")
        except CatalogError as exc:
            self.catalog_error = exc
            self.warnings.append(f"{exc}; going on without it")
            self.catalog = Catalog(None)
        self.rebuild_reason = self.catalog.rebuilt
        if self.rebuild_reason:
            self.warnings.append(self.rebuild_reason)
        elif has_images and self._knows_no_layer():
            self.rebuild_reason = "the catalog knows none of the layers that are here"

    @classmethod
    def open(cls, root: Path, *, create: bool = True, private: bool = True) -> Self:
        """The store in ``root``, made there if ``create`` and there is nothing yet.

        ``private`` False is for a layout that others are to read, and may be meant to write to: modes as the
        umask has them. A private store is refused where another user could change it or the way to it.
        Raises NotFound, StoreCorrupt (something else is there), UnsafePath, LocalError, NoSpace.
        """
        if private:
            refuse_reachable(root, absent=True)  # before anything is made there
        layout = Layout.create(root, private=private) if create else Layout.open(root, private=private)
        return cls(layout, private=private)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.catalog.close()

    # --- locks (their order: locks.py) ---------------------------------------

    def shared(self, timeout: float = SHARED_WAIT_S) -> HeldLock:
        """The store as a pull uses it: nothing that is there is removed meanwhile. Raises StoreBusy."""
        return wait_for(lambda: try_lock(self._lock, Lock.SHARED), self._lock, timeout)

    def exclusive(self, timeout: float = EXCLUSIVE_WAIT_S) -> HeldLock:
        """The store for oneself: nobody pulls meanwhile. Raises StoreBusy, which names the lock."""
        return wait_for(lambda: try_lock(self._lock), self._lock, timeout)

    async def when_shared(self, wait_s: float = SHARED_WAIT_S) -> HeldLock:
        """``shared`` for a coroutine; one that is cancelled while it waits holds nothing."""
        return await when_free(lambda: try_lock(self._lock, Lock.SHARED), self._lock, wait_s)

    async def when_exclusive(self, wait_s: float = EXCLUSIVE_WAIT_S) -> HeldLock:
        """``exclusive`` for a coroutine; one that is cancelled while it waits holds nothing."""
        return await when_free(lambda: try_lock(self._lock), self._lock, wait_s)

    def layer_lock(self, diff_id: DiffID) -> HeldLock | None:
        """The right to bring one layer in, or None while another process does. Raises LocalError."""
        return try_lock(self.locks / diff_id.hex)

    # --- layers --------------------------------------------------------------

    def writer(self, diff_id: DiffID) -> BlobWriter:
        """Where to write one layer. Only with its ``layer_lock`` held: what a dead holder left is removed.

        Raises LocalError, NoSpace.
        """
        part = self.ingest / f"{diff_id.hex}.part"
        try:
            part.unlink(missing_ok=True)
        except OSError as exc:
            raise disk_error(exc, "removing", part) from exc
        blobs = self.layout.blob_directory()
        return BlobWriter(self.ingest, blobs, diff_id.hex, mode=self.layout.blob_mode)

    def commit_layer(self, writer: BlobWriter, result: TeeResult, form: Form) -> Holding:
        """Make what was written a layer of the store, then record it.

        ``form`` says what was written: the blob, or the tar that came out of it. The caller has
        compared ``result`` with the image. A failing catalog goes to ``warnings``. Raises
        DiffIDMismatch, SizeMismatch, LocalError, NoSpace; whatever is raised, the part is gone.
        """
        uncompressed = form is Form.UNCOMPRESSED
        name = Digest(str(result.diff_id)) if uncompressed else result.digest
        size = result.uncompressed_size if uncompressed else result.size
        with writer:
            with self._tolerant():
                self.catalog.check(result)
            # A file that nobody checked gives way to these bytes, which were; a checked one stays.
            writer.commit(name, size, replace=self._row(name) is None)
        with self._tolerant():
            self.catalog.record(result, Stored.TAR if uncompressed else Stored.BLOB)
        compression = Compression.NONE if uncompressed else result.compression
        return self._holding(result.diff_id, name, size, result.uncompressed_size, compression)

    def commit_blob(self, writer: BlobWriter, result: BlobResult, layer: Layer) -> Holding:
        """Make a blob that was hashed and not inflated a file of the store, and record nothing.

        What it holds is only what the image of ``layer`` claims. Raises as ``commit_layer``.
        """
        with writer:
            writer.commit(result.digest, result.size, replace=self._row(result.digest) is None)
        return self._claimed(layer)

    def adopt(self, result: TeeResult) -> Holding:
        """Count a blob as held whose file was here and has just been hashed, giving ``result``.

        Raises NotFound (no such file of that size), DiffIDMismatch, LocalError.
        """
        self._sync_blob(result)
        with self._tolerant():
            self.catalog.record(result, Stored.BLOB)
        return self._holding(
            result.diff_id, result.digest, result.size, result.uncompressed_size, result.compression
        )

    def adopt_blob(self, result: BlobResult, layer: Layer) -> Holding:
        """``adopt`` for a blob that was not inflated: it is here, and nothing is recorded."""
        self._sync_blob(result)
        return self._claimed(layer)

    def _sync_blob(self, result: BlobResult) -> None:
        path = self.layout.blob_path(result.digest)
        if self.layout.blob_size(result.digest) != result.size:
            raise NotFound(f"{path} is not there, or not {result.size} bytes")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)  # whoever wrote it may not have
            finally:
                close(fd)
        except OSError as exc:
            raise disk_error(exc, "syncing", path) from exc
        sync_directory(path.parent)

    def holding(self, diff_id: DiffID, *, prefer: Digest | None = None) -> Holding | None:
        """The layer as the store holds it now, the blob ``prefer`` first. Raises LocalError."""
        for row in sorted(self._rows(diff_id), key=lambda row: row.digest != prefer):
            if self.layout.blob_size(row.digest) == row.size:
                return self._holding(diff_id, row.digest, row.size, row.uncompressed_size, row.compression)
        return None

    def forms(self, layer: Layer) -> list[Holding]:
        """Every form in which the layer is here: what was checked, then unchecked files as claims.

        An unchecked file may have the name of the layer's blob, or, as a tar, its DiffID. Raises LocalError.
        """
        found = [
            self._holding(layer.diff_id, row.digest, row.size, row.uncompressed_size, row.compression)
            for row in self._rows(layer.diff_id)
            if self.layout.blob_size(row.digest) == row.size
        ]
        if (blob := self.unverified(layer)) is not None:
            found.append(blob)
        if layer.tar_digest != layer.digest and self.unverified_path(layer.tar_digest) is not None:
            size = self.layout.blob_size(layer.tar_digest)
            if size is not None:
                content = FileContent(self.layout.blob_path(layer.tar_digest))
                found.append(
                    Holding(
                        diff_id=layer.diff_id,
                        digest=layer.tar_digest,
                        size=size,
                        uncompressed_size=size,
                        compression=Compression.NONE,
                        place=PLACE,
                        basis=Basis.CLAIMED,
                        content=content,
                    )
                )
        return found

    def unverified_path(self, digest: Digest) -> Path | None:
        """The file of a blob that is here but that this store has not checked: hash it, then ``adopt``.

        A layer may be here under its digest or, as a tar, under its DiffID.
        """
        if self.layout.blob_size(digest) is None or self._row(digest) is not None:
            return None
        return self.layout.blob_path(digest)

    def unverified(self, layer: Layer) -> Holding | None:
        """The blob that ``layer`` names, here but not checked against its DiffID: a claim."""
        path = self.unverified_path(layer.digest)
        return (
            None
            if path is None or self.layout.blob_size(layer.digest) != layer.size
            else self._claimed(layer)
        )

    def quarantine(self, digest: Digest) -> Path | None:
        """Take a blob whose bytes are wrong out of the layout, row first; None if it is not here.

        Raises LocalError.
        """
        with self._tolerant():
            self.catalog.forget(digest)
        path = self.layout.blob_path(digest)
        aside = self.quarantined / f"{digest.hex}-{time.time_ns()}"
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise disk_error(exc, "quarantining", path) from exc
        sync_directory(path.parent)
        sync_directory(self.quarantined)
        return aside

    def scan(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob file there is, layers and documents. Raises LocalError."""
        for digest in self.layout.blobs():
            yield digest, self.layout.blob_path(digest)

    def layers(self) -> list[Layer]:
        """The layers that the store's images name, each blob once; unreadable images go to ``warnings``."""
        found: dict[Digest, Layer] = {}
        for entry in self.layout.entries():
            try:
                document = self.layout.document(entry)
                if isinstance(document, Manifest):
                    for layer in self.layout.image(document).layers:
                        found.setdefault(layer.digest, layer)
            except LayerteeError as exc:
                self.warnings.append(f"image {entry.annotations.get(REF_NAME, entry.digest)}: {exc}")
        return list(found.values())

    # --- images --------------------------------------------------------------

    def put_document(self, data: bytes) -> Digest:
        """Keep a manifest, index or config; return its digest. Raises LocalError, NoSpace."""
        return write_document(self.ingest, self.layout.blob_directory(), data, mode=self.layout.blob_mode)

    def put_image(
        self, name: str | None, manifest: Manifest, config: ImageConfig, local: bytes
    ) -> Descriptor:
        """Name an image whose layers are all here; return the entry of ``local``, its manifest as kept.

        ``manifest`` is the one pulled (kept too), ``local`` from ``local_manifest``. Without a name it
        is just one of the layout's images. Raises StoreCorrupt (a layer is missing), StoreBusy,
        LocalError, NoSpace.
        """
        kept = parse_document(local, None)
        if not isinstance(kept, Manifest) or kept.config.digest != config.digest:
            raise ValueError("the local manifest is not one of this image")
        for layer in kept.layers:
            if self.layout.blob_size(layer.digest) != layer.size:
                path = self.layout.blob_path(layer.digest)
                raise StoreCorrupt(
                    f"{name or kept.digest}: its layer {path} is not there, or damaged", path=str(path)
                )
        for document in (config.raw, manifest.raw, local):
            self.put_document(document)
        entry = Descriptor(kept.media_type, kept.digest, len(local), platform=config.platform)
        self.layout.set_entry(name, entry)
        if name is not None:
            digests = manifest.digest, kept.digest, config.digest
            with self._tolerant():
                self.catalog.put_image(PulledImage(name, *digests, str(config.platform), int(time.time())))
        return entry

    def images(self) -> list[StoredImage]:
        """All images, in the index's order. Raises StoreCorrupt, LocalError."""
        rows: dict[str, PulledImage] = {}
        with self._tolerant():
            rows = {row.name: row for row in self.catalog.images()}
        named = [(entry.annotations.get(REF_NAME, ""), entry) for entry in self.layout.entries()]
        return [describe(self.layout, name, entry, rows.get(name)) for name, entry in named]

    def remove_image(self, name: str) -> None:
        """Forget the image; its blobs go with the next gc. Raises NotFound, StoreBusy, LocalError."""
        self.layout.find(name)
        with self._tolerant():
            self.catalog.remove_image(name)
        self.layout.remove_entry(name)

    # --- space ---------------------------------------------------------------

    def headroom(self) -> int:
        """Bytes that may still be written here before the free-space floor; negative below it."""
        free, floor = free_space(self.root)
        return free - floor

    def check_space(self, need: int, what: str = "this pull") -> None:
        """Raise NoSpace unless ``need`` bytes fit above the floor that stays free for the system."""
        free, floor = free_space(self.root)
        if free - need < floor:
            raise NoSpace(
                f"{what} needs {human(need)} in {self.root}, where {human(free)} are free and"
                f" {human(floor)} must stay free; free {human(need + floor - free)}",
                path=str(self.root),
                need=need,
                free=free,
            )

    # --- inside --------------------------------------------------------------

    def _knows_no_layer(self) -> bool:
        with self._tolerant():
            return not self.catalog.holdings()
        return True

    def _rows(self, diff_id: DiffID) -> Sequence[HeldBlob]:
        """What vouches for files that hold ``diff_id``."""
        with self._tolerant():
            return () if self._is_shared else self.catalog.holdings(diff_id)
        return ()

    def _row(self, digest: Digest) -> HeldBlob | None:
        """What vouches for the file of ``digest``."""
        try:
            return None if self._is_shared else self.catalog.holds(digest)
        except CatalogError as exc:
            self._warn(exc)
            return None

    def _holding(
        self, diff_id: DiffID, digest: Digest, size: int, uncompressed_size: int, compression: Compression
    ) -> Holding:
        return Holding(
            diff_id=diff_id,
            digest=digest,
            size=size,
            uncompressed_size=uncompressed_size,
            compression=compression,
            place=PLACE,
            basis=Basis.COMPUTED,
            content=FileContent(self.layout.blob_path(digest)),
        )

    def _claimed(self, layer: Layer) -> Holding:
        return Holding(
            diff_id=layer.diff_id,
            digest=layer.digest,
            size=layer.size,
            uncompressed_size=None,
            compression=layer.compression,
            place=PLACE,
            basis=Basis.CLAIMED,
            content=FileContent(self.layout.blob_path(layer.digest)),
        )

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """A failing catalog never fails a pull: its errors become warnings."""
        try:
            yield
        except CatalogError as exc:
            self._warn(exc)

    def _warn(self, exc: CatalogError) -> None:
        if str(exc) not in self.warnings:  # one failing disk, not one warning for each layer
            self.warnings.append(str(exc))
