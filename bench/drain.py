"""The cheapest client of a registry: bodies are received and thrown away, or hashed if that is asked for.

The kernel drops what is received (``MSG_TRUNC``, tcp(7)), so that a server on the same CPUs is measured and
not its client. Answers must have a ``Content-Length``.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

__all__ = ["DrainError", "Drained", "drain"]

_TIMEOUT_S = 120.0
_HEAD_NBYTES = 64 << 10
_AT_ONCE = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class DrainError(RuntimeError):
    """The server answered something else than a whole blob."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What was received, in how many seconds; ``digests`` by path, where it was hashed."""

    nbytes: int
    wall_s: float
    digests: dict[str, str]


def drain(host: str, paths: Sequence[str], *, connections: int = 1, hashed: bool = False) -> Drained:
    """GET every path once, over so many connections at a time. Raises DrainError, OSError."""
    left: SimpleQueue[str] = SimpleQueue()
    for path in paths:
        left.put(path)
    workers = [_Worker(host, left, hashed) for _ in range(min(connections, len(paths)))]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall = time.perf_counter() - began
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    digests = {path: digest for worker in workers for path, digest in worker.digests.items()}
    return Drained(sum(worker.nbytes for worker in workers), wall, digests)


class _Worker(threading.Thread):
    """One connection, until no path is left or one fails."""

    def __init__(self, host: str, left: SimpleQueue[str], hashed: bool) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._left = left
        self._hashed = hashed
        self._room = bytearray(_AT_ONCE)
        self.nbytes = 0
        self.digests: dict[str, str] = {}
        self.error: DrainError | OSError | None = None

    def run(self) -> None:
        name, _, port = self._host.rpartition(":")
        try:
            with socket.create_connection((name, int(port)), timeout=_TIMEOUT_S) as connection:
                while True:
                    try:
                        path = self._left.get_nowait()
                    except Empty:
                        return
                    self._get(connection, path)
        except (DrainError, OSError) as error:
            self.error = error

    def _get(self, connection: socket.socket, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: */*\r\n\r\n"
        connection.sendall(request.encode())
        left = self._length(connection, path)
        whole = hashlib.sha256()
        flags = 0 if self._hashed else socket.MSG_TRUNC
        while left:
            n = connection.recv_into(self._room, min(left, _AT_ONCE), flags)
            if n == 0:
                raise DrainError(f"{path}: {left} bytes are missing")
            if self._hashed:
                whole.update(memoryview(self._room)[:n])
            left -= n
            self.nbytes += n
        if self._hashed:
            self.digests[path] = f"sha256:{whole.hexdigest()}"

    def _length(self, connection: socket.socket, path: str) -> int:
        """Take the head, and no byte more; the length of the body."""
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            if len(head) >= _HEAD_NBYTES:
                raise DrainError(f"{path}: a head of more than {_HEAD_NBYTES} bytes")
            seen = connection.recv(_HEAD_NBYTES, socket.MSG_PEEK)
            if not seen:
                raise DrainError(f"{path}: no answer")
            # Of what is there, no more than the end of the head is taken: the rest is the body's.
            more = (head + seen).find(b"\r\n\r\n")
            head += connection.recv(len(seen) if more < 0 else more + 4 - len(head))
        status, length = head.split(b" ", 2)[1], _LENGTH.search(head[: end + 2])
        if status != b"200" or length is None:
            raise DrainError(f"{path}: {head.decode(errors='replace')}")
        return int(length[1])
