"""An index with all that it names: which documents that takes, and what blobs they come to. No I/O.

    gathering = Gathering(index)
    while wanted := gathering.wanted():
        for one in wanted:
            gathering.take(one, ...)  # the bytes of one.descriptor
    image = gathering.image(platform, pair)

Rules of this file: whatever an index says is bounded before it is asked for; each document and each blob
counts once, and what is said of it twice has to agree. What it does not understand it does not keep: an index
is whole or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ..errors import DocumentError, LayerteeError, NotFound, SizeMismatch, UnsupportedImage
from ..record import dataclass
from .digest import DiffID, Digest
from .document import (
    MAX_DOCUMENT,
    Descriptor,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Pairing,
    Platform,
    choose_platform,
    parse_config,
    parse_document,
)
from .media import INDEX_TYPES, MANIFEST_TYPES, Compression
from .resolved import Member, ResolvedImage, Whole
from .strictjson import printable

MAX_DEPTH: Final = 2  # an index may hold an index; nothing in use goes deeper
MAX_DOCUMENTS: Final = 1000  # platforms are some dozen, and each may have an attestation
MAX_NBYTES: Final = 32 << 20  # of all documents, which are kept in memory
MAX_BLOBS: Final = 10_000


Known = Callable[[Descriptor], bytes | None]
"""What has documents already: the bytes of one, hashed, or None. May block."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document that is to be read: a manifest or index, or the config of an image."""

    descriptor: Descriptor
    is_config: bool = False

    @property
    def what(self) -> str:
        """What to call it in messages."""
        kind = "image config" if self.is_config else "manifest"
        return f"{kind} {self.descriptor.digest}"


class Gathering:
    """Gathers what ``index`` names. Raises DocumentError for one that is not to be read any further."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._sizes: dict[Digest, int] = {}
        self._left = MAX_NBYTES - len(index.raw)
        self._documents: dict[Digest, Manifest | Index] = {}
        self._configs: dict[Digest, ImageConfig] = {}
        self._depths: dict[Digest, int] = {}
        self._named: dict[tuple[Digest, bool], Wanted] = {}
        self._wanted: list[Wanted] = []
        self._see_size(index.digest, len(index.raw))
        self._list(index, 1)

    def wanted(self) -> list[Wanted]:
        """What is to be read next; nothing once all is there."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def take(self, wanted: Wanted, raw: bytes, content_type: str | None = None) -> None:
        """``raw`` is what was ``wanted``, and came with that Content-Type.

        Raises SizeMismatch, DigestMismatch, DocumentError, UnsupportedImage.
        """
        named = wanted.descriptor
        if len(raw) != named.size:
            message = f"{wanted.what} is {len(raw)} bytes, its descriptor says {named.size}"
            raise SizeMismatch(message, want=named.size, got=len(raw))
        named.digest.check(raw, wanted.what)
        if wanted.is_config:
            self._configs[named.digest] = parse_config(raw, named)
            return
        try:
            document = parse_document(raw, content_type, named_as=named.media_type, artifacts=True)
            self._list_or_want(document, named)
        except LayerteeError as exc:
            exc.add_note(f"that is {named.digest}, which index {self._index.digest} names")
            raise
        self._documents[named.digest] = document

    def image(self, platform: Platform, pair: Pairing) -> ResolvedImage:
        """The index as a whole, once nothing is wanted any more; ``pair`` makes the layers of its images.

        Raises DocumentError, UnsupportedImage (it names no image at all), and what ``pair`` raises.
        """
        blobs: dict[Digest, Layer] = {}
        images: dict[Digest, ResolvedImage] = {}
        members: list[Member] = []
        for manifest in self._manifests(self._index):
            config = self._configs[manifest.config.digest] if manifest.is_image else None
            member = Member(manifest.digest, manifest.media_type, len(manifest.raw))
            try:
                layers = _plain_blobs(manifest) if config is None else pair(manifest, config)
                for layer in layers:
                    self._add(blobs, layer)
            except LayerteeError as exc:
                exc.add_note(f"that is {manifest.digest}, which index {self._index.digest} names")
                raise
            if config is not None:
                member = replace(member, platform=config.platform, config_digest=config.digest)
                images[manifest.digest] = ResolvedImage(manifest, config, layers)
            members.append(member)
        if not images:
            raise UnsupportedImage(f"index {self._index.digest} names no image")
        documents = [*self._documents.values(), *self._configs.values()]
        return replace(
            self._chosen(platform, images),
            layers=tuple(replace(layer, index=at) for at, layer in enumerate(blobs.values())),
            index=self._index,
            whole=Whole(tuple(members), tuple(one.raw for one in documents)),
        )

    # --- documents --------------------------------------------------------------

    def _list_or_want(self, document: Manifest | Index, named: Descriptor) -> None:
        said = named.media_type.lower()
        if said and isinstance(document, Index) != (said in INDEX_TYPES):
            shown = printable(named.media_type)
            raise DocumentError(f"it is of type {document.media_type}, the index says {shown}")
        if isinstance(document, Index):
            self._list(document, self._depths[named.digest] + 1)
        elif document.is_image:
            self._want(Wanted(document.config, is_config=True))

    def _list(self, index: Index, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise DocumentError(f"indexes are nested deeper than {MAX_DEPTH}")
        if index.unreadable:
            raise DocumentError(f"{index.unreadable[0].reason}; an index is kept whole, or not at all")
        for entry in index.manifests:
            said = entry.media_type.lower()
            if said and said not in INDEX_TYPES | MANIFEST_TYPES:
                shown = printable(entry.media_type)
                raise UnsupportedImage(
                    f"index {index.digest} names {entry.digest} of type {shown!r}; what belongs to such a"
                    " thing is not known, so the index cannot be kept whole"
                )
            self._depths.setdefault(entry.digest, depth)
            self._want(Wanted(entry))

    def _want(self, wanted: Wanted) -> None:
        named = wanted.descriptor
        self._see_size(named.digest, named.size)
        before = self._named.setdefault((named.digest, wanted.is_config), wanted)
        if before is not wanted:
            if (before.descriptor.media_type.lower() in INDEX_TYPES) != (
                named.media_type.lower() in INDEX_TYPES
            ):
                raise DocumentError(f"{named.digest} is named as a manifest, and as an index")
            return
        if named.size > MAX_DOCUMENT:
            raise DocumentError(f"{wanted.what} is larger than {MAX_DOCUMENT} bytes")
        self._left -= named.size
        if len(self._named) > MAX_DOCUMENTS or self._left < 0:
            raise DocumentError(
                f"index {self._index.digest} names more than {MAX_DOCUMENTS} documents, or more than"
                f" {MAX_NBYTES} bytes of them; that is more than is kept of one image"
            )
        self._wanted.append(wanted)

    def _manifests(self, index: Index) -> Iterator[Manifest]:
        """Those beneath ``index`` in its order, each once."""
        seen: set[Digest] = set()
        todo = list(reversed(index.manifests))
        while todo:
            digest = todo.pop().digest
            if digest in seen:
                continue
            seen.add(digest)
            document = self._documents[digest]
            if isinstance(document, Manifest):
                yield document
            else:
                todo.extend(reversed(document.manifests))

    def _chosen(self, platform: Platform, images: dict[Digest, ResolvedImage]) -> ResolvedImage:
        """The image for ``platform``, or the first."""
        first = next(iter(images.values()))
        document: Manifest | Index = self._index
        try:
            while isinstance(document, Index):
                document = self._documents[choose_platform(document, platform).digest]
        except NotFound:
            return first
        return images.get(document.digest, first)

    # --- blobs ------------------------------------------------------------------

    def _add(self, blobs: dict[Digest, Layer], new: Layer) -> None:
        """Count ``new`` once, with what is known of its content."""
        self._see_size(new.digest, new.size)
        old = blobs.setdefault(new.digest, new)
        if old.is_opaque and not new.is_opaque:
            blobs[new.digest] = new
        elif not new.is_opaque and old.diff_id != new.diff_id:
            raise DocumentError(f"the images of the index give blob {new.digest} two different DiffIDs")
        if len(blobs) > MAX_BLOBS:
            raise DocumentError(f"index {self._index.digest} names more than {MAX_BLOBS} blobs")

    def _see_size(self, digest: Digest, size: int) -> None:
        if digest.algorithm != "sha256":
            raise UnsupportedImage(f"{digest} is named by {digest.algorithm}; only sha256 is supported")
        if self._sizes.setdefault(digest, size) != size:
            raise DocumentError(f"{digest} is said to have {self._sizes[digest]} bytes, and {size}")


def _plain_blobs(manifest: Manifest) -> tuple[Layer, ...]:
    """What an artifact has: blobs of which only the digest can be checked. Raises UnsupportedImage."""
    found = []
    for index, blob in enumerate((manifest.config, *manifest.layers)):
        if blob.urls:
            raise UnsupportedImage(f"blob {blob.digest} points at foreign URLs; not supported")
        found.append(Layer(index, blob, DiffID(str(blob.digest)), Compression.NONE, is_opaque=True))
    return tuple(found)
