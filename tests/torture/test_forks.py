"""A command that is forked says and does what one that is started does."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Stall
from tests.support.process import PLAIN, Cli, wait_until
from tests.support.rig.images import BuiltImage
from tests.torture.forks import ForkedCli, Forks

pytestmark = pytest.mark.slow


def _without_numbers(text: str) -> list[str]:
    """Layers end in any order; times, sizes of a catalog and names of users differ."""
    return sorted(re.sub(r"[\d.]+", "#", line).replace("forked", "started") for line in text.splitlines())


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(Cli(tmp_path_factory.mktemp("forks")).environment()) as forks:
        yield forks


def test_results_errors_and_exit_codes_are_the_same(forks: Forks, built: BuiltImage, tmp_path: Path) -> None:
    started, forked = Cli(tmp_path / "started"), ForkedCli(tmp_path / "forked", forks)
    with FaultServer(built) as server:
        for words in (
            ("verify",),
            ("pull", PLAIN, "-v", server.reference),
            ("ls", "--json"),
            ("pull", "--no-such-option"),
            ("rm", "missing"),
            ("gc",),
        ):
            one, other = (cli.run(*words, code=None) for cli in (started, forked))
            assert one.code == other.code, words
            assert _without_numbers(one.out) == _without_numbers(other.out)
            assert _without_numbers(one.err) == _without_numbers(other.err)
        assert [r.code for r in (started.run("verify"), forked.run("verify"))] == [0, 0]
        # What one command was told is forgotten when the next one comes.
        refused = forked.pull(server.reference, code=1, LAYERTEE_KEEP_FREE="nonsense")
        assert "nonsense" in refused.err
        assert forked.pull(server.reference).actions == ["have", "have"]


def test_a_forked_command_can_be_killed_and_waited_for(
    forks: Forks, built: BuiltImage, tmp_path: Path
) -> None:
    cli = ForkedCli(tmp_path, forks)
    with FaultServer(built, [on("blob", Stall(1000))]) as server:
        process = cli.start("pull", PLAIN, server.reference)
        wait_until(lambda: server.requests("blob"), "no layer is asked for")
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.01)
        process.kill()
        assert cli.finish(process, None).code == -signal.SIGKILL
        assert process.poll() == process.wait() == -signal.SIGKILL
    cli.run("gc")
