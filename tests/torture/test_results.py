"""Budgets choose the same cases again, and figures of all parts end up in one file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.torture.results import Budget, Findings, record


def test_the_same_budget_chooses_the_same_cases_and_another_seed_others() -> None:
    def drawn(seed: int, about: str) -> list[float]:
        chance = Budget(seed, 1.0).random(about)
        return [chance.random() for _ in range(5)]

    assert drawn(1, "kills") == drawn(1, "kills")
    assert drawn(1, "kills") != drawn(2, "kills")
    assert drawn(1, "kills") != drawn(1, "cuts")


@pytest.mark.parametrize(("scale", "count"), [(1.0, 2000), (0.01, 20), (0.0001, 3)])
def test_a_budget_makes_its_share_of_the_full_run_but_not_less_than_it_must(scale: float, count: int) -> None:
    assert Budget(1, scale).count(2000, least=3) == count


def test_a_finding_is_printed_with_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    budget = Budget(7, 0.5)
    findings = Findings("calls", budget)
    findings.add("pull EIO 12", AssertionError("it hangs"))
    printed = capsys.readouterr().out
    assert "pull EIO 12: it hangs" in printed
    words = shlex.split(printed.partition("repeat: ")[2])
    assert words == shlex.split(
        "python -m tests.torture --only calls --seed 7 --scale 0.5 --case 'pull EIO 12'"
    )
    assert not Budget(7, 0.5, ("pull EIO 12",)).wants("pull EIO 13")
    assert budget.wants("pull EIO 13")
    assert findings.figures()["findings"] == 1


def test_figures_of_a_part_replace_its_earlier_ones_and_leave_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "torture.json"
    record("cuts", {"cases": 1}, path)
    record("calls", {"cases": 1}, path)
    record("calls", {"cases": 2}, path)
    assert json.loads(path.read_text())["parts"] == {"calls": {"cases": 2}, "cuts": {"cases": 1}}
    assert list(tmp_path.iterdir()) == [path]
