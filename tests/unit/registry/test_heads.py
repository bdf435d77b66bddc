"""Heads of answers that are mended, and those that are left as they are."""

from __future__ import annotations

import pytest

from layertee.registry.heads import mended


def head(*fields: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (("Content-Length: 2", "content-length: 2"), ("Content-Length: 2",)),
        (("Content-Length: 2", "A: b", "Content-Length:2"), ("Content-Length: 2", "A: b")),
        (("Content-Length: 2, 2",), ("Content-Length: 2",)),
        (("A: b", "Content-Length: 2 ,2", "Content-Length: 2"), ("Content-Length: 2", "A: b")),
        (
            ("Content-Length: 2", "Transfer-Encoding: chunked"),
            ("Connection: close", "Transfer-Encoding: chunked"),
        ),
        (
            ("transfer-encoding: Chunked ", "Content-Length: 2"),
            ("Connection: close", "transfer-encoding: Chunked "),
        ),
        (("Bad Header: x", "A: b c: d", "Content-Length: 2"), ("A: b c: d", "Content-Length: 2")),
        (("A: b", " c d: e", "X-A : x", "\tfolded: y", "B: c"), ("A: b", " c d: e", "B: c")),
    ],
)
def test_what_is_clear_is_said_once_and_so_that_all_can_read_it(
    given: tuple[str, ...], want: tuple[str, ...]
) -> None:
    assert mended(head(*given)) == head(*want)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Content-Length: 2",),
        ("Content-Length:  2 ", "X-Content-Length: 3"),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: 2, 3",),
        ("Content-Length: 2", "Content-Length: 02"),
        ("Content-Length: +2",),
        ("Content-Length: ",),
        ("Content-Length : 2", "Bad Header: x"),
        ("Transfer-Encoding : chunked",),
        ("Content-Length: 2", "Transfer-Encoding: gzip, chunked"),
    ],
)
def test_all_other_heads_stay_as_they_are(fields: tuple[str, ...]) -> None:
    given = head(*fields)
    assert mended(given) is given
