"""The server's life: it accepts, watches over its connections, and ends when it is told to.

The event loop is asyncio's own. With uvloop's, a body costs as much CPU (0.2 s per GB of checked chunks, on
two Milan cores), as it goes past the loop's transports, and a small request 0.32 to 0.36 ms in place of 0.37
to 0.44.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from .connections import Connections
from .http import Site, peer_name
from .listen import Listener, Notify, close
from .tls import ServerTLS, why_no_handshake

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
_LOOK_S = 1.0
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def allow_many_files() -> None:
    """Every connection is a file: take all that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server:
    """Serves ``site`` on ``listeners``, which it closes. ``serve`` says when clients are accepted."""

    def __init__(
        self,
        site: Site,
        connections: Connections,
        listeners: Sequence[Listener],
        *,
        tls: ServerTLS | None = None,
        notify: Notify,
        grace_s: float,
    ) -> None:
        self._site = site
        self._connections = connections
        self._listeners = listeners
        self._tls = tls
        self._notify = notify
        self._grace_s = grace_s
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    def stop(self) -> None:
        """Accept no more clients, let answers come to their end for a while; the second time, end at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def serve(self, when_ready: Callable[[], None]) -> None:
        """Until ``stop`` is called, and all answers have ended or were cut. First calls ``when_ready``."""
        try:
            async with asyncio.TaskGroup() as group:
                accepting = [group.create_task(self._accept(one, group)) for one in self._listeners]
                looking = group.create_task(self._look_after())
                when_ready()
                self._notify.tell(READY="1", STATUS=f"at {', '.join(one.name for one in self._listeners)}")
                await self._stop.wait()
                self._notify.tell(STOPPING="1")
                for task in accepting:
                    task.cancel()
                await asyncio.wait(accepting)
                close(self._listeners)
                await self._finish()
                looking.cancel()
        finally:
            close(self._listeners)
            self._connections.see_all_off()

    async def _accept(self, listener: Listener, group: asyncio.TaskGroup) -> None:
        while True:
            await _client_at(listener.sock)
            try:
                sock, _ = listener.sock.accept()
                sock.setblocking(False)
            except OSError as exc:
                if exc.errno in _NO_FILES:
                    log.warning("no client can be accepted for now: %s", exc.strerror)
                    await asyncio.sleep(_LOOK_S)
                continue  # a client that left before it was accepted
            try:
                await self._connections.room()  # the others wait in the socket's queue meanwhile
            except BaseException:
                sock.close()
                raise
            group.create_task(self._welcome(sock))

    async def _welcome(self, sock: socket.socket) -> None:
        """Make a connection of an accepted socket."""
        making = asyncio.current_task()
        assert making is not None
        connection = self._site.new_connection(making.cancel)
        self._connections.came(connection)
        peer = peer_name(sock.getpeername) if self._tls is not None else ""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=None if self._tls is None else self._tls.context,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_S,
                ssl_shutdown_timeout=None if self._tls is None else _LOOK_S,
            )
            if not connection.is_in:
                log.info("%s: the TLS handshake failed: the client left", peer)
        except asyncio.CancelledError:
            if self._tls is not None and not connection.is_in:
                log.info("%s: the TLS handshake was cut: too slow, or its place was needed", peer)
            raise
        except OSError as exc:  # those of TLS are such
            log.info("%s: the TLS handshake failed: %s", peer, why_no_handshake(exc))
        finally:
            if not connection.is_in:
                self._connections.left(connection)

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            self._site.see_late_ones_off(loop.time())
            if self._notify.is_watched:
                self._notify.tell(WATCHDOG="1")

    async def _finish(self) -> None:
        """Wait for the answers under way, then cut."""
        calm = asyncio.ensure_future(self._connections.end())
        enough = asyncio.ensure_future(self._stop_now.wait())
        if busy := self._connections.n_busy:
            log.warning(
                "answers that are still being sent: %d. They have %g s; Ctrl-C once more cuts them off",
                *(busy, self._grace_s),
            )
        try:
            await asyncio.wait((calm, enough), timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            calm.cancel()
            enough.cancel()
        if cut := self._connections.see_all_off():
            log.warning("%d answers were cut, as the server ends", cut)


async def _client_at(sock: socket.socket) -> None:
    """Wait until a client is in the queue. (``loop.sock_accept`` may accept once it is cancelled.)"""
    loop = asyncio.get_running_loop()
    there_is: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not there_is.done():
            there_is.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await there_is
    finally:
        loop.remove_reader(sock)
