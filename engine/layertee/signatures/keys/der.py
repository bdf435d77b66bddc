"""DER, as far as it has to be looked at beside the library that parses certificates (X.690).

Rules of this file: definite lengths in their shortest form, tags of one byte, nothing left over.
"""

from __future__ import annotations

from typing import Final

from ...errors import DocumentError
from ...record import dataclass

SEQUENCE: Final = 0x30
SET: Final = 0x31
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
_LONG_TAG: Final = 0x1F
_MAX_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Element:
    """One value: its ``tag`` (identifier octet), what it holds, and all of it."""

    tag: int
    content: bytes
    whole: bytes


def elements(raw: bytes, what: str) -> list[Element]:
    """The values that ``raw`` is a row of. Raises DocumentError naming ``what``."""
    found = []
    at = 0
    while at < len(raw):
        head, size = _head(raw, at, what)
        end = at + head + size
        if end > len(raw):
            raise DocumentError(f"{what} ends early")
        found.append(Element(raw[at], raw[at + head : end], raw[at:end]))
        at = end
    return found


def only(raw: bytes, tag: int, what: str) -> Element:
    """The one value that ``raw`` is, of the kind ``tag``. Raises DocumentError naming ``what``."""
    found = elements(raw, what)
    if len(found) != 1 or found[0].tag != tag:
        raise DocumentError(f"{what} is not of the type that it should be")
    return found[0]


def _head(raw: bytes, at: int, what: str) -> tuple[int, int]:
    """How many bytes the tag and the length at ``at`` take, and the length."""
    if raw[at] & _LONG_TAG == _LONG_TAG or at + 1 >= len(raw):
        raise DocumentError(f"{what} is not DER")
    short = raw[at + 1]
    if short < 0x80:
        return 2, short
    more = short - 0x80
    size = int.from_bytes(raw[at + 2 : at + 2 + more], "big")
    if not 1 <= more <= _MAX_LENGTH_BYTES or size < max(0x80, 1 << 8 * (more - 1)):
        raise DocumentError(f"{what} has a length that is not in its shortest form")
    return 2 + more, size
