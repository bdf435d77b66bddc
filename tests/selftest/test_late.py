"""A late test fails alone, says where it stood, and the others run: with xdist and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ccore import ROOT

pytestmark = pytest.mark.slow
DISTRIBUTED = ("-p", "tests.support.spread", "-n", "2", "--dist", "loadfile")
QUICK_TO_GIVE_UP = "from tests.support import late\n\nlate.GRACE_S = 1.0\n"
NEITHER_NOR = "def test_before(): pass\n{}\ndef test_after(): pass\n"
LATE = {
    "a thread": """
import threading
def test_late():
    def stuck(): event.wait()
    event = threading.Event()
    threading.Thread(target=stuck, name="the other", daemon=True).start()
    event.wait()
""",
    "asyncio": """
import asyncio
def test_late():
    async def stuck(): await asyncio.Event().wait()
    asyncio.run(stuck())
""",
    "uvloop": """
import asyncio, uvloop
def test_late():
    async def stuck(): await asyncio.Event().wait()
    uvloop.run(stuck())
""",
    "a task of uvloop's that never waits": """
import asyncio, uvloop
def test_late():
    async def stuck():
        while True: await asyncio.sleep(0)
    async def main():
        async with asyncio.TaskGroup() as group: group.create_task(stuck())
    uvloop.run(main())
""",
    "a child": """
import subprocess, sys
def stuck(): subprocess.run([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
def test_late():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    def stuck(): process.wait()
    try: stuck()
    finally: process.kill(); process.wait(); process.stdin.close()
""",
    "a teardown": """
import threading, pytest
@pytest.fixture
def fixture():
    yield
    def stuck(): threading.Event().wait()
    stuck()
def test_late(fixture): pass
""",
}
# A signal's handler waits for the interpreter, and the interpreter for this.
IN_C = """
import itertools
def test_late():
    def stuck(): sum(itertools.repeat(0))
    stuck()
"""


def run(directory: Path, tests: str, *options: str, limit: str = "1") -> tuple[int, str]:
    """pytest on a file of ``tests`` with these limits: exit status and report."""
    (directory / "conftest.py").write_text(QUICK_TO_GIVE_UP)
    (directory / "test_it.py").write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(
        [*words, "-p", "tests.support.late", "--timeout", limit, *options, "test_it.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), DISTRIBUTED], ids=["one process", "xdist"])
@pytest.mark.parametrize("what", LATE)
def test_a_late_test_fails_alone_and_says_where_it_stood(
    tmp_path: Path, what: str, options: tuple[str, ...]
) -> None:
    status, report = run(tmp_path, NEITHER_NOR.format(LATE[what]), *options)
    bad = "error" if what == "a teardown" else "failed"
    assert status == 1, report
    assert re.search(rf"1 {bad}.*|{bad}", report), report
    assert f"{3 if bad == 'error' else 2} passed" in report, report
    assert "test_it.py::test_late is not done after" in report
    assert "in stuck" in report or "stuck()" in report, report


def test_the_report_has_the_other_threads_and_the_tasks_of_the_loop(tmp_path: Path) -> None:
    assert "thread the other:" in run(tmp_path, LATE["a thread"])[1]
    assert "Task<" in (said := run(tmp_path, LATE["uvloop"])[1]) or "Stack for <Task" in said, said


def test_what_no_exception_ends_is_ended_with_its_worker(tmp_path: Path) -> None:
    status, report = run(tmp_path, NEITHER_NOR.format(IN_C), *DISTRIBUTED)
    assert status == 1, report
    assert "1 failed, 2 passed" in report, report
    assert "crashed while running 'test_it.py::test_late'" in report
    assert "in stuck" in report


def test_a_test_that_ends_workers_is_run_once_and_work_that_was_done_is_not_given_out_again(
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    test = "def test_{}(): open({!r}, 'a').write('{} ')\n"
    before = "".join(test.format(n, str(ran), n) for n in range(5))
    dies = f"import os\n{test.format('dies', str(ran), 'dies')[:-1]}; os._exit(3)\n"
    after = "".join(test.format(n, str(ran), n) for n in range(5, 10))
    status, report = run(tmp_path, before + dies + after, *DISTRIBUTED)
    assert status == 1, report
    assert "1 failed, 10 passed" in report, report
    assert sorted(ran.read_text().split()) == sorted(["dies", *map(str, range(10))])


def test_without_xdist_the_process_is_ended_and_its_stacks_are_on_stderr(tmp_path: Path) -> None:
    status, report = run(tmp_path, NEITHER_NOR.format(IN_C))
    assert status == 1
    assert "in stuck" in report


def test_a_test_in_time_has_nothing_of_it(tmp_path: Path) -> None:
    soon = "import time\ndef test_soon(): time.sleep(0.3)\n"
    status, report = run(tmp_path, NEITHER_NOR.format(soon), limit="90")
    assert (status, "3 passed" in report) == (0, True), report


OF_TWO_FILES = """
import os, pathlib, pytest
MARK
@pytest.mark.parametrize("n", range(2))
def test_it(n):
    pathlib.Path(DIRECTORY, f"{os.path.basename(__file__)} {n}").write_text(str(os.getpid()))
"""


@pytest.mark.parametrize(
    ("mark", "of_a_file", "of_both"),
    [("", 1, 2), ("@pytest.mark.spread", 2, 2), ("@pytest.mark.group('one')", 1, 1)],
)
def test_files_groups_and_single_tests_are_given_out_whole(
    tmp_path: Path, mark: str, of_a_file: int, of_both: int
) -> None:
    text = OF_TWO_FILES.replace("MARK", mark).replace("DIRECTORY", repr(str(tmp_path)))
    (tmp_path / "test_other.py").write_text(text)
    status, report = run(tmp_path, text, *DISTRIBUTED, "-W", "ignore", "test_other.py", limit="90")
    assert status == 0, report

    def processes(name: str) -> set[str]:
        return {(tmp_path / f"{name} {n}").read_text() for n in range(2)}

    ours, others = processes("test_it.py"), processes("test_other.py")
    assert (len(ours), len(others), len(ours | others)) == (of_a_file, of_a_file, of_both)
