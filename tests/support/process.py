"""The command as a user types it: a process of its own, with a home of its own and nothing inherited."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("layertee"))
CORES = ("c", "python")
SCHEMA = 1  # of --json
_COMMANDS = (
    "pull",
    "inspect",
    "map",
    "ls",
    "rm",
    "gc",
    "verify",
    "doctor",
    "prepare",
    "serve",
    "export",
    "import",
)
PLAIN = "--tls-verify=false"
_LATE_S = 240.0  # less than the limit of a test
# A process of its own: the peak of a child counts that of the process that it was forked from.
_MEASURE = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, timeout=float(sys.argv[1]))\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    "sys.exit(done.returncode)\n"
)
NOT_FOR_USERS = ("Traceback", "never awaited", "Exception ignored", "ResourceWarning")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else; without the schema's number."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        assert document.pop("schema") == SCHEMA
        return document

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Of a pull's or an inspection's JSON."""
        layers = self.json["layers"]
        assert isinstance(layers, list)
        return layers

    @property
    def actions(self) -> list[str]:
        """One word per layer."""
        return [layer["action"] for layer in self.layers]


class Cli:
    """``layertee`` for one user (``home``) with one store (``home/store``) and one core."""

    def __init__(self, home: Path, core: str = "c") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.store = home / "store"
        self.core = core

    def environment(self, **more: str) -> dict[str, str]:
        """What the command sees."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "LAYERTEE_CORE": self.core,
            "PYTHONFAULTHANDLER": "1",
            **more,
        }

    def command(self, name: str, *args: object) -> list[str]:
        """The argument vector; ``--store`` is ours unless ``args`` say where to."""
        words = [name, *map(str, args)]
        to = next((value for flag, value in pairwise(words) if flag == "--to"), "")
        is_layout = name == "pull" and to.startswith("oci:")
        if name in _COMMANDS and not is_layout and "--store" not in words:
            words[1:1] = ["--store", str(self.store)]
        return [COMMAND, *words]

    def start(self, name: str, *args: object, **more: str) -> subprocess.Popen[str]:
        """Begin a command; both outputs are pipes."""
        return subprocess.Popen(
            self.command(name, *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**more),
        )

    def finish(self, process: subprocess.Popen[str], code: int | None = 0, *, late_s: float = _LATE_S) -> Ran:
        """Wait for it; it must exit with ``code`` (None: any), and say nothing that only we understand.

        One that does not end within ``late_s`` seconds is made to say where it stands.
        """
        try:
            out, err = process.communicate(timeout=late_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler says where every thread stood
            out, err = process.communicate()
            raise AssertionError(f"it does not end\n{out}\n{err}") from None
        ran = Ran(process.returncode, out, err)
        assert code is None or ran.code == code, f"exit {ran.code}\n{out}\n{err}"
        for word in NOT_FOR_USERS:
            assert word not in err, err
        return ran

    def run(self, name: str, *args: object, code: int | None = 0, **more: str) -> Ran:
        """``layertee name args…`` to its end."""
        return self.finish(self.start(name, *args, **more), code)

    def pull(self, *args: object, code: int | None = 0, **more: str) -> Ran:
        """Pull from a registry without TLS, with ``--json``."""
        return self.run("pull", PLAIN, "--json", *args, code=code, **more)

    def peak_kib(self, name: str, *args: object) -> int:
        """The most resident memory of a command, which must succeed, in KiB."""
        command = [sys.executable, "-S", "-c", _MEASURE, str(_LATE_S), *self.command(name, *args)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), check=False)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return int(done.stdout.splitlines()[-1])

    # -- the store as files ----------------------------------------------------------

    def blob(self, digest: str) -> Path:
        """Where the store keeps that blob."""
        return self.store / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def leftovers(self) -> list[Path]:
        """Parts of layers that are on their way in."""
        return sorted((self.store / "layertee" / "ingest").iterdir())

    def partial(self) -> dict[str, int]:
        """How many bytes are here of each blob that has begun to arrive."""
        return {one["digest"]: one["bytes"] for one in self.run("ls", "--partial", "--json").json["partial"]}

    def verified(self) -> dict[str, Any]:
        """The report of ``layertee verify``, which must find nothing wrong."""
        report = self.run("verify", "--json").json
        assert report["ok"] is True
        return report


def authfile(path: Path, host: str, user: str, password: str) -> Path:
    """Credentials as podman and skopeo keep them."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": login}}}))
    path.chmod(0o600)
    return path


def flip_a_byte(path: Path) -> None:
    """Damage a file in its middle, without changing its size or name."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x55]))
    path.chmod(mode)


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Every path below ``root`` with its mode and content's digest."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = path.stat().st_mode, hashlib.sha256(content).hexdigest()
    return found


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 100.0) -> None:
    """Poll until ``condition()`` holds. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.002)


async def until(condition: Callable[[], object], what: str, timeout_s: float = 100.0) -> None:
    """``wait_until`` beside other tasks."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.002)


def start_child(work: Callable[[], None]) -> int:
    """Begin ``work`` in a forked child, which exits with 0 if that returns; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; none of ours lives on
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; return its wait status."""
    return os.waitpid(start_child(work), 0)[1]


def open_inodes() -> set[tuple[int, int]]:
    """Device and number of every file that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one by which the directory was read
            status = os.fstat(int(fd))
            found.add((status.st_dev, status.st_ino))
    return found


def inode(path: Path) -> tuple[int, int]:
    """Of the file, as ``open_inodes`` has it."""
    status = path.stat()
    return status.st_dev, status.st_ino
