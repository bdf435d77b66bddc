"""Servers of one image, started once for all tests of a kind of place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import RegistryServer
from tests.support.served import PLACES, REPOSITORY, TAG, Shop, build


@pytest.fixture(scope="package")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="package", params=PLACES)
def shop(
    request: pytest.FixtureRequest,
    image: BuiltImage,
    registry: RegistryServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    work = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        server = stack.enter_context(PLACES[request.param](image, registry, work, stack))
        assert server.json(f"/v2/{REPOSITORY}/tags/list")["tags"] == [TAG]
        yield Shop(server, image)
