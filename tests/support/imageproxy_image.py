"""An open image of the image-proxy, in the test's own process: without a socket, a client or a command line.

async with Engine(store, options=Options(tls_verify=False)) as engine:
    async with served(engine, server, image) as opened:
        content = content_of(await opened.blob(digest, size))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from layertee.engine import Engine
from layertee.imageproxy.images import ProxyOptions, ServedImage
from layertee.imageproxy.server import Answer
from tests.support.fakes.fault_server import FaultServer
from tests.support.rig.images import BuiltImage

__all__ = ["content_of", "served", "served_by_name"]

_REPOSITORY = "proxy/image"


@asynccontextmanager
async def served(
    engine: Engine, server: FaultServer, image: BuiltImage, options: ProxyOptions | None = None
) -> AsyncIterator[ServedImage]:
    """``image``, put on ``server`` and open from there, under whatever policy."""
    server.add(image, _REPOSITORY, "latest")
    name = f"docker://{server.host}/{_REPOSITORY}@{image.digest}"
    async with served_by_name(engine, name, options) as opened:
        yield opened


@asynccontextmanager
async def served_by_name(
    engine: Engine, name: str, options: ProxyOptions | None = None
) -> AsyncIterator[ServedImage]:
    """The image ``name``, as in containers-transports(5)."""

    async def nothing(_: object = None) -> None:
        return None

    opened = await ServedImage.open(engine, name, options or ProxyOptions(), examine=nothing, closed=nothing)
    try:
        yield opened
    finally:
        await opened.close()


def content_of(answer: Answer) -> bytes:
    """All that the client gets from ``answer``, whose descriptors are closed. No error may come beside it."""
    fds = (answer.pipe.fd,) if answer.pipe is not None else answer.fds
    pieces = []
    for fd in fds:
        with open(fd, "rb") as file:
            pieces.append(file.read())
    content, *errors = pieces
    assert errors in ([], [b""])
    return content
