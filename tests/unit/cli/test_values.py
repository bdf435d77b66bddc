"""What an option's value may be, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.cli import values
from layertee.cli.values import Amount

READERS: list[Callable[[str], object]] = [
    values.boolean,
    values.count(1, 64),
    values.seconds,
    values.duration,
    values.rate,
    values.size,
    values.size_or_share,
    values.words,
    values.path,
    values.visible,
]
NEVER = [
    "-1",
    "1e3",
    "inf",
    "nan",
    "0x10",
    "1_000",
    "٣",
    "²",
    "1,5",
    "+1",
    "1 2",
    "5X",
    "%",
    "1.M",
    ".5M",
    "--",
]


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        *[("0", 0), ("1", 1), ("5G", 5_000_000_000), ("5Gi", 5 << 30), ("1.5M", 1_500_000)],
        *[("2TB", 2_000_000_000_000), ("32MiB", 32 << 20), ("32 mi", 32 << 20), ("7b", 7)],
    ],
)
def test_a_size(text: str, nbytes: int) -> None:
    assert values.size(text) == nbytes
    assert values.size_or_share(text) == Amount(nbytes)


@pytest.mark.parametrize("text", ["10%", "", "much", "0.5", "1.5B", "9" * 30, "9999999T", "9" * 5000, *NEVER])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size like 32Mi or 5G"):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0.0), ("10%", 0.1), ("12.5 %", 0.125), ("100%", 1.0), (" 7%", 0.07)]
)
def test_a_share(text: str, share: float) -> None:
    assert values.size_or_share(text) == Amount(None, share)


@pytest.mark.parametrize("text", ["101%", "100.1%", "-1%", "%", "5 %G", "10%%", "much", "", *NEVER])
def test_what_is_neither_a_size_nor_a_share(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"5G.*10%"):
        values.size_or_share(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("30d", 30 * 86400)],
        *[("1h30m", 5400), ("1d2h3m4s", 93784), ("0.5s", 0.5), ("0h1s", 1)],
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "90", "s", "0s", "0h0m", "31d", "1m1h", "1h1h", "1.5h", "1h 30m", "90S", "1ms", "9" * 40 + "s"),
        *NEVER,
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a duration like 90s, 10m or 1h30m"):
        values.duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("0.1", 0.1), ("60", 60.0), ("99999", 99999.0), ("2.50", 2.5)])
def test_seconds(text: str, seconds: float) -> None:
    assert values.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0.0", "0.09", "100000", "60s", "1.", *NEVER])
def test_what_is_no_number_of_seconds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        values.seconds(text)


@pytest.mark.parametrize("text", ["65", "", "1.5", "eight", "01234567890", *NEVER])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 to 64"):
        values.count(0, 64)(text)
    assert (values.count(0, 64)("0"), values.count(0, 64)("64")) == (0, 64)


def test_a_path_has_a_name() -> None:
    assert values.path("a b") == Path("a b")
    with pytest.raises(argparse.ArgumentTypeError, match="it is empty"):
        values.path("")
    assert (values.path_or_none(""), values.path_or_none("x")) == (None, Path("x"))


@pytest.mark.parametrize("text", ["auth.example.com", "localhost:5000", "127.0.0.1", "[::1]:443", "a-b_c"])
def test_a_host(text: str) -> None:
    assert values.host(text) == values.host(text.upper()) == text


@pytest.mark.parametrize(
    "text", ["", "https://a.example", "a.example/x", "a b", "a:", "a:b", "::1", ".a", "a..b", "*.a", "user@a"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a host"):
        values.host(text)


@pytest.mark.parametrize("text", ["a\r\nX-Other: b", "a\tb", "naïve", "\x1b[m"])
def test_what_cannot_stand_in_a_header_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not plain ASCII text"):
        values.visible(text)
    assert values.visible("rpm-ostree/2026.1 (x; y)") == "rpm-ostree/2026.1 (x; y)"


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,6} ?[kMGTdhms%i]{0,3}[bB]?(/s)?", fullmatch=True))
def test_whatever_is_typed_is_taken_or_refused(text: str) -> None:
    for read in READERS:
        try:
            read(text)
        except argparse.ArgumentTypeError as exc:
            assert str(exc)


def test_a_window() -> None:
    assert (values.window("1Ki"), values.window("128Mi"), values.window("2Gi")) == (
        1 << 10,
        128 << 20,
        2 << 30,
    )


@pytest.mark.parametrize("text", ["1023", "2147483649", "0", "3Gi"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size from 1Ki to 2Gi"):
        values.window(text)
