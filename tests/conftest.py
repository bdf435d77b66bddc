"""Fixtures that many test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.cores import c_core_missing
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer


def pytest_configure(config: pytest.Config) -> None:
    """The rules of all tests are in modules."""
    plugins.register(config)


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


@pytest.fixture(params=["c", "python"])
def core(request: pytest.FixtureRequest) -> str:
    """The name of a core. C is skipped where it was not built and is not demanded."""
    if request.param == "c" and (why := c_core_missing()):
        if os.environ.get("LAYERTEE_CORE") == "c":
            pytest.fail(why)
        pytest.skip(why)
    return str(request.param)


@pytest.fixture
def default_core(core: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each core in turn, as the one that is used where none is named."""
    monkeypatch.setenv("LAYERTEE_CORE", core)
    return core
