"""The body of an answer on its way into a socket, beside the event loop's transport.

A second descriptor of the socket takes bytes without a copy: of a file by sendfile, of a chunk by send. So it
is known how far an answer got at any moment, on any event loop, and one slow client costs no memory. With TLS
there is no such way: the transport has to encrypt.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..aio import in_thread
from .pacing import Throttle, Watch

Taken = Callable[[int, int], int]


async def read_piece(fd: int, at: int, nbytes: int) -> bytes:
    """Some of a file's bytes from ``at`` on, at most ``nbytes``: at once if the system has them in memory.

    Raises OSError, also at the file's end.
    """
    room = bytearray(nbytes)
    try:
        n = os.preadv(fd, [room], at, os.RWF_NOWAIT)
    except OSError:  # they are not in memory, or the filesystem does not know
        n = await in_thread(os.preadv, fd, [room], at)
    if n == 0:
        raise OSError(f"a file ends after {at} bytes")
    return bytes(memoryview(room)[:n])


class Wire:
    """``sock`` does not block, and is closed at the end of ``with``.

    ``sent`` is called with the bytes that the system has taken; ``is_gone`` says whether the client is.
    """

    def __init__(
        self,
        sock: socket.socket,
        watch: Watch,
        throttle: Throttle,
        *,
        sent: Callable[[int], None],
        is_gone: Callable[[], bool],
    ) -> None:
        self._sock = sock
        self._watch = watch
        self._throttle = throttle
        self._sent = sent
        self._is_gone = is_gone

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    async def send(self, chunk: bytes | bytearray | memoryview) -> None:
        """All of ``chunk``, which may change afterwards. Raises ConnectionError."""
        with memoryview(chunk) as view:

            def take(at: int, nbytes: int) -> int:
                return self._sock.send(view[at : at + nbytes])

            await self._all(len(view), take)

    async def send_file(self, fd: int, start: int, stop: int) -> None:
        """The bytes from ``start`` up to ``stop`` of a file. Raises ConnectionError, OSError."""
        wire = self._sock.fileno()

        def take(at: int, nbytes: int) -> int:
            n = os.sendfile(wire, fd, start + at, nbytes)
            if n == 0:
                raise OSError(f"a file ends after {start + at} bytes")
            return n

        await self._all(stop - start, take)

    async def _all(self, nbytes: int, take: Taken) -> None:
        at = 0
        while at < nbytes:
            turn = min(self._throttle.slice, nbytes - at)
            await self._throttle.turn(turn)
            stop = at + turn
            try:
                while at < stop:
                    try:
                        n = take(at, stop - at)
                    except BlockingIOError:
                        with self._watch.waiting():
                            await self._writable()
                        continue
                    at += n
                    self._sent(n)
                    await asyncio.sleep(0)  # the others' turn
                    if self._is_gone():
                        raise ConnectionResetError("the client is gone")
            finally:
                if at < stop:
                    self._throttle.give_back(stop - at)

    async def _writable(self) -> None:
        """Wait until the socket takes more, or is broken."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_writer(self._sock.fileno(), tell)
        try:
            await ready
        finally:
            loop.remove_writer(self._sock.fileno())
