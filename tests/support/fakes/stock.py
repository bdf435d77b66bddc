"""A stock of documents and blobs that a test lists, and a sender that reads them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from layertee.errors import InvalidReference, LayerteeError, SourceUnreadable
from layertee.image.basis import Basis
from layertee.image.document import DiffID, Digest
from layertee.image.media import OCI_MANIFEST
from layertee.serve.offer import Document, Known, Sendable
from layertee.serve.outgoing import FilePiece, Outgoing


def document(value: Mapping[str, object], media_type: str = OCI_MANIFEST) -> Document:
    """``value`` as a manifest or index."""
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, **value}).encode()
    return Document(raw, Digest.of(raw), media_type)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._rest = memoryview(raw)

    def readinto(self, view: memoryview) -> int:
        n = min(len(view), len(self._rest))
        view[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Bytes:
    """The content of a blob: ``raw``, in the file ``path`` as well where there is one."""

    raw: bytes = field(repr=False)
    path: Path | None = None

    def open(self) -> _Reader:
        return _Reader(self.raw)


@dataclass
class FakeStock:
    """``images``: documents by name and tag, best first; ``originals`` instead where these are asked for.

    ``ambiguous``: names that stand for several images. ``asked`` gets the registry of every question by tag.
    """

    images: dict[tuple[str, str], Sequence[Document]] = field(default_factory=dict)
    originals: dict[tuple[str, str], Sequence[Document]] = field(default_factory=dict)
    blobs: dict[Digest, Sendable] = field(default_factory=dict)
    known: dict[Digest, Known] = field(default_factory=dict)
    referring: dict[Digest, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    asked: list[str | None] = field(default_factory=list)

    def add_blob(self, raw: bytes, path: Path | None = None) -> Digest:
        """Put ``raw`` on offer, out of the file ``path`` (which has it) where one is given."""
        digest = Digest.of(raw)
        self.blobs[digest] = Sendable(digest, len(raw), Bytes(raw, path), "fake", is_checked=path is not None)
        return digest

    def add_gone(self, digest: Digest, diff_id: DiffID) -> None:
        """A blob that is gone, and whose content is known."""
        self.known[digest] = Known(diff_id, Basis.COMPUTED)

    def repositories(self) -> Sequence[str]:
        return sorted({name for name, _ in self.images})

    def tags(self, repository: str) -> Sequence[str] | None:
        return sorted(tag for name, tag in self.images if name == repository) or None

    def named(
        self, repository: str, tag: str, *, registry: str | None = None, original: bool = False
    ) -> Sequence[Document]:
        self.asked.append(registry)
        if repository in self.ambiguous and registry is None:
            raise InvalidReference(f"{repository}:{tag} is a.example/{repository} and b.example/{repository}")
        table = self.originals if original and (repository, tag) in self.originals else self.images
        return table.get((repository, tag), ())

    def document(self, repository: str, digest: Digest) -> Document | None:
        for table in (self.images, self.originals):
            for (name, _), documents in table.items():
                for one in documents:
                    if name == repository and one.digest == digest:
                        return one
        return None

    def blob(self, digest: Digest) -> Sendable | None:
        return self.blobs.get(digest)

    def distrust(self, blob: Sendable) -> None:
        if self.blobs.get(blob.digest) == blob:
            del self.blobs[blob.digest]

    def content_of(self, digest: Digest) -> Known | None:
        return self.known.get(digest)

    def referrers(self, repository: str, digest: Digest) -> Sequence[Mapping[str, object]]:
        return self.referring.get(digest, ())


class _File:
    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self.offset = offset

    def fileno(self) -> int:
        return self._file.fileno()


class FakeOutgoing(Outgoing):
    """The bytes of a part. ``fails_at``: after so many of them, what is wrong with them is found out."""

    def __init__(self, part: bytes, file: BinaryIO | None, start: int, fails_at: int | None) -> None:
        self._part = part
        self._opened = file
        self._fails_at = fails_at
        self._file = None if file is None else _File(file, start)
        self.is_closed = False
        self.has_changed = False

    @property
    def file(self) -> FilePiece | None:
        return cast(FilePiece | None, self._file)

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        buffer = bytearray(50_000)
        for at in range(0, len(self._part), len(buffer)):
            if self._fails_at is not None and at >= self._fails_at:
                raise SourceUnreadable("these bytes are not what they are called")
            piece = self._part[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]
            buffer[:] = bytes(len(buffer))  # what a chunk showed is gone when the next is asked for

    def check(self) -> None:
        if self.has_changed:
            raise SourceUnreadable("the file has changed meanwhile")

    async def close(self) -> None:
        self.is_closed = True
        if self._opened is not None:
            self._opened.close()


@dataclass
class FakeSender:
    """Opens what a FakeStock offers.

    ``refused`` cannot be opened; ``wrong`` fails where the number says; ``changing`` while they are sent.
    """

    refused: dict[Digest, LayerteeError] = field(default_factory=dict)
    changing: set[Digest] = field(default_factory=set)
    wrong: dict[Digest, int] = field(default_factory=dict)
    opened: list[FakeOutgoing] = field(default_factory=list)

    async def open(self, blob: Sendable, start: int, stop: int) -> FakeOutgoing:
        if blob.digest in self.refused:
            raise self.refused[blob.digest]
        assert isinstance(blob.content, Bytes)
        path = blob.content.path
        file = None if path is None else os.fdopen(os.open(path, os.O_RDONLY), "rb")
        found = FakeOutgoing(blob.content.raw[start:stop], file, start, self.wrong.get(blob.digest))
        found.has_changed = blob.digest in self.changing
        self.opened.append(found)
        return found
