"""What the images of an ostree repository say about its layers: claims, to be judged by others.

The importer of container images keeps an image's manifest and config as text in the metadata of a commit,
written anew from what it parsed. So neither hashes to the digest that it once had, and a pair (blob digest,
DiffID) taken from them is what the maker of the image said, whoever that was. Pure, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ...image.document import (
    DiffID,
    Digest,
    ImageConfig,
    Layer,
    Manifest,
    image_layers,
    parse_config,
    parse_document,
)
from ...image.roles import Role, roles_of
from ...record import dataclass

if TYPE_CHECKING:
    from ...image.media import Compression

MANIFEST_KEY: Final = "ostree.manifest"
CONFIG_KEY: Final = "ostree.container.image-config"


@dataclass(frozen=True, slots=True)
class Claim:
    """What an image of the repository says of a blob. ``image`` is the ref it was found under."""

    diff_id: DiffID
    compression: Compression
    role: Role | None
    image: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What all images say. Blobs of which they say different things are ``disputed`` and not in ``of``."""

    of: Mapping[Digest, Claim]
    disputed: frozenset[Digest]

    @property
    def digests(self) -> frozenset[Digest]:
        """Every blob that an image names."""
        return self.disputed.union(self.of)


def stored_layers(metadata: Mapping[str, str], image: str) -> dict[Digest, Claim]:
    """The layers of the image that a commit's metadata describe; nothing if they describe none.

    Raises DocumentError, DiffIDMismatch and UnsupportedImage, as the parsers of ``oci`` do.
    """
    if MANIFEST_KEY not in metadata or CONFIG_KEY not in metadata:
        return {}
    manifest = parse_document(metadata[MANIFEST_KEY].encode(), None)
    if not isinstance(manifest, Manifest):
        return {}
    raw = metadata[CONFIG_KEY].encode()
    config = parse_config(raw, replace(manifest.config, digest=Digest.of(raw), size=len(raw)))
    layers = image_layers(manifest, config)
    roles = blob_roles(layers, config)
    return {
        layer.digest: Claim(layer.diff_id, layer.compression, roles.get(layer.digest), image)
        for layer in layers
    }


def gather(images: Iterable[Mapping[Digest, Claim]]) -> Claims:
    """The claims of several images, as far as they agree."""
    found: dict[Digest, Claim] = {}
    disputed: set[Digest] = set()
    for claims in images:
        for digest, claim in claims.items():
            first = found.setdefault(digest, claim)
            if first.diff_id != claim.diff_id:
                disputed.add(digest)
            elif first.role is not claim.role:
                found[digest] = replace(first, role=None)
    agreed = {digest: claim for digest, claim in found.items() if digest not in disputed}
    return Claims(agreed, frozenset(disputed))


def blob_roles(layers: Sequence[Layer], config: ImageConfig) -> dict[Digest, Role]:
    """How each blob of an image is imported; nothing for an image whose label fits none of its layers.

    A blob that the image names twice has the role of its first layer.
    """
    roles: dict[Digest, Role] = {}
    for layer, role in zip(layers, roles_of(layers, config), strict=False):
        roles.setdefault(layer.digest, role)
    return roles
