"""``layertee serve`` as a process, and clients that write to its socket whatever they like."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.process import NOT_FOR_USERS, Cli, wait_until

LATE_S = 60.0
_HEAD_MAX = 64 << 10


class Answer(NamedTuple):
    """One answer, as it came; field names are in lower case."""

    status: int
    head: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the one error that it is about."""
        (error,) = self.json["errors"]
        return str(error["code"])


class Served:
    """A server that runs. Its address is ``host``:``port``."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err
        self.host, self.port = "", 0

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def wait_for_address(self) -> None:
        """Until the first line of standard output says where it is."""

        def has_begun() -> bool:
            assert self.process.poll() is None, f"it ended\n{self.out}\n{self.err}"
            return "\n" in self.out

        wait_until(has_begun, "the server has begun")
        if match := re.match(r"https?://(127\.0\.0\.1):([0-9]+)\n", self.out):
            self.host, self.port = match[1], int(match[2])

    def connect(self, timeout_s: float = LATE_S) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout_s)

    def get(self, target: str, *fields: str, method: str = "GET") -> Answer:
        """One request on a connection of its own, whose answer must be whole."""
        with self.connect() as sock:
            return ask(sock, target, *fields, method=method)

    def rss_kib(self, what: str = "VmRSS") -> int:
        """Resident memory; ``VmHWM``: the most that there ever was."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(rf"^{what}:\s+([0-9]+) kB$", text, re.M)
        assert match is not None
        return int(match[1])

    def n_files(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connections(self) -> int:
        """As /metrics has it, that of the question included."""
        match = re.search(rb"^layertee_serve_connections ([0-9.]+)$", self.get("/metrics").body, re.M)
        assert match is not None
        return round(float(match[1]))

    def end(self, number: int = signal.SIGTERM, *, code: int = 0) -> None:
        """Ask it to end and wait; nothing that only we understand may be in what it has said."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=LATE_S) == code, self.err
        for word in NOT_FOR_USERS:
            assert word not in self.err, self.err


@contextmanager
def serving(
    cli: Cli, *options: object, pass_fds: Sequence[int] = (), listen: str | None = "127.0.0.1:0", **more: str
) -> Iterator[Served]:
    """A server of the user ``cli``, which ends well at the end."""
    words = [*(("--listen", listen) if listen else ()), *options]
    out, err = cli.home / "serve.out", cli.home / "serve.err"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            cli.command("serve", *words),
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
            env=cli.environment(**more),
            pass_fds=pass_fds,
        )
    served = Served(process, out, err)
    try:
        served.wait_for_address()
        yield served
        if process.poll() is None:
            served.end()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def head_of(target: str, *fields: str, method: str = "GET") -> bytes:
    """A request, as clients write one."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: registry", *fields, "", ""]).encode()


def ask(sock: socket.socket | ssl.SSLSocket, target: str, *fields: str, method: str = "GET") -> Answer:
    """One request on ``sock``, which may be used again."""
    sock.sendall(head_of(target, *fields, method=method))
    return read_answer(sock, has_body=method != "HEAD")


def read_answer(sock: socket.socket | ssl.SSLSocket, *, has_body: bool = True) -> Answer:
    """One whole answer, not a byte further. Raises EOFError, OSError."""
    raw = bytearray()
    while not raw.endswith(b"\r\n\r\n"):
        assert len(raw) < _HEAD_MAX, "a head without an end"
        if not (byte := sock.recv(1)):
            raise EOFError(f"the connection ended after {bytes(raw)!r}")
        raw += byte
    lines = raw.decode().split("\r\n")
    fields = [line.partition(":") for line in lines[1:] if line]
    head = {name.lower(): value.strip() for name, _, value in fields}
    status = int(lines[0].split(" ")[1])
    length = int(head.get("content-length", "0")) if has_body and status not in (204, 304) else 0
    body = bytearray()
    while len(body) < length:
        if not (chunk := sock.recv(min(length - len(body), 1 << 20))):
            raise EOFError(f"the connection ended after {len(body)} of {length} bytes")
        body += chunk
    return Answer(status, head, bytes(body))


def rest_of(sock: socket.socket, most: int = 1 << 20) -> bytes:
    """What comes until the server closes, which must not be more than ``most`` bytes."""
    found = bytearray()
    try:
        while chunk := sock.recv(1 << 16):
            found += chunk
            assert len(found) <= most, "it does not stop"
    except ConnectionError:
        pass
    return bytes(found)
