"""A sample of the hostile servers, and the table's own rules."""

from __future__ import annotations

import pytest

from tests.support.fakes.catalogue import CATALOGUE, HARMLESS
from tests.support.fakes.handshakes import HANDSHAKES
from tests.torture.results import Budget
from tests.torture.servers import CASES, ENDS, FRONTS, TLS, WHERE, Case, Outcome, judge, rows, run

pytestmark = pytest.mark.slow


def test_the_table_has_every_behaviour_and_each_ends_somehow() -> None:
    assert {name for name, row in rows().items() if set(row.ends) == set(WHERE)} == set(CATALOGUE)
    assert {name for name, row in rows().items() if set(row.ends) == {TLS}} >= set(HANDSHAKES)
    assert len(CATALOGUE) >= 150
    assert {case.front for case in CASES.values()} == set(FRONTS)
    assert {case.where for case in CASES.values()} == {*WHERE, TLS}
    for name in HARMLESS:
        assert {rows()[name].ends[where] for where in ("manifest", "config", "layer")} == {("well",)}


def test_the_judge_refuses_another_end_class_time_and_number_of_bytes() -> None:
    case = CASES["library layer status-404"]
    judge(case, Outcome("NOT_FOUND", False, 1.0, 1000))
    for wrong in (
        Outcome("well", False, 1.0, 1000),
        Outcome("NOT_FOUND", True, 1.0, 1000),
        Outcome("NOT_FOUND", False, 100.0, 1000),
        Outcome("NOT_FOUND", False, 1.0, 100 << 20),
    ):
        with pytest.raises(AssertionError, match="library layer status-404"):
            judge(case, wrong)


def test_what_may_be_retried_is_tried_once_more_as_a_fault_that_passes() -> None:
    for case in list(CASES.values()):
        retryable = all(ENDS[end][1] for end in case.ends)
        if case.where == TLS or case.hurried or case.once or case.is_late:
            continue
        if case.front == "library" and retryable:
            assert Case("library", case.where, case.row, once=True).name in CASES


@pytest.mark.spread
def test_a_sample_of_all_cases_ends_as_the_table_says() -> None:
    figures = run(Budget(seed=1, scale=0.02))
    assert figures["findings"] == 0, figures["found"]
