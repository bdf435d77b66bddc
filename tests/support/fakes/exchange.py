"""One HTTP exchange of the fault server: what was asked, what an honest server would answer, and raw writing.

Nothing here enforces HTTP: a behaviour may write any bytes in any order. Counts are of bytes handed to the
kernel, which may be ahead of what the client has read by the two socket buffers.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.fakes.fault_server import FaultServer

__all__ = ["Connection", "ConnectionRecord", "Entity", "Exchange", "Plan", "RequestRecord"]

_PIECE = 64 << 10
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Entity:
    """A document or blob that the server can serve: in memory, or the file ``path``."""

    digest: str
    media_type: str
    size: int
    data: bytes | None = None
    path: Path | None = None

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``stop``, in small pieces."""
        if self.path is None:
            yield from _pieces((self.data or b"")[start:stop])
            return
        with self.path.open("rb") as source:
            source.seek(start)
            while start < stop and (piece := source.read(min(_PIECE, stop - start))):
                start += len(piece)
                yield piece


@dataclass(slots=True)
class RequestRecord:
    """A request as it arrived, and what became of it."""

    number: int
    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    kind: str
    """``ping``, ``token``, ``manifest``, ``blob``, ``signed``, ``hop`` or ``other``."""
    repository: str
    reference: str
    """The digest of a blob, the digest or tag of a manifest; empty otherwise."""
    body: bytes = b""
    behaviour: str = ""
    status: int = 0
    head_bytes: int = 0
    body_bytes: int = 0
    """All bytes written after the head, chunk framing included."""
    finished: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        """Of the target, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Of the target."""
        return self.target.partition("?")[2]

    @property
    def authorization(self) -> str | None:
        """The credentials that came along."""
        return self.header("authorization")


@dataclass(slots=True)
class ConnectionRecord:
    """One accepted TCP connection."""

    number: int
    peer: tuple[str, int]
    n_requests: int = 0
    bytes_sent: int = 0
    closed: bool = False


class Connection:
    """The server's end of a TCP connection, with pacing."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        record: ConnectionRecord,
        rate: float | None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.record = record
        self.rate = rate
        self._due = time.monotonic()
        # drain() then waits for the kernel to have taken everything; at 0, CPython 3.11's TLS never resumes
        writer.transport.set_write_buffer_limits(high=1, low=0)

    async def write(self, data: bytes, rate: float | None = None) -> None:
        """Write ``data``, no faster than ``rate`` or the connection's own bytes per second."""
        limits = [limit for limit in (rate, self.rate) if limit is not None]
        pace = min(limits) if limits else None
        step = _PIECE if pace is None else max(1, min(_PIECE, int(pace / 50)))
        for piece in _pieces(data, step):
            if pace is not None:
                await self._wait_turn(len(piece) / pace)
            self.writer.write(piece)
            await self.writer.drain()
            self.record.bytes_sent += len(piece)

    async def _wait_turn(self, cost_s: float) -> None:
        now = time.monotonic()
        # a late wake-up is made good within 50 ms, or the rate would fall short of what was asked for
        self._due = max(self._due, now - 0.05) + cost_s
        await asyncio.sleep(max(0.0, self._due - now))

    async def wait_for_client(self) -> None:
        """Return when the client has closed its side."""
        while await self.reader.read(_PIECE):
            pass

    async def reset(self) -> None:
        """RST, once the client's kernel has everything written so far (or after 5 s)."""
        sock = self.writer.get_extra_info("socket")
        for _ in range(5000):
            if sock.fileno() < 0:
                return  # the client was faster
            (unacknowledged,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
            if not unacknowledged:
                break
            await asyncio.sleep(0.001)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(slots=True)
class Plan:
    """The answer of an honest server; a behaviour spoils it before it is sent."""

    status: int
    headers: list[tuple[str, str]]
    start: int
    stop: int
    body: bytes | None = None
    """Instead of the entity's bytes from ``start`` to ``stop``."""

    def drop(self, name: str) -> None:
        """Remove all headers of that name."""
        self.headers = [(key, value) for key, value in self.headers if key.lower() != name.lower()]

    def set(self, name: str, value: str) -> None:
        """Have exactly one header of that name."""
        self.drop(name)
        self.headers.append((name, value))

    @property
    def nbytes(self) -> int:
        """Of the body."""
        return len(self.body) if self.body is not None else self.stop - self.start


@dataclass(slots=True)
class Exchange:
    """One request being answered. Behaviours get this and write what they like."""

    server: FaultServer
    connection: Connection
    request: RequestRecord
    entity: Entity | None
    keep_alive: bool = True
    rate: float | None = None
    """Bytes per second for this answer, besides the connection's own limit."""
    extra_headers: list[tuple[str, str]] = field(default_factory=list)

    def asked(self) -> tuple[int, int] | None:
        """The half-open range asked for, cut to the entity; None without a (simple) Range header."""
        match = _RANGE.match(self.request.header("range") or "")
        if match is None or self.entity is None:
            return None
        start, size = int(match[1]), self.entity.size
        return start, min(int(match[2]) + 1, size) if match[2] else size

    def plan(self, *, ranges: bool = True) -> Plan:
        """What an honest server answers: 200, 206 or 416 with the entity, 404 without one."""
        entity = self.entity
        if entity is None:
            return self.plain(
                404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}', "application/json"
            )
        headers = [
            ("Content-Type", entity.media_type),
            ("Docker-Content-Digest", entity.digest),
            ("ETag", f'"{entity.digest}"'),
            *self.extra_headers,
        ]
        asked = self.asked() if ranges else None
        if ranges:
            headers.append(("Accept-Ranges", "bytes"))
        if asked is None:
            return Plan(200, [*headers, ("Content-Length", str(entity.size))], 0, entity.size)
        start, stop = asked
        if start >= stop:
            return Plan(416, [("Content-Range", f"bytes */{entity.size}"), ("Content-Length", "0")], 0, 0)
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{entity.size}"))
        return Plan(206, [*headers, ("Content-Length", str(stop - start))], start, stop)

    def plain(self, status: int, body: bytes = b"", media_type: str = "text/plain") -> Plan:
        """An answer that has nothing to do with the entity."""
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body))), *self.extra_headers]
        return Plan(status, headers, 0, 0, body)

    async def send(self, plan: Plan) -> None:
        """Head and body of ``plan``; for HEAD the head alone."""
        await self.send_head(plan)
        if self.request.method != "HEAD":
            await self.send_body(plan)

    async def send_head(self, plan: Plan) -> None:
        """The status line and the headers."""
        await self.send_raw_head(self.head(plan), plan.status)

    def head(self, plan: Plan) -> bytes:
        """The bytes of a head."""
        try:
            reason = HTTPStatus(plan.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [f"HTTP/1.1 {plan.status} {reason}", *(f"{key}: {value}" for key, value in plan.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def send_raw_head(self, head: bytes, status: int) -> None:
        """Any bytes as the head."""
        self.request.status = status
        await self.connection.write(head)
        self.request.head_bytes += len(head)

    async def send_body(self, plan: Plan, *, skip: int = 0, limit: int | None = None) -> None:
        """The body of ``plan`` from ``skip`` on, at most ``limit`` bytes of it."""
        stop = plan.nbytes if limit is None else min(plan.nbytes, skip + limit)
        if plan.body is not None:
            await self.send_bytes(plan.body[skip:stop])
        elif self.entity is not None:
            for piece in self.entity.read(plan.start + skip, plan.start + stop):
                await self.send_bytes(piece)

    async def send_bytes(self, data: bytes) -> None:
        """Any bytes, counted as body."""
        for piece in _pieces(data):
            await self.connection.write(piece, self.rate)
            self.request.body_bytes += len(piece)


def _pieces(data: bytes, step: int = _PIECE) -> Iterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]
