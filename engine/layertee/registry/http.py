"""HTTP exchanges. With failures.py, heads.py and peers.py the only module that knows aiohttp.

Rules of this file:

- One exchange per call. Redirects, retries and authentication belong to the registry; nothing
  here follows, repeats or adds a credential. No cookies, no netrc, no transparent decoding.
- A response *body* that is large never passes through aiohttp's stream reader, which costs more
  than hashing it. After the head, the connection's protocol is swapped for one that receives
  straight into the caller's buffers; when the body is complete, aiohttp's own protocol is put
  back and the connection returns to its pool.
- Foreign exceptions become ours in failures.py and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from ..aio import until_done
from ..errors import (
    DocumentError,
    LayerteeError,
    ProxyRefused,
    SizeMismatch,
    Timeout,
    redact_url,
)
from ..record import dataclass
from .body import BodyProtocol, Copier, Receiver, truncated
from .failures import by, mapped
from .peers import Connectors, MakeResolver
from .proxies import Proxies, Proxy
from .socks import socks_connector
from .statuses import is_page_type, page_instead
from .tls import tls_context

log = logging.getLogger(__name__)

CONNECT_S = 10.0
ANSWER_S = 60.0  # as FetchLimits.stall_s
MORE_PATIENCE = 4  # times ANSWER_S, at most, for an answer that did not come in time before
GOODBYE_S = 1.0
_MAX_HEADER = 64 << 10
_MAX_FIELDS = 512
_NAMES = 3  # times the time for a connection: a resolver that is down costs 5 s, or 10, before the next
# What comes more slowly is no line that anybody has: such a document would never be there.
_MIN_RATE = 8


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """How a registry's peer is authenticated. ``cert_dir``: ``*.crt`` CAs, ``*.cert``/``*.key`` pairs.

    A ``context`` stands for all of that.
    """

    verify: bool = True
    cert_dir: Path | None = None
    context: ssl.SSLContext | None = None


class Response:
    """The head of an answer: its status, its header fields, and the URL that was asked.

    ``through`` is the proxy that may have given it in the server's name, as ``host:port``, or "".
    """

    def __init__(self, status: int, url: str, headers: CIMultiDictProxy[str], *, through: str = "") -> None:
        self.status = status
        self.url = url
        self.through = through
        self._headers = headers

    def field(self, name: str, /) -> str | None:
        """The value of the first header field of that name."""
        return self._headers.get(name)

    def fields(self, name: str, /) -> list[str]:
        """The values of the header fields of that name, in order."""
        return self._headers.getall(name, [])


class WholeResponse(Response):
    """An exchange that is over, with its small ``body``."""

    def __init__(
        self, status: int, url: str, headers: CIMultiDictProxy[str], body: bytes, *, through: str = ""
    ) -> None:
        super().__init__(status, url, headers, through=through)
        self.body = body


class Body(Response):
    """A response whose body has not been read. Where it is small, it is to go on within ``answer_s``, always.

    Exactly one of :meth:`receive`, :meth:`read` and :meth:`close` ends it; :meth:`close` may
    always be called, and after the others does nothing.
    """

    def __init__(self, response: aiohttp.ClientResponse, answer_s: float, *, through: str = "") -> None:
        super().__init__(response.status, str(response.url), response.headers, through=through)
        self._response = response
        self._answer_s = answer_s
        self._flow: BodyProtocol | Copier | None = None
        self.chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        self.content_length = None if self.chunked else response.content_length

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises DocumentError if it has more than ``limit`` bytes, and TransportError."""
        with mapped(self.url):
            try:
                return await _read_limited(self._response, limit, self.url, self._answer_s)
            finally:
                _drop(self._response)

    async def receive(self, receiver: Receiver, nbytes: int, *, exact: bool = False) -> None:
        """Bring ``nbytes`` bytes of the body to ``receiver``.

        Returns when they have landed or :meth:`stop` was called. Raises TruncatedBody when the
        connection ends early, SizeMismatch when the body must be ``exact`` and goes on, what
        :meth:`abort` was given, and TransportError otherwise.
        """
        with mapped(self.url):
            try:
                if self.content_length is None or self.content_length < nbytes:
                    await self._receive_framed(receiver, nbytes, exact)
                else:
                    await self._receive_direct(receiver, nbytes)
            finally:
                self.pause()  # uvloop would read on after the close, and log that it cannot
                self._flow = None
                _drop(self._response)

    async def _receive_direct(self, receiver: Receiver, nbytes: int) -> None:
        response = self._response
        # What aiohttp has read beyond the head, its parser's own tail included: reading below the
        # low-water mark makes the parser go on. Nothing is awaited until the protocol is ours.
        parts = []
        while part := response.content.read_nowait():
            parts.append(part)
        early = b"".join(parts)
        connection = response.connection
        if connection is None or connection.transport is None or len(early) >= nbytes:
            self._flow = copier = Copier(receiver)
            await copier.copy(memoryview(early)[:nbytes])
            if len(early) < nbytes and not copier.stopped:
                raise truncated(self.url, len(early), nbytes)
            return
        transport, handler = connection.transport, connection.protocol
        assert handler is not None
        self._flow = body = BodyProtocol(receiver, nbytes, handler, transport, self.url)
        body.start(early)
        await body.done
        if body.complete and self.content_length == nbytes:
            transport.set_protocol(handler)
            transport.resume_reading()
            response.content.feed_eof()  # returns the connection to aiohttp's pool

    async def _receive_framed(self, receiver: Receiver, nbytes: int, exact: bool) -> None:
        """Bodies without a length, or shorter than wanted: through aiohttp's reader, copied."""
        self._flow = copier = Copier(receiver)
        _fail_when_closed(self._response)
        got = 0
        async for chunk in self._response.content.iter_any():
            if got + len(chunk) > nbytes and exact:
                raise SizeMismatch(
                    f"{redact_url(self.url)}: the server sends more than the {nbytes} bytes of the blob",
                    want=nbytes,
                    got=got + len(chunk),
                )
            part = memoryview(chunk)[: nbytes - got]
            got += len(part)
            await copier.copy(part)
            if (copier.stopped or got == nbytes) and not (exact and got == nbytes):
                return
        if got == nbytes:
            return
        raise truncated(self.url, got, nbytes)

    def pause(self) -> None:
        """Stop reading the socket: the peer is slowed down by TCP."""
        if self._flow is not None:
            self._flow.pause()

    def resume(self) -> None:
        """The receiver has a buffer again, or its reason to pause has passed."""
        if self._flow is not None:
            self._flow.resume()

    def stop(self) -> None:
        """The receiver has what it needs; the connection is closed, not reused."""
        if self._flow is not None:
            self._flow.finish(None)

    def abort(self, exc: LayerteeError) -> None:
        """Make :meth:`receive` raise ``exc``."""
        if self._flow is not None:
            self._flow.finish(exc)
            if isinstance(self._flow, Copier):
                self._response.content.set_exception(exc)  # wakes a reader that waits for the network

    def close(self) -> None:
        """Drop the connection if the body was not received."""
        _drop(self._response)


class Transport:
    """A pool of connections. One per engine; close it.

    A connection has ``connect_s`` seconds to come about, once its host is looked up. ``answer_s`` is how long
    nothing may be heard: before the head of an answer, and while a small body comes. An answer that was not
    there in time gets twice as long when it is asked for again, up to four times ``answer_s``: a cache that
    fetches first what it was asked for is given the time for it.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
        resolver: MakeResolver = aiohttp.DefaultResolver,
    ) -> None:
        self._user_agent = user_agent
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._late: dict[tuple[str, str], float] = {}  # seconds for what was late, by method and URL
        self._contexts: dict[TLSPolicy, ssl.SSLContext] = {}
        self._proxies = Proxies(os.environ)
        self._connectors = Connectors(resolver)
        self._sessions: dict[Proxy | frozenset[str] | None, aiohttp.ClientSession] = {}

    def _session(self, proxy: Proxy | None, near: str | None) -> aiohttp.ClientSession:
        """Connections of one kind, made when they are first needed: by SOCKS proxy; for hosts that a registry
        has named, by where that is; and all others.
        """
        key: Proxy | frozenset[str] | None = None
        if proxy is not None:
            key = proxy if proxy.is_socks else None
        elif near is not None:
            key = self._connectors.home(near)
        session = self._sessions.get(key)
        if session is None:
            if key is None:
                connector = self._connectors.anywhere()
            else:
                connector = socks_connector(key) if isinstance(key, Proxy) else self._connectors.near(key)
            # No limit there: who waits for a connection here would run into the time for an answer.
            # Bodies are counted where they are begun, by the fetcher.
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self._connect_s + (self._answer_s if isinstance(key, Proxy) else 0),
                    sock_read=None,
                ),
                trace_configs=[_tracing()],
                read_bufsize=64 << 10,
                max_line_size=_MAX_HEADER,
                max_field_size=_MAX_HEADER,
                max_headers=_MAX_FIELDS,
            )
        return session

    async def close(self) -> None:
        """Close all connections. A cancelled caller waits for that, too: the loop may end next."""
        closing = asyncio.ensure_future(self._close())
        await until_done(closing)
        closing.result()

    async def _close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._connectors.wait_closed(GOODBYE_S)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        limit: int,
        body: bytes | None = None,
        tls: TLSPolicy | None = None,
        near: str | None = None,
    ) -> WholeResponse:
        """One exchange, whatever its status.

        ``near`` is the host of the registry that has named this URL; None: the user has named its host, and
        it may be anywhere. A proxy may be anywhere, too.

        Raises DocumentError for a body above ``limit`` bytes, TransportError and its subclasses (Timeout,
        RedirectRefused, ProxyRefused, ConnectFailed, TLSFailed, TruncatedBody), AuthConfigError for a
        certificate directory, ProxyConfigError.
        """
        response, through = await self._head(method, url, headers, body, tls or TLSPolicy(), near)
        with mapped(url):
            try:
                data = await _read_limited(response, limit, url, self._answer_s)
            except BaseException:
                _drop(response)
                raise
            response.release()
        return WholeResponse(response.status, str(response.url), response.headers, data, through=through)

    async def open(
        self, url: str, *, headers: Mapping[str, str], tls: TLSPolicy | None = None, near: str | None = None
    ) -> Body:
        """GET ``url`` up to the end of the head, whatever the status. ``near`` as ``fetch`` has it.

        Raises TransportError and its subclasses, AuthConfigError for a certificate directory,
        ProxyConfigError.
        """
        response, through = await self._head("GET", url, headers, None, tls or TLSPolicy(), near)
        return Body(response, self._answer_s, through=through)

    async def _head(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        tls: TLSPolicy,
        near: str | None,
    ) -> tuple[aiohttp.ClientResponse, str]:
        """An answer, and the proxy that may have given it or ""."""
        asked = (method, redact_url(url))  # without the query: redirects are signed anew
        answer_s = self._late.get(asked, self._answer_s)
        with mapped(url):
            proxy = self._proxies.proxy_for(url)
        tunnel = url.startswith("https:")
        secure = tunnel or (proxy is not None and proxy.scheme == "https")
        fields = {"User-Agent": self._user_agent, **headers}
        proxy_fields: dict[str, str] = {}
        if proxy is not None and (login := proxy.basic) is not None:
            (proxy_fields if tunnel else fields)["Proxy-Authorization"] = f"Basic {login}"
        with mapped(url, proxy):
            # The session gives ``connect_s`` to TCP and TLS. Names take time before, a proxy after: it
            # connects on from there.
            bound_s = _NAMES * self._connect_s + (answer_s if proxy is not None else 0)
            wait = _Wait(bound_s, answer_s)
            try:
                async with wait.bound:
                    response = await self._session(proxy, near).request(
                        method,
                        URL(url, encoded=True),
                        headers=fields,
                        data=body,
                        allow_redirects=False,
                        ssl=self._context(tls) if secure else True,
                        proxy=None if proxy is None or proxy.is_socks else URL(proxy.url),
                        proxy_headers=proxy_fields if tunnel else None,
                        trace_request_ctx=wait,
                    )
            except TimeoutError as exc:
                if not wait.connected:
                    waited_s = bound_s if wait.bound.expired() else self._connect_s
                    raise Timeout(f"{asked[1]}: no connection within {waited_s:g} s{by(proxy)}") from exc
                self._late[asked] = min(2 * answer_s, MORE_PATIENCE * self._answer_s)
                raise Timeout(f"{asked[1]}: no answer within {answer_s:g} s{by(proxy)}") from exc
            self._late.pop(asked, None)
            if response.status == 407 and proxy is not None:  # RFC 9110 §15.5.8: no server says that
                _drop(response)
                raise ProxyRefused(f"{asked[1]}: its proxy {proxy} wants a login: HTTP 407")
        log.debug("%s %s %s: %d", method, asked[1], headers.get("Range", "whole"), response.status)
        return response, "" if tunnel or proxy is None or proxy.is_socks else str(proxy)

    def _context(self, tls: TLSPolicy) -> ssl.SSLContext:
        context = tls.context or self._contexts.get(tls)
        if context is None:
            context = self._contexts[tls] = tls_context(verify=tls.verify, cert_dir=tls.cert_dir)
        return context


class _Wait:
    """For a connection first, then anew for the head of an answer. ``bound`` ends it with TimeoutError."""

    def __init__(self, connect_s: float, answer_s: float) -> None:
        self.bound = asyncio.timeout(connect_s)
        self.connected = False
        self._answer_s = answer_s

    def on_connection(self) -> None:
        """There is one, new or used again: the request is sent now."""
        self.connected = True
        self.bound.reschedule(asyncio.get_running_loop().time() + self._answer_s)


def _tracing() -> aiohttp.TraceConfig:
    """Tells the _Wait of a request, which is its ``trace_request_ctx``, when it has a connection."""

    async def has_connection(_session: object, context: SimpleNamespace, _facts: object) -> None:
        wait: _Wait = context.trace_request_ctx
        wait.on_connection()

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(has_connection)
    tracing.on_connection_reuseconn.append(has_connection)
    return tracing


async def _read_limited(response: aiohttp.ClientResponse, limit: int, url: str, answer_s: float) -> bytes:
    """All of a small body, however long that takes, as long as it goes on.

    Of an answer that is not 200, whose status is what counts, what fits and comes within ``answer_s``.
    Raises TimeoutError, DocumentError for more than ``limit`` bytes, WebPage.
    """
    parts: list[bytes] = []
    if response.status != 200:
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(answer_s):
                await _collect(response, parts, limit)
        return b"".join(parts)[:limit]
    got, counted = 0, 0
    now = asyncio.get_running_loop().time
    _fail_when_closed(response)
    async with asyncio.timeout(answer_s) as patience:
        async for chunk in response.content.iter_any():
            got += len(chunk)
            parts.append(chunk)
            if got > limit and is_page_type(kind := response.headers.get("Content-Type")):
                raise page_instead("a document", url, kind)
            if got > limit:
                raise DocumentError(f"{redact_url(url)}: the answer is larger than {limit} bytes")
            if got - counted >= _MIN_RATE * answer_s:
                counted = got
                patience.reschedule(now() + answer_s)
    return b"".join(parts)


async def _collect(response: aiohttp.ClientResponse, parts: list[bytes], limit: int) -> None:
    """Add the body to ``parts``, until there are more than ``limit`` bytes."""
    _fail_when_closed(response)
    got = 0
    async for chunk in response.content.iter_any():
        got += len(chunk)
        parts.append(chunk)
        if got > limit:
            return


def _drop(response: aiohttp.ClientResponse) -> None:
    """Give up the connection, at once; does nothing once it is back in aiohttp's pool.

    A graceful close under TLS waits for the peer, and nobody would wait for it.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _fail_when_closed(response: aiohttp.ClientResponse) -> None:
    """Make the reader of a body hear that its connection is gone.

    aiohttp (up to 3.14 at least) closes the connection when chunks turn out malformed after the
    head was handed over, and leaves the reader waiting.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection is not None else None
    closed = protocol.closed if protocol is not None else None  # a protocol has a length, often 0

    def end(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))

    if closed is None:
        end(None)
        return

    def forget() -> None:
        closed.remove_done_callback(end)

    closed.add_done_callback(end)
    content.on_eof(forget)  # a connection may be kept for thousands of answers
    closed.remove_done_callback(_hear)
    closed.add_done_callback(_hear)


def _hear(closed: asyncio.Future[None]) -> None:
    """Take notice of why a connection is gone, which asyncio would log otherwise."""
    if not closed.cancelled():
        closed.exception()
