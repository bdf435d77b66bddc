"""Where the bytes of a body go: from a connection, or from memory, into the receiver's buffers.

No HTTP here. What decides whether to read is one thing only: is there a buffer to read into, and did
nobody ask to pause.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..errors import LayerteeError, TruncatedBody, redact_url


class Receiver(Protocol):
    """Where a body's bytes land. Called from the event loop, never blocks."""

    def get_buffer(self) -> memoryview | None:
        """The next place to write to, or None: reading pauses until :meth:`Body.resume`."""

    def landed(self, nbytes: int) -> None:
        """The first ``nbytes`` of the last buffer are filled. May pause or stop the body."""


def truncated(url: str, got: int, want: int) -> TruncatedBody:
    """The error for a body that ended early."""
    return TruncatedBody(
        f"{redact_url(url)}: the connection ended after {got} of {want} bytes", got=got, want=want
    )


class BodyProtocol(asyncio.BufferedProtocol):
    """Receives a body of known length straight into the receiver's buffers.

    The socket is read while three things hold: there is a view to read into (the loop calls an empty
    ``get_buffer`` fatal), nobody has asked for a pause, and the body is not done. All that happens to it,
    from the loop or from the receiver, ends in ``_go_on``, which looks at the three and tells the transport
    what changed. ``done`` is set once: by the last byte, by ``finish``, or by a connection that is lost.
    Only then, and only if the body was ``complete`` and nothing came after it, is the connection good for
    another exchange, under the ``handler`` that had it before.
    """

    def __init__(
        self,
        receiver: Receiver,
        nbytes: int,
        handler: asyncio.BaseProtocol,
        transport: asyncio.Transport,
        url: str,
    ) -> None:
        self._receiver = receiver
        self._want = self._left = nbytes
        self._handler = handler
        self._transport = transport
        self._url = url
        self._view: memoryview | None = None  # what is left of the receiver's last buffer
        self._early = memoryview(b"")  # what came with the head: it goes before what the socket has
        self._held = False  # by pause()
        self._reading = True  # as the transport was told last; telling it twice is an error on some loops
        self.complete = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, early: bytes) -> None:
        self._transport.set_protocol(self)
        self._early = memoryview(early)
        self._go_on()

    def _go_on(self) -> None:
        """Hand over what came with the head, then read on: as far as there are buffers."""
        while not self.done.done():
            if not self._view:
                self._view = self._receiver.get_buffer()
            if self._view is None or self._held:
                self._read(False)
                return
            if not self._early:
                self._read(True)
                return
            n = min(len(self._view), len(self._early))
            self._view[:n] = self._early[:n]
            self._early = self._early[n:]
            self._account(n)

    def _read(self, on: bool) -> None:
        if on == self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _account(self, nbytes: int) -> None:
        assert self._view is not None
        self._left -= nbytes
        self._view = self._view[nbytes:]
        self._receiver.landed(nbytes)
        if self._left == 0:
            self.complete = True
            self.finish(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._view is None or self.done.done():
            # Bytes after the end; whoever reads here next would find the connection unusable.
            self.complete = False
            return memoryview(bytearray(1))
        return self._view[: self._left]

    def buffer_updated(self, nbytes: int) -> None:
        if not self.done.done():
            self._account(nbytes)
            self._go_on()

    def pause(self) -> None:
        self._held = True
        self._read(False)

    def resume(self) -> None:
        self._held = False
        self._go_on()

    def finish(self, exc: LayerteeError | None) -> None:
        if self.done.done():
            return
        self._read(False)
        if exc is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(exc)

    def eof_received(self) -> None:
        return None  # closes the transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)  # aiohttp drops the connection from its pool
        if not self.done.done():
            error = truncated(self._url, self._want - self._left, self._want)
            error.__cause__ = exc
            self.done.set_exception(error)


class Copier:
    """The same flow control for bytes that are already in memory: ``copy`` waits where the other would not
    read. Raises what ``finish`` was given; after ``finish(None)`` it is ``stopped`` and takes nothing more.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._error: LayerteeError | None = None
        self._go = asyncio.Event()
        self._go.set()
        self.stopped = False

    async def copy(self, data: memoryview) -> None:
        view: memoryview | None = None
        while data and not self.stopped:
            await self._go.wait()
            if self._error is not None:
                raise self._error
            view = view or self._receiver.get_buffer()
            if view is None:
                self._go.clear()
                continue
            n = min(len(view), len(data))
            view[:n] = data[:n]
            data, view = data[n:], view[n:]
            self._receiver.landed(n)

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def finish(self, exc: LayerteeError | None) -> None:
        self.stopped = exc is None
        self._error = exc
        self._go.set()
