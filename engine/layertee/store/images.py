"""The images of a store: named in its index, remembered in its catalog, described for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..disk.part import write_document
from ..errors import LayerteeError, StoreCorrupt
from ..image.document import Descriptor, Digest, ImageConfig, Layer, Manifest, parse_document
from ..image.rewrite import ORIGINAL_MANIFEST
from ..record import dataclass
from .beside import BESIDE, BesideDocument, index_of
from .catalog import PulledImage
from .layout_index import REF_NAME

if TYPE_CHECKING:
    from .layout import Layout
    from .ledger import Ledger
    from .room import Room


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the store. ``problem`` says what is wrong with it; the rest may then be a guess.

    ``name`` is empty for an image without one; ``digest`` is of the manifest as kept, ``original`` of
    the manifest as pulled; ``nbytes`` counts the layers as kept; ``pulled_at`` is None for an image that
    another tool put there.
    """

    name: str
    digest: Digest
    original: Digest
    config: Digest | None
    platform: str
    nbytes: int
    pulled_at: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class NamedLayers:
    """The layers that images name, each as often as it is named, and the images that could not be read.

    What one image says of a blob, another may contradict. The text is an image's name, or its digest
    where it has none.
    """

    layers: tuple[tuple[str, Layer], ...]
    warnings: tuple[str, ...]


class Images:
    """The images in ``layout``, as ``ledger`` knows them. Every method blocks."""

    def __init__(self, layout: Layout, ledger: Ledger, room: Room) -> None:
        self._layout = layout
        self._ledger = ledger
        self._room = room

    def put_document(self, data: bytes) -> Digest:
        """Keep a manifest, index or config; return its digest. Raises LocalError, NoSpace."""
        layout = self._layout
        return write_document(self._room.ingest, layout.blob_directory(), data, mode=layout.blob_mode)

    def put(
        self,
        name: str | None,
        manifest: Manifest,
        config: ImageConfig,
        local: bytes,
        *,
        beside: Sequence[BesideDocument] | None = None,
    ) -> Descriptor:
        """Name an image whose layers are all here; return the entry of ``local``, its manifest as kept.

        ``manifest`` is the one pulled (kept too), ``local`` from ``local_manifest``. Without a name it
        is just one of the layout's images. ``beside`` it is kept what this lists; None leaves what is there,
        if it is of the same manifest. Raises StoreCorrupt (a layer is missing), StoreBusy,
        LocalError, NoSpace.
        """
        kept = parse_document(local, None)
        if not isinstance(kept, Manifest) or kept.config.digest != config.digest:
            raise ValueError("the local manifest is not one of this image")
        for layer in kept.layers:
            if self._layout.blob_size(layer.digest) != layer.size:
                path = self._layout.blob_path(layer.digest)
                raise StoreCorrupt(
                    f"{name or kept.digest}: its layer {path} is not there, or damaged", path=str(path)
                )
        for document in (config.raw, manifest.raw, local):
            self.put_document(document)
        annotations = self._beside(name, kept.digest, beside)
        entry = Descriptor(
            kept.media_type, kept.digest, len(local), annotations=annotations, platform=config.platform
        )
        self._layout.set_entry(name, entry)
        if name is not None:
            digests = manifest.digest, kept.digest, config.digest
            row = PulledImage(name, *digests, str(config.platform), int(time.time()))
            with self._ledger.tolerant():
                self._ledger.catalog.put_image(row)
        return entry

    def _beside(
        self, name: str | None, digest: Digest, documents: Sequence[BesideDocument] | None
    ) -> dict[str, str]:
        """The annotations of the entry of ``digest``, once what is to be beside it is there."""
        if documents is None:
            same = (one for one in self._layout.entries() if one.digest == digest)
            there = next((one for one in same if one.annotations.get(REF_NAME) == name), None)
            text = there.annotations.get(BESIDE) if there is not None else None
            return {} if text is None else {BESIDE: text}
        for one in documents:
            for raw in (*one.blobs, one.raw):
                self.put_document(raw)
        return {BESIDE: str(self.put_document(index_of(documents)))} if documents else {}

    def all(self) -> list[StoredImage]:
        """All images, in the index's order. Raises StoreCorrupt, LocalError."""
        rows: dict[str, PulledImage] = {}
        with self._ledger.tolerant():
            rows = {row.name: row for row in self._ledger.catalog.images()}
        named = [(entry.annotations.get(REF_NAME, ""), entry) for entry in self._layout.entries()]
        return [_describe(self._layout, name, entry, rows.get(name)) for name, entry in named]

    def remove(self, name: str) -> None:
        """Forget the image; its blobs go with the next gc. Raises NotFound, StoreBusy, LocalError."""
        self._layout.find(name)
        with self._ledger.tolerant():
            self._ledger.catalog.remove_image(name)
        self._layout.remove_entry(name)

    def layers(self) -> NamedLayers:
        """The layers that the images name. Raises StoreCorrupt, LocalError."""
        found: list[tuple[str, Layer]] = []
        index = self._layout.index()
        warnings = [f"{index.where}: {one.problem}" for one in index.broken]
        for entry in index.entries:
            name = entry.annotations.get(REF_NAME, str(entry.digest))
            try:
                document = self._layout.document(entry)
                if isinstance(document, Manifest):
                    found += [(name, layer) for layer in self._layout.image(document).layers]
            except LayerteeError as exc:
                warnings.append(f"image {name}: {exc}")
        return NamedLayers(tuple(found), tuple(warnings))


def _describe(layout: Layout, name: str, entry: Descriptor, row: PulledImage | None) -> StoredImage:
    """What is known of the image that ``entry`` names; ``row`` is the catalog's. Never raises for it."""
    pulled_at = row.pulled_at if row is not None and row.local_manifest_digest == entry.digest else None
    platform = str(entry.platform or "")
    try:
        document = layout.document(entry)
    except LayerteeError as exc:
        return StoredImage(name, entry.digest, entry.digest, None, platform, 0, pulled_at, str(exc))
    if not isinstance(document, Manifest):
        return StoredImage(name, entry.digest, entry.digest, None, "several", 0, pulled_at, None)
    original = entry.digest
    with suppress(ValueError):
        original = Digest(document.annotations.get(ORIGINAL_MANIFEST, str(original)))
    nbytes = sum(layer.size for layer in document.layers)
    config = document.config.digest
    problem = _problem(layout, document)
    return StoredImage(name, entry.digest, original, config, platform, nbytes, pulled_at, problem)


def _problem(layout: Layout, manifest: Manifest) -> str | None:
    try:
        for blob in (manifest.config, *manifest.layers):
            if layout.blob_size(blob.digest) != blob.size:
                return f"{blob.digest} is not there, or damaged; pull the image again"
    except LayerteeError as exc:
        return str(exc)
    return None
