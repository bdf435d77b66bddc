"""Which proxy a URL is asked through: the environment, read as Go's programs read it. No I/O.

podman, skopeo and bootc's helpers go by the rules of golang.org/x/net/http/httpproxy, and one environment
serves them and this program. The rules:

- ``https_proxy`` for https, ``http_proxy`` for http; small letters go before capitals, empty is not set;
- ``all_proxy`` is no variable of theirs;
- ``localhost`` and loopback addresses are never asked through a proxy;
- ``no_proxy`` is a list with commas: ``host`` (and all below it), ``.host`` and ``*.host`` (only what is
  below), addresses, networks in CIDR notation, each but the last with ``:port`` if need be; ``*`` is all;
- in a CGI program, where a client sets HTTP_PROXY by sending a header, http goes through none.

Stricter than they are: a value that is no URL of a proxy is an error that names the variable. They go
without a proxy then, past what the administrator wanted to be passed.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import field
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import ProxyConfigError
from ..record import dataclass

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")  # urlsplit has taken the brackets off

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its ``str`` is for messages: host and port, never a password."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")

    @property
    def url(self) -> str:
        """Without user and password."""
        return f"{self.scheme}://{self}"

    @property
    def basic(self) -> str | None:
        """The login as Basic credentials, or None: also for SOCKS, which has a way of its own."""
        if self.user is None or self.is_socks:
            return None
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Exempt:
    """One entry of no_proxy: a ``network``, an ``address``, or names that are ``host`` or end with it."""

    host: str = ""
    below_only: bool = False
    address: _Address | None = None
    network: _Network | None = None
    port: str = ""

    def fits(self, host: str, address: _Address | None, port: str) -> bool:
        if self.port not in ("", port):
            return False
        if address is None:
            if not self.host:
                return False
            return host.endswith(f".{self.host}") or (host == self.host and not self.below_only)
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return address == self.address


class Proxies:
    """The proxies of ``environ``, as it is now."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._values = {scheme: _first(environ, f"{scheme}_proxy") for scheme in ("http", "https")}
        entries = _first(environ, "no_proxy")[1].lower().split(",")
        stripped = [entry.strip() for entry in entries]
        self._all_exempt = "*" in stripped
        self._exempt = [] if self._all_exempt else [_exempt(entry) for entry in stripped if entry]
        self._is_cgi = bool(environ.get("REQUEST_METHOD"))

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy to ask for the http(s) URL ``url``, or None.

        Raises ProxyConfigError, which names the variable, where it would have to be used and can't be.
        """
        parts = urlsplit(url)
        name, value = self._values.get(parts.scheme, ("", ""))
        if not value or not parts.hostname:
            return None
        if parts.scheme == "http" and self._is_cgi:
            raise ProxyConfigError(
                f"{name} is not used where REQUEST_METHOD is set: the client of a CGI program may have set it"
            )
        if self._is_exempt(parts):
            return None
        return _parse(name, value)

    def _is_exempt(self, parts: SplitResult) -> bool:
        host = (parts.hostname or "").strip().lower()
        address = _address(host.partition("%")[0])
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        port = str(parts.port or _PORTS[parts.scheme])
        return self._all_exempt or any(entry.fits(host, address, port) for entry in self._exempt)


def _first(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable of that name in small letters or, if it is not set, in capitals; its name and value."""
    for variant in (name, name.upper()):
        if value := environ.get(variant, ""):
            return variant, value
    return name, ""


def _parse(name: str, value: str) -> Proxy:
    """The proxy that the variable ``name`` is about. The value may hold a password: it is never shown."""
    scheme, separator, _ = value.partition("://")
    scheme = scheme.lower() if separator else "http"
    if scheme not in _PORTS and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        known = ", ".join(f"{kind}://" for kind in _PORTS)
        raise ProxyConfigError(f"{name} names a proxy of the kind {scheme}://; known are {known}")
    wrong = ProxyConfigError(
        f"{name} is not the URL of a proxy, as http://host:port"
        " (in a user name or password, write @ as %40, and likewise / ? # :)"
    )
    try:
        parts = urlsplit(value if separator else f"http://{value}")
        port = parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    is_clean = value.isascii() and value.isprintable() and " " not in value
    if scheme not in _PORTS or not _HOST.fullmatch(host) or port == 0 or not is_clean:
        raise wrong
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise wrong
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(scheme, host, port or _PORTS[scheme], user, unquote(parts.password or ""))


# --- entries of no_proxy ------------------------------------------------------------------------------------


def _exempt(entry: str) -> _Exempt:
    network = _network(entry)
    if network is not None:
        return _Exempt(network=network)
    host, port = _split_port(entry)
    address = _address(host)
    if address is not None:
        return _Exempt(address=address, port=port)
    if host.startswith("*."):
        host = host[1:]
    below_only = host.startswith(".")
    host = host.removeprefix(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            host = ""
    return _Exempt(host=host, below_only=below_only, port=port)


def _split_port(entry: str) -> tuple[str, str]:
    """``host:port`` or ``[address]:port`` taken apart; what is neither is all host."""
    if match := re.fullmatch(r"\[([^\[\]]*)\]:([^\[\]:]*)", entry):
        return match[1], match[2]
    if match := re.fullmatch(r"([^\[\]:]*):([^\[\]:]*)", entry):
        return match[1], match[2]
    return entry, ""


def _address(text: str) -> _Address | None:
    """An address, the IPv4 one where IPv6 only wraps it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _network(text: str) -> _Network | None:
    """``address/bits``; netmasks are not known in no_proxy."""
    start, slash, bits = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,9}", bits) or "%" in start:
        return None
    try:
        network = ipaddress.ip_network(f"{start}/{int(bits)}", strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
