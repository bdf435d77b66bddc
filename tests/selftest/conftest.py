"""A fault server for a file's own ``image``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Behaviour
from tests.support.fakes.rawclient import Serve
from tests.support.rig.images import BuiltImage


@pytest.fixture(scope="module")
def blob(image: BuiltImage) -> bytes:
    """The first layer's bytes."""
    return image.blob_path(image.layers[0].digest).read_bytes()


@pytest.fixture
def path(image: BuiltImage) -> str:
    """Of the first layer, at a fault server."""
    return f"/v2/rig/image/blobs/{image.layers[0].digest}"


@pytest.fixture
def serve(image: BuiltImage) -> Iterator[Serve]:
    """Start a server whose blobs behave in a given way."""
    running: list[FaultServer] = []

    def start(behaviour: Behaviour, **options: object) -> FaultServer:
        server = FaultServer(image, [on("blob", behaviour)], **options)  # type: ignore[arg-type]
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)
