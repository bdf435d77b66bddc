"""The images of a store: named in its index, remembered in its catalog, described for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..disk.part import write_document
from ..errors import LayerteeError, StoreCorrupt
from ..image.document import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
    parse_document,
)
from ..image.rewrite import ORIGINAL_MANIFEST
from ..record import dataclass
from .beneath import beneath
from .beside import BESIDE, BesideDocument, index_of
from .catalog import PulledImage
from .layout_index import REF_NAME

if TYPE_CHECKING:
    from ..image.resolved import ResolvedImage
    from .layout import Layout
    from .ledger import Ledger
    from .room import Room

SEVERAL: Final = "several"  # in place of a platform, of an index


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the store. ``problem`` says what is wrong with it; the rest may then be a guess.

    ``name`` is empty for an image without one; ``digest`` is of the manifest as kept, ``original`` of
    the manifest as pulled; ``nbytes`` counts the layers as kept; ``pulled_at`` is None for an image that
    another tool put there. ``platforms`` are those of the images of an index that are here.
    """

    name: str
    digest: Digest
    original: Digest
    config: Digest | None
    platform: str
    nbytes: int
    pulled_at: int | None
    problem: str | None
    platforms: tuple[Platform, ...] = ()


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
        entry = Descriptor(kept.media_type, kept.digest, len(local), platform=config.platform)
        digests = manifest.digest, kept.digest, config.digest
        documents = (config.raw, manifest.raw, local)
        return self._put(name, entry, kept.layers, documents, beside, digests, str(config.platform))

    def put_whole(
        self, name: str | None, image: ResolvedImage, *, beside: Sequence[BesideDocument] | None = None
    ) -> Descriptor:
        """Name an index, all of whose blobs are here; return its entry. It is kept with all that it names,
        byte for byte. Raises as ``put``.
        """
        index, whole = image.index, image.whole
        if index is None or whole is None:
            raise ValueError("that is no index with all that it names")
        entry = Descriptor(index.media_type, index.digest, len(index.raw))
        documents = (*whole.documents, index.raw)
        blobs = [layer.descriptor for layer in image.layers]
        # Its images have a config each; the index stands for them.
        digests = index.digest, index.digest, index.digest
        return self._put(name, entry, blobs, documents, beside, digests, SEVERAL)

    def _put(
        self,
        name: str | None,
        entry: Descriptor,
        blobs: Sequence[Descriptor],
        documents: Sequence[bytes],
        beside: Sequence[BesideDocument] | None,
        digests: tuple[Digest, Digest, Digest],
        platform: str,
    ) -> Descriptor:
        """Keep ``documents``, name ``entry``, and remember the ``digests`` as PulledImage has them."""
        for blob in blobs:
            if self._layout.blob_size(blob.digest) != blob.size:
                path = self._layout.blob_path(blob.digest)
                raise StoreCorrupt(
                    f"{name or entry.digest}: its layer {path} is not there, or damaged", path=str(path)
                )
        for document in documents:
            self.put_document(document)
        entry = replace(entry, annotations=self._beside(name, entry.digest, beside))
        self._layout.set_entry(name, entry)
        if name is not None:
            row = PulledImage(name, *digests, platform, int(time.time()))
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

    def is_whole(self, name: str) -> bool:
        """Whether ``name`` is an index that was pulled here with all that it names. Raises as ``all``."""
        return any(
            one.name == name and one.platform == SEVERAL and one.pulled_at is not None for one in self.all()
        )

    def needs(self) -> set[Digest]:
        """The documents and blobs that images need which were pulled here, and the documents of others.

        Raises StoreCorrupt, LocalError.
        """
        needed: set[Digest] = set()
        for image in self.all():
            needed |= {image.digest, image.original} | ({image.config} if image.config else set())
            if image.pulled_at is not None and image.platform == SEVERAL:
                entry = Descriptor("", image.digest, self._layout.blob_size(image.digest) or 0)
                with suppress(LayerteeError):  # it is needed, and found to be wrong
                    document = self._layout.document(entry)
                    if isinstance(document, Index):
                        needed |= {part.digest for part in beneath(self._layout, document).parts}
        return needed

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
                manifests = [document] if isinstance(document, Manifest) else self._images_of(document)
                for manifest in manifests:
                    found += [(name, layer) for layer in self._layout.image(manifest).layers]
            except LayerteeError as exc:
                warnings.append(f"image {name}: {exc}")
        return NamedLayers(tuple(found), tuple(warnings))

    def _images_of(self, index: Index) -> list[Manifest]:
        """Those images of ``index`` that are here: another tool may have put only some of them there."""
        return [
            manifest
            for _, manifest in beneath(self._layout, index).manifests
            if manifest.is_image and self._layout.blob_size(manifest.config.digest) is not None
        ]


def _describe(layout: Layout, name: str, entry: Descriptor, row: PulledImage | None) -> StoredImage:
    """What is known of the image that ``entry`` names; ``row`` is the catalog's. Never raises for it."""
    pulled_at = row.pulled_at if row is not None and row.local_manifest_digest == entry.digest else None
    platform = str(entry.platform or "")
    try:
        document = layout.document(entry)
    except LayerteeError as exc:
        return StoredImage(name, entry.digest, entry.digest, None, platform, 0, pulled_at, str(exc))
    if not isinstance(document, Manifest):
        return _describe_index(layout, name, document, pulled_at)
    original = entry.digest
    with suppress(ValueError):
        original = Digest(document.annotations.get(ORIGINAL_MANIFEST, str(original)))
    nbytes = sum(layer.size for layer in document.layers)
    config = document.config.digest
    problem = _problem(layout, document)
    return StoredImage(name, entry.digest, original, config, platform, nbytes, pulled_at, problem)


def _describe_index(layout: Layout, name: str, index: Index, pulled_at: int | None) -> StoredImage:
    """An index that was pulled here is here with all that it names; of another tool's, there may be some."""
    found = beneath(layout, index)
    problem = None
    if pulled_at is not None:
        try:
            found.check(layout)
        except LayerteeError as exc:
            problem = str(exc)
    digest, platforms = index.digest, found.platforms
    return StoredImage(name, digest, digest, None, SEVERAL, found.nbytes, pulled_at, problem, platforms)


def _problem(layout: Layout, manifest: Manifest) -> str | None:
    try:
        for blob in (manifest.config, *manifest.layers):
            if layout.blob_size(blob.digest) != blob.size:
                return f"{blob.digest} is not there, or damaged; pull the image again"
    except LayerteeError as exc:
        return str(exc)
    return None
