"""Asking once more, while that makes sense."""

from __future__ import annotations

import asyncio

from layertee.errors import LayerteeError, NotInRegistry, RateLimited, ServerError
from layertee.registry.retry import retrying


def attempts(*outcomes: LayerteeError | int) -> tuple[list[float], LayerteeError | int]:
    slept: list[float] = []
    script = list(outcomes)

    async def attempt() -> int:
        outcome = script.pop(0)
        if isinstance(outcome, LayerteeError):
            raise outcome
        return outcome

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    try:
        return slept, asyncio.run(retrying(attempt, sleep=sleep))
    except LayerteeError as exc:
        return slept, exc


def test_retryable_errors_are_tried_three_times() -> None:
    slept, outcome = attempts(ServerError("1"), RateLimited("2", retry_after=30), 7)
    assert outcome == 7
    assert 0.25 <= slept[0] <= 0.5
    assert 30.5 <= slept[1] <= 38.5
    last = ServerError("3")
    assert attempts(ServerError("1"), ServerError("2"), last, 7)[1] is last


def test_other_errors_are_not_tried_again() -> None:
    error = NotInRegistry("1")
    assert attempts(error, 7) == ([], error)
