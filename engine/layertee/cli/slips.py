"""Names that differ from others by a slip of the fingers."""

from __future__ import annotations

from collections.abc import Iterable

_LONG = 16  # in which two slips are still no other word


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` is after a slip, or two in a long one; None if there is none."""
    for one in sorted(known):
        if slips(name, one) <= (2 if len(one) > _LONG else 1):
            return one
    return None


def slips(a: str, b: str) -> int:
    """How many letters are added, lost, changed or swapped with the next one; 3 for 3 and more."""
    if abs(len(a) - len(b)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)
