"""The layers of a store: how they come in, which are there, and how one goes whose bytes are wrong.

A layer counts as held when the catalog says that this store checked and committed it *and* the file is there
with its size. A file without a row is a claim: it is hashed, and then adopted, not fetched. A row is written
after its file has its name, and taken away before.

Everything here goes by the *name* that a layer has in the store, its blob's digest or, for the plain tar, its
DiffID: locks, parts, files and rows. So two blobs that an image says are one content stay two things until
somebody has looked into both.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..core.result import BlobResult, TeeResult
from ..disk.files import close, disk_error, sync_directory
from ..disk.locks import HeldLock, try_lock
from ..disk.part import PART_SUFFIX, BlobWriter
from ..errors import NotFound
from ..image.document import DiffID, Digest, Layer
from ..image.holding import Basis, Form, Holding
from ..image.media import Compression
from .catalog import Stored

if TYPE_CHECKING:
    from .layout import Layout
    from .ledger import Ledger
    from .room import Room

PLACE: Final = "store"


class Blobs:
    """The layers in ``layout``, as ``ledger`` knows them. Every method blocks; any thread may call."""

    def __init__(self, layout: Layout, ledger: Ledger, room: Room) -> None:
        self._layout = layout
        self._ledger = ledger
        self._room = room

    # --- coming in -----------------------------------------------------------

    def lock_path(self, name: Digest) -> Path:
        """The file that ``lock`` locks, for messages."""
        return self._room.locks / name.hex

    def lock(self, name: Digest) -> HeldLock | None:
        """The right to bring in what will be called ``name``, or None while somebody else has it.

        Raises LocalError.
        """
        return try_lock(self.lock_path(name))

    def writer(self, name: Digest) -> BlobWriter:
        """Where to write what will be called ``name``. Only with its lock held.

        What a holder that died has left is removed. Raises LocalError, NoSpace.
        """
        part = self._room.ingest / f"{name.hex}{PART_SUFFIX}"
        try:
            part.unlink(missing_ok=True)
        except OSError as exc:
            raise disk_error(exc, "removing", part) from exc
        blobs = self._layout.blob_directory()
        return BlobWriter(self._room.ingest, blobs, name.hex, mode=self._layout.blob_mode)

    def commit(
        self, writer: BlobWriter, result: BlobResult, form: Form, *, claim: Layer | None = None
    ) -> Holding:
        """Make what was written a layer of the store, and record it if it was inflated.

        ``form`` says what was written of a blob that was inflated: itself, or the tar that came out. The
        caller has compared ``result`` with the image. A blob that was only hashed was written as it is, and
        nothing is recorded of it: what it holds is what the image of ``claim`` says. A failing catalog is one
        of the ledger's warnings. Raises DiffIDMismatch, SizeMismatch, LocalError, NoSpace; whatever is
        raised, the part is gone.
        """
        with writer:
            if isinstance(result, TeeResult):
                with self._ledger.tolerant():
                    self._ledger.catalog.check(result)
            held = self._of_result(result, form, claim)
            # A file that nobody checked gives way to these bytes, which were; a checked one stays.
            writer.commit(held.digest, held.size, replace=self._is_unchecked(held.digest))
        if isinstance(result, TeeResult):
            self.record(result, Stored.TAR if form is Form.UNCOMPRESSED else Stored.BLOB)
        return held

    def adopt(self, result: BlobResult, *, claim: Layer | None = None) -> Holding:
        """Count a blob as held whose file was here and has just been hashed, giving ``result``.

        If it was not inflated, nothing is recorded: what it holds is what the image of ``claim`` says. Raises
        NotFound (no such file of that size), DiffIDMismatch, LocalError.
        """
        held = self._of_result(result, Form.AS_IS, claim)
        self._sync(result)
        if isinstance(result, TeeResult):
            self.record(result, Stored.BLOB)
        return held

    def record(self, result: TeeResult, stored: Stored | None = None) -> None:
        """Keep what one pass computed, as far as the catalog can. Raises DiffIDMismatch."""
        with self._ledger.tolerant():
            self._ledger.catalog.record(result, stored)

    # --- what is there -------------------------------------------------------

    def held(self, diff_id: DiffID) -> list[Holding]:
        """The checked blobs with that content that are there now. Raises LocalError."""
        return [
            self._holding(
                row.digest, row.size, diff_id, row.uncompressed_size, row.compression, Basis.COMPUTED
            )
            for row in self._ledger.rows(diff_id)
            if self._layout.blob_size(row.digest) == row.size
        ]

    def content_of(self, digest: Digest) -> DiffID | None:
        """What the blob was computed here to inflate to; None also where the catalog cannot tell."""
        with self._ledger.tolerant():
            return self._ledger.catalog.diff_id(digest)
        return None

    def unchecked(self, layer: Layer) -> list[Holding]:
        """Files that may be ``layer`` and that this store did not check: claims, to be hashed and adopted.

        One may have the name of the layer's blob, or, as a tar, its DiffID. Raises LocalError.
        """
        found = []
        if self._layout.blob_size(layer.digest) == layer.size and self._is_unchecked(layer.digest):
            found.append(self._claimed(layer.digest, layer.size, layer))
        tar = layer.tar_digest
        size = self._layout.blob_size(tar)
        if tar != layer.digest and size is not None and self._is_unchecked(tar):
            found.append(self._holding(tar, size, layer.diff_id, size, Compression.NONE, Basis.CLAIMED))
        return found

    def forms(self, layer: Layer) -> list[Holding]:
        """Every form in which the layer is here: what was checked, then what was not. Raises LocalError."""
        return [*self.held(layer.diff_id), *self.unchecked(layer)]

    # --- going ---------------------------------------------------------------

    def quarantine(self, digest: Digest) -> Path | None:
        """Take a blob whose bytes are wrong out of the layout, row first; None if it is not here.

        Raises LocalError.
        """
        with self._ledger.tolerant():
            self._ledger.catalog.forget(digest)
        path = self._layout.blob_path(digest)
        aside = self._room.quarantine / f"{digest.hex}-{time.time_ns()}"
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise disk_error(exc, "quarantining", path) from exc
        sync_directory(path.parent)
        sync_directory(self._room.quarantine)
        return aside

    # --- inside --------------------------------------------------------------

    def _is_unchecked(self, digest: Digest) -> bool:
        return self._ledger.row(digest) is None

    def _sync(self, result: BlobResult) -> None:
        path = self._layout.blob_path(result.digest)
        if self._layout.blob_size(result.digest) != result.size:
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

    def _of_result(self, result: BlobResult, form: Form, claim: Layer | None) -> Holding:
        """What is held once the bytes that gave ``result`` are kept in ``form``."""
        if not isinstance(result, TeeResult):
            if claim is None:
                raise ValueError("a blob that was not inflated holds what an image says, and nothing else")
            return self._claimed(result.digest, result.size, claim)
        content = result.diff_id, result.uncompressed_size
        if form is Form.UNCOMPRESSED:
            name, size = Digest(str(result.diff_id)), result.uncompressed_size
            return self._holding(name, size, *content, Compression.NONE, Basis.COMPUTED)
        return self._holding(result.digest, result.size, *content, result.compression, Basis.COMPUTED)

    def _claimed(self, name: Digest, size: int, layer: Layer) -> Holding:
        return self._holding(name, size, layer.diff_id, None, layer.compression, Basis.CLAIMED)

    def _holding(
        self,
        name: Digest,
        size: int,
        diff_id: DiffID,
        uncompressed_size: int | None,
        compression: Compression,
        basis: Basis,
    ) -> Holding:
        return Holding(
            diff_id=diff_id,
            digest=name,
            size=size,
            uncompressed_size=uncompressed_size,
            compression=compression,
            place=PLACE,
            basis=basis,
            content=self._layout.content(name),
        )
