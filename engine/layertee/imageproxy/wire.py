"""Packets of the image-proxy protocol: one JSON document each, with file descriptors beside it.

A SOCK_SEQPACKET socket; at most 32 KiB a packet in either direction, a reply's descriptors in the same packet
(SCM_RIGHTS). A reply always has all of its keys, ``value`` null and ``error`` empty where there is nothing
to say; clients ignore keys that they do not know.
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Any, Final

from ..record import dataclass

MAX_PACKET: Final = 32 << 10
# A client has one request under way. One that sends many without waiting is not read any further.
_MAX_WAITING: Final = 16


class RequestError(Exception):
    """A request that makes no sense, or that skopeo refused. Text and ``code`` go to the client unchanged."""

    def __init__(self, text: str, code: str = "other") -> None:
        super().__init__(text)
        self.code = code


class ClientGone(Exception):
    """The client has closed its end while something was done for it."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """``fds`` belong to the reply: sending it closes them, whether that succeeds or not."""

    value: Any = None
    pipe_id: int = 0
    error: str = ""
    error_code: str = ""
    fds: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def packet(self) -> bytes:
        """Raises RequestError for one that does not fit."""
        document = {
            "success": not self.error,
            "value": self.value,
            "pipeid": self.pipe_id,
            "error_code": self.error_code,
            "error": self.error,
            **self.extra,
        }
        raw = json.dumps(document, separators=(",", ":")).encode()
        if len(raw) > MAX_PACKET:
            raise RequestError(f"the reply would take {len(raw)} bytes, a packet has at most {MAX_PACKET}")
        return raw

    def close(self) -> None:
        """Give up the descriptors of a reply that is not sent."""
        for fd in self.fds:
            os.close(fd)


def failure(text: str, code: str = "other") -> Reply:
    """An error reply. From a text that does not fit a packet the middle is cut: clients look at the end."""
    reply = Reply(error=text or "unknown error", error_code=code)
    try:
        reply.packet()
    except RequestError:
        # A character takes twelve bytes at most.
        return Reply(error=f"{text[:1600]} … {text[-1000:]}", error_code=code)
    return reply


def parse_request(packet: bytes) -> Request:
    """Raises RequestError."""
    try:
        document = json.loads(packet)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"the request is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise RequestError("the request is not a JSON object")
    method, args = document.get("method"), document.get("args")
    if not isinstance(method, str):
        raise RequestError("the request names no method")
    if args is not None and not isinstance(args, list):
        raise RequestError("the request's args are not an array")
    return Request(method, tuple(args or ()))


class Channel:
    """The server's end of the socket. Belongs to one event loop; ``close`` it."""

    def __init__(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise RequestError("this is not a SOCK_SEQPACKET socket; the client has to give one")
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._packets: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._sendable = asyncio.Event()  # or never again
        self._gone = False
        self._scope: asyncio.Timeout | None = None
        self._reading = False
        self._read_on()

    def close(self) -> None:
        """Harmless when repeated."""
        self._stop_reading()
        self._sock.close()

    async def receive(self) -> bytes | None:
        """The next packet, longer than MAX_PACKET if it was too long; None when there will be no more."""
        while not self._packets:
            if self._gone:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        packet = self._packets.popleft()
        if not self._gone:
            self._read_on()
        return packet

    @asynccontextmanager
    async def unless_gone(self) -> AsyncIterator[None]:
        """For what is done on behalf of the client: once that is gone, the block is cancelled where it waits,
        and ClientGone is raised in its place. One block at a time.
        """
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scope = scope
                if self._gone:
                    scope.reschedule(self._loop.time())
                yield
        except TimeoutError:
            if scope.expired():
                raise ClientGone from None
            raise  # the block's own
        finally:
            self._scope = None

    async def send(self, reply: Reply) -> None:
        """Send ``reply`` and close its descriptors. A client that is gone is no error."""
        try:
            packet = reply.packet()
            rights = (
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", reply.fds))] if reply.fds else []
            )
            while not self._gone:
                try:
                    self._sock.sendmsg([packet], rights)
                    return
                except BlockingIOError:
                    await self._writable()
                except OSError as exc:
                    if exc.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                        raise
                    self._end()
        finally:
            reply.close()

    # --- the loop's side ---

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        try:
            # One byte more than may come tells a packet that was cut. Descriptors that a client sends
            # are discarded by the kernel.
            packet = self._sock.recv(MAX_PACKET + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._end()
            return
        self._packets.append(packet)
        self._arrived.set()
        if len(self._packets) >= _MAX_WAITING:
            self._stop_reading()

    def _end(self) -> None:
        if self._gone:
            return
        self._stop_reading()
        self._gone = True
        self._arrived.set()
        self._sendable.set()
        if self._scope is not None:
            self._scope.reschedule(self._loop.time())

    async def _writable(self) -> None:
        """Until the socket takes another packet, or the client is gone."""
        self._sendable.clear()
        self._loop.add_writer(self._sock, self._sendable.set)
        try:
            await self._sendable.wait()
        finally:
            self._loop.remove_writer(self._sock)
