"""The scenarios themselves: undisturbed, each does what it is for, twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.torture.scenarios import SCENARIOS, World, assert_sound, world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as here:
        yield here


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_undisturbed_run_succeeds_and_so_does_the_next(name: str, here: World, tmp_path: Path) -> None:
    scenario, cli = SCENARIOS[name], Cli(tmp_path)
    scenario.before(here, cli)
    for ran in scenario.act(here, cli, {}):
        assert ran.code == 0, ran.err
    assert_sound(cli)
    scenario.again(here, cli)
    assert_sound(cli)
