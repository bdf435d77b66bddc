"""How much of a filesystem stays free, and how that is written."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from layertee.disk.space import GIB, floor_of, free_space, human
from layertee.errors import LocalError

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
    free, floor = free_space(tmp_path)
    assert floor == floor_of(seen.f_blocks * seen.f_frsize)
    assert 0 <= free <= seen.f_bfree * seen.f_frsize
    with pytest.raises(LocalError, match=f"free space of {tmp_path}/none"):
        free_space(tmp_path / "none")


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
