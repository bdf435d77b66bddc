"""Which media types a client takes: Accept of RFC 9110, 12.5.1."""

from __future__ import annotations

import re

_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_TYPE = re.compile(r"(\*/\*|[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)")


class Accept:
    """The fields of a request, joined by commas; None or nothing in them: everything.

    The most specific of the ranges that fit decides. Parameters other than ``q`` are not looked at: no type
    of a manifest has any. A word that is no range counts for nothing.
    """

    def __init__(self, text: str | None) -> None:
        self._weights: dict[str, float] = {}
        for word in (text or "").split(","):
            name, *parameters = (part.strip(" \t") for part in word.split(";"))
            if not _TYPE.fullmatch(name):
                continue
            weight = 1.0
            for parameter in parameters:
                if (match := _QUALITY.fullmatch(parameter)) is not None:
                    weight = float(match[1])
            key = name.lower()
            self._weights[key] = max(weight, self._weights.get(key, 0.0))

    def takes(self, media_type: str) -> bool:
        """Whether the client wants to get such a document."""
        if not self._weights:
            return True
        name = media_type.lower()
        for key in (name, f"{name.partition('/')[0]}/*", "*/*"):
            if key in self._weights:
                return self._weights[key] > 0
        return False
