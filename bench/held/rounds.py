"""Rounds: everything that is compared, once in each, in shuffled order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["LEAST_ROUNDS", "interleaved"]

LEAST_ROUNDS = 3
_Key = TypeVar("_Key")
_Took = TypeVar("_Took")


def interleaved(
    field: Mapping[_Key, Callable[[], _Took]],
    *,
    seconds: float,
    rounds: int | None = None,
    warm: bool = True,
    most: int = 100,
) -> dict[_Key, list[_Took]]:
    """What each of ``field`` returned, in the order of rounds.

    ``rounds`` of them, or as many as begin within ``seconds``, but at least three and at most ``most``. With
    ``warm`` there is one more before, whose results are dropped, and whose time does not count.
    """
    taken: dict[_Key, list[_Took]] = {key: [] for key in field}
    if warm:
        for run in field.values():
            run()
    until = time.monotonic() + seconds
    number = 0
    while number < (rounds or LEAST_ROUNDS) or (
        rounds is None and number < most and time.monotonic() < until
    ):
        for key in random.sample(list(field), len(field)):
            taken[key].append(field[key]())
        number += 1
    return taken
