"""An image whose documents were read and hashed, wherever it is. The one record of it; others have one."""

from __future__ import annotations

from dataclasses import field

from ..record import dataclass
from .document import Digest, ImageConfig, Index, Layer, Manifest
from .platform import Platform


@dataclass(frozen=True, slots=True)
class Member:
    """A manifest that an index names, itself or through another one. Size in bytes.

    ``platform`` and ``config_digest`` are those of an image; None for an artifact, an attestation for
    example, whose blobs are bytes with a digest and no more.
    """

    digest: Digest
    media_type: str
    size: int
    platform: Platform | None = None
    config_digest: Digest | None = None

    @property
    def is_artifact(self) -> bool:
        """Whether it is of something else than an image."""
        return self.config_digest is None


@dataclass(frozen=True, slots=True)
class Whole:
    """What belongs to an index that is kept whole, beside the blobs of its manifests.

    ``members`` are the manifests in the index's order, each once; ``documents`` the bytes of these, of
    indexes that it names, and of the configs of images.
    """

    members: tuple[Member, ...]
    documents: tuple[bytes, ...] = field(repr=False)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Of its images."""
        return tuple(one.platform for one in self.members if one.platform is not None)


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """``manifest`` and ``config`` hashed to what named them; ``layers`` are ``image_layers`` of both.

    ``index`` is the outermost index that the manifest was chosen from; None without one.
    ``warnings``: entries of indexes that make no sense and may have been meant.

    With ``whole``, all of the index is meant. ``layers`` are then the blobs of all its manifests, each once;
    ``manifest`` and ``config`` are those of the image for the platform that was asked for, or of the first
    image where there is none.
    """

    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    index: Index | None = None
    warnings: tuple[str, ...] = ()
    whole: Whole | None = None

    @property
    def index_digest(self) -> Digest | None:
        """Of ``index``."""
        return self.index.digest if self.index is not None else None

    @property
    def digest(self) -> Digest:
        """Of what is meant: the index, if it is meant as a whole, or the manifest."""
        return self.manifest.digest if self.whole is None or self.index is None else self.index.digest
