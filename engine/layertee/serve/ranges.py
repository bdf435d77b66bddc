"""Which part of some bytes is asked for: Range, If-Range and If-None-Match of RFC 9110.

What is malformed or of another unit is ignored, as 14.2 allows, and so is more than one range: all bytes are
then the answer. Ranges are half-open from here on; HTTP's inclusive form is read and written in this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..record import dataclass

_UNIT = "bytes="
_RANGE = re.compile(r"([0-9]{1,30})-([0-9]{1,30})?|-([0-9]{1,30})")
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from ``start`` up to ``stop`` of ``size``. ``is_whole``: nothing less is meant."""

    start: int
    stop: int
    size: int
    is_whole: bool = False

    @property
    def content_range(self) -> str:
        """The field's value; for a part that has bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def unsatisfiable(size: int) -> str:
    """Content-Range of a 416."""
    return f"bytes */{size}"


def part_of(size: int, fields: Mapping[str, str], etag: str) -> Part | None:
    """What ``fields`` (names in lower case) want of ``size`` bytes; None: not one of them."""
    whole = Part(0, size, size, is_whole=True)
    text = fields.get("range", "").strip(" \t")
    if text[: len(_UNIT)].lower() != _UNIT or not _is_same(fields.get("if-range"), etag):
        return whole
    words = [word.strip(" \t") for word in text[len(_UNIT) :].split(",")]
    wanted = _RANGE.fullmatch(",".join(filter(None, words)))  # a list may have empty places
    if wanted is None:
        return whole
    first, last, suffix = wanted.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), size
        if last is not None:
            if int(last) < start:
                return whole
            stop = min(int(last) + 1, size)
    return Part(start, stop, size) if start < stop else None


def _is_same(if_range: str | None, etag: str) -> bool:
    """Whether a range may be given: by the strong comparison (8.8.3.2). A date names no content."""
    return if_range is None or if_range.strip(" \t") == etag


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has what ``etag`` names: by the weak comparison, as 13.1.2 has it."""
    if if_none_match is None:
        return False
    text = if_none_match.strip(" \t")
    if text == "*":
        return True
    tags = [_TAG.fullmatch(word.strip(" \t")) for word in text.split(",")]
    return any(tag is not None and tag[1] == etag for tag in tags)
