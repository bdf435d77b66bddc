"""Processes that are started for somebody who is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
import uvloop

from layertee.aio import start_process

RUNNERS = {"asyncio": asyncio.Runner, "uvloop": lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop)}


def children() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\necho ready\nread end\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_process_is_started_in_a_session_of_its_own(program: str, runner: str) -> None:
    async def main() -> None:
        pipe = asyncio.subprocess.PIPE
        process = await start_process(program, stdin=pipe, stdout=pipe)
        assert process.stdin is not None and process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        assert os.getsid(process.pid) == process.pid
        process.stdin.close()
        await process.wait()

    with RUNNERS[runner]() as loop:
        loop.run(main())


@pytest.mark.parametrize("runner", RUNNERS)
def test_whenever_its_caller_is_cancelled_no_process_is_left(program: str, runner: str) -> None:
    """``read`` would keep it for ever: the other end of its input is ours."""
    others = children()  # what fixtures of other tests have started, and keep

    async def main() -> list[bool]:
        reader, writer = os.pipe()
        started = []
        for steps in range(12):
            task = asyncio.create_task(
                start_process(program, stdin=reader, stdout=asyncio.subprocess.DEVNULL)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            started.append(not task.cancelled())
            if started[-1]:
                process = task.result()
                process.kill()
                await process.wait()
            assert children() == others
        os.close(reader)
        os.close(writer)
        return started

    with RUNNERS[runner]() as loop:
        assert not all(loop.run(main()))


@pytest.mark.parametrize("runner", RUNNERS)
def test_one_that_cannot_be_started_is_an_error(tmp_path: Path, runner: str) -> None:
    (tmp_path / "program").write_text("not executable")
    with RUNNERS[runner]() as loop, pytest.raises(PermissionError):
        loop.run(start_process(str(tmp_path / "program")))
