"""Addresses as they are typed, and sockets that were handed over to somebody else."""

from __future__ import annotations

import os

import pytest

from layertee.errors import ServeConfigError
from layertee.serve.listen import Address, inherited, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("my-host.example:80", Address("my-host.example", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:8000"),
        *("[::1]", "[::1:8000", "[::g]:80", "[1.2.3.4]:80", "http://127.0.0.1:80", "a b:80", "host:80/"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@pytest.mark.parametrize("port", [65536, 99999, 1_000_000])
def test_a_port_that_is_too_large_is_called_so(port: int) -> None:
    with pytest.raises(ValueError, match="not larger than 65535"):
        parse_address(f"127.0.0.1:{port}")


def test_the_sockets_of_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}
    assert inherited(environment) == []
    assert environment == {}
    assert inherited({}) == []


@pytest.mark.parametrize("number", ["x", "-1", "65", "1000000000"])
def test_a_number_of_sockets_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(ServeConfigError):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": number})
