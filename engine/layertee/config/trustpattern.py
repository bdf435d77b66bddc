"""Patterns for whom a certificate is for: ``*`` and ``**``, and nothing else has a meaning of its own.

``*`` stands for any characters but ``/``, none included; ``**`` for any characters. The whole text has to
match. Regular expressions are not used: one that was written in haste takes exponential time on a text that a
stranger has chosen, and a dot or a missing anchor in it accepts more than its author meant.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Final

from ..record import dataclass

MAX_PATTERN: Final = 512
MAX_TEXT: Final = 4096
MAX_WILDCARDS: Final = 16
_PARTS: Final = re.compile(r"\*+|[^*]+")
_OF_EXPRESSIONS: Final = re.compile(r"[\^$|\\]|\.\*")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read. Made by ``parse_pattern``."""

    text: str
    _literals: tuple[str, ...] = field(repr=False)
    _deep: tuple[bool, ...] = field(repr=False)
    """Of the wildcard after each literal but the last: whether it may stand for ``/``."""

    def matches(self, text: str) -> bool:
        """Whether the pattern is ``text``, from its beginning to its end.

        Takes time in proportion to the product of both lengths, at most; a longer text than MAX_TEXT
        characters matches nothing.
        """
        if len(text) > MAX_TEXT or not text.startswith(self._literals[0]):
            return False
        # All positions in text at which what was looked at of the pattern may end.
        ends = {len(self._literals[0])}
        for literal, is_deep in zip(self._literals[1:], self._deep, strict=True):
            ends = _next_ends(text, ends, literal, is_deep)
            if not ends:
                return False
        return len(text) in ends


def parse_pattern(text: str) -> Pattern:
    """Raises ValueError, with a text for the author of the pattern."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    if found := _OF_EXPRESSIONS.search(text):
        raise ValueError(
            f"{found[0]!r} is of a regular expression, which this is not: * stands for characters other than"
            " '/', ** for any, all else for itself"
        )
    literals, deep = [""], []
    for part in _PARTS.findall(text):
        if not part.startswith("*"):
            literals[-1] = part
        elif len(part) > 2:
            raise ValueError("write * or **, not more of them")
        else:
            deep.append(part == "**")
            literals.append("")
    if len(deep) > MAX_WILDCARDS:
        raise ValueError(f"a pattern has at most {MAX_WILDCARDS} wildcards")
    if not deep:
        raise ValueError("there is no * in it; say it as an exact text")
    if not literals[0] and not literals[-1]:
        raise ValueError("it has to begin or to end with a text, not with a wildcard at both ends")
    return Pattern(text, tuple(literals), tuple(deep))


def _next_ends(text: str, ends: set[int], literal: str, is_deep: bool) -> set[int]:
    """Where ``literal`` ends if a wildcard before it begins at one of ``ends``."""
    found: set[int] = set()
    reach = -1  # up to there the wildcard can go from any position so far
    for start in range(min(ends), len(text) + 1):
        if start in ends:
            reach = len(text) if is_deep else text.find("/", start)
            reach = len(text) if reach < 0 else reach
        if start <= reach and text.startswith(literal, start):
            found.add(start + len(literal))
    return found
