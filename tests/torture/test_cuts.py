"""A sample of the power cuts of ``make torture``; and commits that flush too little are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.cuts import CONTROLS, Case, run
from tests.torture.evidence import Witness
from tests.torture.results import Budget

SCALE = 0.001  # every other story on each file system: 20 seconds


@pytest.mark.slow
@pytest.mark.needs("unshare")
@pytest.mark.needs_root("mounts file systems")
def test_what_was_finished_survives_a_power_cut_at_any_moment() -> None:
    figures = run(Budget(20261128, SCALE))
    assert figures["findings"] == 0, figures["found"]
    caught = figures["controls_caught"]
    left_out = figures["left_out"]
    assert isinstance(caught, dict) and isinstance(left_out, dict) and "ext4" not in left_out
    assert set(caught) == {name for name, kind, _ in CONTROLS if kind not in left_out}
    assert all(caught.values())
    assert figures["commands_cut_before_their_end"] and figures["layers_finished_before_a_cut"]


@pytest.mark.parametrize(
    "case",
    [
        Case("xfs", "tars", 17),
        Case("ext4", "big", after_s=0.25),
        Case("xfs", "huge-tars", after_s=1.5, killed=True),
        Case("ext4-journal", "gc", 9, sync_at=3, sync="all", lie=".part"),
    ],
    ids=str,
)
def test_a_case_is_the_same_after_it_was_written_down(case: Case) -> None:
    assert Case.parse(str(case)) == case


@pytest.mark.parametrize("text", ["ntfs,as-is,call=1", "ext4,nothing,call=1", "ext4,as-is,moon=full"])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such case|not known"):
        Case.parse(text)


def test_a_name_counts_as_flushed_only_if_it_was_there_when_the_flush_began(tmp_path: Path) -> None:
    early, late, elsewhere = (letter * 64 for letter in "abc")
    log = tmp_path / "log"
    log.write_text(
        f"1 7 renameat 0 15 {early}\n0 7 begins 0 15\n2 8 renameat 0 15 {late}\n"
        f"3 8 renameat 0 16 {elsewhere}\n"
        "4 7 fsync 0 15\n0 8 begins 0 15\n5 8 fsync 5 15\n"
    )
    witness = Witness.read(log)
    assert witness == Witness(5, False, frozenset((early,)))
    log.write_text(log.read_text() + "0 8 begins 0 15\n6 8 fsync 0 15\n0 8 cut 0\n")
    assert Witness.read(log) == Witness(6, True, frozenset((early, late)))
