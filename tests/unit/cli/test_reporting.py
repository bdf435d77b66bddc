"""What is said while a command runs, and to whom at its end."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from layertee.cli import reporting as module
from layertee.cli.reporting import Reporting, asked_for
from layertee.errors import RateLimited
from tests.support.process import until


def arguments(fd: int | None = None, arrived: Sequence[int] = ()) -> argparse.Namespace:
    return argparse.Namespace(progress_fd=fd, arrived=arrived, registries_conf=None, metrics_file=None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def last_of(pipe: tuple[int, int]) -> dict[str, Any]:
    os.close(pipe[1])
    event: dict[str, Any] = json.loads(os.read(pipe[0], 65536).decode().splitlines()[-1])
    return event


def test_the_last_event_has_the_result_without_the_rows_of_layers(pipe: tuple[int, int]) -> None:
    with Reporting(arguments(pipe[1])) as reporting:
        reporting.done({"ok": False, "layers": [1]}, 3)
    event = last_of(pipe)
    assert (event["type"], event["exitCode"], event["result"], event["error"]) == (
        "Result",
        3,
        {"ok": False},
        None,
    )


@pytest.mark.parametrize(
    ("raised", "arrived", "code", "exit_code"),
    [
        (RateLimited("x", retry_after=3), (), "RATE_LIMITED", 4),
        (KeyboardInterrupt(), (signal.SIGTERM,), "INTERRUPTED", 143),
    ],
)
def test_the_last_event_has_what_it_failed_with(
    pipe: tuple[int, int], raised: BaseException, arrived: Sequence[int], code: str, exit_code: int
) -> None:
    with pytest.raises(type(raised)), Reporting(arguments(pipe[1], arrived)):
        raise raised
    event = last_of(pipe)
    assert (event["error"]["code"], event["exitCode"], event["result"]) == (code, exit_code, None)


def test_a_mistake_in_the_program_has_an_exit_code_and_no_more(pipe: tuple[int, int]) -> None:
    with pytest.raises(KeyError), Reporting(arguments(pipe[1])):
        raise KeyError
    event = last_of(pipe)
    assert (event["exitCode"], event["error"], event["result"]) == (1, None, None)


def test_of_what_does_not_answer_it_is_said_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.01)
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    told: list[str] = []

    def n_told() -> int:
        told.extend(line for line in capsys.readouterr().err.splitlines() if "waiting for" in line)
        return len(told)

    async def main() -> None:
        with Reporting(arguments(), shows=False) as reporting:
            async with reporting.resolving("r.test:5000/os:1"):
                await until(lambda: n_told() > 2, "nothing is said")

    asyncio.run(main())
    assert set(told) == {"layertee: waiting for r.test:5000, for 0 s so far"}


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    monkeypatch.setattr(module, "AGAIN_S", 0.0)

    async def main() -> None:
        with Reporting(arguments(), quiet=True) as reporting:
            async with reporting.resolving("r.test/os:1"):
                for _ in range(5):
                    await asyncio.sleep(0)

    asyncio.run(main())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("image", "asked"),
    [("r.test:5000/os:1", "r.test:5000"), ("oci:/x", "oci:/x"), ("Not A Name", "Not A Name")],
)
def test_who_has_to_answer(image: str, asked: str) -> None:
    assert asked_for(image, arguments()) == asked
