"""Requests to one registry for one repository, wherever its redirects lead.

Rules of this file: redirects are followed here, hop by hop, with headers made anew for each, so that a
credential cannot travel; once a request has left the registry's origin it carries none of its, even back, and
at another registry it is a stranger's. A redirect that has expired is asked for once more. Nothing is cached
but tokens, and where the registry redirected a blob to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urlsplit

from ..config.logins import Credentials
from ..errors import (
    DocumentError,
    LayerteeError,
    NotInRegistry,
    RedirectRefused,
    RegistryBlocked,
    RegistryError,
    Timeout,
    TransportError,
    Unauthorized,
)
from .auth import Authorizer
from .origins import MAX_HOPS, Origin, redirect_target
from .statuses import (
    MAX_ERROR_BODY,
    is_page,
    is_page_type,
    is_plainly_absent,
    page_instead,
    server_says,
    status_error,
    unpacked,
)
from .tars import HOLDS

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..image.reference import Reference
    from .http import Body, Response, TLSPolicy, Transport, WholeResponse

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A presigned URL that is used up: S3 says 400 or 403, others 401, 404 or 410. Not about our login.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# What a private repository may say to strangers, rather than that it is there.
_HIDDEN = frozenset({403, 404})


ResponseT = TypeVar("ResponseT", bound="Response")


@dataclass(slots=True)
class _Walk:
    """One request on its way through redirects."""

    url: str
    hops: int = 0
    left: bool = False  # it has been at another origin
    renewed: bool = False
    guest: str | None = None  # Authorization at the origin that it has been redirected to
    guested: bool = False


class Exchange:
    """GET and HEAD requests below ``/v2/<repository>/`` of ``reference``.

    ``allow_http``: the user has waived verification of this registry. Only then is a peer that does
    not speak TLS spoken to over http, and the scheme that worked is kept. ``namespace`` goes along as ``ns``:
    distribution-spec, registry proxying.
    """

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        credentials: Credentials,
        *,
        tls: TLSPolicy,
        allow_http: bool,
        namespace: str = "",
        is_blocked: Callable[[str], bool] = lambda host: False,
    ) -> None:
        self._transport = transport
        self._reference = reference
        self._credentials = credentials
        self._tls = dataclasses.replace(tls, verify=False) if allow_http else tls
        self._allow_http = allow_http
        self._is_blocked = is_blocked
        self._query = urlencode({"ns": namespace}) if namespace else ""
        self._connecting = asyncio.Lock()
        self._origin: Origin | None = None
        self._auth: Authorizer | None = None
        self._targets: dict[Digest, str] = {}
        self._guests: dict[str, Authorizer] = {}  # anonymous, by the origin and repository of a target
        self._offered = False

    @property
    def origin(self) -> Origin | None:
        """The registry's, once it has been spoken to."""
        return self._origin

    async def fetch(self, path: str, headers: Mapping[str, str], *, limit: int, what: str) -> WholeResponse:
        """The whole answer to ``GET path``; its status is 200. ``what`` begins error messages.

        A ``path`` that begins with a slash is one of the registry's host, and not below the repository.
        Raises RegistryError and its subclasses for any other status, TransportError and its subclasses,
        DocumentError for a body above ``limit`` bytes, AuthConfigError.
        """
        room = max(limit, MAX_ERROR_BODY)

        async def send(url: str, fresh: dict[str, str]) -> WholeResponse:
            return await self._transport.fetch(
                "GET", url, headers=fresh, limit=room, tls=self._tls, near=self._near(url)
            )

        response, walk = await self._request(path, headers, send, _nothing, None)
        encoding, kind = response.field("Content-Encoding"), response.field("Content-Type")
        if response.status != 200:
            with suppress(DocumentError):
                response.body = unpacked(response.body, encoding, MAX_ERROR_BODY)
            raise self._error(what, response, walk, response.body)
        try:
            response.body = unpacked(response.body, encoding, room)
        except DocumentError as exc:
            raise DocumentError(f"{what}: {exc}") from exc
        if is_page(response.body, kind):
            raise page_instead(what, walk.url, kind)
        return response

    async def head(self, path: str, *, what: str) -> WholeResponse:
        """The answer to ``HEAD path`` below the repository; its status is 200 or 404. Raises as ``fetch``."""

        async def send(url: str, fresh: dict[str, str]) -> WholeResponse:
            return await self._transport.fetch(
                "HEAD", url, headers=fresh, limit=MAX_ERROR_BODY, tls=self._tls, near=self._near(url)
            )

        response, walk = await self._request(path, {}, send, _nothing, None)
        if response.status not in (200, 404):
            raise self._error(what, response, walk, response.body)
        return response

    async def check_login(self) -> bool:
        """Whether ``/v2/`` was answered to the login; False where it is answered to strangers.

        Raises Unauthorized for a login that the registry, or its token service, does not take or is not told,
        RegistryError where there is no registry, and as ``fetch``.
        """
        host = self._reference.api_host
        asked = {"Accept": "application/json"}
        try:
            await self.fetch("/v2/", asked, limit=MAX_ERROR_BODY, what=f"the registry {host}")
        except NotInRegistry as exc:
            message = (
                f"there is no registry API at {host}: it answers 404 for /v2/; is that the registry's name?"
            )
            raise RegistryError(message, status=404, url=exc.url) from exc
        assert self._auth is not None
        return self._auth.was_let_in()

    async def ping(self) -> WholeResponse:
        """The answer to ``GET /v2/`` of a stranger: 200, or 401. Redirects are followed.

        Raises RegistryError and its subclasses for any other status, TransportError and its subclasses,
        DocumentError.
        """
        home, _ = await self._connect()
        url = self._api_root(home)
        for _ in range(MAX_HOPS + 1):
            answer = await self._transport.fetch(
                "GET",
                url,
                headers={"Accept-Encoding": "identity"},
                limit=MAX_ERROR_BODY,
                tls=self._tls_of(Origin.of(url)),
                near=self._near(url),
            )
            location = answer.field("Location")
            if answer.status not in _REDIRECTS or location is None:
                break
            url = redirect_target(url, location, home)
            self._not_blocked(Origin.of(url))
        else:
            raise RedirectRefused(f"{home}: more than {MAX_HOPS} redirects")
        if answer.status not in (200, 401):
            wait, date = answer.field("Retry-After"), answer.field("Date")
            what = f"the registry {self._reference.api_host}"
            raise status_error(answer.status, url, what, wait=wait, date=date)
        return answer

    async def open(
        self, path: str, headers: Mapping[str, str], *, blob: Digest, size: int, what: str
    ) -> Body:
        """The head of the answer to ``GET path``; its status is 200 or 206. The caller closes it.

        A page in place of a blob of ``size`` bytes is an error.

        Where the registry redirects ``blob`` to is remembered, and asked directly next time. Raises what
        ``fetch`` raises, and RangeMismatch for 416.
        """

        async def send(url: str, fresh: dict[str, str]) -> Body:
            return await self._transport.open(url, headers=fresh, tls=self._tls, near=self._near(url))

        body, walk = await self._request(path, headers, send, _drain, blob)
        if body.status in (200, 206):
            kind = body.field("Content-Type")
            if body.status == 200 and is_page_type(kind) and body.content_length != size:
                body.close()
                self._forget(blob, self._targets.get(blob))
                raise page_instead(what, walk.url, kind)
            return body
        try:
            says = await body.read(MAX_ERROR_BODY)
        except (TransportError, DocumentError):
            says = b""  # the status is what counts
        finally:
            body.close()
        raise self._error(what, body, walk, says)

    def _near(self, url: str) -> str | None:
        """The registry's host where it is the registry that leads to another, as Transport wants it."""
        home = Origin.of(f"https://{self._reference.api_host}/").host
        return None if Origin.of(url).host == home else home

    async def _request(
        self,
        path: str,
        headers: Mapping[str, str],
        send: Callable[[str, dict[str, str]], Awaitable[ResponseT]],
        discard: Callable[[ResponseT], Awaitable[None]],
        blob: Digest | None,
    ) -> tuple[ResponseT, _Walk]:
        """Send a request; once more from the registry if where it led has expired."""
        origin, auth = await self._connect()
        below = "" if path.startswith("/") else f"/v2/{self._reference.repository}/"
        start = f"{origin.scheme}://{self._reference.api_host}{below}{path}"
        if self._query:
            start += f"{'&' if '?' in path else '?'}{self._query}"
        known = self._targets.get(blob) if blob is not None else None
        walk = _Walk(known, left=True) if known is not None else _Walk(start)
        for again in (True, False):
            try:
                answer = await _follow(
                    walk, headers, send, discard, origin, auth, self._guest, self._not_blocked
                )
                if answer.status in _HIDDEN and not walk.left and await self._offer_login(auth):
                    await discard(answer)
                    walk = _Walk(start)
                    answer = await _follow(
                        walk, headers, send, discard, origin, auth, self._guest, self._not_blocked
                    )
            except TransportError:
                self._forget(blob, known)
                raise
            if not (walk.left and answer.status in _EXPIRED):
                break
            self._forget(blob, known)
            if again:
                await discard(answer)
                walk = _Walk(start)
        if blob is not None and walk.left and answer.status in (200, 206):
            self._targets[blob] = walk.url
        return answer, walk

    async def _offer_login(self, auth: Authorizer) -> bool:
        """After "not found" for a stranger: log in, if there is a login and the registry has a way to.

        Some registries answer so rather than say that there is something to see, and name their token service
        at ``/v2/`` only. Tried once.
        """
        if self._offered or not await auth.has_unused_login():
            return False
        self._offered = True
        assert self._origin is not None
        url = self._api_root(self._origin)
        headers = {"Accept-Encoding": "identity"}
        answer = await self._transport.fetch("GET", url, headers=headers, limit=MAX_ERROR_BODY, tls=self._tls)
        challenges = answer.fields("WWW-Authenticate")
        if answer.status != 401 or not challenges:
            return False
        await auth.refused(challenges, None, own_scope=True)
        return True

    async def _guest(self, url: str, challenges: Iterable[str]) -> str:
        """What to send where a redirect has led to, which wants a token: one for anybody, of its own service.

        Raises Unauthorized, and what a token request raises.
        """
        origin = Origin.of(url)
        found = re.fullmatch(r"/v2/(.+)/(?:manifests|blobs)/[^/]+", urlsplit(url).path)
        repository = found[1] if found else self._reference.repository
        key = f"{origin}/{repository}"
        guest = self._guests.get(key)
        if guest is None:
            guest = self._guests[key] = Authorizer(
                self._transport,
                Credentials.no_credentials(),
                registry=str(origin),
                repository=repository,
                origin=origin,
                tls=self._tls_of(origin),
                allow_http=origin.scheme == "http",  # it was followed there from http
                check=self._not_blocked,
            )
        return await guest.refused(challenges, None)

    def _not_blocked(self, origin: Origin) -> None:
        """Raise RegistryBlocked for a host that the administrator does not want asked, whoever names it."""
        if any(map(self._is_blocked, origin.names)):
            raise RegistryBlocked(
                f"{self._reference.api_host} leads to {origin}, which the administrator has blocked"
            )

    def _tls_of(self, origin: Origin) -> TLSPolicy:
        """The user may have waived verification of the registry, but of no other host."""
        own = self._origin is not None and origin.host == self._origin.host
        return self._tls if own else dataclasses.replace(self._tls, verify=True)

    def _forget(self, blob: Digest | None, target: str | None) -> None:
        if blob is not None and target is not None and self._targets.get(blob) == target:
            del self._targets[blob]

    def _api_root(self, origin: Origin) -> str:
        """``/v2/``, where a registry says what it wants and what it can do."""
        query = f"?{self._query}" if self._query else ""
        return f"{origin.scheme}://{self._reference.api_host}/v2/{query}"

    def _error(self, what: str, answer: Response, walk: _Walk, body: bytes) -> LayerteeError:
        """The error for a final answer. Only the registry's own words are repeated."""
        if answer.through:
            what = f"{what} (through the proxy {answer.through}, whose answer it may be)"
        wait, date = answer.field("Retry-After"), answer.field("Date")
        if walk.left:
            error = status_error(answer.status, walk.url, what, wait=wait, date=date)
            if isinstance(error, Unauthorized):  # a used-up URL or a wrong clock, not a login
                message = f"{error}; the registry redirected there, twice"
                return RegistryError(message, status=error.status, url=error.url)
            return error
        says = server_says(body)
        if self._auth is not None:
            says = self._auth.scrub(says)
        if answer.status == 404:
            kind = "blob" if "/blobs/" in walk.url else "manifest"
            message = f"{what} is not at {self._reference.api_host}: {says or f'{kind} unknown'}"
            plain, holds = is_plainly_absent(body), answer.field(HOLDS)
            return NotInRegistry(message, url=walk.url, is_plain=plain, diff_id=holds)
        error = status_error(answer.status, walk.url, what, says=says, wait=wait, date=date)
        if isinstance(error, Unauthorized) and self._auth is not None:
            return self._auth.explain(error)
        return error

    async def _connect(self) -> tuple[Origin, Authorizer]:
        """The registry's origin, found out once, and who authorizes there."""
        async with self._connecting:
            if self._origin is None or self._auth is None:
                scheme = await self._probe() if self._allow_http else "https"
                self._origin = Origin.of(f"{scheme}://{self._reference.api_host}/")
                self._auth = Authorizer(
                    self._transport,
                    self._credentials,
                    registry=self._reference.registry,
                    repository=self._reference.repository,
                    origin=self._origin,
                    tls=self._tls,
                    allow_http=self._allow_http,
                    check=self._not_blocked,
                )
            return self._origin, self._auth

    async def _probe(self) -> str:
        """``https`` if the peer speaks TLS, ``http`` if it does not. Only where the user allowed it."""
        url = f"https://{self._reference.api_host}/v2/"
        headers = {"Accept-Encoding": "identity"}
        try:
            await self._transport.fetch("GET", url, headers=headers, limit=MAX_ERROR_BODY, tls=self._tls)
        except Timeout:
            raise
        except TransportError:
            return "http"
        except DocumentError:
            return "https"  # it spoke TLS, and too much
        return "https"


async def _follow(
    walk: _Walk,
    extra: Mapping[str, str],
    send: Callable[[str, dict[str, str]], Awaitable[ResponseT]],
    discard: Callable[[ResponseT], Awaitable[None]],
    registry: Origin,
    auth: Authorizer,
    guest: Callable[[str, Iterable[str]], Awaitable[str]],
    check: Callable[[Origin], None],
) -> ResponseT:
    """The first answer that is neither a redirect nor, at the registry, the first 401."""
    while True:
        walk.left = walk.left or Origin.of(walk.url) != registry
        sent = walk.guest if walk.left else await auth.authorization()
        fresh = {"Accept-Encoding": "identity", **extra}
        if sent is not None:
            fresh["Authorization"] = sent
        answer = await send(walk.url, fresh)
        location = answer.field("Location")
        if answer.status in _REDIRECTS and location is not None:
            await discard(answer)
            walk.hops += 1
            if walk.hops > MAX_HOPS:
                raise RedirectRefused(f"{registry}: more than {MAX_HOPS} redirects")
            before = Origin.of(walk.url)
            walk.url = redirect_target(walk.url, location, registry)
            if Origin.of(walk.url) != before:
                walk.guest = None
                check(Origin.of(walk.url))
        elif answer.status == 401 and not walk.left and not walk.renewed:
            await discard(answer)
            walk.renewed = True
            await auth.refused(answer.fields("WWW-Authenticate"), sent)
        elif answer.status == 401 and walk.left and not walk.guested and _is_registry(answer):
            await discard(answer)
            walk.guested = True
            walk.guest = await guest(walk.url, answer.fields("WWW-Authenticate"))
        else:
            return answer


def _is_registry(answer: Response) -> bool:
    """Whether a redirect has led to another registry, which wants a token of anybody."""
    challenges = answer.fields("WWW-Authenticate")
    return any(challenge.lower().startswith("bearer ") and "realm=" in challenge for challenge in challenges)


async def _nothing(answer: Response) -> None:
    """A whole response holds no connection."""


async def _drain(body: Body) -> None:
    """Give the connection back: a short body is read, so that the next request can use it."""
    length = body.field("Content-Length")
    try:
        if length is not None and re.fullmatch(r"[0-9]{1,5}", length):
            await body.read(MAX_ERROR_BODY)
    except (TransportError, DocumentError):
        pass  # of no interest
    finally:
        body.close()
