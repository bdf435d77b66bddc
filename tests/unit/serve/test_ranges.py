"""Range, If-Range and If-None-Match against the tables of RFC 9110."""

from __future__ import annotations

import pytest

from layertee.serve.ranges import Part, is_known, part_of, unsatisfiable

ETAG = '"sha256:ab"'
WHOLE = Part(0, 1000, 1000, is_whole=True)


def test_without_a_range_all_is_sent() -> None:
    assert part_of(1000, {}, ETAG) == WHOLE
    assert part_of(0, {}, ETAG) == Part(0, 0, 0, is_whole=True)


@pytest.mark.parametrize(
    ("field", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("BYTES=10-19", 10, 20),
        ("bytes= 10-19 ", 10, 20),
        ("bytes=,10-19,", 10, 20),
        ("bytes=990-5000", 990, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-123456789012345678901234567890", 0, 1000),
        ("bytes=5-123456789012345678901234567890", 5, 1000),
    ],
)
def test_one_range_is_given(field: str, start: int, stop: int) -> None:
    assert part_of(1000, {"range": field}, ETAG) == Part(start, stop, 1000)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=20-10",
        "bytes=--5",
        "bytes=+1-5",
        "bytes=1-5-7",
        "bytes = 1-5",
        "items=0-5",
        "bytes=0x1-5",
        "bytes=\u0661-\u0665",
        "bytes=" + "1" * 4000 + "-",
        "bytes=0-1,5-6",  # more than one: the whole is an answer as well
        "bytes=0-1,-1",
        "bytes=0-1, x",
    ],
)
def test_what_is_no_range_or_several_is_ignored(field: str) -> None:
    assert part_of(1000, {"range": field}, ETAG) == WHOLE


@pytest.mark.parametrize(
    "field", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=99999999999999999999-"]
)
def test_a_range_without_a_byte_cannot_be_satisfied(field: str) -> None:
    assert part_of(1000, {"range": field}, ETAG) is None
    assert unsatisfiable(1000) == "bytes */1000"


@pytest.mark.parametrize("field", ["bytes=0-", "bytes=-5"])
def test_of_nothing_there_is_no_range(field: str) -> None:
    assert part_of(0, {"range": field}, ETAG) is None


def test_content_range_is_inclusive() -> None:
    part = part_of(1000, {"range": "bytes=10-19"}, ETAG)
    assert part is not None
    assert part.content_range == "bytes 10-19/1000"


@pytest.mark.parametrize(
    ("if_range", "is_part"),
    [
        (ETAG, True),
        (f"  {ETAG}\t", True),
        (f"W/{ETAG}", False),  # weak tags are never the same by the strong comparison
        ('"sha256:cd"', False),
        ("sha256:ab", False),
        ("Sat, 28 Nov 2026 20:00:00 GMT", False),
        ("", False),
    ],
)
def test_if_range_wants_the_very_same_bytes(if_range: str, is_part: bool) -> None:
    part = part_of(1000, {"range": "bytes=0-9", "if-range": if_range}, ETAG)
    assert part == (Part(0, 10, 1000) if is_part else WHOLE)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"x", {ETAG} , "y"', True),
        ('"x"', False),
        ("sha256:ab", False),
    ],
)
def test_if_none_match_names_what_the_client_has(field: str | None, known: bool) -> None:
    assert is_known(field, ETAG) is known
