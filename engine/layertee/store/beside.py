"""What belongs to an image beside its config and layers: signatures, and the index that it was chosen from.

An image's entry in index.json may name, in an annotation, an OCI index that lists such documents. So they
come and go with the image, other tools pass them over, and whoever hands the image on can hand them on. A
document that has a tag at its registry (Cosign's ``sha256-….sig``) has it as the ref.name of its entry;
others are named by their digests alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from ..errors import DocumentError
from ..image.document import Descriptor, Digest, Index
from ..image.media import OCI_INDEX
from ..record import dataclass
from .layout_index import REF_NAME

if TYPE_CHECKING:
    from .layout_reader import LayoutReader

BESIDE: Final = "dev.layertee.beside"  # in an entry of index.json: the digest of the index that lists them


@dataclass(frozen=True, slots=True)
class BesideDocument:
    """A manifest or index of ``media_type``, and the blobs that it names. ``tag``: its name, or ""."""

    raw: bytes = field(repr=False)
    media_type: str
    tag: str = ""
    blobs: tuple[bytes, ...] = field(default=(), repr=False)


def index_of(documents: Sequence[BesideDocument]) -> bytes:
    """The bytes of an index that lists ``documents``. Deterministic, whatever their order."""
    entries = sorted((_entry(one) for one in documents), key=lambda entry: (entry["digest"], str(entry)))
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def listed(layout: LayoutReader, entry: Descriptor) -> tuple[Descriptor, ...]:
    """What ``entry`` of the layout's index has beside it; none where it names nothing.

    Raises as ``LayoutReader.document``, and DocumentError where the annotation or what it names makes no
    sense.
    """
    found = root(layout, entry)
    if found is None:
        return ()
    document = layout.document(found)
    if not isinstance(document, Index):
        raise DocumentError(f"{layout.path}: {found.digest}, named in {BESIDE}, is not an index")
    return document.manifests


def root(layout: LayoutReader, entry: Descriptor) -> Descriptor | None:
    """The index that lists what ``entry`` has beside it. Raises DocumentError, NotFound, LocalError."""
    text = entry.annotations.get(BESIDE)
    if text is None:
        return None
    digest = Digest.parse(text, BESIDE)
    return Descriptor(OCI_INDEX, digest, layout.blob_size(digest) or 0)


def _entry(one: BesideDocument) -> dict[str, Any]:
    return {
        "mediaType": one.media_type,
        "digest": Digest.of(one.raw),
        "size": len(one.raw),
        **({"annotations": {REF_NAME: one.tag}} if one.tag else {}),
    }
