"""The tree as a host unpacks it, and hosts to try it on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.rig import hosts_without, prebuild


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The self-contained tree, unpacked; not to be changed. Tests say ``builds("tree")``."""
    place = tmp_path_factory.mktemp("tree")
    subprocess.run(["tar", "-C", place, "-xf", prebuild.program("tree")], check=True)
    return place / "layertee"


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A minimal Debian, without Python, that the test may change. Tests say ``builds("debian")``."""
    return hosts_without.unpack_debian(prebuild.program("debian"), tmp_path / "debian")
