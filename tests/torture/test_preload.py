"""The library that fails calls: it counts what it should, and does what it is told, to that call alone."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import PLAIN, Cli, wait_until
from tests.torture.preload import EVERY_KIND, Action, Fault, Faults, Kind
from tests.torture.scenarios import World, world

pytestmark = [pytest.mark.slow, pytest.mark.builds("fault-library")]

# Each line is one call below the directory that the program is in; lines in comments are none.
CALLS = """
import fcntl, os, sys
fd = os.open("new", os.O_RDWR | os.O_CREAT, 0o600)
os.write(fd, b"0123456789")
os.pwrite(fd, b"ab", 2)
os.ftruncate(fd, 8)
os.posix_fallocate(fd, 0, 8)
os.fchmod(fd, 0o644)
os.fdatasync(fd)
fcntl.flock(fd, fcntl.LOCK_EX)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.mkdir("d")
os.rename("new", "d/renamed")
os.link("d/renamed", "linked")
os.unlink("linked")
dir = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
os.rename("renamed", "again", src_dir_fd=dir, dst_dir_fd=dir)
os.fsync(dir)
"""
NAMES = [
    *("open64", "write", "pwrite64", "ftruncate64", "posix_fallocate64", "fchmod", "fdatasync", "flock"),
    *("fcntl64", "mkdir", "rename", "link", "unlink", "open64", "renameat", "fsync"),
]
ELSEWHERE = """
os.lseek(fd, 0, os.SEEK_SET), os.read(fd, 3), os.stat("d"), os.listdir
other = os.open("/dev/null", os.O_WRONLY)
os.write(other, b"elsewhere")
fcntl.flock(fd, fcntl.LOCK_UN)
sys.stdout.write("done")
"""
CALLS_OF_THE_KERNEL = [
    *("open", "openat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fallocate", "ftruncate"),
    *("fsync", "fdatasync", "sync_file_range", "rename", "renameat", "renameat2", "link", "linkat", "unlink"),
    *("unlinkat", "rmdir", "mkdir", "mkdirat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat"),
    *("fchown", "flock", "truncate", "sendfile", "copy_file_range"),
]
SAME = {
    **dict.fromkeys(("open", "open64", "openat64", "opendir"), "openat"),
    **dict.fromkeys(("fallocate64", "posix_fallocate", "posix_fallocate64"), "fallocate"),
    "pwrite": "pwrite64",
    "ftruncate64": "ftruncate",
    "truncate64": "truncate",
    "sendfile64": "sendfile",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def faults(tmp_path: Path, root: Path) -> Faults:
    return Faults(tmp_path / "faults", root)


def run(faults: Faults, root: Path, program: str = CALLS + ELSEWHERE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.run(
        command, cwd=root, env=faults.environment(), capture_output=True, text=True, check=False
    )


def test_calls_below_the_directory_are_counted_in_order_and_no_others(faults: Faults, root: Path) -> None:
    ran = run(faults, root)
    assert (ran.returncode, ran.stdout) == (0, "done"), ran.stderr
    assert [line.split()[4] for line in faults.trace()] == NAMES
    assert [int(line.split()[0]) for line in faults.trace()] == list(range(1, len(NAMES) + 1))
    assert (faults.n_calls, faults.n_faults) == (len(NAMES), 0)
    kinds = faults.kinds()
    assert kinds[0] == Kind.OPEN | Kind.WAIT | Kind.CHANGE | Kind.SPACE
    assert [bool(kind & (Kind.SYNC | Kind.LOCK)) for kind in kinds[6:10]] == [True, True, True, False]
    assert faults.trace()[14].split()[4:] == ["renameat", "/d/again"]


@pytest.mark.parametrize("at", range(1, len(NAMES) + 1))
def test_the_call_of_a_number_fails_and_is_not_made(faults: Faults, root: Path, at: int) -> None:
    faults.arm(Fault(EVERY_KIND, Action.FAIL_ONCE, at, errno.EUCLEAN))
    ran = run(faults, root)
    assert ran.returncode == 1
    assert "OSError: [Errno 117]" in ran.stderr
    assert f"line {at + 2}, in <module>" in ran.stderr
    assert (faults.n_calls, faults.n_faults) == (at, 1)
    assert f"{NAMES[at - 1]} " in faults.struck().splitlines()[-1]
    there = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert ("new" in there) == (2 <= at <= 11)
    assert ("d" in there) == (at > 10)
    assert ("linked" in there) == (at == 13)


def test_an_interrupted_call_that_is_made_again_goes_through(faults: Faults, root: Path) -> None:
    faults.arm(Fault(Kind.WAIT, Action.FAIL_ONCE, 2, errno.EINTR))  # Python asks again by itself
    ran = run(faults, root)
    assert ran.returncode == 0, ran.stderr
    assert faults.n_faults == 1
    assert [line.split()[1:5:3] for line in faults.trace()[1:3]] == [["failed", "write"], ["-", "write"]]


def test_from_a_call_on_all_fail(faults: Faults, root: Path) -> None:
    faults.arm(Fault(Kind.SPACE, Action.FAIL_FROM, 2, errno.ENOSPC))
    program = """
import os
fd = os.open("new", os.O_RDWR | os.O_CREAT)
for wish in (lambda: os.write(fd, b"1"), lambda: os.unlink("new"), lambda: os.mkdir("d")):
    try:
        wish()
        print("done")
    except OSError as exc:
        print(exc.errno)
"""
    assert run(faults, root, program).stdout.split() == ["28", "done", "28"]
    assert (faults.n_calls, faults.n_faults) == (3, 2)


@pytest.mark.parametrize(
    ("action", "size"),
    [(Action.KILL_BEFORE, 0), (Action.KILL_WITHIN, 5), (Action.KILL_AFTER, 10)],
)
def test_a_process_ends_before_within_or_after_a_write(
    faults: Faults, root: Path, action: Action, size: int
) -> None:
    faults.arm(Fault(Kind.WRITE, action, 1))
    assert run(faults, root).returncode == -signal.SIGKILL
    assert (root / "new").stat().st_size == size
    assert faults.n_faults == 1


def test_a_write_may_be_cut_short_and_says_so(faults: Faults, root: Path) -> None:
    faults.arm(Fault(Kind.WRITE, Action.SHORTEN, 1))
    program = 'import os; print(os.write(os.open("new", os.O_WRONLY | os.O_CREAT), b"0123456789"))'
    assert run(faults, root, program).stdout == "5\n"
    assert (root / "new").read_bytes() == b"01234"


def test_a_process_ends_a_while_after_its_first_call(faults: Faults, root: Path) -> None:
    faults.arm(Fault(action=Action.KILL_LATER, at=20_000))
    program = 'import os, signal; os.mkdir("d"); signal.pause()'
    assert run(faults, root, program).returncode == -signal.SIGKILL
    assert (root / "d").is_dir()
    assert faults.n_faults == 1


def test_several_processes_and_threads_count_together(faults: Faults, root: Path) -> None:
    program = """
import os, threading
for n in range(2):
    os.fork()
def work(name):
    for at in range(50):
        os.mkdir(f"{name}-{at}")
threads = [threading.Thread(target=work, args=(f"{os.getpid()}-{n}",)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    ran = run(faults, root, program)
    assert ran.returncode == 0, ran.stderr
    n_calls = 4 * 3 * 50
    wait_until(lambda: faults.n_calls >= n_calls, "the children do not end")
    lines = [line.split() for line in faults.trace()]
    assert sorted(int(line[0]) for line in lines) == list(range(1, n_calls + 1))
    assert len({line[2] for line in lines}) == 4


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as here:
        yield here


@pytest.mark.needs("strace")
def test_no_call_of_a_pull_that_the_kernel_sees_is_missed(here: World, faults: Faults, root: Path) -> None:
    cli, seen = Cli(root), root.parent / "strace"
    strace = ["strace", "-f", "-y", "-o", str(seen), "-e", f"trace={','.join(CALLS_OF_THE_KERNEL)}"]
    environment = cli.environment(**faults.environment())
    strace += [word for key, value in environment.items() for word in ("-E", f"{key}={value}")]
    subprocess.run([*strace, *cli.command("pull", PLAIN, here.name)], check=True, capture_output=True)
    kernels = Counter(
        found[1]
        for line in seen.read_text().splitlines()
        if str(root) in line and "LOCK_UN" not in line and (found := re.match(r"\d+ +(\w+)\(", line))
    )
    ours = Counter(SAME.get(line.split()[4], line.split()[4]) for line in faults.trace())
    del ours["fcntl64"]  # the kernel sees those that let go of locks, too
    assert kernels["pwrite64"] > 50 and kernels["renameat"] > 5 and kernels["fdatasync"] > 10
    assert ours == kernels
