"""Users of the command, and our image-proxy beside the real skopeo's.

A test file that needs a ``server`` or an ``image`` of another kind defines its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imageproxy import ImageProxy
from tests.support.imageproxy_pair import NAMES, Images, Server, find_server, images_everywhere
from tests.support.process import Cli
from tests.support.rig.registry import RegistryServer


@pytest.fixture
def cli(core: str, tmp_path: Path) -> Cli:
    """A user on a fresh machine, with either core."""
    return Cli(tmp_path / "home", core)


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    """A user on a fresh machine, with the core that is the default."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def images(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with images_everywhere(registry, tmp_path_factory.mktemp("images")) as images:
        yield images


@pytest.fixture(scope="module", params=NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return find_server(str(request.param), tmp_path_factory.mktemp(str(request.param)))


@pytest.fixture(scope="module")
def shared(server: Server, images: Images) -> Iterator[ImageProxy]:
    """One server for every test that leaves it as it was."""
    with server.start() as proxy:
        proxy.value("Initialize")
        yield proxy


@pytest.fixture
def image(shared: ImageProxy, images: Images) -> Iterator[int]:
    """The id of ``images.oci``, open in ``shared``."""
    number = shared.open(images.names["docker"])
    yield number
    shared.value("CloseImage", number)


@pytest.fixture
def newest(server: Server, shared: ImageProxy) -> ImageProxy:
    """``shared``, if it knows all methods."""
    if tuple(map(int, server.version.split("."))) < (0, 2, 8):
        pytest.skip(f"it speaks {server.version}")
    return shared
