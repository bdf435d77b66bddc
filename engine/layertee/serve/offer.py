"""What a server hands out, in the words that its parts share: documents, blobs, and names of content.

No I/O: who knows what is on offer is a *stock*, who sends the bytes asks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from ..record import dataclass

if TYPE_CHECKING:
    from ..image.basis import Basis
    from ..image.document import DiffID, Digest
    from ..image.holding import BlobContent


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index. ``digest`` is the SHA-256 of ``raw``, hashed when it was read or made.

    ``original``: of a manifest that was made here, the digest of the one that the image had at its registry.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    original: Digest | None = None


@dataclass(frozen=True, slots=True)
class Sendable:
    """A blob that can be sent: ``size`` bytes, which are to hash to ``digest``.

    ``place`` is what to call where they are. ``is_checked``: this machine's own store hashed them when it
    took them in, and nobody else can change them. Nothing else is sent without being hashed.
    """

    digest: Digest
    size: int
    content: BlobContent
    place: str
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What a blob that cannot be had holds: computed or attested on this machine, never claimed."""

    diff_id: DiffID
    basis: Basis


class Stock(Protocol):
    """All that is on offer, as it is now. Every method blocks; any thread may call.

    ``repository`` is a name as requests have it. A place that cannot be read has nothing, and is logged. What
    cannot be told apart raises InvalidReference, whose text names the images.
    """

    def repositories(self) -> Sequence[str]:
        """Every name that an image has here, in ASCII order."""

    def tags(self, repository: str) -> Sequence[str] | None:
        """In ASCII order; None for a name that no image has."""

    def named(
        self, repository: str, tag: str, *, registry: str | None = None, original: bool = False
    ) -> Sequence[Document]:
        """What the tag may be answered with, best first: an index, then the manifest of one platform.

        Every blob of each can be had here, under the digest by which the document names it; ``original``: or
        under its DiffID, and then documents are those of the registry wherever these are kept. ``registry``
        is where the image is from, for a repository that has images of several. Empty where no image has that
        name; raises NotFound, whose text says what is missing, where one has it and is not all here.
        """

    def document(self, repository: str, digest: Digest) -> Document | None:
        """The manifest or index with that digest: of a registry, or made here."""

    def blob(self, digest: Digest) -> Sendable | None:
        """A blob of any image, under its digest; a layer's tar under its DiffID."""

    def distrust(self, blob: Sendable) -> None:
        """What was read of ``blob`` is not what its name says, or not all there: that copy is not offered
        again for some minutes, unless something about it changes. Others of the same name are.
        """

    def content_of(self, digest: Digest) -> Known | None:
        """What the blob would inflate to; None where nobody on this machine has seen that."""

    def referrers(self, repository: str, digest: Digest) -> Sequence[Mapping[str, object]]:
        """Descriptors of the manifests whose subject is ``digest``, with artifactType and annotations."""
