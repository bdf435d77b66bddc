"""How the fault server may misbehave: one small frozen dataclass per way, each answering one exchange.

Statuses and redirects are in :mod:`tests.fakes.refusals`, a ready-made instance of everything in
:mod:`tests.fakes.catalogue`.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
from dataclasses import dataclass, field
from typing import Protocol

from tests.support.fakes.exchange import Exchange, Plan

_BOUNDARY = "rig-boundary"


class Behaviour(Protocol):
    """Answers one exchange, well or badly."""

    async def respond(self, exchange: Exchange) -> None:
        """Write whatever the client shall see; ``exchange.keep_alive = False`` ends the connection after."""


# -- honest, in various legal ways -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ok:
    """What a good registry does, ranges included."""

    async def respond(self, exchange: Exchange) -> None:
        """Send the plan."""
        await exchange.send(exchange.plan())


@dataclass(frozen=True, slots=True)
class NoRanges:
    """200 and the whole entity, whatever range was asked for."""

    async def respond(self, exchange: Exchange) -> None:
        """Ignore Range."""
        await exchange.send(exchange.plan(ranges=False))


@dataclass(frozen=True, slots=True)
class Slow:
    """Honest at ``bytes_per_s``; 1 is a slow loris."""

    bytes_per_s: float

    async def respond(self, exchange: Exchange) -> None:
        """Send the plan, paced."""
        exchange.rate = self.bytes_per_s
        await exchange.send(exchange.plan())


@dataclass(frozen=True, slots=True)
class NoLength:
    """Neither Content-Length nor chunks: the end of the connection ends the body."""

    async def respond(self, exchange: Exchange) -> None:
        """As HTTP/1.0 did."""
        plan = exchange.plan()
        plan.drop("Content-Length")
        plan.set("Connection", "close")
        exchange.keep_alive = False
        await exchange.send(plan)


class Gate:
    """Holds exchanges back until a test opens it. Safe to use from the test's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._arrived = threading.Semaphore(0)

    def open(self) -> None:
        """Let everyone go on, now and later."""
        with self._lock:
            self._is_open = True
            for loop, event in self._waiting:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)
            self._waiting.clear()

    def wait_arrived(self, n: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until ``n`` more exchanges stand at the gate. Raises TimeoutError."""
        for _ in range(n):
            if not self._arrived.acquire(timeout=timeout_s):
                raise TimeoutError("nobody came to the gate")

    async def passage(self) -> None:
        """Wait at the gate (server side)."""
        event = asyncio.Event()
        with self._lock:
            if self._is_open:
                event.set()
            else:
                self._waiting.append((asyncio.get_running_loop(), event))
        self._arrived.release()
        await event.wait()


@dataclass(frozen=True, slots=True)
class Held:
    """Honest, but waits at ``gate`` after ``nbytes`` body bytes (None: before the head).

    With ``then_reset`` the connection is reset once the gate is open, instead of going on.
    """

    gate: Gate = field(hash=False, compare=False)
    nbytes: int | None = None
    then_reset: bool = False

    async def respond(self, exchange: Exchange) -> None:
        """Stop, wait, go on."""
        plan = exchange.plan()
        if self.nbytes is not None:
            await exchange.send_head(plan)
            await exchange.send_body(plan, limit=self.nbytes)
        await self.gate.passage()
        if self.then_reset:
            exchange.keep_alive = False
            await exchange.connection.reset()
        elif self.nbytes is None:
            await exchange.send(plan)
        else:
            await exchange.send_body(plan, skip=self.nbytes)


# -- ranges --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A 206 whose Content-Range is odd; ``kind`` is one of ``KINDS``. Honest where no range was asked for.

    ``unknown-total`` and ``short`` (fewer bytes than asked for, correctly labelled) are legal. ``shifted``
    labels and sends the bytes one further on, ``past-end`` sends more than asked for; the others have the
    right body.
    """

    kind: str
    KINDS = (
        "missing",
        "two",
        "shifted",
        "wrong-total",
        "unknown-total",
        "unit",
        "garbage",
        "past-end",
        "short",
    )

    async def respond(self, exchange: Exchange) -> None:
        """Spoil the header."""
        plan = exchange.plan()
        if plan.status == 206 and exchange.entity is not None:
            self._spoil(plan, exchange.entity.size)
        await exchange.send(plan)

    def _spoil(self, plan: Plan, size: int) -> None:
        unit, total = "bytes", str(size)
        match self.kind:
            case "missing":
                plan.drop("Content-Range")
                return
            case "two":
                plan.headers.append(("Content-Range", f"bytes 0-{plan.nbytes - 1}/{size}"))
                return
            case "garbage":
                plan.set("Content-Range", "bytes what-ever/you like")
                return
            case "shifted":
                plan.start, plan.stop = (
                    (plan.start + 1, plan.stop) if plan.nbytes > 1 else (plan.start - 1, plan.stop - 1)
                )
            case "past-end":
                plan.stop = min(plan.stop + 1000, size)
            case "short":
                plan.stop = plan.start + max(1, plan.nbytes // 2)
            case "wrong-total":
                total = str(size + 1)
            case "unknown-total":
                total = "*"
            case "unit":
                unit = "octets"
            case _:
                raise ValueError(f"{self.kind!r} is none of {self.KINDS}")
        plan.set("Content-Range", f"{unit} {plan.start}-{plan.stop - 1}/{total}")
        plan.set("Content-Length", str(plan.nbytes))


@dataclass(frozen=True, slots=True)
class MultipartByteranges:
    """A 206 in ``multipart/byteranges`` form with the one range asked for (or the whole)."""

    async def respond(self, exchange: Exchange) -> None:
        """Wrap the body."""
        plan = exchange.plan()
        size = exchange.entity.size if exchange.entity else 0
        head = f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n"
        head += f"Content-Range: bytes {plan.start}-{plan.stop - 1}/{size}\r\n\r\n"
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        plan.status = 206
        plan.drop("Content-Range")
        plan.set("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}")
        plan.set("Content-Length", str(len(head) + plan.nbytes + len(tail)))
        await exchange.send_head(plan)
        if exchange.request.method != "HEAD":
            await exchange.send_bytes(head.encode())
            await exchange.send_body(plan)
            await exchange.send_bytes(tail)


# -- the wrong bytes -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OtherBody:
    """Perfect headers, but the entity's bytes from offset ``at`` on are inverted; ``etag`` replaces ETag."""

    at: int = 0
    etag: str | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Send another blob under this one's name."""
        plan = exchange.plan()
        if self.etag is not None:
            plan.set("ETag", self.etag)
        await exchange.send_head(plan)
        if exchange.request.method == "HEAD" or exchange.entity is None:
            return
        position = plan.start
        for piece in exchange.entity.read(plan.start, plan.stop):
            good = max(0, min(len(piece), self.at - position))
            await exchange.send_bytes(piece[:good] + piece[good:].translate(_INVERTED))
            position += len(piece)


_INVERTED = bytes(255 - value for value in range(256))


@dataclass(frozen=True, slots=True)
class Replace:
    """Another document altogether: 200 with ``data``, the digest header still naming what was asked for."""

    data: bytes
    media_type: str | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Send ``data``."""
        plan = exchange.plan(ranges=False)
        plan.status, plan.body = 200, self.data
        plan.set("Content-Length", str(len(self.data)))
        if self.media_type is not None:
            plan.set("Content-Type", self.media_type)
        await exchange.send(plan)


@dataclass(frozen=True, slots=True)
class Header:
    """Honest, with one header set to ``value``, or removed if that is None."""

    name: str
    value: str | None

    async def respond(self, exchange: Exchange) -> None:
        """Send the plan with that header."""
        plan = exchange.plan()
        plan.drop(self.name)
        if self.value is not None:
            plan.set(self.name, self.value)
        await exchange.send(plan)


@dataclass(frozen=True, slots=True)
class ContentEncoding:
    """``Content-Encoding: <coding>`` as a meddling proxy sets it; ``really`` gzips the body as well."""

    coding: str = "gzip"
    really: bool = False

    async def respond(self, exchange: Exchange) -> None:
        """Encode, or pretend to."""
        plan = exchange.plan(ranges=not self.really)
        plan.set("Content-Encoding", self.coding)
        if self.really and exchange.entity is not None:
            plan.body = gzip.compress(b"".join(exchange.entity.read(plan.start, plan.stop)), 1, mtime=0)
            plan.set("Content-Length", str(len(plan.body)))
        await exchange.send(plan)


# -- the wrong number of bytes -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShortBody:
    """Promises everything, closes after ``nbytes`` body bytes."""

    nbytes: int

    async def respond(self, exchange: Exchange) -> None:
        """Stop early."""
        plan = exchange.plan()
        exchange.keep_alive = False
        await exchange.send_head(plan)
        await exchange.send_body(plan, limit=self.nbytes)


@dataclass(frozen=True, slots=True)
class LongBody:
    """``extra`` more bytes than the entity has; ``declared`` tells whether Content-Length counts them."""

    extra: int = 1000
    declared: bool = True

    async def respond(self, exchange: Exchange) -> None:
        """Add bytes."""
        plan = exchange.plan()
        if self.declared:
            plan.set("Content-Length", str(plan.nbytes + self.extra))
        await exchange.send(plan)
        if exchange.request.method != "HEAD":
            await exchange.send_bytes(b"X" * self.extra)


@dataclass(frozen=True, slots=True)
class ContentLength:
    """The right body under a Content-Length that is ``delta`` off, then the end of the connection."""

    delta: int

    async def respond(self, exchange: Exchange) -> None:
        """Lie about the length."""
        plan = exchange.plan()
        plan.set("Content-Length", str(max(0, plan.nbytes + self.delta)))
        exchange.keep_alive = False
        await exchange.send(plan)


@dataclass(frozen=True, slots=True)
class Chunked:
    """Chunked: whole, cut after ``stop_after`` bytes, malformed there, or with ``n_trailers`` at the end."""

    stop_after: int | None = None
    malformed: bool = False
    n_trailers: int = 0
    chunk: int = 10_000

    async def respond(self, exchange: Exchange) -> None:
        """Write chunk by chunk."""
        plan = exchange.plan()
        plan.drop("Content-Length")
        plan.set("Transfer-Encoding", "chunked")
        await exchange.send_head(plan)
        if exchange.request.method == "HEAD":
            return
        for start in range(0, plan.nbytes, self.chunk):
            if self.stop_after is not None and start >= self.stop_after:
                exchange.keep_alive = False
                if self.malformed:
                    await exchange.send_bytes(b"zz\r\nthis is no chunk\r\n")
                return
            length = min(self.chunk, plan.nbytes - start)
            await exchange.send_bytes(f"{length:x}\r\n".encode())
            await exchange.send_body(plan, skip=start, limit=length)
            await exchange.send_bytes(b"\r\n")
        trailers = "".join(f"X-Trailer-{index}: {index}\r\n" for index in range(self.n_trailers))
        await exchange.send_bytes(f"0\r\n{trailers}\r\n".encode())


# -- the connection ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stall:
    """Goes silent, with the connection open: before the head (None), or after ``nbytes`` body bytes."""

    nbytes: int | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Write some, then wait for the client to give up."""
        exchange.keep_alive = False
        if self.nbytes is not None:
            plan = exchange.plan()
            await exchange.send_head(plan)
            await exchange.send_body(plan, limit=self.nbytes)
        await exchange.connection.wait_for_client()


@dataclass(frozen=True, slots=True)
class Reset:
    """RST after ``nbytes`` body bytes, which have all reached the client's kernel; None: before the head."""

    nbytes: int | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Write some, then reset."""
        exchange.keep_alive = False
        if self.nbytes is not None:
            plan = exchange.plan()
            await exchange.send_head(plan)
            await exchange.send_body(plan, limit=self.nbytes)
        await exchange.connection.reset()


@dataclass(frozen=True, slots=True)
class TruncatedHead:
    """The first ``nbytes`` bytes of an honest head, then the end; 0 closes without a word."""

    nbytes: int = 30

    async def respond(self, exchange: Exchange) -> None:
        """Stop within the head."""
        exchange.keep_alive = False
        plan = exchange.plan()
        await exchange.send_raw_head(exchange.head(plan)[: self.nbytes], plan.status if self.nbytes else 0)


@dataclass(frozen=True, slots=True)
class HugeHeader:
    """An honest answer with one header of ``nbytes``."""

    nbytes: int = 10 << 20

    async def respond(self, exchange: Exchange) -> None:
        """Send it all."""
        plan = exchange.plan()
        plan.set("X-Padding", "x" * self.nbytes)
        await exchange.send(plan)


@dataclass(frozen=True, slots=True)
class Raw:
    """Exactly these bytes, then the end of the connection."""

    data: bytes

    async def respond(self, exchange: Exchange) -> None:
        """Write them."""
        exchange.keep_alive = False
        await exchange.send_raw_head(self.data, 0)
