"""Answers below HTTP: heads and bodies as bytes, right or wrong, once or without end.

``Head`` sends the entity under any head. ``Endless`` repeats bytes until the client leaves, fast or slowly.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.support.fakes.exchange import Exchange

__all__ = ["Endless", "Head", "Within"]

_FLOOD = 64 << 10
_MOST = 1 << 30  # a client that takes so much has no bound, and its test fails for it


@dataclass(frozen=True, slots=True)
class Head:
    """The entity's right bytes, or those asked for, after ``text`` in place of a head.

    ``{size}``, ``{digest}``, ``{type}`` and ``{range}`` stand for what an honest head would say; line ends
    are written out. ``keep`` leaves the connection open for another request. ``before`` and ``after`` are
    sent around the body, or, without ``body``, in its place.
    """

    text: str
    keep: bool = False
    before: bytes = b""
    after: bytes = b""
    body: bool = True

    async def respond(self, exchange: Exchange) -> None:
        """Send the text, and the body."""
        plan = exchange.plan()
        exchange.keep_alive = self.keep
        fields = {key.lower(): value for key, value in plan.headers}
        text = self.text.replace("{size}", str(plan.nbytes))
        text = text.replace("{digest}", fields.get("docker-content-digest", ""))
        text = text.replace("{type}", fields.get("content-type", "text/plain"))
        text = text.replace("{range}", f"{plan.start}-{plan.stop - 1}/{plan.stop}")
        await exchange.send_raw_head(text.encode("latin-1"), plan.status)
        await exchange.send_bytes(self.before)
        if self.body:
            await exchange.send_body(plan)
        await exchange.send_bytes(self.after)


@dataclass(frozen=True, slots=True)
class Endless:
    """``begin``, then ``piece`` again and again until the client leaves: ``per_s`` times a second, or as fast
    as the client takes it.
    """

    begin: bytes
    piece: bytes
    per_s: float | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Write until a write fails."""
        exchange.keep_alive = False
        await exchange.send_raw_head(self.begin, 200)
        piece = self.piece if self.per_s is not None else self.piece * (1 + _FLOOD // len(self.piece))
        leaving = asyncio.ensure_future(exchange.connection.wait_for_client())
        try:
            while exchange.request.body_bytes < _MOST and not leaving.done():
                await exchange.send_bytes(piece)
                if self.per_s is not None:
                    await asyncio.wait([leaving], timeout=1 / self.per_s)
        finally:
            leaving.cancel()
            await asyncio.wait([leaving])
            if not leaving.cancelled():
                leaving.exception()  # the client's reset: it has left


@dataclass(frozen=True, slots=True)
class Within:
    """A redirect to ``path`` of this server, where nothing is; ``{host}`` in it stands for the server's."""

    path: str
    code: int = 307
    lines: str = ""

    async def respond(self, exchange: Exchange) -> None:
        """Send the client there."""
        location = self.path.replace("{host}", exchange.server.host)
        head = f"HTTP/1.1 {self.code} Moved\r\nLocation: {location}\r\n{self.lines}Content-Length: 0\r\n\r\n"
        await exchange.send_raw_head(head.encode("latin-1"), self.code)
