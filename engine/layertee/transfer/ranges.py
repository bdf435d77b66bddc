"""HTTP ranges: the arithmetic, the checks and the reassembly. No I/O.

Ranges are half-open everywhere in this package. HTTP's inclusive form (RFC 9110 §14.1.2) is written
where a request is made (``Registry.open_blob``) and read here. A server's answer to a range
request is taken apart by :func:`check_answer`, which accepts exactly what was asked for, a shorter
prefix of it, or the whole blob, and nothing else: every other answer would put bytes where they do
not belong. Whether two answers are of the same version of a blob is not asked here: a blob is named
by its digest, and the digest of what was put together says so better than any ETag, which differs
from node to node of one registry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Generic, TypeVar

from ..errors import RangeMismatch, SizeMismatch
from ..record import dataclass

T = TypeVar("T")

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """``[start, stop)``, never empty: HTTP cannot express an empty range."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the body of an accepted response holds: ``nbytes`` bytes of the blob from ``start`` on.

    ``whole``: the server ignored the range and sends the blob from its first byte.
    """

    start: int
    nbytes: int
    whole: bool


def check_answer(
    status: int,
    content_range: Sequence[str],
    content_type: str | None,
    content_length: int | None,
    *,
    want: ByteRange,
    size: int,
    ranged: bool,
) -> Answer:
    """What a 200 or 206 with these headers promises, if it may be used for ``want``.

    ``size`` is the blob's size by its descriptor; ``ranged`` says whether a ``Range`` header was
    sent. Raises RangeMismatch or SizeMismatch. RFC 9110 §15.3.7.
    """
    if status == 200:
        if content_length is not None and content_length != size:
            raise SizeMismatch(
                f"the server sends {content_length} bytes for a blob of {size} bytes",
                want=size,
                got=content_length,
            )
        return Answer(0, size, whole=True)
    if status != 206 or not ranged:
        raise RangeMismatch(f"status {status} in answer to a request for {want}")
    if content_type is not None and content_type.lower().startswith("multipart/"):
        raise RangeMismatch(f"a multipart answer to a single range: {content_type[:80]!r}")
    if len(content_range) != 1:
        raise RangeMismatch(f"206 with {len(content_range)} Content-Range headers")
    match = _CONTENT_RANGE.fullmatch(content_range[0].strip())
    if match is None:
        raise RangeMismatch(f"unreadable Content-Range: {content_range[0][:80]!r}")
    first, last = int(match[1]), int(match[2])
    if first != want.start or last < first or last >= want.stop:
        raise RangeMismatch(f"asked for {want}, the server sends bytes {first}-{last}")
    if match[3] != "*" and int(match[3]) != size:
        raise RangeMismatch(f"the server says the blob has {match[3]} bytes, its descriptor says {size}")
    nbytes = last + 1 - first
    if content_length is not None and content_length != nbytes:
        raise RangeMismatch(
            f"Content-Length {content_length} contradicts Content-Range {content_range[0][:80]!r}"
        )
    return Answer(first, nbytes, whole=False)


def offers_ranges(status: int, accept_ranges: Sequence[str]) -> bool:
    """Whether an answer with this status and these Accept-Ranges fields says that its server has ranges."""
    words = ",".join(accept_ranges).lower().replace(" ", "").split(",")
    return status == 206 or "bytes" in words


class Reassembly(Generic[T]):
    """Pieces of a blob come in any order and leave in blob order.

    A piece that overlaps what is already here is a bug of the caller (ValueError), so that no
    byte can be delivered twice. ``start`` is where the first of them begins.
    """

    __slots__ = ("_ahead", "next")

    def __init__(self, start: int = 0) -> None:
        self.next = start
        self._ahead: dict[int, tuple[int, T]] = {}

    def __len__(self) -> int:
        """Pieces that wait for an earlier one."""
        return len(self._ahead)

    def add(self, start: int, nbytes: int, piece: T) -> list[tuple[T, int]]:
        """Store a piece; return the pieces that are now due, in order, with their sizes."""
        if nbytes <= 0 or start < self.next or start in self._ahead:
            raise ValueError(f"piece [{start}, {start + nbytes}) was delivered before")
        if start != self.next:
            self._ahead[start] = (nbytes, piece)
            return []
        due = [(piece, nbytes)]
        self.next += nbytes
        while self.next in self._ahead:
            nbytes, piece = self._ahead.pop(self.next)
            due.append((piece, nbytes))
            self.next += nbytes
        return due

    def drain(self) -> list[T]:
        """Give up: the pieces that never became due."""
        pieces = [piece for _, piece in self._ahead.values()]
        self._ahead.clear()
        return pieces
