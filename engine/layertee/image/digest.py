"""Digest and DiffID: two names, two types.

Parse or raise: paths and URLs are built from these types only, so text from a
document never reaches them unchecked (CVE-2024-3727). They are distinct on purpose;
mypy refuses one where the other is meant.
"""

from __future__ import annotations

import hashlib
import re
from typing import Self

from ..errors import DigestMismatch, DocumentError
from .strictjson import printable

_HASH = re.compile(r"(sha256):([a-f0-9]{64})|(sha512):([a-f0-9]{128})")


class _Hash(str):
    """``sha256:`` and 64, or ``sha512:`` and 128 lower-case hex digits, and nothing else.

    The constructor raises ValueError (misuse); :meth:`parse` is for text from outside. Equality is
    that of the text: an uncompressed layer's Digest equals its DiffID.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _HASH.fullmatch(text):
            raise ValueError(f"not a sha256 or sha512 digest: {text!r:.200}")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: object, what: str = "digest") -> Self:
        """``text`` from a document. Raises DocumentError naming ``what``."""
        if not isinstance(text, str):
            raise DocumentError(f"{what} is missing or not a string")
        if not _HASH.fullmatch(text):
            shown = printable(text, 150)
            raise DocumentError(f"{what} is not sha256:<64 hex> or sha512:<128 hex>: {shown!r}")
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]


class Digest(_Hash):
    """Of the bytes as transferred: the name of a blob or document."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The SHA-256 digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    def check(self, data: bytes, what: str) -> None:
        """Raise DigestMismatch unless ``data`` hashes to this digest."""
        got = f"{self.algorithm}:{hashlib.new(self.algorithm, data).hexdigest()}"
        if got != self:
            message = f"{what}: the bytes received hash to {got}, not to {self} as named"
            raise DigestMismatch(message, want=self, got=got, nbytes=len(data))


class DiffID(_Hash):
    """Of the uncompressed layer tar: the name that survives recompression."""

    __slots__ = ()


# The tar of nothing, two zero blocks: what builders emit for instructions that change no file.
EMPTY_DIFF_ID = DiffID("sha256:" + hashlib.sha256(bytes(1024)).hexdigest())
