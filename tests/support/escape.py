"""A credential helper that tries to get away: what code does that was taken over, in a place of its own.

``layertee`` starts it as it starts any helper. It notes what it could do, as JSON, in TMPDIR, and then gives
a login. Arguments of the tries are in the environment.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPORT = "escape.json"
_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER = 0x20000, 0x10000000


def given(name: str) -> str:
    return os.environ[f"ESCAPE_{name}"]


def checked(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def in_child(work: Callable[[], None]) -> None:
    """So that what succeeds is of no consequence. The error comes back by its number."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            work()
        except OSError as exc:
            code = exc.errno or 255
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, errno.errorcode.get(code, str(code)))


def mount() -> None:
    checked(_libc.unshare(_NEWNS))
    checked(_libc.mount(b"none", given("DIRECTORY").encode(), b"tmpfs", 0, None))


def run_what_was_written() -> None:
    program = Path(os.environ["TMPDIR"], "sh")
    shutil.copy("/bin/sh", program)
    subprocess.run([program, "-c", "exit 0"], check=True)


def bind() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def listen_anywhere() -> None:
    with socket.socket() as sock:
        sock.listen()  # the kernel gives it a port


def speak() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + given("SOCKET"))


def ask() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(given("SERVICE"))


def run_from_memory() -> None:
    fd = os.memfd_create("program", 0)
    os.write(fd, Path("/bin/true").read_bytes())
    subprocess.run([f"/proc/self/fd/{fd}"], check=True, pass_fds=[fd])


def share_memory() -> None:
    segment = _libc.shmget(0, 4096, 0o600)  # IPC_PRIVATE
    checked(segment)
    checked(_libc.shmctl(segment, 0, None))  # IPC_RMID


def administer_the_network() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 4096)  # SO_RCVBUFFORCE, which takes CAP_NET_ADMIN


def give_away() -> None:
    fd = os.open(given("OPEN"), os.O_RDONLY)
    os.fchown(fd, os.geteuid(), os.getegid())


TRIES: dict[str, Callable[[], object]] = {
    "read a secret": lambda: Path(given("SECRET")).read_bytes(),
    "read the shadow file": lambda: Path("/etc/shadow").read_bytes(),
    "list a home": lambda: os.listdir(given("DIRECTORY")),
    "write elsewhere": lambda: Path(given("DIRECTORY"), "left").write_text("x"),
    "cut a file short": lambda: os.truncate(given("CUT"), 0),
    "run what was written": run_what_was_written,
    "trace": lambda: in_child(lambda: checked(_libc.ptrace(0, 0, None, None))),
    "mount": lambda: in_child(mount),
    "be another user": lambda: in_child(lambda: checked(_libc.unshare(_NEWUSER))),
    "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "signal": lambda: os.kill(int(given("PID")), 0),
    "listen": bind,
    "listen at a port that was not asked for": listen_anywhere,
    "speak to a stranger": speak,
    "ask a service": ask,
    "run from memory": run_from_memory,
    "share memory": share_memory,
    "limit another": lambda: resource.prlimit(int(given("PID")), resource.RLIMIT_CORE),
    "change a mode": lambda: os.chmod(given("CUT"), 0o600),
    "change an owner": lambda: os.chown(given("CUT"), os.geteuid(), os.getegid()),
    "give an open file away": give_away,
    "read the kernel's memory": lambda: Path("/proc/kcore").open("rb").close(),
    "administer the network": administer_the_network,
}


def done() -> dict[str, bool]:
    """What can be done from where this runs."""
    found = {}
    for name, attempt in TRIES.items():
        try:
            attempt()
        except OSError:
            found[name] = False
        else:
            found[name] = True
    return found


if __name__ == "__main__":
    sys.stdin.read()
    Path(os.environ["TMPDIR"], REPORT).write_text(json.dumps(done()))
    sys.stdout.write(json.dumps({"Username": given("USER"), "Secret": given("PASSWORD")}))
