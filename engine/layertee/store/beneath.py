"""What an index of a layout names, itself or through other indexes, as far as it is there."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from ..errors import LayerteeError, NotFound
from ..image.document import Descriptor, Digest, Index, Manifest, Platform, parse_document
from ..image.whole import MAX_DEPTH, MAX_DOCUMENTS
from ..record import dataclass
from .layout_reader import is_document

if TYPE_CHECKING:
    from .layout_reader import LayoutReader


@dataclass(frozen=True, slots=True)
class Beneath:
    """``documents`` are the manifests and indexes that are named, ``blobs`` what those manifests name that
    are here, each once. ``manifests`` are these, with the entries that name them. ``unread``: of what else is
    named, nobody knows what belongs to it.
    """

    documents: tuple[Descriptor, ...]
    manifests: tuple[tuple[Descriptor, Manifest], ...]
    blobs: tuple[Descriptor, ...]
    unread: tuple[Descriptor, ...]

    @property
    def parts(self) -> tuple[Descriptor, ...]:
        """All of it, but for the index itself."""
        return (*self.documents, *self.blobs)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Of the images that are here, as the index has them."""
        found = (entry.platform for entry, manifest in self.manifests if manifest.is_image)
        return tuple(one for one in found if one is not None)

    @property
    def nbytes(self) -> int:
        """Of the layers, each once."""
        layers = (layer for _, manifest in self.manifests for layer in manifest.layers)
        return sum({layer.digest: layer.size for layer in layers}.values())

    def check(self, layout: LayoutReader) -> None:
        """Raise NotFound unless all of it is there, with its sizes; LocalError."""
        gone = (one for one in self.parts if layout.blob_size(one.digest) != one.size)
        if (bad := next(chain(self.unread, gone), None)) is not None:
            raise NotFound(f"{bad.digest} is not there, or damaged; pull the image again")


def beneath(layout: LayoutReader, index: Index) -> Beneath:
    """What ``index`` names. A document that cannot be read is named, and no more. Blocks."""
    documents: dict[Digest, Descriptor] = {}
    manifests: list[tuple[Descriptor, Manifest]] = []
    unread: list[Descriptor] = []
    todo = [(entry, 1) for entry in reversed(index.manifests)]
    while todo:
        entry, depth = todo.pop()
        if entry.digest in documents:
            continue
        documents[entry.digest] = entry
        document = _read(layout, entry) if len(documents) <= MAX_DOCUMENTS else None
        if isinstance(document, Manifest):
            manifests.append((entry, document))
        elif document is None or depth == MAX_DEPTH:
            unread.append(entry)
        else:
            todo += [(child, depth + 1) for child in reversed(document.manifests)]
    named = (blob for _, one in manifests for blob in (one.config, *one.layers))
    blobs = {blob.digest: blob for blob in named}
    return Beneath(tuple(documents.values()), tuple(manifests), tuple(blobs.values()), tuple(unread))


def _read(layout: LayoutReader, entry: Descriptor) -> Manifest | Index | None:
    if is_document(entry) or not entry.media_type:
        with suppress(LayerteeError):
            raw = layout.read_blob(entry)
            return parse_document(raw, None, named_as=entry.media_type, artifacts=True)
    return None
