"""A client that shows what a server really sent: every byte of one connection, and how it ended."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.fakes.fault_server import FaultServer
from tests.support.rig.images import run_tool

__all__ = ["Seen", "Serve", "look", "skopeo_copy"]

Serve = Callable[..., FaultServer]  # starts one whose blobs behave in a given way


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything a connection brought, and how it ended: ``eof``, ``reset``, ``silence``, or ``enough``."""

    data: bytes
    end: str

    @property
    def status(self) -> int:
        """Of the status line."""
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        """Status line and headers."""
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        """Everything after the head, as it was on the wire."""
        return self.data.partition(b"\r\n\r\n")[2]

    def headers(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        pairs = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return [value for key, _, value in pairs if key.lower() == name.lower()]


def look(
    server: FaultServer,
    path: str,
    *headers: str,
    method: str = "GET",
    patience_s: float = 5.0,
    enough: int = 1 << 30,
) -> Seen:
    """One request on a connection of its own, up to ``enough`` bytes, or ``patience_s`` without any."""
    data = bytearray()
    with socket.create_connection(("127.0.0.1", int(server.host.rpartition(":")[2]))) as connection:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {server.host}", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        connection.settimeout(patience_s)
        try:
            while piece := connection.recv(1 << 20):
                data += piece
                if len(data) >= enough:
                    return Seen(bytes(data), "enough")
        except ConnectionResetError:
            return Seen(bytes(data), "reset")
        except TimeoutError:
            return Seen(bytes(data), "silence")
    return Seen(bytes(data), "eof")


def skopeo_copy(server: FaultServer, target: Path, *options: str) -> None:
    """Pull the server's image with the real skopeo. Raises RigError."""
    run_tool(
        "skopeo",
        "copy",
        "-q",
        "--src-tls-verify=false",
        *options,
        f"docker://{server.reference}",
        f"dir:{target}",
    )
