"""A sample of all failing calls and ends of processes; and the judge of them sees what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ccore import ROOT
from tests.support.process import Cli, Ran
from tests.torture.calls import WAYS, Case, judge, possible, run, slots, try_case
from tests.torture.results import Budget
from tests.torture.scenarios import SCENARIOS, Scenario, World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("fault-library"),
    pytest.mark.needs("docker-registry", "skopeo"),
]

SEED = 20261128
SCALE = 0.004


def test_a_sample_of_failing_calls_breaks_no_promise() -> None:
    figures = run(Budget(SEED, SCALE))
    assert figures["findings"] == 0, json.dumps(figures["found"], indent=1)
    assert figures["scenarios"] == possible()
    assert isinstance(figures["cases"], int) and figures["cases"] > 40
    assert isinstance(figures["ways"], Mapping) and len(figures["ways"]) > 8
    assert sum(way["struck"] for way in figures["ways"].values()) > figures["cases"] / 2


def test_a_run_that_is_ended_early_records_what_it_did(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "tests.torture", "--only", "calls", "--scale", "0.9"]
    with subprocess.Popen(
        [*command, "--json", str(tmp_path / "figures")], stdout=subprocess.PIPE, cwd=ROOT
    ) as run:
        assert run.stdout is not None
        while b"cases to try" not in run.stdout.readline():
            assert run.poll() is None
        run.terminate()
        run.communicate()
    assert run.returncode == 0
    figures = json.loads((tmp_path / "figures").read_text())["parts"]["calls"]
    assert figures["ended_early"] is True and figures["findings"] == 0


SAID = "layertee: writing /store: it failed [STORE_IO]\n"


@pytest.mark.parametrize(
    ("way", "ran"),
    [
        ("EIO-once", Ran(1, "", "layertee: it failed\n")),
        ("EIO-once", Ran(4, "", SAID)),
        ("ENOSPC-from", Ran(1, "", SAID)),
        ("EINTR-once", Ran(1, "", SAID)),
        ("short", Ran(1, "", SAID)),
        ("kill-after", Ran(1, "", SAID)),
        ("EIO-once", Ran(-signal.SIGSEGV, "", "")),
    ],
)
def test_a_wrong_end_is_seen(way: str, ran: Ran) -> None:
    with pytest.raises(AssertionError, match="exit"):
        judge(WAYS[way], SCENARIOS["pull"], ran, struck=True)


@pytest.mark.parametrize(
    ("way", "ran"),
    [
        ("EIO-once", Ran(1, "", SAID)),
        ("EIO-once", Ran(0, "", "")),
        ("ENOSPC-once", Ran(5, "", SAID.replace("STORE_IO", "STORE_FULL"))),
        ("EINTR-once", Ran(0, "", "")),
        ("kill-before", Ran(-signal.SIGKILL, "", "")),
    ],
)
def test_a_right_end_is_let_through(way: str, ran: Ran) -> None:
    judge(WAYS[way], SCENARIOS["pull"], ran, struck=True)


def test_an_error_without_a_cause_is_seen() -> None:
    with pytest.raises(AssertionError, match="no call was touched"):
        judge(WAYS["EIO-once"], SCENARIOS["pull"], Ran(1, "", SAID), struck=False)


def test_a_store_that_lost_what_it_had_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pull = SCENARIOS["pull"]

    def loses(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        rans = pull.act(here, cli, more)
        cli.blob(here.image.layers[0].digest).chmod(0o600)
        cli.blob(here.image.layers[0].digest).write_bytes(b"")
        return rans

    monkeypatch.setitem(SCENARIOS, "loses", Scenario("loses", loses, pull.again))
    with slots(1) as free:
        slot = free.get()
        try_case(slot, Case("pull", WAYS["kill-at"], 10**9))
        with pytest.raises(AssertionError, match="verify: exit"):
            try_case(slot, Case("loses", WAYS["kill-at"], 10**9 + 1))
