"""Sockets that a server opens or is handed, and what systemd is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from layertee.errors import ServeConfigError
from layertee.serve.listen import Notify, close, inherited, listen_at, parse_address
from tests.support.process import in_child


def test_any_free_port_is_told() -> None:
    (listener,) = listen_at([parse_address("127.0.0.1:0")])
    with closing(listener.sock):
        assert listener.name == f"127.0.0.1:{listener.sock.getsockname()[1]}"
        assert listener.is_local
        assert not listener.is_unix
        assert not listener.sock.getblocking()
        assert not listener.sock.get_inheritable()


def test_a_wildcard_is_not_local() -> None:
    (listener,) = listen_at([parse_address("0.0.0.0:0")])
    with closing(listener.sock):
        assert not listener.is_local


def test_a_port_that_is_taken_is_told_and_nothing_stays_open() -> None:
    (taken,) = listen_at([parse_address("127.0.0.1:0")])
    with closing(taken.sock):
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(ServeConfigError, match="Address already in use"):
            listen_at([parse_address("127.0.0.1:0"), parse_address(taken.name)])
        assert set(os.listdir("/proc/self/fd")) == before


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ServeConfigError, match=r"192\.0\.2\.1"):
        listen_at([parse_address("192.0.2.1:0")])


# --- sockets that were handed over ---------------------------------------------------------------------


def in_child_with(files: list[socket.socket | int], check: str) -> None:
    """Give ``files`` as descriptors 3 and up to a child, which takes them over; then ``check`` must hold."""

    def work() -> None:
        fds = [one if isinstance(one, int) else one.fileno() for one in files]
        kept = [os.dup(fd) for fd in fds]
        high = [os.dup2(fd, 100 + n) for n, fd in enumerate(kept)]
        for n, fd in enumerate(high):
            os.dup2(fd, 3 + n)
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(files)), "LISTEN_FDNAMES": "a"}
        try:
            found = inherited(environment)
            told = ""
        except ServeConfigError as exc:
            found, told = [], str(exc)
        known = {"found": found, "told": told, "environment": environment}
        assert eval(check, known), known
        os._exit(0)

    assert in_child(work) == 0


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        not_listening = stack.enter_context(socket.socket())
        datagram = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        yield {"tcp": tcp, "unix": unix, "not_listening": not_listening, "datagram": datagram}


def test_several_sockets_are_taken_over(sockets: dict[str, socket.socket]) -> None:
    port = sockets["tcp"].getsockname()[1]
    in_child_with(
        [sockets["tcp"], sockets["unix"]],
        f"[one.is_local for one in found] == [True, True] and found[0].name == '127.0.0.1:{port}'"
        " and found[1].name.startswith('unix:/') and found[1].is_unix and environment == {}"
        " and not any(one.sock.getblocking() or one.sock.get_inheritable() for one in found)",
    )


@pytest.mark.parametrize("kind", ["not_listening", "datagram"])
def test_a_socket_of_another_kind_is_refused(sockets: dict[str, socket.socket], kind: str) -> None:
    in_child_with([sockets["tcp"], sockets[kind]], "'descriptor 4' in told")


def test_a_file_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        in_child_with([fd], "'it is no socket' in told")
    finally:
        os.close(fd)


# --- what systemd is told ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, is_abstract: bool) -> None:
    address = f"@layertee-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind("\0" + address[1:] if is_abstract else address)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
        notify = Notify(environment)
        assert environment == {}
        assert notify.is_watched
        notify.tell(READY="1", STATUS="two\nlines")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=two lines"


def test_where_nobody_wants_to_be_told_nothing_happens(tmp_path: Path) -> None:
    Notify({}).tell(READY="1")
    Notify({"NOTIFY_SOCKET": str(tmp_path / "none")}).tell(READY="1")
    assert not Notify({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).is_watched


def test_to_close_is_to_stop_listening() -> None:
    (listener,) = listen_at([parse_address("127.0.0.1:0")])
    close([listener])
    with pytest.raises(ConnectionRefusedError), socket.socket() as client:
        client.connect(("127.0.0.1", int(listener.name.split(":")[1])))
