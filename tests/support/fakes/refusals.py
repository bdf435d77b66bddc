"""Answers that send the client away: error statuses, challenges, redirects of every kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.fakes.exchange import Exchange

if TYPE_CHECKING:
    from tests.support.fakes.fault_server import FaultServer


@dataclass(frozen=True, slots=True)
class Status:
    """A status with any headers and body."""

    code: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    async def respond(self, exchange: Exchange) -> None:
        """Send it."""
        plan = exchange.plain(self.code, self.body)
        for name, value in self.headers:
            plan.set(name, value)
        await exchange.send(plan)


def too_many(retry_after: str, code: int = 429) -> Status:
    """429 (or 503) with that Retry-After, in whatever form."""
    return Status(code, (("Retry-After", retry_after),), b"slow down\n")


RETRY_AFTER_FORMS = (
    "0",
    "1",
    "1.5",
    "-5",
    "3600",
    "99999999999999999999",
    "Fri, 31 Dec 1999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "soon",
    "",
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's own 401, as when a token has run out; with ``revoke`` all tokens so far become void."""

    revoke: bool = True

    async def respond(self, exchange: Exchange) -> None:
        """Ask for credentials again."""
        if self.revoke:
            exchange.server.revoke_tokens()
        await exchange.send(exchange.server.challenge(exchange))


# -- redirects ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redirect:
    """To ``location``, literally: another scheme, ``file:``, a metadata address, user info, anything."""

    location: str
    code: int = 307

    async def respond(self, exchange: Exchange) -> None:
        """Send the client there."""
        plan = exchange.plain(self.code)
        plan.set("Location", self.location)
        await exchange.send(plan)


@dataclass(frozen=True, slots=True)
class RedirectLoop:
    """To itself, for ever."""

    async def respond(self, exchange: Exchange) -> None:
        """Send the client here."""
        await Redirect(exchange.server.url + exchange.request.target).respond(exchange)


@dataclass(frozen=True, slots=True)
class RedirectChain:
    """``hops`` redirects within the same server, then the entity."""

    hops: int = 50

    async def respond(self, exchange: Exchange) -> None:
        """Send the client to the first hop."""
        if exchange.entity is None:
            await exchange.send(exchange.plan())
            return
        signed = exchange.server.sign(exchange.entity)
        # this redirect is one hop, and /hop/n makes n + 1 more
        first = f"/hop/{self.hops - 2}{signed}" if self.hops > 1 else signed
        await Redirect(exchange.server.url + first).respond(exchange)


@dataclass(frozen=True, slots=True)
class Presigned:
    """To a signed URL of ``to`` (None: this server) that ends after ``uses`` requests or ``seconds``.

    Afterwards it answers with the status ``expired``. To a request that brings an Authorization header as
    well it answers 400, as S3 does.
    """

    to: FaultServer | None = field(default=None, hash=False, compare=False)
    uses: int | None = None
    seconds: float | None = None
    expired: int = 403
    relative: bool = False

    async def respond(self, exchange: Exchange) -> None:
        """Sign and send the client there."""
        if exchange.entity is None:
            await exchange.send(exchange.plan())
            return
        target = self.to or exchange.server
        signed = target.sign(exchange.entity, uses=self.uses, seconds=self.seconds, expired=self.expired)
        await Redirect(signed if self.relative else target.url + signed).respond(exchange)
