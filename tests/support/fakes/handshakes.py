"""A server that does not get as far as HTTP: what it answers to the first bytes of a TLS connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["HANDSHAKES", "Answer", "Handshakes"]

_MOST: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Answer:
    """``data`` to whatever the client says first, again and again if it is ``endless``; then ``end``:
    ``waits`` until the client leaves, ``closes`` or ``resets``.
    """

    data: bytes = b""
    end: str = "closes"
    endless: bool = False


_ALERT = bytes.fromhex("15030300020228")  # fatal: handshake_failure
HANDSHAKES: Final = {
    "handshake-stall": Answer(end="waits"),
    "handshake-closed": Answer(),
    "handshake-reset": Answer(end="resets"),
    "handshake-alert": Answer(_ALERT),
    "handshake-garbage": Answer(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "handshake-cut": Answer(bytes.fromhex("1603030100")),
    "handshake-begun-stall": Answer(bytes.fromhex("1603030100"), "waits"),
    "handshake-endless": Answer(b"\x16\x03\x03\x40\x00" + bytes(1 << 14), endless=True),
    "handshake-endless-alerts": Answer(bytes.fromhex("1503030002010a"), endless=True),
}


class Handshakes:
    """Answers every connection with ``answer``, from threads of its own; a context manager.

    ``reference`` is an image's name at this server, ``nbytes`` what it has sent.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.nbytes = 0
        self.n_connections = 0
        self.reference = f"127.0.0.1:{self._listener.getsockname()[1]}/rig/image:latest"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.n_connections += 1
            with self._lock:
                self._open.add(connection)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        answer = self._answer
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            while answer.data:
                connection.sendall(answer.data)
                with self._lock:
                    self.nbytes += len(answer.data)
                if not answer.endless or self.nbytes > _MOST:
                    break
            if answer.end == "waits":
                while connection.recv(1 << 16):
                    pass
            elif answer.end == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._lock:
            self._open.discard(connection)
