"""Where each file in a tar begins and ends: one pass over the headers, each read once.

For archives that anybody may have made: time and memory are bounded, whatever headers claim, and what
is not understood is an error. Understood is what archivers write: ustar with pax records (POSIX.1-2001,
pax(1), "pax Interchange Format"), and GNU's long names and large numbers (tar.h).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_HEADERS: Final = 30_000  # of 512 bytes; a member has one to three
_MAX_RECORDS: Final = 64 << 10  # bytes of one extended header; a path has at most 4,096
MAX_ALL_RECORDS: Final = 4 << 20
_BLOCK: Final = 512

_POSIX: Final = b"ustar\00000"
_GNU: Final = b"ustar  \0"
_PLAIN: Final = b"0\0"
_WITHOUT_CONTENT: Final = b"123456"  # links, devices, directories, fifos
_RECORDS: Final = b"xg"
_LONG_NAME, _LONG_LINK, _SPARSE, _SYMLINK = b"L", b"K", b"S", b"2"

_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")
_DECIMAL: Final = re.compile(rb"[0-9]{1,19}")


class DamagedTar(ValueError):
    """The archive cannot be read, or not by everybody in the same way."""


class Member(NamedTuple):
    """A file in the archive. ``offset`` and ``size`` are its content's, in bytes; a plain file has one.

    ``link`` is what a symlink leads to, None for anything else.
    """

    name: bytes
    is_plain: bool
    offset: int
    size: int
    link: bytes | None = None


class _Header(NamedTuple):
    name: bytes
    kind: bytes
    size: int
    link: bytes


def members(fd: int) -> Iterator[Member]:
    """The members of the tar in ``fd``, in order. Raises DamagedTar and OSError."""
    end = os.fstat(fd).st_size
    extended: dict[bytes, bytes] = {}
    is_announced = False
    left = MAX_ALL_RECORDS
    at = 0
    for _ in range(MAX_HEADERS):
        block = os.pread(fd, 2 * _BLOCK, at)
        if not any(block[:_BLOCK]):
            if any(block) or is_announced:
                raise DamagedTar(f"it is damaged at byte {at}")
            return  # two blocks of zeros, or what is left of them
        header = _header(block[:_BLOCK], at)
        is_extension = header.kind in (_LONG_NAME, _LONG_LINK) or header.kind in _RECORDS
        size = header.size if is_extension else _size(header, extended, at)
        at += _BLOCK
        if size > end - at:
            raise DamagedTar(f"it ends before what begins at byte {at}")
        if is_extension:
            left -= size
            if size > _MAX_RECORDS or left < 0:
                raise DamagedTar(f"the extended headers at byte {at} are too large")
            _extend(extended, header.kind, os.pread(fd, size, at), at)
            is_announced = is_announced or header.kind != b"g"
        else:
            name = extended.get(b"path", header.name)
            is_plain = header.kind in _PLAIN and not name.endswith(b"/")
            link = extended.get(b"linkpath", header.link) if header.kind == _SYMLINK else None
            yield Member(name, is_plain, at, size, link)
            extended, is_announced = {}, False
        at += -(-size // _BLOCK) * _BLOCK
    raise DamagedTar(f"it has more than {MAX_HEADERS} headers")


def _header(block: bytes, at: int) -> _Header:
    magic = block[257:265]
    if len(block) != _BLOCK or magic not in (_POSIX, _GNU):
        raise DamagedTar(f"there is no header at byte {at}")
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _number(block[148:156], at):
        raise DamagedTar(f"the header at byte {at} is damaged")
    name = _text(block[:100])
    prefix = _text(block[345:500]) if magic == _POSIX else b""  # GNU has other things there
    return _Header(
        b"/".join(part for part in (prefix, name) if part),
        block[156:157],
        _number(block[124:136], at),
        _text(block[157:257]),
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, at: int) -> int:
    """Octal digits, or GNU's form for what these cannot say: 0x80, then a number of 11 bytes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise DamagedTar(f"the header at byte {at} has a number that is none")
    return int(match[1] or b"0", 8)


def _size(header: _Header, extended: dict[bytes, bytes], at: int) -> int:
    """Of a member's content."""
    if header.kind == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in extended):
        raise DamagedTar(f"the file at byte {at} is sparse; write the archive without sparse files")
    size = header.size
    if (text := extended.get(b"size")) is not None:
        if not _DECIMAL.fullmatch(text):
            raise DamagedTar(f"the file at byte {at} has a size that is no number")
        size = int(text)
    if size and header.kind in _WITHOUT_CONTENT:
        raise DamagedTar(f"the header at byte {at} has a size, and no content can follow it")
    return size


def _extend(extended: dict[bytes, bytes], kind: bytes, body: bytes, at: int) -> None:
    """Add to ``extended`` what an extended header says of the next member."""
    found = {b"path": _text(body)} if kind == _LONG_NAME else {}
    if kind == _LONG_LINK:
        found = {b"linkpath": _text(body)}
    if kind in _RECORDS:
        found = {key: value for key, value in _records(body, at) if _matters(key)}
    if kind == b"g" and found:
        raise DamagedTar(f"the header at byte {at} says the same of all files")
    if not found.keys().isdisjoint(extended):
        raise DamagedTar(f"the headers before byte {at} say it twice")
    extended.update(found)


def _matters(key: bytes) -> bool:
    return key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse.")


def _records(body: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """``<length> <key>=<value>\\n``, where the length counts all of that."""
    start = 0
    while start < len(body):
        length, space, _ = body[start : start + 10].partition(b" ")
        stop = start + int(length) if space and _DECIMAL.fullmatch(length) else 0
        key, equals, value = body[start + len(length) + 1 : stop].partition(b"=")
        if not equals or not value.endswith(b"\n") or stop > len(body):
            raise DamagedTar(f"the extended header at byte {at} is damaged")
        yield key, value[:-1]
        start = stop
