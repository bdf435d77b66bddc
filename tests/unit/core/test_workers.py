"""Which pool there is, and what is said of the slower one."""

from __future__ import annotations

import logging

import pytest

from layertee.core.workers import open_pool
from layertee.sync import run


async def opened() -> None:
    open_pool(workers=1).close()


def test_a_log_says_that_the_core_in_python_works_and_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LAYERTEE_CORE", "python")
    with caplog.at_level(logging.INFO, "layertee.core.workers"):
        run(opened())
    expected = "the core in Python does the work, which takes longer: LAYERTEE_CORE=python"
    assert [record.getMessage() for record in caplog.records] == [expected]
