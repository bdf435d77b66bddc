"""tar-split: what a tar was, less the files in it.

containers/storage unpacks a layer and keeps beside it, gzipped, one JSON object a line (vbatts/tar-split,
``tar/storage/entry.go``): *segments*, the tar's own bytes (headers, padding, trailer), and between them
*files*, named with their sizes, whose bytes are in the tree. One after the other they are the tar again.

A file's entry also has a CRC-64 of its bytes. It is not checked: the tar is hashed as a whole, and its
SHA-256, the DiffID, judges every byte that the CRC would.

The records come from whoever owns the store, and the tar they describe from the network. So memory is
bounded by ``MAX_LINE``, and the time by the size the tar should have.
"""

from __future__ import annotations

import binascii
import gzip
import json
import re
import zlib
from typing import IO, Final

from ...errors import SourceUnreadable
from ...record import dataclass

# Go's tar readers take no extension header larger than 1 MiB. Several may come before one file, and
# base64 makes them a third longer.
MAX_LINE: Final = 8 << 20
_AT_ONCE: Final = 256 << 10  # bytes of text
# Each file has a header of 512 bytes, so that entries that stand for nothing can only be few.
_NBYTES_PER_ENTRY: Final = 256
_SPARE_ENTRIES: Final = 1000

# As Go writes them, but for names with other characters: read in a third of the time that JSON takes.
_SEGMENT_BEGIN: Final = b'{"type":2,"payload":"'
_SEGMENT_END: Final = b'","position":'
_PLAIN_END: Final = re.compile(rb"(?:0|[1-9][0-9]{0,18})\}")
_PLAIN_FILE: Final = re.compile(
    rb'\{"type":1,"name":"([ !#-\[\]-~]+)","size":([1-9][0-9]{0,18}),'
    rb'"payload":(?:null|"[A-Za-z0-9+/=]*"),"position":(?:0|[1-9][0-9]{0,18})\}'
)

_FILE_TYPE: Final = 1
_SEGMENT_TYPE: Final = 2


@dataclass(frozen=True, slots=True)
class Payload:
    """``size`` > 0 bytes of the file ``name``, as the tar spells that."""

    name: bytes
    size: int


class TarSplit:
    """What makes up the tar of ``size`` bytes: its own bytes, and the files between them.

    ``file`` is the gzip stream, read as it goes and left open. ``where`` names it in messages. Every method
    raises SourceUnreadable for whatever is not tar-split, and as soon as more than ``size`` bytes would come
    out.

    ``text`` from byte ``at`` on is what was inflated and not taken yet. ``bounds`` are the bytes and the
    lines that may still come. Who takes lines from there counts them.
    """

    def __init__(self, file: IO[bytes], where: str, size: int) -> None:
        self._where = where
        self._size = size
        self._inflated = gzip.GzipFile(fileobj=file, mode="rb")
        self.text = b""
        self.at = 0
        self.bounds = [size, size // _NBYTES_PER_ENTRY + _SPARE_ENTRIES]

    def more(self) -> bool:
        """Inflate more of the text; False at its end. Blocks."""
        if len(self.text) - self.at > MAX_LINE:
            raise SourceUnreadable(f"{self._where}: a line is longer than {MAX_LINE} bytes")
        try:
            found = self._inflated.read(_AT_ONCE)
        except (EOFError, OSError, zlib.error) as exc:  # truncated; not gzip, unreadable; corrupt
            raise SourceUnreadable(f"{self._where}: {exc}") from exc
        self.text = self.text[self.at :] + found
        self.at = 0
        return bool(found)

    def take(self) -> bytes | Payload | None:
        """The next entry that stands for any bytes; None at the end. Blocks."""
        while (line := self._line()) is not None:
            try:
                entry = _entry(line)
            except (ValueError, RecursionError) as exc:  # what is not base64 or UTF-8 is a ValueError, too
                raise SourceUnreadable(f"{self._where}: not tar-split: {exc}") from exc
            self.bounds[0] -= entry.size if isinstance(entry, Payload) else len(entry or b"")
            self.bounds[1] -= 1
            if min(self.bounds) < 0:
                raise SourceUnreadable(
                    f"{self._where}: describes more than the {self._size} bytes that the layer has"
                )
            if entry is not None:
                return entry
        if self.bounds[0]:
            raise SourceUnreadable(f"{self._where}: ends {self.bounds[0]} bytes before the layer does")
        return None

    def close(self) -> None:
        """Harmless when repeated."""
        self._inflated.close()

    def _line(self) -> bytes | None:
        while (end := self.text.find(b"\n", self.at)) < 0:
            if not self.more():
                end = len(self.text)
                break
        if end - self.at > MAX_LINE:
            raise SourceUnreadable(f"{self._where}: a line is longer than {MAX_LINE} bytes")
        line = self.text[self.at : end]
        if not line and end == len(self.text):
            return None
        self.at = min(end + 1, len(self.text))
        return line


def _entry(line: bytes) -> bytes | Payload | None:
    """One line; None for an entry without bytes. Raises ValueError, RecursionError."""
    if line.startswith(_SEGMENT_BEGIN):
        end = line.rfind(_SEGMENT_END)
        if end >= 0 and _PLAIN_END.fullmatch(line, end + len(_SEGMENT_END)) is not None:
            payload = line[len(_SEGMENT_BEGIN) : end]
            return binascii.a2b_base64(payload, strict_mode=True) if payload else None
    if (plain := _PLAIN_FILE.fullmatch(line)) is not None:
        return Payload(plain[1], int(plain[2]))
    return _entry_of_json(line)


def _entry_of_json(line: bytes) -> bytes | Payload | None:
    """The same of any line."""
    found: object = json.loads(str(line, "utf-8"))
    if not isinstance(found, dict):
        raise ValueError("a line is not an object")
    kind = found.get("type")
    if kind == _SEGMENT_TYPE:
        return _bytes(found.get("payload"), "payload") or None
    if kind != _FILE_TYPE:
        raise ValueError(f"an entry of type {kind!r:.40}")
    size = found.get("size", 0)
    if type(size) is not int or size < 0:
        raise ValueError("the size of an entry is not a number of bytes")
    if size == 0:
        return None
    if found.get("name_raw") is not None:  # a name that is not UTF-8
        return Payload(_bytes(found["name_raw"], "name_raw"), size)
    name = found.get("name")
    if not isinstance(name, str):
        raise ValueError("an entry has no name")
    return Payload(name.encode(), size)


def _bytes(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{what} is not a string")
    return binascii.a2b_base64(text.encode("ascii"), strict_mode=True) if text else b""
