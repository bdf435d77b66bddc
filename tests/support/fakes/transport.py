"""A transport that answers from a script and remembers what it was asked.

A route is a URL (its query counts only if the route has one) and a list of answers, used up in order,
the last one for good. An answer is an :class:`Answer`, an exception to raise, or a function of the
request that returns either.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from multidict import CIMultiDict, CIMultiDictProxy

from layertee.errors import ConnectFailed, DocumentError, LayerteeError
from layertee.registry.http import Body, Response, TLSPolicy, Transport, WholeResponse


@dataclass(frozen=True, slots=True)
class Answer:
    """A scripted response. ``headers`` may be pairs, to give a name twice."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] | tuple[tuple[str, str], ...] = ()

    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.headers.items()) if isinstance(self.headers, Mapping) else self.headers

    def fields(self) -> CIMultiDictProxy[str]:
        return CIMultiDictProxy(CIMultiDict(self.pairs()))


@dataclass(frozen=True, slots=True)
class Request:
    """What the code under test asked for."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    tls: TLSPolicy | None
    near: str | None = None

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")


Script: TypeAlias = Answer | LayerteeError | Callable[[Request], Answer | LayerteeError]


class FakeBody(Body):
    """A scripted response whose body can be read; it is not received anywhere."""

    def __init__(self, answer: Answer, url: str) -> None:
        Response.__init__(self, answer.status, url, answer.fields())
        self.closed = False
        self.content_length = len(answer.body)
        self._body = answer.body

    async def read(self, limit: int) -> bytes:
        if len(self._body) > limit:
            raise DocumentError(f"larger than {limit} bytes")
        return self._body

    def close(self) -> None:
        self.closed = True


class FakeTransport(Transport):
    """A Transport without a network. ``requests`` and ``bodies`` are what was asked for and opened."""

    def __init__(self) -> None:  # nothing of the real one's: there is no connection
        self.routes: dict[str, list[Script]] = {}
        self.requests: list[Request] = []
        self.bodies: list[FakeBody] = []

    async def close(self) -> None:
        """Nothing is open."""

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
        near: str | None = None,
    ) -> WholeResponse:
        answer = await self._answer(Request(method, url, dict(headers), body, tls, near))
        if len(answer.body) > limit:
            raise DocumentError(f"larger than {limit} bytes")
        return WholeResponse(answer.status, url, answer.fields(), answer.body)

    async def open(
        self, url: str, *, headers: Mapping[str, str], tls: TLSPolicy | None = None, near: str | None = None
    ) -> FakeBody:
        body = FakeBody(await self._answer(Request("GET", url, dict(headers), None, tls, near)), url)
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
