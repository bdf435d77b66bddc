"""A sample of all failing calls and ends of processes; and the judge of them sees what is wrong."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ccore import ROOT
from tests.support.process import Cli, Ran
from tests.torture.calls import WAYS, Case, judge, possible, run, slots, try_case
from tests.torture.preload import Action, Fault, Faults, Kind
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


CATALOG = """
from pathlib import Path
from layertee.image.document import Digest
from layertee.store.catalog import Catalog, PulledImage

digest = Digest("sha256:" + 64 * "1")
with Catalog(Path("catalog.sqlite")) as catalog:
    assert catalog.rebuilt is None
    catalog.put_image(PulledImage("an/image:1", digest, digest, digest, "linux/amd64", 1))
    assert [image.name for image in catalog.images()] == ["an/image:1"]
    catalog.remove_image("an/image:1")
    assert catalog.images() == []
"""


def catalog_under(fault: Fault, directory: Path) -> tuple[subprocess.CompletedProcess[str], Faults]:
    """A catalog that is made, written to and read, with something going wrong."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    faults = Faults(directory.with_name("faults"), directory)
    faults.arm(fault)
    command = [sys.executable, "-c", CATALOG]
    ran = subprocess.run(
        command, cwd=directory, env=faults.environment(), capture_output=True, text=True, check=False
    )
    return ran, faults


def test_a_flush_of_the_catalog_that_is_interrupted_is_made_again(tmp_path: Path) -> None:
    for at in range(1, 50):
        ran, faults = catalog_under(Fault(Kind.SYNC, Action.FAIL_ONCE, at, errno.EINTR), tmp_path / "store")
        assert ran.returncode == 0, f"{faults.struck()}\n{ran.stderr}"
        assert not list((tmp_path / "store").glob("*corrupt*")), faults.struck()
        if not faults.n_faults:
            break
    assert 10 < at < 49


def test_a_flush_of_the_catalog_that_goes_on_failing_is_an_error(tmp_path: Path) -> None:
    ran, faults = catalog_under(Fault(Kind.SYNC, Action.FAIL_FROM, 7, errno.EIO), tmp_path / "store")
    assert faults.n_faults > 1
    assert "layertee.errors.CatalogError" in ran.stderr


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
