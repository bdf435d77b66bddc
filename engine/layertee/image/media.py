"""Media types: what the OCI specifications and Docker call documents and layers, and what that says of them.

image-spec v1.1: media-types.md. Docker's schema 2 has other names for the same things.
"""

from __future__ import annotations

import enum

from ..errors import UnsupportedImage
from .strictjson import printable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
SCHEMA1_TYPES = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")
)
# Content-Types that say nothing; the document's own mediaType then decides.
GENERIC_TYPES = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)


class Compression(enum.Enum):
    """How a layer's tar is wrapped for transfer."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


_OCI_LAYER_TYPES = {
    Compression.NONE: OCI_LAYER,
    Compression.GZIP: OCI_LAYER + "+gzip",
    Compression.ZSTD: OCI_LAYER + "+zstd",
}
_DOCKER_LAYER_TYPES = {
    Compression.NONE: DOCKER_LAYER,
    Compression.GZIP: DOCKER_LAYER + ".gzip",
    Compression.ZSTD: DOCKER_LAYER + ".zstd",  # not registered, but seen
}
_COMPRESSIONS = {
    name: form for table in (_OCI_LAYER_TYPES, _DOCKER_LAYER_TYPES) for form, name in table.items()
}


def media_type_of(compression: Compression, docker: bool = False) -> str:
    """The media type of a layer in that form."""
    return (_DOCKER_LAYER_TYPES if docker else _OCI_LAYER_TYPES)[compression]


def is_layer_type(media_type: str) -> bool:
    """Whether it is that of a layer: a tar, plain or compressed."""
    return media_type in _COMPRESSIONS


def compression_of(media_type: str) -> Compression:
    """The form of a layer. Raises UnsupportedImage for foreign, encrypted and unknown types."""
    found = _COMPRESSIONS.get(media_type)
    if found is not None:
        return found
    shown = printable(media_type)
    if media_type.endswith("+encrypted"):
        raise UnsupportedImage(f"layer type {shown} is encrypted; decrypt the image when pushing it")
    if "nondistributable" in media_type or ".foreign." in media_type:
        raise UnsupportedImage(f"layer type {shown} is foreign: the registry need not have it; push it there")
    raise UnsupportedImage(f"layer type {shown!r} is not a tar, plain or compressed with gzip or zstd")
