"""What is set up for the process of a command; each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

EVIL = r"\x1b[2J\u202e\r\nall is well"
SHOWN = r"\x1b[2J\u202e\r\nall is well"


def told(code: str, expected: int) -> list[str]:
    """The lines on standard error of a process that runs ``code``, in which nothing harmful may be."""
    begin = "from layertee.cli import process\nprocess.show_mistakes_cleanly()\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True)
    assert (done.returncode, done.stdout) == (expected, b"")
    lines = done.stderr.decode().split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() and line != "all is well" for line in lines)
    return lines


def test_a_mistake_of_the_program_is_shown_in_full_and_cleanly() -> None:
    lines = told(f"raise KeyError(str) from ValueError('{EVIL}')", 1)
    assert (lines[0], lines[-1]) == ("layertee: a mistake in this program:", "  KeyError: <class 'str'>")
    assert "  Traceback (most recent call last):" in lines
    at = lines.index("  ValueError: \\x1b[2J\\u202e\\r")
    assert lines[at + 1] == "  all is well", "the traceback module breaks a message where it has line breaks"


@pytest.mark.parametrize(
    "code",
    [
        f"import threading\nt = threading.Thread(target=lambda: int('{EVIL}'))\nt.start()\nt.join()",
        f"class Last:\n    def __del__(self): int('{EVIL}')\nLast()",
    ],
    ids=["thread", "finaliser"],
)
def test_so_is_one_that_nobody_waits_for(code: str) -> None:
    lines = told(code, 0)
    assert any(line.startswith("  Traceback") for line in lines)
    assert any(line.startswith("  ValueError: invalid literal for int()") for line in lines)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "code",
    [
        "class Last:\n    def __del__(self): os.kill(os.getpid(), number); pass\nlast = Last()\ndel last",
        "import weakref\n"
        "class Thing: pass\n"
        "def gone(_): os.kill(os.getpid(), number); pass\n"
        "thing = Thing()\nref = weakref.ref(thing, gone)\ndel thing",
    ],
    ids=["finaliser", "callback"],
)
def test_a_signal_that_comes_where_exceptions_are_dropped_ends_the_process_all_the_same(
    number: str, code: str
) -> None:
    code = "".join(f"    {line}\n" for line in code.split("\n"))
    assert not told(
        f"import os, signal\nnumber = signal.{number}\narrived = process.end_as_by_ctrl_c()\n"
        f"try:\n{code}    while True: signal.pause()\n"
        "except KeyboardInterrupt: raise SystemExit((arrived or [signal.SIGINT])[0])",
        {"SIGINT": 2, "SIGTERM": 15, "SIGHUP": 1}[number],
    )


def test_a_thread_that_exits_says_nothing() -> None:
    assert told("import threading\nt = threading.Thread(target=exit)\nt.start()\nt.join()", 0) == []


def test_the_journal_has_times_of_its_own() -> None:
    assert told(
        "import logging, os\n"
        "os.environ['JOURNAL_STREAM'] = '%d:%d' % (os.fstat(2).st_dev, os.fstat(2).st_ino)\n"
        "process.log_to_standard_error(False, False)\n"
        "logging.getLogger('a').warning('x')\n",
        0,
    ) == ["WARNING a: x"]


def test_what_is_logged_is_one_line_for_each_record() -> None:
    code = (
        "import logging, warnings\n"
        "process.log_to_standard_error(False, True)\n"
        f"logging.getLogger('a').info('%s', '{EVIL}')\n"
        "logging.getLogger('a').debug('not this')\n"
        "logging.getLogger('a').info('%d', 'no number')\n"
        f"warnings.warn('{EVIL}')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('b').exception('failed')\n"
    )
    time = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ")
    lines = [time.sub("TIME ", line) for line in told(code, 0)]
    assert sum(line.startswith("TIME ") for line in lines) == 4
    lines = [line.removeprefix("TIME ") for line in lines]
    assert lines[0] == f"INFO a: {SHOWN}"
    assert lines[1].startswith("INFO a: '%d': ")
    assert lines[2].startswith("WARNING py.warnings: ") and SHOWN in lines[2]
    assert lines[3:5] == ["ERROR b: failed", "  Traceback (most recent call last):"]
    assert lines[-1] == "  ZeroDivisionError: division by zero"
