"""What goes into an Authorization field, and how it is obtained.

A registry answers 401 with challenges (RFC 9110 §11); the usual one names a token
service (distribution: docs/spec/auth/token.md). Rules of this file: a token service is
asked over https, is not followed to another origin, and is told the user's secret only
if it is the registry's own (origins.py); tokens are kept by (realm, service, scope), for
a time counted here from receipt; many requests refused at once cause one token request.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from ..errors import DocumentError, LayerteeError, NotInRegistry, RedirectRefused, RegistryError, Unauthorized
from ..image.strictjson import load_object, printable
from ..record import dataclass
from .origins import Origin, Reach, may_know_secret, over_tls, reach, realm_problem, redirect_target
from .statuses import is_page, page_instead, server_says, status_error, unpacked

if TYPE_CHECKING:
    from ..config.logins import Credentials, Login
    from .http import TLSPolicy, Transport, WholeResponse

_MAX_TOKEN_BODY = 1 << 20  # containers/image's limit
_MAX_TOKEN = 48 << 10  # a request head of 64 KiB has to hold it
_LIFETIME_MIN_S, _LIFETIME_MAX_S = 60.0, 24 * 3600.0
_CLIENT_ID = "layertee"
_MAX_HOPS = 4
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REPEATS = frozenset({307, 308})

_BEARER = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class _Key:
    realm: str
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires: float


class Authorizer:
    """The Authorization field for one repository at one registry origin.

    ``registry`` and ``repository`` are the names logins are kept under; the latter is empty where it is about
    the registry as a whole. ``check`` raises for an origin that
    may not be asked. Safe for many tasks of one loop.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        registry: str,
        repository: str,
        origin: Origin,
        tls: TLSPolicy,
        allow_http: bool = False,
        check: Callable[[Origin], None] = lambda origin: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._registry = registry
        self._repository = repository
        self._origin = origin
        self._tls = tls
        self._allow_http = allow_http
        self._check = check
        self._clock = clock
        self._lock = asyncio.Lock()
        self._tokens: dict[_Key, _Token] = {}
        self._key: _Key | None = None  # what the registry last asked for
        self._basic: str | None = None
        self._rounds = 0  # completed refreshes; a task that waited through one shares its outcome
        self._failure: LayerteeError | None = None
        self._login: Login | None = None
        self._looked_up = False
        self._withheld = ""  # the token service that was not told the login, for the error message

    async def authorization(self) -> str | None:
        """The field to send now, or None. A token that has expired is renewed first.

        Raises what the token request raises: Unauthorized and the rest of RegistryError, TransportError
        and its subclasses, DocumentError, AuthConfigError.
        """
        if self._key is None:
            return self._basic
        current = self._fresh(self._key)
        return current if current is not None else await self._renew(None, self._key)

    async def has_unused_login(self) -> bool:
        """Whether there is a login that no request has carried yet. Raises AuthConfigError."""
        return self._key is None and self._basic is None and await self._find_login() is not None

    def was_let_in(self) -> bool:
        """Whether the login was asked for, and taken. Raises Unauthorized where it was withheld."""
        if self._withheld:
            raise self.explain(Unauthorized(f"the login for {self._registry} was not tried", status=401))
        return self._key is not None or self._basic is not None

    async def refused(self, challenges: Iterable[str], sent: str | None, *, own_scope: bool = False) -> str:
        """The field to try after a 401 whose request carried ``sent``.

        ``own_scope``: the challenge was not about this repository, and its scope does not count.

        Raises Unauthorized when there is nothing (else) to try, and what ``authorization`` raises.
        """
        from .challenge import parse_challenges  # many registries want no login

        parsed = parse_challenges(challenges)
        bearer = next((c for c in parsed if c.scheme == "bearer" and c.params.get("realm")), None)
        if bearer is not None:
            scope = "" if own_scope or not self._repository else bearer.params.get("scope", "")
            if self._repository:
                scope = scope or f"repository:{self._repository}:pull"
            realm = over_tls(bearer.params["realm"], self._origin, self._credentials.trusted_realms)
            key = _Key(realm, bearer.params.get("service", ""), scope)
            return await self._renew(sent, key)
        if any(c.scheme == "basic" for c in parsed):
            return await self._use_basic(sent)
        raise Unauthorized(
            f"{self._registry} refuses access and names no way in that is known here", status=401
        )

    def explain(self, error: Unauthorized) -> Unauthorized:
        """``error``, with what is known here about its cause, and a hint."""
        if self._withheld:
            advice = f"credentials were not sent to {self._withheld}, which is not {self._registry}'s own"
            hint = "trusted-realms"
        elif self._looked_up and self._login is None:
            advice, hint = f"there is no login for {self._registry}", "logins"
        elif self._login is not None and self._login.source:
            advice, hint = f"the login that was sent is from {self._login.source}", ""
        else:
            return error
        return Unauthorized(f"{error}; {advice}", status=error.status, url=error.url).with_hint(hint)

    def scrub(self, text: str) -> str:
        """``text`` without the secrets held here: a server may send them back."""
        secrets = [token.value for token in self._tokens.values()]
        if self._login is not None:
            secrets += [self._login.password, self._login.identity_token, _basic(self._login)]
        for secret in filter(None, secrets):
            text = text.replace(secret, "…")
        return text

    def _fresh(self, key: _Key) -> str | None:
        token = self._tokens.get(key)
        if token is None or token.expires <= self._clock():
            return None
        return f"Bearer {token.value}"

    async def _use_basic(self, sent: str | None) -> str:
        login = await self._find_login()
        if login is None or login.identity_token:
            raise self.explain(Unauthorized(f"{self._registry} wants a user name and password", status=401))
        if self._origin.scheme != "https" and not self._allow_http:
            raise Unauthorized(f"{self._registry} wants a password over http; it is not sent", status=401)
        value = f"Basic {_basic(login)}"
        if value == sent:
            refused = f"{self._registry} does not accept the login it has been sent"
            raise self.explain(Unauthorized(refused, status=401))
        self._basic, self._key = value, None
        return value

    async def _renew(self, sent: str | None, key: _Key) -> str:
        """A token for ``key`` that is not ``sent``; one request at a time, its outcome shared."""
        rounds = self._rounds
        async with self._lock:
            current = self._fresh(key)
            waited = self._rounds != rounds
            if waited and self._failure is not None:
                raise self._failure
            if current is not None and (waited or current != sent):
                self._key = key
                return current
            try:
                token = await self._request_token(key)
            except LayerteeError as exc:
                self._failure = exc
                self._rounds += 1
                raise
            self._failure = None
            self._rounds += 1
            self._tokens[key] = token
            self._key = key
            return f"Bearer {token.value}"

    async def _request_token(self, key: _Key) -> _Token:
        trusted = self._credentials.trusted_realms
        problem = realm_problem(
            key.realm,
            self._origin,
            allow_http=self._allow_http,
            trusted=trusted,
            is_private=await self._is_private(key.realm),
        )
        shown = printable(key.realm.partition("?")[0].rpartition("@")[2], 100)
        if problem is not None:
            message = f"{self._registry} names the token service {shown}, which is not asked: {problem}"
            raise Unauthorized(message, status=401).with_hint("trusted-realms")
        service = Origin.of(key.realm)
        self._check(service)
        login = await self._find_login()
        if login is not None and not may_know_secret(key.realm, self._origin, trusted):
            self._withheld, login = service.host, None
        # The user may have waived verification of the registry, but of no other host.
        own = service.host == self._origin.host
        tls = self._tls if own else dataclasses.replace(self._tls, verify=True)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        query = {name: text for name, text in (("service", key.service), ("scope", key.scope)) if text}
        if login is not None and login.identity_token:
            form = {"grant_type": "refresh_token", **query, "client_id": _CLIENT_ID}
            body = urlencode({**form, "refresh_token": login.identity_token}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = await self._exchange("POST", key.realm, headers, body, tls)
        else:
            if login is not None:
                headers["Authorization"] = f"Basic {_basic(login)}"
                query["account"] = login.username
            url = _with_query(key.realm, query)
            response = await self._exchange("GET", url, headers, None, tls)
        received = self._clock()
        if response.status != 200:
            raise self._token_error(response, shown)
        kind = response.field("Content-Type")
        body = unpacked(response.body, response.field("Content-Encoding"), _MAX_TOKEN_BODY)
        if is_page(body, kind):
            raise page_instead(f"no token for {self._registry}", response.url, kind)
        return _read_token(body, received)

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, tls: TLSPolicy
    ) -> WholeResponse:
        """The answer of the token service, which may redirect within its own origin: for a slash, mostly."""
        service, named = Origin.of(url), self._credentials.trusted_realms
        by_user = service.host in named or f"{service.host}:{service.port}" in named
        near = None if by_user or service.host == self._origin.host else self._origin.host
        for _ in range(_MAX_HOPS):
            response = await self._transport.fetch(
                method, url, headers=headers, limit=_MAX_TOKEN_BODY, body=body, tls=tls, near=near
            )
            location = response.field("Location")
            # Others turn a POST into a GET (RFC 9110 §15.4).
            if location is None or response.status not in (_REDIRECTS if body is None else _REPEATS):
                break
            target = redirect_target(url, location, Origin.of(url))
            if Origin.of(target) != Origin.of(url):
                break
            url = target
        return response

    async def _is_private(self, realm: str) -> bool:
        """Whether the registry is on a private address; asked only where it matters for ``realm``."""
        try:
            if reach(Origin.of(realm).host) is not Reach.PRIVATE:
                return False
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self._origin.host, self._origin.port)
        except (OSError, ValueError):
            return False
        return all(reach(str(address[0])) in (Reach.PRIVATE, Reach.LOOPBACK) for *_, address in found)

    def _token_error(self, response: WholeResponse, shown: str) -> LayerteeError:
        if 300 <= response.status < 400:
            return RedirectRefused(f"the token service {shown} redirects elsewhere; that is not followed")
        what = f"no token for {self._registry}/{self._repository}"
        says = self.scrub(server_says(response.body))
        wait, date = response.field("Retry-After"), response.field("Date")
        error = status_error(response.status, response.url, what, says=says, wait=wait, date=date)
        if isinstance(error, NotInRegistry):  # of the service, not of the image
            return RegistryError(str(error), status=error.status, url=error.url)
        return self.explain(error) if isinstance(error, Unauthorized) else error

    async def _find_login(self) -> Login | None:
        if not self._looked_up:
            self._login = await self._credentials.lookup(self._registry, self._repository)
            self._looked_up = True
        return self._login


def _basic(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")


def _with_query(realm: str, query: Mapping[str, str]) -> str:
    parts = urlsplit(realm)
    joined = "&".join(filter(None, (parts.query, urlencode(query))))
    return parts._replace(query=joined, fragment="").geturl()


def _read_token(body: bytes, received: float) -> _Token:
    """The token of an answer. Its lifetime runs from receipt: server clocks are not believed."""
    answer = load_object(body, "token answer", limit=_MAX_TOKEN_BODY)
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or len(value) > _MAX_TOKEN or not _BEARER.fullmatch(value):
        raise DocumentError("token answer holds no usable token")
    lifetime = answer.get("expires_in")
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdecimal():
        lifetime = int(lifetime[:10])
    if not isinstance(lifetime, int | float) or isinstance(lifetime, bool):
        lifetime = _LIFETIME_MIN_S
    seconds = float(lifetime)
    return _Token(value, received + min(max(seconds, _LIFETIME_MIN_S), _LIFETIME_MAX_S))
