"""Proxies on 127.0.0.1: for HTTP, with CONNECT, and for SOCKS 5. Whatever host they are asked for, they
connect to one place, so that names which nobody can resolve may stand in URLs: a loopback address is never
asked through a proxy.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["FakeProxy", "http_proxy", "socks_proxy"]


@dataclass
class FakeProxy:
    """``address`` is its ``host:port``. ``asked``: for what, as ``host:port`` (of a tunnel) or a URL;
    ``logins``: the user and password that came with each, as ``user:password``.
    """

    address: str = ""
    asked: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)


@contextmanager
def http_proxy(
    target: str = "127.0.0.1:1",
    *,
    refuse: bytes = b"",
    login: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[FakeProxy]:
    """A proxy that leads to ``target``. ``refuse`` is the status line it has for everybody, as
    ``407 No``; ``login`` is wanted, as ``user:password``; ``tls`` makes it an https proxy.
    """
    seen = FakeProxy()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            if tls is not None:
                try:
                    connection = tls.wrap_socket(connection, server_side=True)
                except OSError:
                    return
            with connection, contextlib.suppress(OSError):
                _serve_http(connection, target, seen, refuse, login)

    with _listening(Handler) as seen.address:
        yield seen


@contextmanager
def socks_proxy(
    target: str = "127.0.0.1:1", *, reply: int = 0, login: str | None = None
) -> Iterator[FakeProxy]:
    """A SOCKS 5 proxy (RFC 1928) that leads to ``target``, or answers with another ``reply`` than 0."""
    seen = FakeProxy()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError, EOFError):
                _serve_socks(self.request, target, seen, reply, login)

    with _listening(Handler) as seen.address:
        yield seen


@contextmanager
def _listening(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)))


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one side ends."""
    ends = {one: other, other: one}
    while True:
        pending = isinstance(one, ssl.SSLSocket) and one.pending()
        ready = [one] if pending else select.select(list(ends), [], [])[0]
        for end in ready:
            data = end.recv(64 << 10)
            if not data:
                return
            ends[end].sendall(data)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(4096)
        if not more:
            return b""
        head += more
    return head


def _serve_http(
    connection: socket.socket, target: str, seen: FakeProxy, refuse: bytes, login: str | None
) -> None:
    """One tunnel, or one request without a body: then the connection ends."""
    head = _head(connection)
    if not head:
        return
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, asked, _ = lines[0].decode("ascii").split(" ")
    raw = [line for line in lines if line.lower().startswith(b"proxy-authorization: basic ")]
    given = base64.b64decode(raw[0].split()[-1]).decode() if raw else None
    seen.asked.append(asked)
    seen.logins.append(given)
    if refuse or (login is not None and given != login):
        status = refuse or b"407 Proxy Authentication Required"
        page = b"<html>go away</html>"
        answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/html\r\n\r\n%s"
        connection.sendall(answer % (status, len(page), page))
        return
    with _connect(target) as upstream:
        if method == "CONNECT":
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = "/" + asked.split("/", 3)[3]
            own = (b"proxy-", b"connection:")
            kept = [line for line in lines[1:] if not line.lower().startswith(own)]
            first = f"{method} {path} HTTP/1.1".encode()
            upstream.sendall(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]))
        _relay(connection, upstream)


def _serve_socks(
    connection: socket.socket, target: str, seen: FakeProxy, reply: int, login: str | None
) -> None:
    def take(nbytes: int) -> bytes:
        data = b""
        while len(data) < nbytes:
            more = connection.recv(nbytes - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    methods = take(take(2)[1])
    wanted = 0 if login is None else 2
    if wanted not in methods:
        connection.sendall(b"\x05\xff")
        return
    connection.sendall(bytes([5, wanted]))
    given = None
    if login is not None:
        user = take(take(2)[1]).decode()
        given = f"{user}:{take(take(1)[0]).decode()}"
        connection.sendall(bytes([1, 0 if given == login else 1]))
    seen.logins.append(given)
    if given != login:
        return
    kind = take(4)[3]
    if kind == 3:
        host = take(take(1)[0]).decode("ascii")
    else:
        host = socket.inet_ntop(*((socket.AF_INET, take(4)) if kind == 1 else (socket.AF_INET6, take(16))))
    seen.asked.append(f"{host}:{int.from_bytes(take(2), 'big')}")
    connection.sendall(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
    if reply == 0:
        with _connect(target) as upstream:
            _relay(connection, upstream)
