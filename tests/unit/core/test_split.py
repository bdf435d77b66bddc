"""Layers put together by the C core: what it takes, and what it leaves to its caller."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.core.split import FILE, LINE, MORE, GivenUp, Moved, Splitter
from tests.support.cores import c_core_missing

HEAD = b'{"type":2,"payload":"aGVhZA==","position":0}\n'  # head
A = b'{"type":1,"name":"d/a","size":5,"payload":"AAAA","position":1}\n'
EMPTY = b'{"type":1,"name":"d/","payload":null,"position":2}\n'


@pytest.fixture
def splitter(tmp_path: Path) -> Iterator[Splitter]:
    if why := c_core_missing():
        pytest.skip(why)
    assert Splitter.is_there()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"first")
    (tmp_path / "link").symlink_to("d")
    before = sorted(os.listdir("/proc/self/fd"))
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    made = Splitter(fd)
    yield made
    made.close()
    made.close()
    os.close(fd)
    assert sorted(os.listdir("/proc/self/fd")) == before


def run(
    splitter: Splitter, lines: bytes, nbytes: int, *, at: int = 0, bounds: list[int] | None = None
) -> tuple[Moved, bytes]:
    room = bytearray(nbytes)
    moved = splitter.read(lines, at, memoryview(room), nbytes, bounds or [1000, 1000])
    return moved, bytes(room[: moved.n_out])


def test_lines_as_they_are_usually_written_are_taken(splitter: Splitter) -> None:
    lines = HEAD + EMPTY + A + HEAD
    assert run(splitter, lines, 100) == (Moved(MORE, len(lines), 13), b"headfirsthead")
    bounds = [100, 10]
    first = run(splitter, lines, 6, bounds=bounds)
    assert first == (Moved(MORE, len(HEAD + EMPTY + A), 6), b"headfi")
    assert bounds == [91, 7]
    assert run(splitter, lines, 100, at=first[0].n_in)[1] == b"rsthead"


def test_a_line_whose_end_has_not_come_is_waited_for(splitter: Splitter) -> None:
    for cut in range(len(HEAD)):
        assert run(splitter, HEAD[:cut], 9) == (Moved(MORE, 0, 0), b"")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b" " + HEAD,
        HEAD.replace(b"==", b"="),
        HEAD.replace(b":0}", b":00}"),
        HEAD[:-1] + b" \n",
        A.replace(b"d/a", b"d/\xc3\xa9"),
        A.replace(b"d/a", b"d\\/a"),
        A.replace(b"5", b"5" * 19),
    ],
)
def test_any_other_line_is_left(splitter: Splitter, line: bytes) -> None:
    assert run(splitter, HEAD + line, 100) == (Moved(LINE, len(HEAD), 4), b"head")


@pytest.mark.parametrize("bounds", [[3, 5], [100, 0]])
def test_a_line_beyond_the_bounds_is_left_and_nothing_is_counted(
    splitter: Splitter, bounds: list[int]
) -> None:
    left = list(bounds)
    assert run(splitter, HEAD, 100, bounds=left) == (Moved(LINE, 0, 0), b"")
    assert left == bounds
    assert run(splitter, HEAD, 100)[1] == b"head"


@pytest.mark.parametrize("name", ["link/a", "d/b", "d", "../d/a", "d//a", "d/./a", "d/../d/a"])
def test_a_file_that_is_not_simply_there_is_left(splitter: Splitter, name: str) -> None:
    lines = A.replace(b"d/a", name.encode()) + HEAD
    moved, _ = run(splitter, lines, 100)
    assert moved == Moved(FILE, len(lines) - len(HEAD), 0)
    assert splitter.give_up_file() == GivenUp(name.encode(), 0, 5)
    assert run(splitter, lines, 100, at=moved.n_in)[1] == b"head"


def test_a_file_that_becomes_shorter_is_left_where_that_was_seen(splitter: Splitter, tmp_path: Path) -> None:
    assert run(splitter, A, 2)[1] == b"fi"
    os.truncate(tmp_path / "d" / "a", 3)
    assert run(splitter, b"", 100) == (Moved(FILE, 0, 1), b"r")
    assert splitter.give_up_file() == GivenUp(b"d/a", 3, 2)


def test_what_is_passed_over_is_not_opened(splitter: Splitter) -> None:
    lines = A.replace(b"d/a", b"gone") + HEAD + A
    assert splitter.read(lines, 0, None, 7, [1000, 1000]) == Moved(MORE, len(lines) - len(A), 7)
    assert run(splitter, A, 100)[1] == b"adfirst"
