"""Tests that need nothing of the machine: no program but this Python and their own, no network."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_attempts: list[str] | None = None  # None: anything goes
_own = Path()
_hooked = False


class LeftProcess(AssertionError):
    """What was tried."""


@contextmanager
def kept_inside(own: Path) -> Iterator[None]:
    """Refuse what leaves the process, and raise LeftProcess at the end if a refusal was swallowed.

    Children of this Python are let through, with whatever they do, and so are programs below ``own``, which
    a test wrote itself.
    """
    global _attempts, _own, _hooked
    if not _hooked:
        sys.addaudithook(_audit)  # for good: there is no way to take one away
        _hooked = True
    attempts: list[str] = []
    _attempts, _own = attempts, own
    try:
        yield
    finally:
        _attempts = None
    if attempts:
        raise LeftProcess(attempts[0])


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _attempts is None:
        return
    match event:
        case "socket.connect" | "socket.bind" if args[0].family in _INTERNET:
            tried = f"{event.partition('.')[2]} {args[1]}"
        case "subprocess.Popen" | "os.system" | "os.exec" | "os.posix_spawn" if not _may_run(args[0]):
            tried = f"run {args[0]!r}"
        case _:
            return
    _attempts.append(tried)
    raise LeftProcess(tried)


def _may_run(program: str | bytes) -> bool:
    path = os.fsdecode(program)
    return path == sys.executable or Path(path).is_relative_to(_own)
