"""Asking once more, while that makes sense."""

from __future__ import annotations

import asyncio

import pytest

from layertee.backoff import AskedWait
from layertee.errors import LayerteeError, NotInRegistry, RateLimited, ServerError
from layertee.registry.retry import retrying


def attempts(
    *outcomes: LayerteeError | int, patience_s: float = 300
) -> tuple[list[float], LayerteeError | int]:
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
        return slept, asyncio.run(retrying(attempt, sleep=sleep, patience_s=patience_s))
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


def test_who_asks_for_more_than_there_is_patience_is_not_asked_again() -> None:
    asked = RateLimited("wait", retry_after=3600)
    assert attempts(asked, 7) == ([], asked)
    assert asked.hint == "patience"
    slept, outcome = attempts(RateLimited("wait", retry_after=3600), 7, patience_s=3600)
    assert outcome == 7
    assert len(slept) == 1 and 3600 <= slept[0] <= 4501


def test_a_wait_that_is_asked_for_is_told_unless_it_is_short(caplog: pytest.LogCaptureFixture) -> None:
    url = "https://registry.example.com/v2/"
    attempts(RateLimited("1", retry_after=4, url=url), ServerError("2", status=503, url=url), 7)
    assert caplog.records == []
    slept, _ = attempts(RateLimited("1", status=503, retry_after=240, url=url), 7)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    text = record.getMessage()
    assert text.startswith("registry.example.com answers 503 and asks to be left alone for 4 min: ")
    assert vars(record)["wait"] == AskedWait("registry.example.com", 503, 240, slept[0])
