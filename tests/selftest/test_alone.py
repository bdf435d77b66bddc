"""What units may not do is refused, and seen even where the refusal is swallowed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.alone import LeftProcess, kept_inside


def connect() -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", 1))


def bind() -> None:
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))


def run() -> None:
    subprocess.run(["true"], check=True)


def run_in_a_loop() -> None:
    async def main() -> None:
        await asyncio.create_subprocess_exec("true")

    asyncio.run(main())


def connect_in_a_loop() -> None:
    asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", 1), 5))


def system() -> None:
    os.system("true")


WAYS: list[Callable[[], None]] = [connect, bind, run, run_in_a_loop, connect_in_a_loop, system]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused(way: Callable[[], None], tmp_path: Path) -> None:
    with pytest.raises(LeftProcess), kept_inside(tmp_path):
        way()


@pytest.mark.parametrize("way", WAYS)
def test_it_is_seen_although_the_refusal_is_swallowed(way: Callable[[], None], tmp_path: Path) -> None:
    with pytest.raises(LeftProcess), kept_inside(tmp_path), contextlib.suppress(AssertionError):
        way()


def test_what_stays_inside_is_let_through(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    with kept_inside(tmp_path):
        subprocess.run([sys.executable, "-c", ""], check=True)
        subprocess.run([str(own)], check=True)
        one, other = socket.socketpair()
        one.close()
        other.close()


def test_other_tests_may_do_what_they_want(tmp_path: Path) -> None:
    with kept_inside(tmp_path):
        pass
    run()
    bind()
