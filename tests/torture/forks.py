"""Many runs of the command for the price of one start: each is forked from a process that has loaded it.

Two thirds of the time of a small pull are spent on loading the program. A process that has done so, and has
no threads, is forked for each command; the child takes over arguments, environment and both outputs, and then
is what ``layertee`` is: ``main()``, to the interpreter's end.

    with Forks(environment) as forks:
        cli = ForkedCli(home, forks)
        cli.run("verify")
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self

from tests.support.process import Cli

__all__ = ["ForkedCli", "Forks"]

_MESSAGE = 1 << 20


class Forks:
    """The process that is forked from, with ``environment``. One command at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._socket: socket.socket
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.forks", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                cwd=Path(__file__).resolve().parents[2],
                env=self._environment,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """Begin the command ``argv``; its outputs are pipes."""
        out, err = os.pipe(), os.pipe()
        try:
            request = json.dumps({"argv": list(argv), "environment": dict(environment)}).encode()
            socket.send_fds(self._socket, [request], [out[1], err[1]])
        finally:
            os.close(out[1])
            os.close(err[1])
        pid = int(self._socket.recv(_MESSAGE))
        return Forked(self._socket, argv, pid, os.fdopen(out[0]), os.fdopen(err[0]))


class Forked(subprocess.Popen[str]):
    """A command that runs, like a Popen whose outputs are pipes; a child of another process than ours."""

    def __init__(
        self, server: socket.socket, argv: Sequence[str], pid: int, out: IO[str], err: IO[str]
    ) -> None:
        self.args = list(argv)
        self.pid = pid
        self.stdin, self.stdout, self.stderr = None, out, err
        self._server = server
        self.returncode: Any = None

    def poll(self) -> int | None:
        """As a Popen has it."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """As a Popen has it."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def send_signal(self, sig: int) -> None:
        """As a Popen has it."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """As a Popen has it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """As a Popen has it; what was read before a timeout is not lost."""
        assert input is None and self.stdout is not None and self.stderr is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        texts = self.__dict__.setdefault("texts", {self.stdout: b"", self.stderr: b""})
        with selectors.DefaultSelector() as selector:
            for stream in texts:
                if not stream.closed:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                events = selector.select(left) if left is None or left > 0 else []
                if not events:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                for key, _ in events:
                    read: Any = key.fileobj
                    piece = os.read(key.fd, 1 << 16)
                    texts[read] += piece
                    if not piece:
                        selector.unregister(read)
                        read.close()
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return texts[self.stdout].decode(), texts[self.stderr].decode()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._server.settimeout(timeout)
            try:
                answer = self._server.recv(_MESSAGE)
            except (BlockingIOError, TimeoutError):
                return None
            finally:
                self._server.settimeout(None)
            if not answer:
                raise ChildProcessError("the process that forks is gone")
            self.returncode = os.waitstatus_to_exitcode(int(answer))
        status: int | None = self.returncode
        return status


class ForkedCli(Cli):
    """A user whose commands are forked from ``forks``."""

    def __init__(self, home: Path, forks: Forks, core: str = "c") -> None:
        super().__init__(home, core)
        self._forks = forks

    def start(self, name: str, *args: object, **more: str) -> subprocess.Popen[str]:
        """Begin a command; both outputs are pipes."""
        return self._forks.start(self.command(name, *args), self.environment(**more))


# --- the process that is forked from -----------------------------------------------------------------


def _load_everything() -> None:
    import layertee

    for module in pkgutil.walk_packages(layertee.__path__, "layertee."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.collect()
    gc.freeze()


def _serve(connection: socket.socket) -> bool:
    """Fork a child for each request. True in the child, which then is the command; False at the end."""
    while True:
        request, fds, _, _ = socket.recv_fds(connection, _MESSAGE, 2)
        if not request:
            return False
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(request), fds)
            return True
        for fd in fds:
            os.close(fd)
        connection.send(str(pid).encode())
        connection.send(str(os.waitpid(pid, 0)[1]).encode())


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    for number, fd in enumerate(fds, 1):
        os.dup2(fd, number)
        os.close(fd)
    # The old ones know of the file that was there before that it can seek, say.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv[:] = request["argv"]
    os.environ.clear()
    os.environ.update(request["environment"])
    for name in ("lt_cut_start", "lt_faults_start"):  # cut.c and preload.c read the environment once
        preloaded = getattr(ctypes.CDLL(None), name, None)
        if preloaded is not None:
            preloaded()


def main() -> int:
    """Until the other end of the socket is closed; in a child, the command's exit code."""
    _load_everything()
    connection = socket.socket(fileno=int(sys.argv[1]))
    if not _serve(connection):
        return 0
    from layertee.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
