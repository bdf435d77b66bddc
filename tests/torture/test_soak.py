"""A short soak, some of the peaks, and what the judge of a soak lets pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.torture.results import Budget
from tests.torture.soak import ABOVE, PEAKS, Sample, judge, run

pytestmark = pytest.mark.slow

MIB = 1 << 20
STEADY = [Sample(n, 60 * MIB + n % 3 * 4096, 20, 5 + n % 3, 5, 24_576) for n in range(100, 2001, 100)]


def test_a_process_that_stays_as_it_is_passes_and_so_does_one_that_only_begins_by_growing() -> None:
    judge(STEADY)
    judge([replace(one, rss=50 * MIB + min(one.n, 900) * 10_000) for one in STEADY])


@pytest.mark.parametrize("what", ["rss", "fds", "sockets", "threads", "catalog"])
def test_a_process_that_grows_in_any_way_does_not(what: str) -> None:
    per_round = {"rss": 1200, "fds": 1 / 900, "sockets": 1 / 100, "threads": 1 / 900, "catalog": 10}[what]
    grown = [replace(one, **{what: getattr(one, what) + int(one.n * per_round)}) for one in STEADY]
    with pytest.raises(AssertionError, match=r"grew|grows|fds|sockets|threads"):
        judge(grown)


def test_what_takes_more_memory_than_it_should_is_among_what_is_measured() -> None:
    assert set(ABOVE) <= set(PEAKS)


@pytest.mark.spread
def test_a_short_soak_leaves_nothing_behind_and_pulls_take_what_they_may() -> None:
    figures = run(Budget(seed=1, scale=0.02))
    assert figures["findings"] == 0, figures["found"]
