"""What a manifest or an index says that matters to who hands it on, whatever kind of thing it describes.

Images are read as strictly as anywhere. Other artifacts (signatures, charts, bills of materials) are
documents of the same form: what they name is all that has to be known of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from ..errors import DocumentError, LayerteeError, UnsupportedImage
from ..image.document import MAX_DOCUMENT, Descriptor, Digest, Index, Manifest, parse_document
from ..image.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST
from ..image.rewrite import ORIGINAL_MANIFEST
from ..image.strictjson import as_list, as_object, as_text, as_text_map, check_fields, load_object
from ..record import dataclass

_FIELDS: Final = ("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations")


@dataclass(frozen=True, slots=True)
class Facts:
    """A document whose bytes hash to ``digest``.

    ``document`` is None where it is the manifest of no image. ``named`` is what has to be had besides, for
    the document to be of use: the blobs of a manifest (config first), the manifests of an index.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    document: Manifest | Index | None
    named: tuple[Descriptor, ...]
    subject: Digest | None
    artifact_type: str
    annotations: Mapping[str, str] = field(hash=False)

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Of an index, what it lists."""
        return self.named if self.is_index else ()

    @property
    def original(self) -> Digest | None:
        """Of a manifest that was written anew, the digest of the one at the registry, as it says."""
        try:
            return Digest(self.annotations.get(ORIGINAL_MANIFEST, ""))
        except ValueError:
            return None

    @property
    def descriptor(self) -> Mapping[str, object]:
        """As the referrers API lists it (distribution-spec v1.1, "Listing Referrers")."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.raw),
            **({"artifactType": self.artifact_type} if self.artifact_type else {}),
            **({"annotations": dict(self.annotations)} if self.annotations else {}),
        }


def facts_of(raw: bytes, digest: Digest) -> Facts:
    """``raw`` must hash to ``digest``, a SHA-256. Raises DocumentError and IntegrityError for what is neither
    manifest nor index, UnsupportedImage for schema 1.
    """
    found = load_object(raw, "manifest", limit=MAX_DOCUMENT, maps=None)
    check_fields(found, _FIELDS, "manifest")
    try:
        document: Manifest | Index | None = parse_document(raw, None)
    except UnsupportedImage:
        document = None  # and perhaps no document that is handed on
    media_type = document.media_type if document is not None else _type_of_artifact(found)
    if isinstance(document, Manifest):
        named = (document.config, *document.layers)
    elif document is not None:
        named = document.manifests
    else:
        named = _descriptors([found.get("config"), *as_list(found.get("layers"), "layers")])
    annotations = as_text_map(found.get("annotations"), "annotations")
    subject = _subject(found)
    said = found.get("artifactType")
    artifact_type = as_text(said, "artifactType") if said else ""
    if not artifact_type and media_type in MANIFEST_TYPES:
        artifact_type = named[0].media_type
    return Facts(raw, digest, media_type, document, named, subject, artifact_type, annotations)


def is_same_image(kept: Facts, original: Facts) -> bool:
    """Whether ``original``, which ``kept`` says to be made from, is at least of the same config."""
    ours, theirs = kept.document, original.document
    return (
        isinstance(ours, Manifest)
        and isinstance(theirs, Manifest)
        and ours.config.digest == theirs.config.digest
    )


def _type_of_artifact(found: Mapping[str, object]) -> str:
    """Raises UnsupportedImage."""
    said = found.get("mediaType")
    media_type = as_text(said, "mediaType").lower() if said else OCI_MANIFEST
    if media_type not in MANIFEST_TYPES or found.get("schemaVersion") != 2 or "config" not in found:
        raise UnsupportedImage("neither a manifest nor an index")
    return media_type


def _descriptors(entries: list[object]) -> tuple[Descriptor, ...]:
    """Read as those of an index are. Raises DocumentError where one of them makes no sense."""
    raw = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    index = parse_document(raw, OCI_INDEX)
    if not isinstance(index, Index) or index.unreadable:
        raise DocumentError("a descriptor in it makes no sense")
    return index.manifests


def _subject(found: Mapping[str, object]) -> Digest | None:
    said = found.get("subject")
    if said is None:
        return None
    try:
        return Digest.parse(as_object(said, "subject").get("digest"), "subject")
    except LayerteeError:
        return None
