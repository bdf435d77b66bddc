"""Range arithmetic, answers and reassembly."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import RangeMismatch, SizeMismatch
from layertee.transfer.ranges import Answer, ByteRange, Reassembly, check_answer, offers_ranges

SIZE = 1000
WANT = ByteRange(100, 200)


def answer(
    *content_range: str,
    status: int = 206,
    content_type: str | None = "application/octet-stream",
    length: int | None = None,
    want: ByteRange = WANT,
    ranged: bool = True,
) -> Answer:
    return check_answer(status, content_range, content_type, length, want=want, size=SIZE, ranged=ranged)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (6, 5), (-1, 4)])
def test_an_empty_range_cannot_be_made(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


def test_a_range_is_shown_as_http_counts() -> None:
    assert str(ByteRange(0, 1)) == "bytes 0-0"
    assert str(WANT) == "bytes 100-199"


@pytest.mark.parametrize(
    ("status", "fields", "offered"),
    [
        (200, [], False),
        (200, ["none"], False),
        (200, ["bytes"], True),
        (200, ["none", "x, Bytes"], True),
        (200, ["kilobytes"], False),
        (206, [], True),
    ],
)
def test_a_server_says_whether_it_has_ranges(status: int, fields: list[str], offered: bool) -> None:
    assert offers_ranges(status, fields) is offered


def test_the_range_asked_for_is_accepted() -> None:
    assert answer("bytes 100-199/1000") == Answer(100, 100, whole=False)
    assert answer("bytes 100-199/*", length=100) == Answer(100, 100, whole=False)


def test_a_shorter_prefix_is_accepted() -> None:
    assert answer("bytes 100-149/1000") == Answer(100, 50, whole=False)


def test_the_whole_blob_is_accepted_as_such() -> None:
    assert answer(status=200, length=SIZE) == Answer(0, SIZE, whole=True)
    assert answer(status=200, length=None) == Answer(0, SIZE, whole=True)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("bytes 100-199/1000", "bytes 100-199/1000"),
        ("bytes 101-199/1000",),
        ("bytes 99-199/1000",),
        ("bytes 100-200/1000",),
        ("bytes 100-99/1000",),
        ("bytes 100-199/1001",),
        ("bytes 100-199/999",),
        ("items 100-199/1000",),
        ("bytes */1000",),
        ("bytes=100-199/1000",),
        ("bytes 100-199",),
        ("bytes 0x64-199/1000",),
        ("bytes 100-199/1000, bytes 0-1/1000",),
        ("bytes 1e2-199/1000",),
        ("bytes ١٠٠-199/1000",),  # noqa: RUF001 - other digits are not HTTP's
    ],
)
def test_every_other_content_range_is_refused(headers: tuple[str, ...]) -> None:
    with pytest.raises(RangeMismatch):
        answer(*headers)


def test_multipart_is_refused() -> None:
    with pytest.raises(RangeMismatch, match="multipart"):
        answer("bytes 100-199/1000", content_type="Multipart/ByteRanges; boundary=x")


def test_a_content_length_that_contradicts_the_range_is_refused() -> None:
    with pytest.raises(RangeMismatch, match="contradicts"):
        answer("bytes 100-199/1000", length=99)


def test_a_206_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(RangeMismatch):
        answer("bytes 0-999/1000", want=ByteRange(0, SIZE), ranged=False)


@pytest.mark.parametrize("length", [0, 999, 1001])
def test_a_whole_blob_of_another_size_is_refused(length: int) -> None:
    with pytest.raises(SizeMismatch) as caught:
        answer(status=200, length=length)
    assert (caught.value.want, caught.value.got) == (SIZE, length)


@given(data=st.data())
def test_pieces_leave_in_order_whatever_order_they_come_in(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 400))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, size - 1)))) | {0, size})
    pieces = [(a, b - a) for a, b in itertools.pairwise(cuts) if b > a]
    shuffled = data.draw(st.permutations(pieces))
    reassembly: Reassembly[int] = Reassembly()
    out: list[tuple[int, int]] = []
    for start, nbytes in shuffled:
        before = reassembly.next
        due = reassembly.add(start, nbytes, start)
        out += due
        assert reassembly.next == before + sum(n for _, n in due)
    assert out == pieces
    assert len(reassembly) == 0
    assert reassembly.next == size


def test_a_piece_cannot_be_delivered_twice() -> None:
    reassembly: Reassembly[str] = Reassembly()
    assert reassembly.add(0, 5, "a") == [("a", 5)]
    reassembly.add(8, 2, "c")
    for start in (0, 4, 8):
        with pytest.raises(ValueError, match="before"):
            reassembly.add(start, 1, "again")
    assert reassembly.drain() == ["c"]
    assert len(reassembly) == 0
