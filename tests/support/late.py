"""A pytest plugin: a test that takes too long fails, alone, and says where it stood.

pytest-timeout knows each test's limit; what happens at the limit is done here. SIGALRM raises an exception in
the main thread, and its text has the stacks of all threads and tasks. The exception is a SystemExit, the one
kind that uvloop hands on from a signal's handler: of any other it makes a line in a log, and waits on.

What no exception ends, such as a loop in C, is ended with its process ``GRACE_S`` later, with the stacks of
all threads. Under xdist that is one worker: its test has failed and another worker takes its place.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import pytest

GRACE_S = 60.0  # to unwind: fixtures end their servers
_ENDED = "layertee_ended"  # what a worker is told of the file for its stacks by
_deadline = pytest.StashKey[float]()
_stderr = pytest.StashKey[TextIO]()
_files = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


class LateTest(SystemExit):
    """A test had its time. The text says where every thread and task stood."""


def pytest_configure(config: pytest.Config) -> None:
    """Open what a process that is ended writes its stacks to, while nothing is captured yet."""
    told: dict[str, Any] = getattr(config, "workerinput", {})
    path = told.get(_ENDED)
    config.stash[_stderr] = open(path, "w") if path else os.fdopen(os.dup(2), "w")  # noqa: SIM115


def pytest_unconfigure(config: pytest.Config) -> None:
    """Undo ``pytest_configure``."""
    faulthandler.cancel_dump_traceback_later()
    config.stash[_stderr].close()
    if _files in config.stash:
        config.stash[_files].cleanup()


# --- the limit ---------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """In place of pytest-timeout's own."""
    item.stash[_deadline] = time.monotonic() + settings.timeout
    _arm(item, settings.timeout)
    return True


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """The test has ended, or failed and has its teardown before it."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """pytest-timeout takes its timer away from tests that have failed; what they leave must end, too."""
    if _deadline in item.stash and not item.config.getoption("usepdb"):
        _arm(item, max(GRACE_S, item.stash[_deadline] - time.monotonic()))


def _arm(item: pytest.Item, seconds: float) -> None:
    name, began = item.nodeid, time.monotonic()

    def late(number: int, frame: FrameType | None) -> None:
        raise LateTest(f"{name} is not done after {time.monotonic() - began:.0f} s\n{stacks()}")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=item.config.stash[_stderr])


def stacks() -> str:
    """Where the other threads stand, and the tasks of the loop that runs in this one."""
    text = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            text.write(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return text.getvalue()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=text)
    return text.getvalue()


# --- a worker that was ended ---------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where to write, should it be ended."""
    stash = node.config.stash
    if _files not in stash:
        stash[_files] = tempfile.TemporaryDirectory(prefix="layertee-late-")
    node.workerinput[_ENDED] = str(Path(stash[_files].name) / node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """The failed test's report gets the stacks that its worker left."""
    for path in sorted(Path(sched.config.stash[_files].name).iterdir()):
        if said := path.read_text(errors="replace"):
            report.longrepr = f"{report.longrepr}\n{said}"
            path.write_text("")
