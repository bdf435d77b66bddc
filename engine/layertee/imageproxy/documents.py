"""What a client is told about an image: its manifest, its layers, and the names that they have elsewhere."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..errors import CatalogError, DocumentError
from ..image.holding import Basis
from ..image.media import OCI_MANIFEST, Compression, media_type_of
from ..image.rewrite import ORIGINAL_MANIFEST, layer_descriptor, oci_manifest
from ..record import dataclass

if TYPE_CHECKING:
    from ..engine import Inspection
    from ..image.document import Digest, ImageConfig, Layer, Manifest
    from ..store.store import Store

# Annotations of a layer that is presented as a tar: the blob that it is at the registry.
ANNOTATIONS: Final = "dev.layertee.layer."
_NEVER_RUN: Final = 0x8  # MFD_NOEXEC_SEAL of linux/memfd.h, since Linux 6.3


@dataclass(frozen=True, slots=True)
class Presented:
    """A layer under the name by which a client asks for it. ``size`` in bytes, of what the client gets.

    ``estimated``: nobody here has measured the size; it is that of another form of the layer.
    """

    layer: Layer
    digest: Digest
    size: int
    compression: Compression
    estimated: bool = False

    @property
    def media_type(self) -> str:
        if self.digest == self.layer.digest:
            return self.layer.media_type
        return media_type_of(self.compression)


@dataclass(frozen=True, slots=True)
class RegistryName:
    """The blob that a layer is at its registry, as far as that is known, and how it is known."""

    digest: Digest
    size: int | None
    media_type: str | None
    basis: Basis


def registry_names(found: Inspection) -> list[RegistryName | None]:
    """For each layer of an image, in its order, the compressed blob that a registry has or had for it.

    The blob that the image's registry manifest names, where that manifest is known; else the best known
    of the blobs that hold the same content.
    """
    names: list[RegistryName | None] = []
    for at, step in enumerate(found.plan.layers):
        known = found.names.get(step.layer.diff_id, ())
        named = found.registry_layers[at] if found.registry_layers else None
        if named is not None:
            basis = next((name.basis for name in known if name.digest == named.digest), Basis.CLAIMED)
            names.append(RegistryName(named.digest, named.size, named.media_type, basis))
        elif known:
            best = known[0]
            media_type = media_type_of(best.compression) if best.compression is not None else None
            names.append(RegistryName(best.digest, best.size, media_type, best.basis))
        else:
            names.append(None)
    return names


def computed_meanwhile(store: Store, names: Sequence[RegistryName | None]) -> list[RegistryName | None]:
    """``names``, with what was hashed here since they were looked up. Blocks."""

    def now(name: RegistryName) -> RegistryName:
        # Another DiffID than the image's cannot be there: the layer, or the image, would have been refused.
        computed = store.catalog.diff_id(name.digest) is not None
        return replace(name, basis=Basis.COMPUTED) if computed else name

    try:
        return [now(name) if name is not None else None for name in names]
    except CatalogError:
        return list(names)


def identity_document(presented: Sequence[Presented], names: Sequence[RegistryName | None]) -> bytes:
    """The reply of the identity method: a JSON array, one object for each layer in the image's order."""
    return _json(
        [
            {
                "diff_id": one.layer.known_diff_id,
                "digest": name.digest if name is not None else None,
                "size": name.size if name is not None else None,
                "media_type": name.media_type if name is not None else None,
                "basis": name.basis.value if name is not None else None,
            }
            for one, name in zip(presented, names, strict=True)
        ]
    )


def manifest_document(
    manifest: Manifest,
    presented: Sequence[Presented],
    names: Sequence[RegistryName | None] | None,
) -> bytes:
    """``manifest`` as an OCI manifest that names the layers as they are presented.

    Byte for byte the image's own where that says the same already. ``names`` adds annotations about the
    registry's blobs to layers that are presented as tars.
    """
    notes = [_notes(one, name) for one, name in zip(presented, names or [None] * len(presented), strict=True)]
    as_named = all(one.digest == one.layer.digest for one in presented)
    if as_named and manifest.media_type == OCI_MANIFEST and not any(notes):
        return manifest.raw
    layers = [
        layer_descriptor(one.layer, one.digest, one.size, one.compression, note)
        for one, note in zip(presented, notes, strict=True)
    ]
    return oci_manifest(manifest, layers, {} if as_named else {ORIGINAL_MANIFEST: manifest.digest})


def _notes(one: Presented, name: RegistryName | None) -> Mapping[str, str]:
    if name is None or one.compression is not Compression.NONE or name.digest == one.digest:
        return {}
    facts = {
        "compressed-digest": name.digest,
        "compressed-size": name.size,
        "compressed-mediatype": name.media_type,
        "basis": name.basis.value,
    }
    return {ANNOTATIONS + key: str(value) for key, value in facts.items() if value is not None}


def layer_info(presented: Sequence[Presented]) -> list[dict[str, Any]]:
    """What GetLayerInfo answers: the names by which the client may ask for the layers."""
    return [{"digest": one.digest, "size": one.size, "media_type": one.media_type} for one in presented]


def layer_info_document(presented: Sequence[Presented]) -> bytes:
    return _json(layer_info(presented))


def runtime_config(config: ImageConfig) -> bytes:
    """The ``config`` member of an image config: what GetConfig answers."""
    found = json.loads(config.raw).get("config")
    if found is not None and not isinstance(found, dict):
        raise DocumentError(f"image config {config.digest}: its config is not an object")
    return _json(found or {})


def readable(content: bytes) -> int:
    """A descriptor from which ``content`` is read, and through which it cannot be changed."""
    fd = _file_in_memory()
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _file_in_memory() -> int:
    """One that can be sealed and is never run: in a sandbox, there is no other."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("layertee", flags | _NEVER_RUN)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
    return os.memfd_create("layertee", flags)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
