"""One connection, on aiohttp's server: heads come in, answers go out. What they say is decided elsewhere.

Rules of this file:

- aiohttp reads the requests and writes the heads. A body goes to the socket from here, so that at most one
  chunk of it is ever waiting in this process, and the client's progress can be seen.
- Without TLS it goes past aiohttp's transport (wire.py).
- Bodies of requests are not read: the connection ends after the answer.
- An answer that fails in its middle ends by cutting the connection, never like a good one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from ..errors import LayerteeError
from .access import Access
from .answers import Answer, Code, Refusal
from .app import App
from .connections import Connections
from .metrics import CUT, FAILED, HASHED, PLAIN, SENT, Metrics
from .outgoing import Outgoing
from .pacing import STALL_S, Throttle, Watch
from .requests import Asked, kind_of, parse
from .wire import Wire, read_piece

log = logging.getLogger(__name__)

LINE_MAX = FIELD_MAX = 4096  # bytes
FIELDS_MAX = 32
_MOMENT_S = 0.1  # until a request that has just come is being answered
_LINGER_S = 1.0  # for the body of a request to end
_UNSENT_MAX = 256 << 10  # bytes that the system takes beyond those that are on their way
_TLS_PIECE = 32 << 10  # of each of many clients, two or three are in memory; 64 KiB save 0.1 CPU-s per GB
# What makes an answer a good one: its end is read, then comes a last look at where it is from, then it is
# sent. It is more than a byte: who unpacks a layer may have all of the tar before the gzip stream ends, and
# hang up.
_REST = 32 << 10
_VERSIONS = (HttpVersion10, HttpVersion11)
_TLS_HELLO = b"\x16\x03"
_BYTES_ACKED = 120  # where struct tcp_info has them, since Linux 4.1
_FIELDS = (
    *("accept", "authorization", "if-none-match", "if-range"),
    *("layertee-diff-ids", "range"),
)


class Site:
    """What all connections share, and the handler of their requests."""

    def __init__(
        self,
        app: App,
        connections: Connections,
        metrics: Metrics,
        throttle: Throttle,
        access: Access | None = None,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self.app = app
        self.connections = connections
        self.metrics = metrics
        self.throttle = throttle
        self.access = access
        self._stall_s = stall_s
        self._watched: dict[Connection, Watch] = {}
        self._server = web.Server(self._handle, handler_cancellation=True)

    def new_connection(self, give_up: Callable[[], object]) -> Connection:
        """A protocol for a socket that was accepted. ``give_up`` ends it before it has a transport."""
        return Connection(self._server, self, give_up)

    def see_late_ones_off(self, now: float) -> None:
        """Hang up on clients that do not ask, or take an answer, in time. To be called every second."""
        late = self.connections.see_late_ones_off()
        for connection, watch in list(self._watched.items()):
            if watch.is_too_slow(now):
                log.info("%s takes its answer too slowly: cut", connection.peer)
                connection.hang_up()
                late += 1
        self.metrics.late(late)

    @asynccontextmanager
    async def _watching(self, connection: Connection) -> AsyncIterator[Watch]:
        self._watched[connection] = watch = Watch(connection.taken, stall_s=self._stall_s)
        try:
            yield watch
        finally:
            del self._watched[connection]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        self.connections.is_answered(connection)
        loop = asyncio.get_running_loop()
        started = loop.time()
        asked: Asked | None = None
        status = 0
        handed = connection.handed
        try:
            try:
                fields = _fields_of(request)
                if request.version not in _VERSIONS:
                    raise Refusal(505, Code.UNSUPPORTED, "HTTP/1.1 is spoken here, or HTTP/1.0")
                await self._let_in(fields, connection.peer)
                asked = parse(request.method, request.raw_path)
                answer = await self.app.answer(asked, fields, head_only=request.method == "HEAD")
            except Refusal as refusal:
                answer = refusal.answer()
            except LayerteeError as exc:
                log.error("%s %.200r: %s", request.method, request.raw_path, exc)
                answer = Refusal(500, Code.UNKNOWN, "this cannot be answered now").answer()
            status = answer.status
            return await self._send(request, connection, answer)
        finally:
            seconds = loop.time() - started
            self.metrics.answered(kind_of(asked), status, seconds)
            log.info(
                "%s %s %.300s %d %d %.3fs",
                *(connection.peer, request.method, request.raw_path, status),
                *(connection.handed - handed, seconds),
            )
            self.connections.rests(connection)
            if connection.has_ended:
                connection.close()

    async def _let_in(self, fields: Mapping[str, str], peer: str) -> None:
        if self.access is not None and not await self.access.allows(fields.get("authorization"), peer):
            raise Refusal(
                401,
                Code.UNAUTHORIZED,
                "a name and a password are needed",
                fields={"WWW-Authenticate": 'Basic realm="layertee", charset="UTF-8"'},
            )

    async def _send(
        self, request: web.BaseRequest, connection: Connection, answer: Answer
    ) -> web.StreamResponse:
        """Returns once the system has all of it, or the connection is cut."""
        response = web.StreamResponse(status=answer.status, headers=answer.fields)
        if answer.status != 304:
            response.content_length = answer.length
        if request.body_exists or request.version not in _VERSIONS:
            response.force_close()
        outgoing = answer.outgoing
        way = HASHED if outgoing is None or outgoing.file is None else PLAIN
        end = CUT
        try:
            writer = await response.prepare(request)
            assert writer is not None
            async with self._watching(connection) as watch:
                if outgoing is not None and connection.is_encrypted:
                    await self._send_encrypted(connection, watch, response, writer, answer, outgoing)
                elif outgoing is not None:
                    writer.send_headers()
                    with watch.waiting():
                        await writer.drain()
                    with self._wire(connection, watch) as wire:
                        await _send_plain(wire, answer, outgoing)
                elif request.method != "HEAD" and answer.body:
                    await self._write(connection, watch, response, writer, answer.body, is_document=True)
                with watch.waiting():
                    await response.write_eof()
                    await writer.drain()
            end = SENT
        except ConnectionError:
            pass  # the client is gone
        except (LayerteeError, OSError) as exc:
            end = FAILED
            log.error("an answer is cut in its middle: %s", exc)
            if answer.failed is not None and isinstance(exc, LayerteeError):
                await self.app.tell(answer.failed, exc)
        finally:
            if end != SENT:
                connection.hang_up()
            if outgoing is not None:
                self.metrics.blob(answer.place, way, end)
                await outgoing.close()
        return response

    def _wire(self, connection: Connection, watch: Watch) -> Wire:
        return Wire(
            connection.second_descriptor(),
            watch,
            self.throttle,
            sent=partial(self._count, connection),
            is_gone=lambda: connection.is_closing,
        )

    def _count(self, connection: Connection, nbytes: int) -> None:
        connection.handed += nbytes
        self.metrics.sent(nbytes)

    async def _send_encrypted(
        self,
        connection: Connection,
        watch: Watch,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        answer: Answer,
        outgoing: Outgoing,
    ) -> None:
        if outgoing.file is None:
            async for chunk in _checked(answer, outgoing):
                await self._write(connection, watch, response, writer, chunk)
            return
        # Not in chunks of the outgoing: of many clients, each would have one in memory.
        to = (connection, watch, response, writer)
        fd, at = outgoing.file.fileno(), outgoing.file.offset
        stop = at + answer.length
        while at < stop - _REST:
            piece = await read_piece(fd, at, min(_TLS_PIECE, stop - _REST - at))
            at += await self._write(*to, piece)
        rest = _end_of(fd, at, stop)
        outgoing.check()
        await self._write(*to, rest)

    async def _write(
        self,
        connection: Connection,
        watch: Watch,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        chunk: bytes | memoryview,
        *,
        is_document: bool = False,
    ) -> int:
        """All of ``chunk`` is with the system, or copied, when this returns; its length."""
        step = min(_TLS_PIECE, self.throttle.slice)
        with memoryview(chunk) as view:
            for at in range(0, len(view), step):
                with view[at : at + step] as piece:
                    await self.throttle.turn(len(piece), is_document=is_document)
                    with watch.waiting():
                        await response.write(piece)
                        await writer.drain()
                    self._count(connection, len(piece))
            return len(view)


async def _send_plain(wire: Wire, answer: Answer, outgoing: Outgoing) -> None:
    """Raises OSError if there are too few bytes."""
    if outgoing.file is None:
        async for chunk in _checked(answer, outgoing):
            await wire.send(chunk)
        return
    fd, start = outgoing.file.fileno(), outgoing.file.offset
    stop = start + answer.length
    at = max(stop - _REST, start)
    await wire.send_file(fd, start, at)
    rest = _end_of(fd, at, stop)
    outgoing.check()
    await wire.send(rest)


def _end_of(fd: int, at: int, stop: int) -> bytes:
    """Raises OSError."""
    rest = os.pread(fd, stop - at, at)
    if len(rest) < stop - at:
        raise OSError(f"a file ends after {at + len(rest)} bytes")
    return rest


async def _checked(answer: Answer, outgoing: Outgoing) -> AsyncIterator[memoryview]:
    """The chunks, with the end by itself, after a last look. Raises OSError if there are too few."""
    left = answer.length
    async for chunk in outgoing:
        left -= len(chunk)
        if left == 0:
            yield chunk[:-_REST]
            outgoing.check()
            chunk = chunk[-_REST:]
        yield chunk
    if left:
        raise OSError(f"{answer.place}: there are not as many bytes as there should be")


class Connection(web.RequestHandler):
    """aiohttp's protocol, which tells the bookkeeping what happens to it. ``handed``: bytes sent so far."""

    __slots__ = ("_give_up", "_site", "_tries_tls", "_wire", "handed", "has_ended", "is_in", "peer")

    def __init__(self, server: web.Server, site: Site, give_up: Callable[[], object]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=3600,  # ours is shorter, and costs no timer
            access_log=None,  # type: ignore[arg-type]  # none, as aiohttp's own runner says it
            max_line_size=LINE_MAX,
            max_field_size=FIELD_MAX,
            max_headers=FIELDS_MAX,
            lingering_time=_LINGER_S,
            auto_decompress=False,
        )
        self._site = site
        self._give_up = give_up
        self._wire: asyncio.Transport | None = None
        self.handed = 0
        self.is_in = False
        self.has_ended = False
        self._tries_tls = False
        self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast(asyncio.Transport, transport)
        # What drain waits for is then that all has gone. asyncio's TLS pauses at the mark, others above it.
        is_encrypted = wire.get_extra_info("ssl_object") is not None
        wire.set_write_buffer_limits(high=1 if is_encrypted else 0, low=0)
        self._wire = wire
        self.peer = peer_name(lambda: wire.get_extra_info("peername"))
        self.is_in = True
        self._keep_little_unsent()
        self._site.connections.came(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._site.connections.begins(self)
        self._tries_tls = data.startswith(_TLS_HELLO) and not self.is_encrypted
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more, and may still read what it has asked for."""
        self.has_ended = True
        if self.is_encrypted or self._site.connections.is_idle(self):
            return False  # TLS has no such half; or all is answered
        asyncio.get_running_loop().call_later(_MOMENT_S, self._end_unless_busy)
        return True

    def _end_unless_busy(self) -> None:
        if not self._site.connections.is_busy(self):
            self.hang_up()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._site.connections.left(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request, or has met a mistake in this program."""
        if status >= 500:
            log.error("a mistake in this program", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("something is sent already")
        text = "this is no request that can be understood" if status < 500 else "this cannot be answered now"
        answer = Refusal(status, Code.UNSUPPORTED if status < 500 else Code.UNKNOWN, text).answer()
        response = web.Response(status=answer.status, headers=answer.fields, body=answer.body)
        response.force_close()
        what = "tries TLS, which is not spoken here" if self._tries_tls else "sent what is no request"
        log.info("%s %s: %d", self.peer, what, status)
        self._site.metrics.answered(kind_of(None), status, 0.0)
        return response

    @property
    def is_encrypted(self) -> bool:
        return self._wire is not None and self._wire.get_extra_info("ssl_object") is not None

    @property
    def is_closing(self) -> bool:
        return self._wire is None or self._wire.is_closing()

    def taken(self) -> int:
        """Bytes that the client's machine has confirmed; of other sockets than TCP, those handed over."""
        sock = self._socket()
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                if len(info) >= _BYTES_ACKED + 8:
                    return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0])
        return self.handed

    def second_descriptor(self) -> socket.socket:
        """The same socket once more, for the caller to close. Raises ConnectionError where it is gone."""
        sock = self._socket()
        if sock is None:
            raise ConnectionResetError("the client is gone")
        try:
            return sock.dup()
        except OSError as exc:
            raise ConnectionResetError("the client is gone, or no more files can be opened") from exc

    def hang_up(self) -> None:
        """End the connection now, whatever is under way."""
        if self._wire is not None:
            self._wire.abort()
        else:
            self._give_up()

    def _keep_little_unsent(self) -> None:
        """Else the system keeps megabytes for each slow client, and knows no better what it has taken."""
        sock = self._socket()
        if sock is not None and sock.family != socket.AF_UNIX:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MAX)

    def _socket(self) -> socket.socket | None:
        wire = self._wire
        if wire is None or wire.is_closing():
            return None
        found: socket.socket | None = wire.get_extra_info("socket")  # asyncio's view of one, which is as good
        return found


def peer_name(ask: Callable[[], object]) -> str:
    """``ask`` gives the address of a socket's other end, or raises OSError: as the log has it."""
    try:
        name = ask()
    except OSError:
        return "?"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"


def _fields_of(request: web.BaseRequest) -> dict[str, str]:
    """The fields that anything depends on, by name in lower case; several of one name are a list."""
    return {name: ", ".join(found) for name in _FIELDS if (found := request.headers.getall(name, None))}
