"""An OCI image layout to be looked at, whatever it is kept in: a directory, or one tar file.

image-spec v1.1 image-layout.md. Two ways in, ``read`` and ``blob_size``, are all that differs; which images
there are, and what they consist of, is the same for both. Documents are hashed whenever they are read.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import DocumentError, InvalidReference, NotFound, SizeMismatch, SourceUnreadable, StoreCorrupt
from ..image.document import (
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Pairing,
    Platform,
    choose_platform,
    image_layers,
    parse_config,
    parse_document,
)
from ..image.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from ..image.resolved import ResolvedImage
from ..image.strictjson import load_object, printable
from ..image.whole import Gathering
from . import layout_index
from .layout_index import INDEX, REF_NAME, LayoutIndex

if TYPE_CHECKING:
    from ..image.holding import BlobContent

INDEX_DEPTH: Final = 2  # an index may name indexes, as registries allow; those may name manifests only

MARKER: Final = "oci-layout"
VERSION: Final = "1.0.0"
_MAX_MARKER: Final = 64 << 10


class LayoutReader(abc.ABC):
    """The layout in ``path``. Holds nothing open; every call reads what is there at that moment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- what it is kept in -------------------------------------------------

    @abc.abstractmethod
    def read(self, name: str, limit: int) -> bytes | None:
        """The plain file ``name`` of the layout, a path below it; None where there is none.

        Of a file of more than ``limit`` bytes the first ``limit`` + 1. Raises StoreCorrupt (it is no plain
        file), LocalError, SourceUnreadable.
        """

    @abc.abstractmethod
    def blob_size(self, digest: Digest) -> int | None:
        """The size of the plain file under that name, or None. Raises LocalError when nobody can tell."""

    @abc.abstractmethod
    def content(self, digest: Digest) -> BlobContent:
        """How to read a blob; what comes out was not hashed yet. Raises NotFound, SourceUnreadable."""

    def check_blob(self, descriptor: Descriptor) -> None:
        """See that the blob is there, can be opened, and has its size; its bytes are not looked at.

        Raises NotFound, SourceUnreadable, SizeMismatch, LocalError.
        """
        shown = self.shown(blob_name(descriptor.digest))
        try:
            self.content(descriptor.digest).open().close()
        except SourceUnreadable as exc:
            if isinstance(exc.__cause__, FileNotFoundError | NotADirectoryError):
                raise NotFound(f"{shown} is not there") from exc
            raise
        size = self.blob_size(descriptor.digest)
        if size != descriptor.size:
            raise SizeMismatch(
                f"{shown} has {size} bytes, the image says {descriptor.size}",
                want=descriptor.size,
                got=size or 0,
            )

    def shown(self, name: str) -> str:
        """What to call a file of the layout in messages."""
        return f"{self.path}/{name}"

    # --- documents ----------------------------------------------------------

    def check(self) -> None:
        """Raise StoreCorrupt, LocalError or SourceUnreadable unless this is a layout that can be read."""
        raw = self.read(MARKER, _MAX_MARKER)
        if raw is None:
            message = f"{self.path} is not an OCI image layout: it has no {MARKER}"
            raise StoreCorrupt(message, path=str(self.path))
        where = self.shown(MARKER)
        try:
            version = load_object(raw, MARKER, limit=_MAX_MARKER).get("imageLayoutVersion")
        except DocumentError as exc:
            message = f"{where} is not what an OCI image layout has there: {exc}"
            raise StoreCorrupt(message, path=str(self.path)) from exc
        if version != VERSION:
            shown = printable(str(version), 40)
            message = f"{where}: layout version {shown!r} is not known; this program knows {VERSION}"
            raise StoreCorrupt(message, path=str(self.path))
        self.index()

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A document (at most 4 MiB), whose bytes were just hashed.

        Raises NotFound, SizeMismatch, DigestMismatch, DocumentError (too large), and as ``read``.
        """
        name = blob_name(descriptor.digest)
        shown = self.shown(name)
        if descriptor.size > MAX_DOCUMENT:
            raise DocumentError(f"{shown}: a document of {descriptor.size} bytes is too large")
        raw = self.read(name, descriptor.size)
        if raw is None:
            raise NotFound(f"{shown} is missing")
        if len(raw) != descriptor.size:
            message = f"{shown} is not the {descriptor.size} bytes that the image names"
            raise SizeMismatch(message, want=descriptor.size, got=len(raw))
        descriptor.digest.check(raw, shown)
        return raw

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index that ``descriptor`` names; raises as ``read_blob`` and the parser do."""
        return parse_document(self.read_blob(descriptor), descriptor.media_type)

    def image(
        self, manifest: Manifest, index: Index | None = None, *, pair: Pairing = image_layers
    ) -> ResolvedImage:
        """``manifest`` with its config and layers; raises as ``read_blob`` and the parsers do."""
        config = parse_config(self.read_blob(manifest.config), manifest.config)
        return ResolvedImage(manifest, config, pair(manifest, config), index)

    # --- images -------------------------------------------------------------

    def index(self) -> LayoutIndex:
        """``index.json`` as it is now. Raises StoreCorrupt, LocalError, SourceUnreadable."""
        return layout_index.parse(self.shown(INDEX), self.read_index())

    def read_index(self) -> bytes:
        """The bytes of ``index.json``. Raises as ``index``."""
        raw = self.read(INDEX, MAX_DOCUMENT)
        if raw is None:
            raise StoreCorrupt(f"{self.shown(INDEX)} is missing", path=str(self.path))
        return raw

    def entries(self) -> tuple[Descriptor, ...]:
        """What the index names, as far as its entries make sense."""
        return self.index().entries

    def refs(self) -> list[str]:
        """The names of images, in the index's order."""
        return [name for entry in self.entries() if (name := entry.annotations.get(REF_NAME)) is not None]

    def find(self, ref: str | None) -> Descriptor:
        """The entry called ``ref``, or the only one.

        Raises NotFound and InvalidReference (several, and none named), which both list the refs; and as
        ``index``.
        """
        return self._named(ref)[0]

    def resolve(
        self, ref: str | None, platform: Platform, *, pair: Pairing = image_layers, whole: bool = False
    ) -> ResolvedImage:
        """The image called ``ref`` for ``platform``, through indexes where there are any.

        ``pair`` makes the layers of its documents. ``whole``: an index is meant with all that it names.

        Raises as ``find``, ``read_blob`` and the parsers of documents do.
        """
        named = self._named(ref)
        entry = named[0]
        if len(named) > 1:
            entry = choose_platform(Index(b"", Digest.of(b""), OCI_INDEX, named), platform)
        warnings: list[str] = []
        index: Index | None = None
        for _ in range(INDEX_DEPTH + 1):
            document = self.document(entry)
            if isinstance(document, Manifest):
                return replace(self.image(document, index, pair=pair), warnings=tuple(warnings))
            if whole:
                return self.whole(document, platform, pair=pair)
            index = index or document
            entry = choose_platform(document, platform, warnings)
        raise DocumentError(f"{self.path}: indexes are nested more than {INDEX_DEPTH} deep")

    def whole(self, index: Index, platform: Platform, *, pair: Pairing = image_layers) -> ResolvedImage:
        """``index`` with all that it names. Raises as ``resolve``."""
        gathering = Gathering(index)
        while wanted := gathering.wanted():
            for one in wanted:
                gathering.take(one, self.read_blob(one.descriptor))
        return gathering.image(platform, pair)

    def _named(self, ref: str | None) -> tuple[Descriptor, ...]:
        index = self.index()
        if ref is not None:
            found = tuple(entry for entry in index.entries if entry.annotations.get(REF_NAME) == ref)
            if not found:
                index.refuse_broken(ref)
                raise NotFound(f"{self.path} has no image called {ref!r}; it has: {listed(self.refs())}")
            return found
        if not index.entries:
            index.refuse_broken(None)
            raise NotFound(f"{self.path} has no images")
        if len(index.entries) > 1:
            raise InvalidReference(f"{self.path} has several images; name one of: {listed(self.refs())}")
        return index.entries


def blob_name(digest: Digest) -> str:
    """The file that a blob is, below its layout."""
    if not isinstance(digest, Digest):
        raise TypeError(f"a path is made from a Digest, not from {type(digest).__name__}")
    return f"blobs/{digest.algorithm}/{digest.hex}"


def is_document(descriptor: Descriptor) -> bool:
    """Whether ``descriptor`` names a manifest or an index."""
    return descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES


def listed(names: Sequence[str]) -> str:
    """Some of ``names``, for a message."""
    shown = ", ".join(names[:20]) or "none"
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
