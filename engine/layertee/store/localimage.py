"""An image as the store keeps it: its manifest, and what can be said about it.

Where every layer is held as the manifest names it, that is the manifest itself, byte for byte, and
the image keeps its digest. Otherwise it is a new OCI manifest that names the forms that are here.
The config, and so the image's id, stays the same: the DiffIDs in it are true for every form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import LayerteeError
from ..image.document import Descriptor, Digest, Layer, Manifest
from ..image.holding import Holding
from ..image.media import OCI_CONFIG, OCI_MANIFEST, Compression, media_type_of
from .catalog import PulledImage
from .layout import ORIGINAL_MANIFEST, Layout

# Annotations that describe the compressed bytes (offsets, TOC digests): false for another form.
_OF_THE_BLOB = (
    "io.github.containers.zstd-chunked.",
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
)


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


def local_manifest(
    manifest: Manifest,
    layers: Sequence[Layer],
    held: Sequence[Holding],
    *,
    keep_docker: bool = True,
) -> bytes:
    """The bytes of the manifest to keep locally: those pulled, unless a layer is held in another form.

    ``held`` are the layers' holdings in the store, in their order. ``keep_docker`` False also
    rewrites a Docker schema 2 manifest: containers/image before 2026 refuses one in an OCI layout.
    A rewritten manifest is deterministic; its annotation ``dev.layertee.original-manifest`` names the
    one pulled.
    """
    pairs = list(zip(layers, held, strict=True))
    as_named = all(holding.digest == layer.digest for layer, holding in pairs)
    if as_named and (keep_docker or manifest.media_type == OCI_MANIFEST):
        return manifest.raw
    return oci_manifest(
        manifest,
        [_descriptor(layer, holding) for layer, holding in pairs],
        {ORIGINAL_MANIFEST: manifest.digest},
    )


def oci_manifest(
    manifest: Manifest, layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]
) -> bytes:
    """``manifest`` as an OCI one that names ``layers`` (descriptors); its config stays. Deterministic."""
    merged = {**manifest.annotations, **annotations}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": manifest.config.digest,
            "size": manifest.config.size,
        },
        "layers": layers,
        **({"annotations": merged} if merged else {}),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def describe(layout: Layout, name: str, entry: Descriptor, row: PulledImage | None) -> StoredImage:
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


def _descriptor(layer: Layer, holding: Holding) -> dict[str, Any]:
    return layer_descriptor(layer, holding.digest, holding.size, holding.compression)


def layer_descriptor(
    layer: Layer, digest: Digest, size: int, compression: Compression, extra: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The descriptor of ``layer`` in a form of ``size`` bytes that is called ``digest``."""
    annotations = dict(layer.descriptor.annotations)
    if digest != layer.digest:
        annotations = {k: v for k, v in annotations.items() if not k.startswith(_OF_THE_BLOB)}
    annotations |= extra or {}
    return {
        "mediaType": media_type_of(compression),
        "digest": digest,
        "size": size,
        **({"annotations": annotations} if annotations else {}),
    }
