"""File systems in files, mounted where nobody else sees them, whose power can be cut.

What mounts runs in namespaces of its own (``inside``), for mounts and for processes: when the process that
asked for them ends, by whatever signal, all that was started in them is killed, nothing is mounted any more,
and the loop devices are free again.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.process import wait_until
from tests.support.rig.registry import NotInstalled, RigError

__all__ = ["KINDS", "Kind", "Unavailable", "build_cut", "cut_power", "freeze", "inside", "mounted", "tmpfs"]

_ROOT = Path(__file__).resolve().parents[2]
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PR_SET_PDEATHSIG = 1
# _IOR('X', 125, __u32), EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN alike; 2: the log is not flushed, either.
_GOING_DOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
_WITHOUT_LOG_FLUSH = 2
UNAVAILABLE = 77  # the exit code of a program that cannot do here what it is for


class Unavailable(NotInstalled):
    """This machine, or this user, cannot mount what is needed. The text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file system: how it is made in a file of ``size`` bytes, and how it is mounted."""

    name: str
    make: tuple[str, ...]
    options: str
    size: int

    @property
    def type(self) -> str:
        """As mount(8) has it."""
        return self.make[0].partition(".")[2]

    def create(self, path: Path, size: int | None = None) -> None:
        """Make one in the new file ``path``. Raises Unavailable."""
        program = shutil.which(self.make[0], path=_PATH)
        if program is None:
            raise Unavailable(f"{self.make[0]} is not installed")
        with path.open("xb") as file:
            file.truncate(max(size or 0, self.size))
        done = subprocess.run([program, *self.make[1:], path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RigError(f"{self.make[0]}: {done.stderr}")


_EXT4 = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,nodiscard")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("ext4", _EXT4, "data=ordered", 48 << 20),
        Kind("ext4-journal", _EXT4, "data=journal", 48 << 20),
        Kind("xfs", ("mkfs.xfs", "-q", "-f"), "nouuid", 320 << 20),  # xfsprogs 6 make none below 300 MiB
    )
}


@contextmanager
def mounted(kind: Kind, image: Path, where: Path) -> Iterator[None]:
    """The file system in the file ``image`` on the directory ``where``. Raises Unavailable."""
    options = f"loop,{kind.options}"
    _mount("-t", kind.type, "-o", options, str(image), str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


@contextmanager
def tmpfs(where: Path, size: int) -> Iterator[None]:
    """A tmpfs of ``size`` bytes (rounded up to pages) on the directory ``where``. Raises Unavailable."""
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"nothing can be mounted here ({' '.join(words)}): {done.stderr.strip()}")


def cut_power(where: Path) -> None:
    """From now on nothing reaches the disk that is mounted at ``where``; what was not flushed is lost."""
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _GOING_DOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
    finally:
        os.close(fd)


def freeze(pid: int) -> None:
    """Let no thread of the process run any more, but for what a call into the kernel still does.

    Before ``cut_power``: a flush that is under way then may succeed all the same, and a program that hears
    of that would report what no program can after a power cut.
    """

    def stands() -> bool:
        states = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        return not states & {"R", "S"}

    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGSTOP)
        wait_until(stands, f"process {pid} does not stop")


def build_cut(directory: Path) -> Path:
    """The library of ``cut.c``, for LD_PRELOAD. Raises Unavailable."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise Unavailable("there is no C compiler")
    library = directory / "cut.so"
    source = Path(__file__).with_name("cut.c")
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl"], check=True)
    return library


def inside(module: str, words: Sequence[str]) -> Mapping[str, Any]:
    """Run ``python -m module words…`` in namespaces of its own; the JSON object that it prints.

    Its standard error is ours. Raises Unavailable where that cannot be done here, with its reason or that of
    the program; AssertionError when the program fails.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root: it mounts file systems")
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    command += ["--mount-proc", sys.executable, "-m", module, *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=_ROOT, preexec_fn=_die_with_parent
    )
    try:
        out, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode == UNAVAILABLE:
        raise Unavailable(out.strip())
    if process.returncode == 1 and not out:
        probe = subprocess.run([*command[:7], "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            raise Unavailable(f"no namespaces for mounts here: {probe.stderr.strip()}")
    assert process.returncode == 0, (
        f"exit {process.returncode} of: python -m {module} {' '.join(words)}\n{out}"
    )
    figures = json.loads(out)
    assert isinstance(figures, dict)
    return figures


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
