"""Users of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.process import Cli


@pytest.fixture
def cli(core: str, tmp_path: Path) -> Cli:
    """A user on a fresh machine, with either core."""
    return Cli(tmp_path / "home", core)


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    """A user on a fresh machine, with the core that is the default."""
    return Cli(tmp_path / "home")
