"""A manifest written anew, where layers are kept or shown in another form than the image names.

Where every layer is held as the manifest names it, that is the manifest itself, byte for byte, and
the image keeps its digest. Otherwise it is a new OCI manifest that names the forms that are there.
The config, and so the image's id, stays the same: the DiffIDs in it are true for every form.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .document import Digest, Layer, Manifest
from .holding import Holding
from .media import OCI_CONFIG, OCI_MANIFEST, Compression, media_type_of

ORIGINAL_MANIFEST: Final = "dev.layertee.original-manifest"  # digest of the manifest as pulled

# Annotations that describe the compressed bytes (offsets, TOC digests): false for another form.
_OF_THE_BLOB = (
    "io.github.containers.zstd-chunked.",
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
)


class Types(enum.Enum):
    """Which media types a manifest that is kept may have."""

    AS_PULLED = "as-pulled"  # Docker's too
    OCI = "oci"  # containers/image before 2026 refuses Docker's in an OCI layout


def local_manifest(
    manifest: Manifest,
    layers: Sequence[Layer],
    held: Sequence[Holding],
    types: Types = Types.AS_PULLED,
) -> bytes:
    """The bytes of the manifest to keep locally: those pulled, unless a layer is held in another form.

    ``held`` are the layers' holdings in the store, in their order. ``Types.OCI`` also has a Docker schema 2
    manifest rewritten. A rewritten manifest is deterministic; an annotation (ORIGINAL_MANIFEST) names the
    one pulled.
    """
    pairs = list(zip(layers, held, strict=True))
    as_named = all(one.digest == layer.digest for layer, one in pairs)
    if as_named and (types is Types.AS_PULLED or manifest.media_type == OCI_MANIFEST):
        return manifest.raw
    return oci_manifest(
        manifest,
        [layer_descriptor(layer, one.digest, one.size, one.compression) for layer, one in pairs],
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
