"""A registry on 127.0.0.1 that can misbehave in any way, on raw sockets, and that remembers all it was asked.

    with FaultServer(image, [on("blob", Reset(1000), last=2)]) as server:
        pull(server.reference)
        assert server.bytes_sent("blob") < ...

It runs its own event loop in its own thread, so that the code under test may block or run another loop. It
can send what no HTTP library would send; which is why it uses none.

A *script* is a list of rules; the first whose kind, reference, method and count fit the request answers it,
and everything else is answered honestly. ``kind`` is what :class:`RequestRecord` says. Credentials and
signatures are checked before that: a request refused for them meets no rule and is not counted by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.fakes.credentials import SIGNATURE, BasicAuth, BearerAuth, Gatekeeper, Grant
from tests.support.fakes.exchange import Connection, ConnectionRecord, Entity, Exchange, Plan, RequestRecord
from tests.support.fakes.faults import Behaviour, Ok
from tests.support.rig.certs import Certificates, Flaw, make_certificates
from tests.support.rig.images import OCI_INDEX, BuiltImage, BuiltIndex
from tests.support.rig.registry import RigError

__all__ = ["BasicAuth", "BearerAuth", "FaultServer", "Rule", "on"]

_V2 = re.compile(r"^/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<ref>[^/]+)$")
_SIGNED = re.compile(r"^/signed/(?P<ticket>\d+)/")
_MAX_HEAD = 1 << 20
_TLS_HANDSHAKE = b"\x16"
_HOP = re.compile(r"^/hop/(?P<left>\d+)(?P<rest>/.*)$")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests ``behaviour`` answers; ``first`` and ``last`` count the requests that fit, from 1."""

    kind: str
    behaviour: Behaviour
    reference: str | None = None
    method: str | None = None
    first: int = 1
    last: int | None = None

    def fits(self, request: RequestRecord) -> bool:
        """Whether the request is of the rule's kind, whatever its count."""
        return (
            self.kind == request.kind
            and self.reference in (None, request.reference)
            and self.method in (None, request.method)
        )


def on(
    kind: str,
    behaviour: Behaviour,
    *,
    reference: str | None = None,
    method: str | None = None,
    first: int = 1,
    last: int | None = None,
) -> Rule:
    """Answer requests ``first`` to ``last`` of ``kind`` with ``behaviour`` (``last=3``: a burst of three)."""
    return Rule(kind, behaviour, reference, method, first, last)


class FaultServer:
    """See the head of this file. ``images``: one image (as ``rig/image:latest``), or several by ``name:tag``.

    ``rate_per_connection`` caps each connection in bytes per second, as content delivery networks do;
    ``send_buffer`` fixes the kernel's send buffer, to keep the counts close to what the client has read.
    ``listener`` is a socket that listens already, which is closed at the end; None: a port of 127.0.0.1.
    """

    def __init__(
        self,
        images: BuiltImage | BuiltIndex | Mapping[str, BuiltImage | BuiltIndex] | None = None,
        script: Sequence[Rule] = (),
        *,
        auth: BasicAuth | BearerAuth | None = None,
        tls: bool | Flaw = False,
        rate_per_connection: float | None = None,
        send_buffer: int | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        if images is None:
            images = {}
        elif isinstance(images, BuiltImage | BuiltIndex):
            images = {"rig/image:latest": images}
        self._manifests: dict[tuple[str, str], Entity] = {}
        self._blobs: dict[tuple[str, str], Entity] = {}
        for name, image in images.items():
            repository, _, tag = name.partition(":")
            self.add(image, repository, tag or "latest")
        self._name = next(iter(images), "rig/image:latest")
        self._rules = list(script)
        self._counts = [0] * len(self._rules)
        self._keeper = Gatekeeper(auth)
        self._flaw = Flaw.NONE if tls is True else tls
        self._rate = rate_per_connection
        self._send_buffer = send_buffer
        self._listener = listener
        self._requests: list[RequestRecord] = []
        self._connections: list[ConnectionRecord] = []
        self._tickets: list[Grant] = []
        self._open_connections = self._active = 0
        self.max_connections = self.max_active = 0
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._certificates: Certificates | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.host = ""

    # -- lifetime ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._failure is not None and error is None:
            raise RigError("the fault server itself failed") from self._failure

    def start(self) -> None:
        """Listen on a free port and serve from a thread of its own."""
        if self._flaw:
            self._temporary = tempfile.TemporaryDirectory(prefix="layertee-faults-")
            self._certificates = make_certificates(Path(self._temporary.name), self._flaw)
        listener, self._listener = self._listener or socket.create_server(("127.0.0.1", 0), backlog=256), None
        # Else a body waits 40 ms for its head to be acknowledged: asyncio does not know this socket as TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.host = "{}:{}".format(*listener.getsockname())
        context = self._certificates.server_context() if self._certificates else None
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listener, context, ready), name=f"faults {self.host}"
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise RigError("the fault server did not start") from self._failure

    def stop(self) -> None:
        """Drop all connections and end the thread."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has failed before
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    # -- where it is, and changing it while it runs -------------------------------------------

    @property
    def url(self) -> str:
        """Scheme and host, without a path."""
        return f"{'https' if self._flaw else 'http'}://{self.host}"

    @property
    def reference(self) -> str:
        """``host/name:tag`` of the first image."""
        return f"{self.host}/{self._name}"

    @property
    def cert_dir(self) -> Path | None:
        """``certs.d/<host>`` with the ``ca.crt`` that a client should trust, or None without TLS."""
        return self._certificates.certs_d(self.host) if self._certificates else None

    def add(self, image: BuiltImage | BuiltIndex, repository: str, tag: str) -> None:
        """Serve ``image`` under that name; an existing tag moves to it."""
        if isinstance(image, BuiltIndex):
            for child in image.images:
                self._add_image(child, repository)
            self._add_manifest(image.raw, OCI_INDEX, repository, (tag, image.digest))
        else:
            self._add_image(image, repository)
            self._add_manifest(image.manifest, image.media_type, repository, (tag, image.digest))

    def put(
        self, manifest: bytes, media_type: str, repository: str, name: str, blobs: Mapping[str, bytes]
    ) -> None:
        """Serve ``manifest`` under ``name`` and its digest, and ``blobs`` by theirs: what no image is."""
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._add_manifest(manifest, media_type, repository, (name, digest))
        for blob, data in blobs.items():
            self.put_blob(repository, blob, data)

    def put_blob(self, repository: str, digest: str, data: bytes) -> None:
        """Serve ``data`` as a blob called ``digest``, whatever it hashes to."""
        self._blobs[repository, digest] = Entity(digest, "application/octet-stream", len(data), data=data)

    def script(self, rules: Iterable[Rule]) -> None:
        """Replace the rules; all counts start anew."""
        self._rules = list(rules)
        self._counts = [0] * len(self._rules)

    def revoke_tokens(self) -> None:
        """Make every token handed out so far void."""
        self._keeper.tokens.clear()

    def expire_tickets(self) -> None:
        """Make every signed URL handed out so far answer as expired."""
        for ticket in self._tickets:
            ticket.until = 0.0

    # -- what it has seen ------------------------------------------------------------------------

    def requests(self, kind: str | None = None, reference: str | None = None) -> list[RequestRecord]:
        """All requests so far, or those of one kind and reference, in order. Call :meth:`settle` before."""
        return [
            request
            for request in list(self._requests)
            if kind in (None, request.kind) and reference in (None, request.reference)
        ]

    def connections(self) -> list[ConnectionRecord]:
        """All connections so far."""
        return list(self._connections)

    def bytes_sent(self, kind: str | None = None, reference: str | None = None) -> int:
        """Body bytes sent in answer to those requests."""
        return sum(request.body_bytes for request in self.requests(kind, reference))

    @property
    def open_connections(self) -> int:
        """Now."""
        return self._open_connections

    def settle(self, timeout_s: float = 60.0) -> None:
        """Wait until no request is being answered. Raises TimeoutError; RigError if the server has failed."""
        self._wait(lambda: self._active == 0, timeout_s, "requests are still being answered")

    def wait_closed(self, timeout_s: float = 60.0) -> None:
        """Wait until the clients have closed all connections. Raises TimeoutError."""
        self._wait(lambda: self._open_connections == 0, timeout_s, "connections are still open")

    def forget(self) -> None:
        """Drop the records so far."""
        self._requests.clear()
        self._connections.clear()
        self.max_connections, self.max_active = self._open_connections, self._active

    # -- for behaviours ------------------------------------------------------------------------

    def sign(
        self,
        entity: Entity,
        *,
        uses: int | None = None,
        seconds: float | None = None,
        expired: int = 403,
    ) -> str:
        """A path with a query that serves ``entity`` without credentials, for a while."""
        until = None if seconds is None else time.monotonic() + seconds
        self._tickets.append(Grant(uses, until, (), entity, expired))
        return f"/signed/{len(self._tickets) - 1}/{entity.digest.replace(':', '-')}?{SIGNATURE}"

    def challenge(self, exchange: Exchange) -> Plan:
        """The 401 of this server."""
        return self._keeper.challenge(exchange)

    # -- inside: images --------------------------------------------------------------------------

    def _add_image(self, image: BuiltImage, repository: str) -> None:
        self._add_manifest(image.manifest, image.media_type, repository, (image.digest,))
        for digest in {image.config_digest, *image.layer_digests}:
            path = image.blob_path(digest)
            entity = Entity(digest, "application/octet-stream", path.stat().st_size, path=path)
            self._blobs[repository, digest] = entity

    def _add_manifest(self, raw: bytes, media_type: str, repository: str, names: tuple[str, ...]) -> None:
        entity = Entity(names[-1], media_type, len(raw), data=raw)
        self._manifests.update({(repository, name): entity for name in names})

    # -- inside: the loop ------------------------------------------------------------------------

    def _run(self, listener: socket.socket, context: ssl.SSLContext | None, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(listener, context, ready))
        except BaseExceptionGroup as group:
            self._failure = group
        finally:
            listener.close()
            ready.set()
            with self._idle:
                self._idle.notify_all()

    async def _main(
        self, listener: socket.socket, context: ssl.SSLContext | None, ready: threading.Event
    ) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        stop, tasks = self._stop, dict[asyncio.Task[None], asyncio.StreamWriter]()
        async with asyncio.TaskGroup() as group:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if stop.is_set():
                    writer.transport.abort()
                    return
                task = group.create_task(self._serve(reader, writer))
                tasks[task] = writer
                task.add_done_callback(tasks.pop)

            server = await asyncio.start_server(
                accept,
                sock=listener,
                ssl=context,
                limit=_MAX_HEAD,
                ssl_shutdown_timeout=1.0 if context else None,
            )
            try:
                ready.set()
                await stop.wait()
                # A server that is closed loses the connections that it has accepted and not yet announced.
                self._loop.remove_reader(listener)
                await _turns(5)
            finally:
                server.close()
                for task, writer in tuple(tasks.items()):
                    task.cancel()
                    writer.transport.abort()  # a task that never began closes nothing
        await _turns(5)  # aborted connections close their sockets

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = ConnectionRecord(len(self._connections) + 1, writer.get_extra_info("peername"))
        self._connections.append(record)
        self._count(connections=1)
        connection = Connection(reader, writer, record, self._rate)
        try:
            while (request := await self._read_request(connection)) is not None:
                self._count(active=1)
                try:
                    exchange = await self._answer(connection, request)
                finally:
                    request.finished = True
                    self._count(active=-1)
                if not exchange.keep_alive or (request.header("connection") or "").lower() == "close":
                    break
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away, or sent what is no request
        finally:
            writer.transport.abort()
            record.closed = True
            self._count(connections=-1)

    async def _read_request(self, connection: Connection) -> RequestRecord | None:
        begin = await connection.reader.read(1)
        if begin == _TLS_HANDSHAKE:  # https to a plain server: say so at once, as Go's does
            await connection.write(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is a plain HTTP server\n")
            return None
        try:
            head = begin + await connection.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = (*first.split(" "), "", "")[:3]
        pairs = (line.partition(":") for line in lines)
        headers = tuple((name.strip(), value.strip()) for name, _, value in pairs)
        kind, repository, reference = _classify(target.partition("?")[0])
        connection.record.n_requests += 1
        request = RequestRecord(
            number=len(self._requests) + 1,
            connection=connection.record.number,
            method=method,
            target=target,
            headers=headers,
            kind=kind,
            repository=repository,
            reference=reference,
        )
        length = int(request.header("content-length") or 0)
        request.body = await connection.reader.readexactly(length) if length else b""
        self._requests.append(request)
        return request

    async def _answer(self, connection: Connection, request: RequestRecord) -> Exchange:
        exchange = Exchange(self, connection, request, self._entity(request))
        refusal = None
        if request.kind == "signed":
            refusal = self._check_ticket(exchange)
        elif request.kind in ("ping", "manifest", "blob"):
            refusal = self._keeper.check(exchange)
        if refusal is not None:
            request.behaviour = "refused"
            await exchange.send(refusal)
        elif (behaviour := self._choose(request)) is not None:
            request.behaviour = repr(behaviour)
            if request.kind == "token":
                exchange.entity = self._token_entity(exchange)
            await behaviour.respond(exchange)
        else:
            await self._honest(exchange)
        return exchange

    async def _honest(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.kind == "ping":
            await exchange.send(exchange.plain(200, b"{}", "application/json"))
        elif request.kind == "token":
            await exchange.send(self._keeper.token(exchange))
        elif hop := _HOP.match(request.target):
            left = int(hop["left"])
            plan = exchange.plain(307)
            plan.set("Location", self.url + (f"/hop/{left - 1}{hop['rest']}" if left else hop["rest"]))
            await exchange.send(plan)
        else:
            await Ok().respond(exchange)

    def _entity(self, request: RequestRecord) -> Entity | None:
        if request.kind == "signed":
            ticket = self._ticket(request)
            return ticket.entity if ticket else None
        table = self._blobs if request.kind == "blob" else self._manifests
        return table.get((request.repository, request.reference))

    def _token_entity(self, exchange: Exchange) -> Entity | None:
        """The token service's honest answer, for a behaviour to spoil. None: it would refuse."""
        plan = self._keeper.token(exchange)
        if plan.status != 200 or plan.body is None:
            return None
        digest = f"sha256:{hashlib.sha256(plan.body).hexdigest()}"
        return Entity(digest, "application/json", len(plan.body), data=plan.body)

    def _choose(self, request: RequestRecord) -> Behaviour | None:
        chosen: Behaviour | None = None
        for index, rule in enumerate(self._rules):
            if rule.fits(request):
                self._counts[index] += 1
                nth = self._counts[index]
                if chosen is None and rule.first <= nth <= (rule.last or nth):
                    chosen = rule.behaviour
        return chosen

    # -- inside: credentials ---------------------------------------------------------------------

    def _ticket(self, request: RequestRecord) -> Grant | None:
        match = _SIGNED.match(request.target)
        number = int(match["ticket"]) if match else len(self._tickets)
        return self._tickets[number] if number < len(self._tickets) else None

    def _check_ticket(self, exchange: Exchange) -> Plan | None:
        ticket = self._ticket(exchange.request)
        if ticket is None or exchange.request.query != SIGNATURE:
            return exchange.plain(
                403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", "application/xml"
            )
        if exchange.request.authorization is not None:
            return exchange.plain(400, b"<Error><Code>InvalidArgument</Code></Error>", "application/xml")
        if not ticket.use():
            body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            return exchange.plain(ticket.expired, body, "application/xml")
        return None

    # -- inside: counting ------------------------------------------------------------------------

    def _count(self, *, connections: int = 0, active: int = 0) -> None:
        with self._idle:
            self._open_connections += connections
            self._active += active
            self.max_connections = max(self.max_connections, self._open_connections)
            self.max_active = max(self.max_active, self._active)
            self._idle.notify_all()

    def _wait(self, done: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        with self._idle:
            met = self._idle.wait_for(lambda: done() or self._failure is not None, timeout_s)
        if self._failure is not None:
            raise RigError("the fault server itself failed") from self._failure
        if not met:
            raise TimeoutError(complaint)


async def _turns(n: int) -> None:
    """Let the loop go round ``n`` times."""
    for _ in range(n):
        await asyncio.sleep(0)


def _classify(path: str) -> tuple[str, str, str]:
    """Kind, repository and reference of a path."""
    if match := _V2.match(path):
        return match["kind"].removesuffix("s"), match["name"], match["ref"]
    if path == "/v2/":
        return "ping", "", ""
    if path == "/token":
        return "token", "", ""
    if _SIGNED.match(path):
        return "signed", "", path.rpartition("/")[2].replace("-", ":", 1)
    return ("hop" if _HOP.match(path) else "other"), "", ""
