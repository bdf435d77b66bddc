"""Where a server listens: addresses as they are typed, or sockets that systemd opened and handed over.

sd_listen_fds(3) and sd_notify(3) are two variables and a datagram each; their format is kept for good.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable, MutableMapping, Sequence
from contextlib import suppress

from ..errors import ServeConfigError
from ..record import dataclass

BACKLOG = 1024
DEFAULT = "127.0.0.1:8000"
_FIRST_FD = 3
_MOST_FDS = 64
_PORT_MAX = 65535
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9._-]{1,253})):(?P<port>[0-9]{1,20})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is a name or an IP address; port 0 is any that is free."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, which does not block. ``name`` is what clients call it: ``127.0.0.1:8000``.

    ``is_local``: no other machine reaches it.
    """

    sock: socket.socket
    name: str
    is_local: bool

    @property
    def is_unix(self) -> bool:
        """Whether its name is a path, or empty."""
        return self.sock.family == socket.AF_UNIX


def parse_address(text: str) -> Address:
    """``HOST:PORT`` or ``[ADDRESS]:PORT``. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is not None and int(match["port"]) > _PORT_MAX:
        raise ValueError(f"{text!r:.80}: a port is not larger than {_PORT_MAX}")
    if match is None:
        raise ValueError(f"{text!r:.80} is not HOST:PORT, like {DEFAULT} or [::1]:8000")
    if match["v6"] is not None:
        ipaddress.IPv6Address(match["v6"])  # ValueError, whose text names it
    return Address(match["v6"] or match["host"], int(match["port"]))


def listen_at(addresses: Iterable[Address]) -> list[Listener]:
    """A socket for each address that each host has. Raises ServeConfigError."""
    found: list[Listener] = []
    try:
        for address in addresses:
            for family, at in _resolved(address):
                sock = _listening(family, at, address)
                found.append(_listener(sock))
    except BaseException:
        close(found)
        raise
    return found


def inherited(environment: MutableMapping[str, str]) -> list[Listener]:
    """The sockets that systemd opened for this process, if it did. Raises ServeConfigError.

    The variables are taken away, and children get none of the sockets.
    """
    pid, number = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number:
        return []
    if not re.fullmatch(r"[0-9]{1,3}", number) or int(number) > _MOST_FDS:
        raise ServeConfigError(f"LISTEN_FDS is not a number of sockets up to {_MOST_FDS}")
    return [_taken_over(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(number))]


def close(listeners: Sequence[Listener]) -> None:
    """Stop listening."""
    for listener in listeners:
        listener.sock.close()


class Notify:
    """Tells systemd how this service is. Does nothing where systemd does not listen, or that fails."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        pid, usec = environment.pop("WATCHDOG_PID", ""), environment.pop("WATCHDOG_USEC", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.is_watched = bool(self._address) and usec.isdecimal() and pid in ("", str(os.getpid()))

    def tell(self, **state: str) -> None:
        """``tell(READY="1", STATUS="…")``."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value.translate({10: ' '})}" for name, value in state.items())
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)


# --- inside -----------------------------------------------------------------------------------------


def _resolved(address: Address) -> list[tuple[int, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise ServeConfigError(f"{address.host} is not an address of this machine: {exc}") from exc
    return [(family, at) for family, _, _, _, at in dict.fromkeys(found)]


def _listening(family: int, at: tuple[object, ...], address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(at)
        sock.listen(BACKLOG)
    except BaseException as exc:
        sock.close()
        if not isinstance(exc, OSError):
            raise
        raise ServeConfigError(
            f"nothing can listen at {address.host} port {address.port}: {exc.strerror or exc}"
        ) from exc
    return sock


def _taken_over(fd: int) -> Listener:
    """Descriptor ``fd`` as a listener. Raises ServeConfigError for what is none."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError("it is no socket")
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise ServeConfigError(
            f"descriptor {fd} of LISTEN_FDS cannot be used: {exc.strerror or exc}"
        ) from exc
    known = sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not known or sock.type != socket.SOCK_STREAM or not listens:
        sock.detach()
        raise ServeConfigError(
            f"descriptor {fd} of LISTEN_FDS is not a stream socket that listens (ListenStream=, Accept=no)"
        )
    sock.set_inheritable(False)
    sock.setblocking(False)
    return _listener(sock)


def _listener(sock: socket.socket) -> Listener:
    at = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = at.decode(errors="replace").replace("\0", "@") if isinstance(at, bytes) else at
        return Listener(sock, f"unix:{path}", is_local=True)
    host = at[0].partition("%")[0]
    shown = f"[{at[0]}]" if sock.family == socket.AF_INET6 else at[0]
    return Listener(sock, f"{shown}:{at[1]}", is_local=ipaddress.ip_address(host).is_loopback)
