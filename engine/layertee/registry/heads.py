"""Heads of answers that others read and aiohttp does not: mended before its parser sees them.

Programs in Go, for which most registries are tested, take a Content-Length that is there twice with one value
(RFC 9110 §8.6), let Transfer-Encoding count where both are (RFC 9112 §6.3), and pass over fields that have a
space in their name. Nothing that is checked later is lost by that: how long a body is, and what it is, is
known from the digest that names it. Lengths that differ stay an error.
"""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

_LONGEST = 64 << 10
# What chunks may need beside the bytes that they carry: a chunk of one byte needs five. Else an extension or
# a length without end would be read for as long as it comes.
_FRAMING_FREE, _FRAMING_MOST = 1 << 20, 16
_MOST_INTERIM = 32  # answers 1xx before the one that counts; a server sends one or two
_BEGIN = b"HTTP/"
_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(
    rb"\r\ncontent-length:[ \t]*([0-9]+(?:[ \t]*,[ \t]*[0-9]+)*)[ \t]*(?=\r\n)", re.IGNORECASE
)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*(?=\r\n)", re.IGNORECASE)
# A line after the first that does not go on with the one before it.
_SPACED = re.compile(rb"\r\n(?![ \t])([^\r\n:]*[ \t][^\r\n:]*):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*(?=\r\n)")
_FRAMING = (b"content-length", b"transfer-encoding")
_INTERIM = re.compile(rb"\s*HTTP/1\.[0-9] 1(?!01)[0-9][0-9]\b")


def mended(head: bytes) -> bytes:
    """``head``, up to and with its empty line, with one length of the body; as it is if that is not clear.

    A connection on which the length was given in two ways is not used again.
    """
    if spaced := _SPACED.findall(head):
        if any(name.strip().lower() in _FRAMING for name in spaced):
            return head
        head = _SPACED.sub(b"", head)
    lengths = _LENGTH.findall(head)
    values = {value.strip() for found in lengths for value in found.split(b",")}
    if len(values) != 1:
        return head
    if _CHUNKED.search(head):
        return _LENGTH.sub(b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    if len(lengths) == 1 and b"," not in lengths[0]:
        return head
    rest = _LENGTH.sub(b"", head)
    return rest.replace(b"\r\n", b"\r\nContent-Length: " + values.pop() + b"\r\n", 1)


class _Handler(ResponseHandler):
    """aiohttp's protocol, which gets heads whole and mended, and all else as it comes.

    ``_waiting`` is what has come of a head; None: none is due. ``replaced`` is the protocol that the
    connection had before, which may hold what keeps it open.
    """

    _waiting: bytes | None = None
    _come = 0  # bytes after the head
    _before = 0  # interim answers, and bytes of empty lines, before the answer that is due
    replaced: ResponseHandler | None = None

    def set_response_params(self, **params: Any) -> None:
        """aiohttp calls this when it begins to read an answer."""
        self._waiting, self._before, self._come = b"", 0, 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or not data:
            super().data_received(data)
            self._come += len(data)
            carried = self._payload.total_bytes if self._payload is not None else self._come
            if self._come > _FRAMING_FREE + _FRAMING_MOST * carried:
                self._refuse("the body is next to nothing but framing")
            return
        come, self._waiting = self._waiting + data, b""
        data = self._begin(come)
        while end := _END.search(data):
            head = data[: end.end()]
            if end[0] != b"\r\n\r\n":  # lines end in another way here
                break
            if not _INTERIM.match(head):
                self._waiting = None
                better = mended(head)
                super().data_received(data if better is head else better + data[end.end() :])
                return
            super().data_received(head)
            self._before += _LONGEST // _MOST_INTERIM
            data = self._begin(data[end.end() :])
        if self._before > _LONGEST:
            self._refuse("too much before the answer")
        elif end or len(data) > _LONGEST or not _BEGIN.startswith(data.lstrip(b"\r\n")[: len(_BEGIN)]):
            self._let_go(data)
        else:
            self._waiting = data

    def _begin(self, data: bytes) -> bytes:
        """``data`` from the first line that is not empty; nothing, if enough has come without an answer."""
        begin = data.lstrip(b"\r\n")
        self._before += len(data) - len(begin)
        return begin if self._before <= _LONGEST else b""

    def _refuse(self, why: str) -> None:
        """Whoever waits for the answer hears ``why``, and the connection is closed."""
        self._waiting = None
        self.set_exception(HttpProcessingError(code=400, message=why))
        if self.transport is not None:
            self.transport.abort()

    def _let_go(self, data: bytes) -> None:
        """No head that could be mended: the parser says what it is."""
        self._waiting = None
        if data:
            super().data_received(data)

    def eof_received(self) -> None:
        self._let_go(self._waiting or b"")
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._let_go(self._waiting or b"")
        super().connection_lost(exc)


class Connector(aiohttp.TCPConnector):
    """aiohttp's, whose connections have the protocol of this file. There is no public way to say so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        handler: type[ResponseHandler] = _Handler
        self._factory = functools.partial(handler, loop=self._loop)


class Mending(aiohttp.TCPConnector):
    """To be put before a connector of another library that gives its connections a protocol of its own."""

    async def _wrap_create_connection(
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, other = await super()._wrap_create_connection(*args, **options)
        # Nothing has been sent, so nothing has come that ``other`` would have got.
        handler = _Handler(loop=self._loop)
        handler.replaced = other
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return transport, handler
