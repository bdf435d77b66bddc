"""What can go wrong in an exchange, in our words: aiohttp's, asyncio's, TLS's and the socket's exceptions."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from ..errors import (
    ConnectFailed,
    LayerteeError,
    ProxyRefused,
    RedirectRefused,
    Timeout,
    TLSFailed,
    TransportError,
    TruncatedBody,
    redact_url,
)
from ..image.strictjson import printable
from .peers import PeerRefused
from .socks import socks_failure

if TYPE_CHECKING:
    from .proxies import Proxy


def by(proxy: Proxy | None) -> str:
    """What a message adds where there is a proxy between."""
    return "" if proxy is None else f", through the proxy {proxy}"


@contextmanager
def mapped(url: str, proxy: Proxy | None = None) -> Iterator[None]:
    """Translate foreign exceptions of an exchange with ``url``, asked through ``proxy``; they are chained.

    A TransportError knows what was asked, afterwards.
    """
    where = redact_url(url)
    host = urlsplit(where).netloc or where
    try:
        yield
    except LayerteeError as exc:
        _at(where, exc)
        raise
    except Exception as exc:
        if proxy is not None and (found := _of_proxy(exc, host, proxy)) is not None:
            raise _at(where, found) from exc
        found = _of_server(exc, where, host, by(proxy))
        if found is None:
            raise
        raise _at(where, found) from exc


def _at(url: str, error: LayerteeError) -> LayerteeError:
    if isinstance(error, TransportError) and not error.url:
        error.url = url
    return error


def _of_proxy(exc: Exception, host: str, proxy: Proxy) -> LayerteeError | None:
    """The error for a failure on the way to the proxy, or of the proxy itself; None for any other."""
    if proxy.is_socks:
        return socks_failure(exc, host, proxy)
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        said = f"HTTP {exc.status} {printable(exc.message.partition(chr(10))[0], 60)}".rstrip()
        if exc.status == 407:
            return ProxyRefused(f"{host}: its proxy {proxy} wants a login: {said}")
        if exc.status >= 500 or exc.status == 429:
            return ConnectFailed(f"{host}: its proxy {proxy} has no connection: {said}")
        return ProxyRefused(f"{host}: its proxy {proxy} refuses the connection: {said}")
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return ConnectFailed(f"{host}: its proxy {proxy}: {_os_reason(exc)}")
    if isinstance(exc, aiohttp.ClientConnectorError) and (exc.host, exc.port) == (proxy.host, proxy.port):
        if not isinstance(exc, aiohttp.ClientSSLError):
            return ConnectFailed(f"{host}: its proxy {proxy}: {_os_reason(exc)}")
        reason = getattr(exc, "certificate_error", exc.os_error)
        return TLSFailed(f"{host}: its proxy {proxy}: TLS failed: {reason}")
    return None


def _of_server(exc: Exception, where: str, host: str, way: str) -> LayerteeError | None:
    match exc:
        case TimeoutError():  # aiohttp's timeouts are subclasses
            return Timeout(f"{where}: the answer does not go on{way}")
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            reason = getattr(exc, "certificate_error", exc)
            untrusted = TLSFailed(f"{host}: the certificate cannot be trusted: {reason}{way}")
            return untrusted.with_hint("authorities")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            reason = getattr(exc, "os_error", exc)
            if getattr(reason, "reason", "") == "WRONG_VERSION_NUMBER":
                return TLSFailed(f"{host}: the server does not speak TLS{way}").with_hint("plain-http")
            return TLSFailed(f"{host}: TLS failed: {reason}{way}")
        case aiohttp.ClientConnectorError(os_error=PeerRefused() as refused):
            return RedirectRefused(f"{host} is not connected to: {refused}")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"{host}: {_os_reason(exc)}{way}")
        case aiohttp.ClientResponseError():
            # Its text has the whole URL, query and all, and below its first line what the server sent.
            reason = exc.message.partition("\n")[0].rstrip(": ")
            return TransportError(f"{where}: the answer is not HTTP: {reason}{way}")
        case aiohttp.ClientPayloadError():
            return TruncatedBody(f"{where}: the body ended early{way}", got=0, want=0)
        case aiohttp.InvalidURL() | ValueError():
            return TransportError(f"{where}: not a usable URL")
        case aiohttp.ServerDisconnectedError():
            return TransportError(f"{where}: the server closed the connection without an answer{way}")
        case aiohttp.ClientOSError(__cause__=ssl.SSLError() as cause):  # where TLS began within a tunnel
            return _of_server(cause, where, host, way)
        case aiohttp.ClientError() | OSError():
            return TransportError(f"{where}: {exc}{way}")
    return None


def _os_reason(exc: aiohttp.ClientConnectorError) -> str:
    error = exc.os_error
    known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return known or str(error) or "the connection was closed at once"
