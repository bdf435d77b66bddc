"""What a test needs and this machine has not: skipped, with the reason, before anything is made for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.ccore import ROOT

TESTS = """
import pytest
from tests.support.rig.images import run_tool

@pytest.fixture
def never():
    raise ValueError("made")

@pytest.fixture(scope="module")
def rig():
    return run_tool("no-such-tool")

@pytest.mark.needs("sh", "no-such-tool")
def test_marked(never): pass

@pytest.mark.needs("sh")
def test_there(): pass

def test_in_a_fixture(rig): pass
def test_in_it_again(rig): pass
def test_in_the_test(): run_tool("no-such-tool")

@pytest.mark.needs_root("to do as it likes")
def test_root(): pass
"""


IGNORED = """
import subprocess, sys

def test_what_is_started_can_be_interrupted():
    script = "import signal; print([signal.getsignal(n) is signal.SIG_IGN for n in (1, 2, 3)])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert said == "[False, False, False]\\n"
"""


def report_of(directory: Path, *before: str, tests: str = TESTS) -> str:
    """pytest's, with the plugin alone."""
    (directory / "test_it.py").write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n needs\n needs_root\n")
    plugins = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "tests.support.ready")
    done = subprocess.run(
        [*before, sys.executable, "-m", "pytest", "-rs", "-q", *plugins, "--basetemp", "tmp", "test_it.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_missing_is_a_reason_to_skip(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert "not installed: no-such-tool" in report
    assert "[3] " in report and ": no-such-tool is not installed" in report
    there = 2 if os.geteuid() == 0 else 1
    assert f"{there} passed, {6 - there} skipped" in report


@pytest.mark.slow
@pytest.mark.needs_root("becomes another user")
def test_other_users_are_told_why() -> None:
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # pytest's own are for their user alone
        os.chmod(directory, 0o777)
        if subprocess.run([*nobody, sys.executable, "-c", ""], cwd=directory, check=False).returncode:
            pytest.skip("this Python is for root alone")
        assert "needs root: to do as it likes" in report_of(Path(directory), *nobody)


@pytest.mark.slow
def test_a_run_that_ignores_signals_does_not_have_its_programs_ignore_them(tmp_path: Path) -> None:
    """As ``nohup make test &`` has it."""
    ignoring = ("sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh")
    assert "1 passed" in report_of(tmp_path, *ignoring, tests=IGNORED)
