"""The scenarios themselves: undisturbed, each does what it is for, twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.torture.scenarios import SCENARIOS, World, fetches_nothing_again, world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as here:
        yield here


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_undisturbed_run_succeeds_and_so_does_the_next(name: str, here: World, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    if not all(map(shutil.which, scenario.needs)):
        pytest.skip(f"not installed: one of {', '.join(scenario.needs)}")
    cli = scenario.at(Cli(tmp_path))
    scenario.before(here, cli)
    scenario.ready(here, cli)
    for ran in scenario.act(here, cli, {}):
        assert ran.code == 0 or (scenario.busy and "[STORE_BUSY]" in ran.err), ran.err
    scenario.sound(here, cli)
    scenario.again(here, cli)
    scenario.sound(here, cli)


def test_a_layer_that_is_fetched_again_is_seen(here: World, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.pull(here.name)
    fetches_nothing_again(here, here.image, cli, lambda: cli.pull(here.name))

    def pull_again() -> None:
        cli.blob(here.image.layers[1].digest).unlink()
        cli.pull(here.name)

    with pytest.raises(AssertionError, match="fetched again"):
        fetches_nothing_again(here, here.image, cli, pull_again)


def test_the_beginning_of_a_layer_that_is_fetched_again_is_seen(here: World, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    SCENARIOS["pull-rest"].before(here, cli)

    def pull_without_it() -> None:
        for part in (cli.store / "layertee" / "parts").iterdir():
            part.unlink()
        cli.pull(here.name)

    with pytest.raises(AssertionError, match="fetched again"):
        fetches_nothing_again(here, here.image, cli, pull_without_it)
