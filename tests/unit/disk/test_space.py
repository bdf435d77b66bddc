"""How much of a filesystem stays free, and how that is written."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from layertee.disk.space import GIB, SIZE_MAX, KeepFree, Space, floor_of, free_space, human, parse_size
from layertee.errors import InvalidReference, LocalError, NoSpace

MIB = 1 << 20


@pytest.mark.parametrize(
    ("total", "floor"),
    [
        (0, 0),
        (60 * MIB, 3 * MIB),  # a tmpfs
        (1000 * MIB, 50 * MIB),
        (10 * GIB, GIB // 2),
        (20 * GIB, GIB),
        (30 * GIB, GIB),
        (100 * GIB, 3 * GIB),
        (400 * GIB, 10 * GIB),
        (4000 * GIB, 10 * GIB),
    ],
)
def test_the_floor_is_a_share_with_a_minimum_and_a_maximum(total: int, floor: int) -> None:
    assert floor_of(total) == floor


def test_more_space_never_means_less_of_it_to_use() -> None:
    sizes = [n * GIB // 8 for n in range(8 * 500)]
    for smaller, larger in pairwise(sizes):
        assert floor_of(smaller) <= floor_of(larger)
        assert smaller - floor_of(smaller) < larger - floor_of(larger)


def test_what_is_free_is_what_an_ordinary_user_may_fill(tmp_path: Path) -> None:
    seen = os.statvfs(tmp_path)
    free, floor = free_space(tmp_path, KeepFree())
    assert floor == floor_of(seen.f_blocks * seen.f_frsize)
    assert 0 <= free <= seen.f_bfree * seen.f_frsize
    with pytest.raises(LocalError, match=f"free space of {tmp_path}/none"):
        free_space(tmp_path / "none", KeepFree())


@pytest.mark.parametrize(
    ("text", "total", "floor"),
    [
        ("0", 100 * GIB, 0),
        ("0%", 100 * GIB, 0),
        ("100%", 100 * GIB, 100 * GIB),
        ("100.000 %", 999, 999),
        ("3%", 100 * GIB, 3 * GIB),
        ("3%", 99, 2),  # a share of a byte is none
        ("0.001%", 100_000, 1),
        ("0.001%", 99_999, 0),
        ("2.5%", 1000, 25),
        ("2.50%", 1000, 25),
        ("050%", 10, 5),
        ("12.345%", SIZE_MAX, SIZE_MAX * 12345 // 100_000),
        ("5G", 0, 5 * 10**9),
        ("5Gi", 0, 5 * GIB),
        ("1.5Gi", 0, 3 * GIB // 2),
        ("0.3k", 0, 300),
        ("4096", 1, 4096),  # more than there is: nothing may be filled
        (" 1 MiB ", 0, MIB),
    ],
)
def test_what_stays_free_is_to_the_byte(text: str, total: int, floor: int) -> None:
    assert KeepFree.parse(text).of(total) == floor


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "%", "-1", "-1%", "101%", "100.001%", "3.0001%", "3 5%", "1e3", "1.5", "5X", "5Gi%", "٣%"),
        *("5Ki5", "0x10", "nan", "inf%", "9" * 30, f"{SIZE_MAX + 1}", "5000000T"),
    ],
)
def test_what_is_no_size_and_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size like 5Gi, or a share of the disk like 3%"):
        KeepFree.parse(text)


@pytest.mark.parametrize(
    "given", [{"nbytes": -1}, {"share": -1}, {"share": 100_001}, {"nbytes": 1, "share": 1}]
)
def test_what_cannot_stay_free_cannot_be_said_either(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not what can stay free"):
        KeepFree(**given)


def test_the_environment_says_what_stays_free_where_nothing_else_does() -> None:
    assert KeepFree.usual({}) == KeepFree.usual({"LAYERTEE_KEEP_FREE": ""}) == KeepFree()
    assert KeepFree.usual({"LAYERTEE_KEEP_FREE": "2%"}) == KeepFree(share=2000)
    with pytest.raises(InvalidReference, match="LAYERTEE_KEEP_FREE: 'some' is not a size"):
        KeepFree.usual({"LAYERTEE_KEEP_FREE": "some"})


def test_sizes_are_read_to_the_byte() -> None:
    assert parse_size("1.1Ti") == 11 * (1 << 40) // 10  # a float has one byte less here and there
    assert parse_size("9007.199254740993T") == 9007199254740993
    assert parse_size(f"{SIZE_MAX}") == SIZE_MAX


def test_what_would_not_fit_is_refused_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=5 << 18, f_frsize=4096, f_blocks=100 << 18)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    space = Space(tmp_path, KeepFree())
    space.check(2 * GIB)
    assert space.left() == 2 * GIB
    with pytest.raises(NoSpace) as caught:
        space.check(2 * GIB + 1, "docker.io/x/y:1")
    assert str(caught.value) == (
        f"docker.io/x/y:1 needs 2.0 GiB in {tmp_path}, where 5.0 GiB are free and 3.0 GiB must stay free;"
        " free 1 B"
    )
    said = caught.value
    assert (said.need, said.free, said.floor, said.path) == (2 * GIB + 1, 5 * GIB, 3 * GIB, str(tmp_path))
    assert said.hint == "keep-free"
    Space(tmp_path, KeepFree(0)).check(5 * GIB)
    with pytest.raises(NoSpace, match=r"where 5\.0 GiB are free and 0 B must stay free"):
        Space(tmp_path, KeepFree(0)).check(5 * GIB + 1)


def test_falling_below_the_floor_is_told_with_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(f_bavail=1 << 18, f_frsize=4096, f_blocks=100 << 18)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    Space(tmp_path, KeepFree(GIB)).check_floor()
    with pytest.raises(NoSpace, match=r"1\.0 GiB are free by now, and 3\.0 GiB must stay free") as caught:
        Space(tmp_path, KeepFree()).check_floor()
    assert (caught.value.free, caught.value.floor, caught.value.hint) == (GIB, 3 * GIB, "keep-free")


def test_a_filesystem_that_does_not_say_how_large_it_is_has_no_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0))
    assert Space(tmp_path, KeepFree.parse("50%")).left() == SIZE_MAX


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_are_written_for_people(nbytes: int, text: str) -> None:
    assert human(nbytes) == text
