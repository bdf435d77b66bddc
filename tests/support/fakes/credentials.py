"""Who may have what: basic authentication, the bearer token flow, and URLs that carry their own signature.

Everything handed out contains the word ``planted``, so that a test can search logs, files and other servers'
records for it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.support.fakes.exchange import Entity, Exchange, Plan

__all__ = ["SIGNATURE", "BasicAuth", "BearerAuth", "Gatekeeper", "Grant"]

SIGNATURE = "X-Amz-Signature=planted-signature-of-a-presigned-url"


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """Every API request must bring these."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class BearerAuth:
    """The token flow. Without ``user``, anyone gets a token.

    A token is good for ``uses`` requests and ``lifetime_s`` seconds (None: for ever) within the scope it was
    issued for. ``fields`` are merged into the token document, or removed from it where the value is None: so
    ``expires_in`` and ``issued_at`` become odd. ``realm`` and ``challenge`` replace what the 401 says.
    """

    user: str | None = None
    password: str = ""
    service: str = "rig.example"
    uses: int | None = None
    lifetime_s: float | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    realm: str | None = None
    challenge: str | None = None


@dataclass(slots=True)
class Grant:
    """A token or a signed URL that has been handed out."""

    uses: int | None
    until: float | None
    scopes: tuple[str, ...] = ()
    entity: Entity | None = None
    expired: int = 401

    def use(self) -> bool:
        """Count one use; False when there is none left."""
        if self.until is not None and time.monotonic() >= self.until:
            return False
        if self.uses is not None:
            self.uses -= 1
            return self.uses >= 0
        return True


class Gatekeeper:
    """The tokens of one server, and the checks against them."""

    def __init__(self, auth: BasicAuth | BearerAuth | None) -> None:
        self.auth = auth
        self.tokens: dict[str, Grant] = {}
        self._n_issued = 0

    def check(self, exchange: Exchange) -> Plan | None:
        """None if the request may go on, else the answer that refuses it."""
        sent = exchange.request.authorization
        match self.auth:
            case None:
                return None
            case BasicAuth(user, password):
                return None if sent == _basic(user, password) else self.challenge(exchange)
        scheme, _, token = (sent or "").partition(" ")
        grant = self.tokens.get(token) if scheme.lower() == "bearer" else None
        if grant is None:
            return self.challenge(exchange, "invalid_token" if sent else "")
        repository = exchange.request.repository
        if repository and not any(_grants_pull(scope, repository) for scope in grant.scopes):
            return self.challenge(exchange, "insufficient_scope")
        return None if grant.use() else self.challenge(exchange, "invalid_token")

    def challenge(self, exchange: Exchange, error: str = "") -> Plan:
        """The 401 of this server."""
        plan = exchange.plain(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', "application/json")
        if not isinstance(self.auth, BearerAuth):
            plan.set("WWW-Authenticate", 'Basic realm="rig"')
            return plan
        realm = self.auth.realm or f"{exchange.server.url}/token"
        text = f'Bearer realm="{realm}",service="{self.auth.service}"'
        if exchange.request.repository:
            text += f',scope="repository:{exchange.request.repository}:pull"'
        if error:
            text += f',error="{error}"'
        plan.set("WWW-Authenticate", self.auth.challenge or text)
        return plan

    def token(self, exchange: Exchange) -> Plan:
        """The token endpoint: GET with basic credentials (distribution's way), POST with a form (OAuth2)."""
        bearer = self.auth
        if not isinstance(bearer, BearerAuth):
            return exchange.plan()
        form = parse_qs(exchange.request.query) | parse_qs(exchange.request.body.decode())
        if bearer.user is not None:
            by_form = (form.get("username"), form.get("password")) == ([bearer.user], [bearer.password])
            by_header = exchange.request.authorization == _basic(bearer.user, bearer.password)
            if not by_form and not by_header:
                return exchange.plain(401, b'{"details":"wrong credentials"}', "application/json")
        self._n_issued += 1
        token = f"planted-token-{self._n_issued}-of-{exchange.server.host}"
        until = None if bearer.lifetime_s is None else time.monotonic() + bearer.lifetime_s
        scopes = tuple(word for scope in form.get("scope", []) for word in scope.split())
        self.tokens[token] = Grant(bearer.uses, until, scopes)
        document = {"token": token, "access_token": token, "expires_in": 300, **bearer.fields}
        document = {key: value for key, value in document.items() if value is not None}
        return exchange.plain(200, json.dumps(document).encode(), "application/json")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _grants_pull(scope: str, repository: str) -> bool:
    name, _, actions = scope.removeprefix("repository:").rpartition(":")
    return name == repository and "pull" in actions.split(",")
