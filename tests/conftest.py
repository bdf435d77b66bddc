"""Fixtures that many test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cores import c_core_missing
from tests.support.rig import prebuild
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer


def pytest_sessionstart() -> None:
    """Refuse a C core of other sources: the tests would run, on the fallback, and prove nothing of it."""
    if "another version" in (why := c_core_missing() or ""):
        pytest.exit(f"{why}: .ci/setup dev python3 .venv", returncode=4)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what the tests of this run need, outside of their limits."""
    if session.config.option.collectonly:
        return
    marks = [mark for item in session.items for mark in item.iter_markers("builds")]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    say = print if reporter is None else reporter.write_line
    prebuild.prepare(dict.fromkeys(name for mark in marks for name in mark.args), say)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image whose first layer is 12 MiB on the wire, and whose second is small."""
    root: Path = tmp_path_factory.mktemp("built")
    return build_image(
        root,
        [incompressible_layer(12 << 20, seed=1), text_layer({"hello": "hello\n" * 50_000})],
        compression="gzip-fast",
    )


@pytest.fixture(scope="session")
def registry() -> Iterator[RegistryServer]:
    """A real docker-registry, plain HTTP, shared: use a repository of your own."""
    with RegistryServer() as server:
        yield server
