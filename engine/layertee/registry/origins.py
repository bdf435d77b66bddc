"""Which host may be talked to, and which may be told a secret. Pure rules, no I/O.

A registry decides where a client goes next, twice: by redirects, and by the token
service it names. Both were used to reach metadata services and to collect
credentials (CVE-2026-48978, CVE-2020-15157, CVE-2022-27774). The rules:

- an origin is scheme, host and port; a credential belongs to one origin;
- never from https to http, never user info in a URL, never a scheme but these two;
- addresses that only mean something inside this machine or its cloud are refused,
  unless the registry itself is there.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..errors import RedirectRefused, redact_url
from ..image import hub
from ..record import dataclass

MAX_HOPS = 5
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # urlsplit has taken the brackets off
_MAX_URL = 16 << 10
_ASCII = bytes(range(128)).decode("ascii")

_LOCAL = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
# An IPv4 address in the last four bytes: NAT64 (RFC 6052, RFC 8215), IPv4-compatible and IPv4-translated
# addresses (RFC 4291 §2.5.5.1, RFC 2765 §2.1).
_EMBEDDED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))
# Instance metadata outside the link-local range, by provider: AWS (IPv6), Alibaba, Oracle, Azure, Google.
_METADATA = frozenset(
    {
        *("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        "metadata.google.internal",
    }
)

# Token services that registries name on another host, each with its registries, as their vendors run them.
# A name alone proves nothing: most registries that anybody can rent are one of many under one domain, and
# so are most hosts, so being a parent, a child or a sibling of the registry's host is no reason.
_NAMED: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(service), re.compile(registries))
    for service, registries in (
        (re.escape(hub.TOKEN_HOST), "|".join(map(re.escape, sorted(hub.API_HOSTS)))),
        (r"gitlab\.com", r"registry\.gitlab\.com"),
        (r"api\.digitalocean\.com", r"registry\.digitalocean\.com"),
        (r"docker-auth\.elastic\.co", r"docker\.elastic\.co"),
        (
            r"dockerauth(\.[a-z0-9-]+)?\.aliyuncs\.com",
            r"registry\.[a-z0-9-]+\.aliyuncs\.com|[a-z0-9.-]+\.cr\.aliyuncs\.com",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host in lower case, port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an http(s) URL. Raises ValueError when it has none."""
        return _origin(urlsplit(url))

    @property
    def names(self) -> tuple[str, ...]:
        """As a registry there may be called: with its port, and without where that is the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        named = f"{host}:{self.port}"
        return (host, named) if self.port == _PORTS[self.scheme] else (named,)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


class Reach(enum.Enum):
    """Where a host name or address literal leads, as far as that shows."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"


def reach(host: str) -> Reach:
    """Classify ``host`` (no port, no brackets). Names that do not show where they lead are PUBLIC."""
    name = host.lower().rstrip(".")
    if name in _METADATA:
        return Reach.LINK_LOCAL
    if name in _LOCAL or name.endswith((".localhost", ".localdomain")):
        return Reach.LOOPBACK
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(name)
    except ValueError:
        # 127.1, 0x7f000001, 2130706433: the C resolver takes these for addresses (inet_aton).
        last = name.rpartition(".")[2]
        return Reach.LINK_LOCAL if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last) else Reach.PUBLIC
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_loopback or address.is_unspecified:
            return Reach.LOOPBACK
        if any(address in network for network in _EMBEDDED):
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    if str(address) in _METADATA:
        return Reach.LINK_LOCAL
    if address.is_loopback or address.is_unspecified:
        return Reach.LOOPBACK
    if address.is_link_local or address.is_multicast:
        return Reach.LINK_LOCAL
    return Reach.PRIVATE if address.is_private else Reach.PUBLIC


def redirect_target(current: str, location: str, registry: Origin) -> str:
    """The absolute URL a redirect leads to. Raises RedirectRefused when it must not be followed.

    ``registry`` is the origin the request was for: only a loopback registry may point at loopback.
    """
    where = redact_url(current)
    if not location.isascii():  # signed file names, as bytes: RFC 3986 wants them quoted, few insist
        location = quote(location.encode("utf-8", "surrogateescape"), safe=_ASCII)
    if len(location) > _MAX_URL or not location.isascii() or not location.isprintable() or " " in location:
        raise RedirectRefused(f"{where} redirects to something that is not a URL")
    try:
        target = urljoin(current, location)
        parts = urlsplit(target)
        origin = _origin(parts)
    except ValueError as exc:
        raise RedirectRefused(f"{where} redirects to something that is not an http(s) URL") from exc
    if parts.username is not None or parts.password is not None:
        raise RedirectRefused(f"{where} redirects to a URL with a user name in it")
    if origin.scheme == "http" and Origin.of(current).scheme == "https":
        raise RedirectRefused(f"{where} redirects from https to http ({origin})")
    kind = reach(origin.host)
    if kind is Reach.LOOPBACK and reach(registry.host) is not Reach.LOOPBACK:
        raise RedirectRefused(f"{where} redirects into this machine ({origin})")
    if kind is Reach.LINK_LOCAL and origin.host != registry.host:
        raise RedirectRefused(f"{where} redirects to a link-local address ({origin})")
    return parts._replace(fragment="").geturl()


def peer_problem(address: str, home: Collection[str]) -> str | None:
    """Why a host that a registry names may not be at ``address``, or None.

    ``home``: where the registry is, addresses or its name. Only one in this machine names others in it.
    """
    kind = reach(address)
    if kind is Reach.LOOPBACK and not (home and all(reach(at) is Reach.LOOPBACK for at in home)):
        return "in this machine"
    if kind is Reach.LINK_LOCAL and address not in home:
        return "link-local, or of this machine's cloud"
    return None


def over_tls(realm: str, registry: Origin, trusted: frozenset[str]) -> str:
    """``realm``, over https where an https registry names its own service, or one that is trusted, over http.

    A registry behind a proxy that ends TLS does not know that it is behind one, and names itself by http.
    """
    try:
        origin = Origin.of(realm)
    except ValueError:
        return realm
    own = origin.host == registry.host or _is_named(origin, trusted)
    if origin.scheme != "http" or registry.scheme != "https" or not own:
        return realm
    parts = urlsplit(realm)
    netloc = parts.netloc.removesuffix(":80") if origin.port == _PORTS["http"] else parts.netloc
    return parts._replace(scheme="https", netloc=netloc).geturl()


def realm_problem(
    realm: str,
    registry: Origin,
    *,
    allow_http: bool,
    trusted: frozenset[str] = frozenset(),
    is_private: bool = False,
) -> str | None:
    """Why a token service may not be asked at all, or None. ``realm`` comes from the registry.

    ``is_private``: the registry is on an address of a private network. One that ``trusted`` names may be
    anywhere.
    """
    if len(realm) > _MAX_URL or not realm.isascii() or not realm.isprintable() or " " in realm:
        return "it is not a URL"
    try:
        parts = urlsplit(realm)
        origin = _origin(parts)
    except ValueError:
        return "it is not an http(s) URL"
    if parts.username is not None or parts.password is not None:
        return "it has a user name in it"
    if origin.scheme == "http" and not allow_http:
        return "it is not https"
    kind = reach(origin.host)
    if kind is Reach.PUBLIC or origin.host == registry.host or _is_named(origin, trusted):
        return None
    if kind is Reach.PRIVATE and (is_private or reach(registry.host) in (Reach.PRIVATE, Reach.LOOPBACK)):
        return None
    return f"it is a {kind.value} address, and the registry is not"


def may_know_secret(realm: str, registry: Origin, trusted: frozenset[str]) -> bool:
    """Whether the token service at ``realm`` may be sent the credentials meant for ``registry``.

    Yes for the registry's own origin; for another port of its host where both speak https, since the
    certificate is for the host; over https, for the services that vendors are known to run for their
    registries, and for those that ``trusted`` names as ``host`` or ``host:port``. A service that is named
    may be asked over http where the registry itself is.
    """
    service = Origin.of(realm)
    if service == registry:
        return True
    if service.scheme != "https" and registry.scheme != "http":
        return False
    if _is_named(service, trusted):
        return True
    if service.scheme != "https":
        return False
    if service.host == registry.host:
        return registry.scheme == "https"
    return any(
        services.fullmatch(service.host) and registries.fullmatch(registry.host)
        for services, registries in _NAMED
    )


def _is_named(service: Origin, trusted: frozenset[str]) -> bool:
    return service.host in trusted or f"{service.host}:{service.port}" in trusted


def _origin(parts: SplitResult) -> Origin:
    host = parts.hostname
    if parts.scheme not in _PORTS or not host or not _HOST.fullmatch(host):
        raise ValueError("not an http(s) URL")
    port = parts.port
    if port == 0:
        raise ValueError("port 0")
    return Origin(parts.scheme, host.lower(), port or _PORTS[parts.scheme])
