"""What a client of the image-proxy reads are the very bytes that were hashed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.engine import Engine, Options
from layertee.errors import StoreCorrupt
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy_image import content_of, served
from tests.support.process import inode, open_inodes
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

HTTP = Options(tls_verify=False)
LARGE = incompressible_layer(3 << 20, seed=5)
SMALL = text_layer({"etc/small": "small\n" * 2000})


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), [SMALL, LARGE])


def file_of(store: Path, digest: str) -> Path:
    return store / "blobs" / "sha256" / digest.removeprefix("sha256:")


def put_another(path: Path) -> None:
    """A file of the same size under the same name, with other bytes."""
    other = path.with_name("other")
    other.write_bytes(b"EVIL" * (path.stat().st_size // 4 + 1))
    os.truncate(other, path.stat().st_size)
    other.replace(path)


def put_another_store(path: Path) -> None:
    """Another directory in the place of the store's: for this, a parent directory is enough to own."""
    root = path.parents[2]
    root.rename(root.with_name("moved"))
    path.parent.mkdir(parents=True)
    there = root.with_name("moved") / path.relative_to(root)
    path.write_bytes(b"\0" * there.stat().st_size)


@pytest.mark.parametrize("change", [put_another, put_another_store])
@pytest.mark.parametrize("held", [False, True], ids=["fetched", "held"])
def test_a_layer_that_was_checked_is_given_whatever_becomes_of_its_name(
    server: FaultServer, image: BuiltImage, tmp_path: Path, held: bool, change: object
) -> None:
    """Both when this process has written it and when it was in the store before."""
    store = tmp_path / "store"
    layer = image.layers[1]

    async def ask(times: int) -> None:
        async with Engine(store, options=HTTP) as engine, served(engine, server, image) as opened:
            for at in range(times):
                content = content_of(await opened.blob(layer.digest, layer.size))
                assert digest_of(content) == layer.digest
                if at == 0 and times > 1:
                    assert callable(change)
                    change(file_of(store, layer.digest))

    if held:
        asyncio.run(ask(1))
    asyncio.run(ask(3))


def test_a_layer_that_was_swapped_before_it_was_checked_is_fetched_anew(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    async def ask() -> None:
        async with Engine(store, options=HTTP) as engine, served(engine, server, image) as opened:
            for layer in image.layers:
                content = content_of(await opened.raw_blob(layer.digest))
                assert digest_of(content) == layer.digest

    asyncio.run(ask())
    put_another(file_of(store, image.layers[1].digest))
    asyncio.run(ask())
    assert digest_of(file_of(store, image.layers[1].digest).read_bytes()) == image.layers[1].digest
    assert len(list((store / "layertee" / "quarantine").iterdir())) == 1


def test_a_file_that_lost_its_end_after_it_was_checked_is_not_given(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    layer = image.layers[1]

    async def ask() -> None:
        async with Engine(tmp_path, options=HTTP) as engine, served(engine, server, image) as opened:
            content_of(await opened.blob(layer.digest, layer.size))
            path = file_of(tmp_path, layer.digest)
            path.chmod(0o600)
            os.truncate(path, layer.size - 1)
            with pytest.raises(StoreCorrupt, match="changed since it was checked"):
                await opened.blob(layer.digest, layer.size)

    asyncio.run(ask())


def test_what_is_given_can_only_be_read(server: FaultServer, image: BuiltImage, tmp_path: Path) -> None:
    async def ask() -> None:
        async with Engine(tmp_path, options=HTTP) as engine, served(engine, server, image) as opened:
            for layer in image.layers:
                pipe = (await opened.blob(layer.digest, layer.size)).pipe
                assert pipe is not None
                assert fcntl.fcntl(pipe.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
                assert os.fstat(pipe.fd).st_mode & 0o777 == 0o400, "it is not for another user to open again"
                os.close(pipe.fd)

    asyncio.run(ask())


def test_an_image_that_is_closed_keeps_no_file_open(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    async def ask() -> None:
        async with Engine(tmp_path, options=HTTP) as engine:
            async with served(engine, server, image) as opened:
                for layer in image.layers:
                    content_of(await opened.blob(layer.digest, layer.size))
                blobs = {inode(file_of(tmp_path, layer.digest)) for layer in image.layers}
                assert blobs <= open_inodes()
            assert not blobs & open_inodes()

    asyncio.run(ask())
