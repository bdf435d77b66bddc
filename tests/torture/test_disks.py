"""A sample of the disks of ``make torture``: full ones, some that go away, and slow ones."""

from __future__ import annotations

import pytest

from tests.torture.disks import Case, run
from tests.torture.results import Budget

SCALE = 0.001  # one case of each kind: 25 seconds


@pytest.mark.slow
@pytest.mark.needs("unshare")
@pytest.mark.needs_root("mounts file systems")
def test_a_disk_that_is_full_or_slow_or_goes_away_costs_nothing_that_was_finished() -> None:
    figures = run(Budget(20261128, SCALE))
    assert figures["findings"] == 0, figures["found"]
    kinds, exits = figures["by_kind"], figures["exit_codes"]
    assert isinstance(kinds, dict) and isinstance(exits, dict)
    assert {kind.partition("/")[0] for kind in kinds} == {"full", "gone", "slow"}
    assert exits["full: 5"] and exits["slow: 0"]


@pytest.mark.parametrize(
    "case",
    [
        Case("full", "tmpfs", "uncompressed", size=40960, keep="0"),
        Case("full", "xfs", "as-is", size=8192),
        Case("gone", "ext4", "as-is", way="read-only", after_s=0.125),
        Case("slow", "tmpfs", "as-is", way="flush", ms=2500),
    ],
    ids=str,
)
def test_a_case_is_the_same_after_it_was_written_down(case: Case) -> None:
    assert Case.parse(str(case)) == case
