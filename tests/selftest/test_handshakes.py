"""The server that gets no further than TLS answers as it was told."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.support.fakes.handshakes import HANDSHAKES, Answer, Handshakes


def ask(server: Handshakes, enough: int = 1 << 20) -> tuple[bytes, str]:
    """What the server sends to one connection, and its end: ``closed``, ``reset``, ``silent``, ``enough``."""
    host, _, port = server.reference.partition("/")[0].partition(":")
    got = b""
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"hello")
        connection.settimeout(0.5)
        try:
            while piece := connection.recv(1 << 16):
                got += piece
                if len(got) >= enough:
                    return got, "enough"
        except TimeoutError:
            return got, "silent"
        except ConnectionResetError:
            return got, "reset"
    return got, "closed"


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (Answer(), (b"", "closed")),
        (Answer(b"abc"), (b"abc", "closed")),
        (Answer(b"abc", "waits"), (b"abc", "silent")),
        (Answer(end="resets"), (b"", "reset")),
    ],
    ids=str,
)
def test_it_answers_and_ends_as_it_was_told(answer: Answer, seen: tuple[bytes, str]) -> None:
    with Handshakes(answer) as server:
        assert [ask(server), ask(server)] == [seen, seen]
        assert server.n_connections == 2
        assert server.nbytes == 2 * len(answer.data)


def test_what_is_endless_goes_on_until_the_client_leaves() -> None:
    with Handshakes(Answer(b"ab" * 1000, endless=True)) as server:
        got, end = ask(server)
    assert end == "enough"
    assert set(got) == set(b"ab")
    assert server.nbytes >= len(got)


@pytest.mark.parametrize("name", [name for name in HANDSHAKES if "stall" not in name])
def test_no_handshake_succeeds(name: str) -> None:
    context = ssl.create_default_context()
    with Handshakes(HANDSHAKES[name]) as server:
        host, _, port = server.reference.partition("/")[0].partition(":")
        plain = socket.create_connection((host, int(port)), timeout=0.5)
        with plain, pytest.raises(OSError, match=r".") as caught:
            context.wrap_socket(plain, server_hostname=host)
        assert isinstance(caught.value, ssl.SSLError | ConnectionResetError | TimeoutError)
