"""Connections through a SOCKS proxy. The only module that knows aiohttp-socks, which few machines need.

It is an extra of this package ("socks"), so an environment that names such a proxy is answered in words
where the library is missing. Imported when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConnectFailed, LayerteeError, ProxyConfigError, ProxyRefused, Timeout
from .heads import Mending

if TYPE_CHECKING:
    from aiohttp_socks import ProxyConnector

    from .proxies import Proxy

_NOT_ALLOWED = 2  # RFC 1928 §6: connection not allowed by ruleset


def socks_connector(proxy: Proxy) -> ProxyConnector:
    """Connections through ``proxy``, which resolves the names: socks5 is as socks5h, as in Go's programs.

    Without a limit of their number. Raises ProxyConfigError where the library is missing.
    """
    try:
        from aiohttp_socks import ProxyConnector, ProxyType
    except ImportError as exc:
        what = "that takes the Python package aiohttp-socks: layertee[socks]"
        raise ProxyConfigError(f"the proxy {proxy.url} speaks SOCKS; {what}") from exc
    # A class statement would need the library when this module is imported.
    connector: type[ProxyConnector] = type("Connector", (Mending, ProxyConnector), {})
    return connector(
        host=proxy.host,
        port=proxy.port,
        proxy_type=ProxyType.SOCKS5,
        username=proxy.user,
        password=proxy.password,
        rdns=True,
        limit=0,
    )


def socks_failure(exc: BaseException, host: str, proxy: Proxy) -> LayerteeError | None:
    """What a failure on the way through ``proxy`` to ``host`` is, or None: it is none of the proxy's."""
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    if isinstance(exc, ProxyTimeoutError):
        return Timeout(f"{host}: no connection through the proxy {proxy} in time")
    if isinstance(exc, ProxyConnectionError):
        return ConnectFailed(f"{host}: its proxy {proxy} can't be connected to")
    if isinstance(exc, ProxyError):
        said = str(exc).partition("\n")[0]
        if exc.error_code == _NOT_ALLOWED or "authentication" in said:
            return ProxyRefused(f"{host}: its proxy {proxy} refuses the connection: {said}")
        return ConnectFailed(f"{host}: its proxy {proxy} has no connection: {said}")
    return None
