"""A transport that answers from a script and remembers what it was asked.

A route is a URL (its query counts only if the route has one) and a list of answers, used up in order,
the last one for good. An answer is an :class:`Answer`, an exception to raise, or a function of the
request that returns either.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from layertee.errors import ConnectFailed, DocumentError, LayerteeError
from layertee.registry.http import Response, TLSPolicy


class FakeHeaders:
    """Case-insensitive, several values for a name."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def get(self, key: str, /) -> str | None:
        return next((value for name, value in self._pairs if name == key.lower()), None)

    def getall(self, key: str, default: list[str], /) -> list[str]:
        return [value for name, value in self._pairs if name == key.lower()] or default


@dataclass(frozen=True, slots=True)
class Answer:
    """A scripted response. ``headers`` may be pairs, to give a name twice."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] | tuple[tuple[str, str], ...] = ()

    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.headers.items()) if isinstance(self.headers, Mapping) else self.headers


@dataclass(frozen=True, slots=True)
class Request:
    """What the code under test asked for."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    tls: TLSPolicy | None

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")


Script: TypeAlias = Answer | LayerteeError | Callable[[Request], Answer | LayerteeError]


class FakeBody:
    """The head of a scripted response."""

    def __init__(self, answer: Answer, url: str) -> None:
        self.status = answer.status
        self.headers = FakeHeaders(answer.pairs())
        self.url = url
        self.closed = False
        self._body = answer.body

    async def read(self, limit: int) -> bytes:
        if len(self._body) > limit:
            raise DocumentError(f"larger than {limit} bytes")
        return self._body

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeTransport:
    """Fulfils the part of Transport that auth and registry use."""

    routes: dict[str, list[Script]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    bodies: list[FakeBody] = field(default_factory=list)

    def on(self, url: str, *answers: Script) -> None:
        self.routes[url] = list(answers)

    def asked(self, prefix: str) -> list[Request]:
        return [request for request in self.requests if request.url.startswith(prefix)]

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        limit: int,
        body: bytes | None = None,
        tls: TLSPolicy | None = None,
    ) -> Response:
        answer = await self._answer(Request(method, url, dict(headers), body, tls))
        if len(answer.body) > limit:
            raise DocumentError(f"larger than {limit} bytes")
        return Response(answer.status, FakeHeaders(answer.pairs()), answer.body, url)

    async def open(self, url: str, *, headers: Mapping[str, str], tls: TLSPolicy | None = None) -> FakeBody:
        body = FakeBody(await self._answer(Request("GET", url, dict(headers), None, tls)), url)
        self.bodies.append(body)
        return body

    async def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(0)  # let other tasks send theirs
        script = self.routes.get(request.url) or self.routes.get(request.url.partition("?")[0])
        if not script:
            raise ConnectFailed(f"no route for {request.url.partition('?')[0]}")
        step = script.pop(0) if len(script) > 1 else script[0]
        if callable(step):
            step = step(request)
        if isinstance(step, LayerteeError):
            raise step
        return step


def json_answer(value: object, status: int = 200, **headers: str) -> Answer:
    """``value`` as a JSON body."""
    pairs = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **pairs})
