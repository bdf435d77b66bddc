"""Bytes that travel as text: base64 and PEM, read no more widely than Go's encoding/base64 and encoding/pem.

Rules of this file: one meaning or none. Go looks for a PEM block among whatever surrounds it; only the plain
case is read here: no headers, and no dashes before or between blocks that might be half of another one.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

from ...errors import DocumentError
from ...record import dataclass

_LINE_ENDS: Final = {ord("\r"): None, ord("\n"): None}
_DASHES: Final = b"-----"
_BLOCK: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\t\r\n ]*)\n"
    rb"-----END \1-----[ \t]*(?:\r?\n|\Z)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block: its ``kind``, "CERTIFICATE" for example, and what it holds."""

    kind: str
    der: bytes


def from_base64(text: str, what: str) -> bytes:
    """What ``text`` encodes, padded, with line ends anywhere. Raises DocumentError naming ``what``."""
    plain = text.translate(_LINE_ENDS)
    try:
        found = binascii.a2b_base64(plain.encode("ascii"), strict_mode=True)
    except ValueError as exc:  # binascii.Error and UnicodeEncodeError are some
        raise DocumentError(f"{what} is not base64") from exc
    if len(plain) != (len(found) + 2) // 3 * 4:  # binascii lets more padding pass than there may be
        raise DocumentError(f"{what} is not base64")
    return found


def first_block(raw: bytes, what: str) -> tuple[Block, bytes]:
    """The first PEM block of ``raw``, and what follows it. Raises DocumentError naming ``what``."""
    start = raw.find(_DASHES)
    match = _BLOCK.match(raw, start) if start == 0 or raw[start - 1 : start] == b"\n" else None
    if match is None:
        raise DocumentError(f"{what} is not in PEM format")
    text = match[2].decode("ascii").translate({ord(" "): None, ord("\t"): None})
    return Block(match[1].decode("ascii"), from_base64(text, what)), raw[match.end() :]


def only_block(raw: bytes, what: str) -> Block:
    """The PEM block that ``raw`` is, and nothing follows it. Raises DocumentError naming ``what``."""
    block, rest = first_block(raw, what)
    if rest:
        raise DocumentError(f"{what} has something after its PEM block")
    return block


def blocks(raw: bytes, what: str) -> Iterator[Block]:
    """All PEM blocks of ``raw``, which has nothing but white space after the last. Raises DocumentError."""
    rest = raw.strip()
    while rest:
        block, rest = first_block(rest, what)
        yield block
