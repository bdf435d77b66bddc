"""What a client of the image-proxy reads are the very bytes that were hashed, and all that is in them."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.engine import Engine, Options
from layertee.errors import StoreCorrupt
from layertee.imageproxy.images import Identity, ProxyOptions, SeveralMembers
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy_image import content_of, served
from tests.support.process import inode, open_inodes
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer

HTTP = Options(tls_verify=False)
# In members and frames of 1 MiB, this is several.
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


# --- gzip files of several members ----------------------------------------------------------------------


def first_member(blob: bytes) -> bytes:
    """What a reader sees of a gzip file that stops after its first member, as the Rust clients' does."""
    return zlib.decompressobj(31).decompress(blob)


def built(root: Path, codec: str, large: LayerSpec = LARGE) -> BuiltImage:
    return build_image(root, [SMALL, large], compression=["gzip", codec])


@pytest.mark.parametrize("held", [False, True], ids=["fetched", "held"])
def test_a_gzip_file_of_several_members_is_refused_to_clients_that_read_one(
    server: FaultServer, tmp_path: Path, held: bool
) -> None:
    """By either method: both end at the same decoder. The other layers of the image are given."""
    image = built(tmp_path / "image", "gzip-members")
    small, large = image.layers
    blob = image.blob_path(large.digest).read_bytes()
    assert len(first_member(blob)) < len(gzip.decompress(blob)) == large.uncompressed_size

    async def main() -> None:
        async with Engine(tmp_path / "store", options=HTTP) as engine:
            if held:
                await engine.pull(await engine.plan(f"oci:{image.root}:{image.ref}"))
            async with served(engine, server, image) as opened:
                for asking in (
                    opened.blob(large.digest, large.size),
                    opened.blob(large.digest, -1),
                    opened.raw_blob(large.digest),
                ):
                    with pytest.raises(SeveralMembers) as caught:
                        await asking
                    assert (caught.value.code, caught.value.n_members) == ("GZIP_MEMBERS", 4)
                    assert "layer 1" in str(caught.value) and "diffid" in str(caught.value)
                assert digest_of(content_of(await opened.blob(small.digest, small.size))) == small.digest

    asyncio.run(main())


def test_a_gzip_file_of_several_members_is_given_as_the_tar_that_is_in_it(
    server: FaultServer, tmp_path: Path
) -> None:
    image = built(tmp_path / "image", "gzip-members")
    large = image.layers[1]

    async def main() -> None:
        async with (
            Engine(tmp_path / "store", options=HTTP) as engine,
            served(engine, server, image, ProxyOptions(Identity.DIFF_ID)) as opened,
        ):
            tar = content_of(await opened.blob(large.diff_id, large.uncompressed_size))
            assert digest_of(tar) == large.diff_id

    asyncio.run(main())


@pytest.mark.parametrize("codec", ["gzip", "gzip-fast", "zstd", "zstd-frames", "none"])
@pytest.mark.parametrize("held", [False, True], ids=["fetched", "held"])
def test_every_other_form_is_given_as_it_is(
    server: FaultServer, tmp_path: Path, codec: str, held: bool
) -> None:
    """Zstandard's frames are all read by everybody, the skippable ones included."""
    image = built(tmp_path / "image", codec)

    async def main() -> None:
        async with Engine(tmp_path / "store", options=HTTP) as engine:
            if held:
                await engine.pull(await engine.plan(f"oci:{image.root}:{image.ref}"))
            async with served(engine, server, image) as opened:
                for layer in image.layers:
                    content = content_of(await opened.blob(layer.digest, layer.size))
                    assert digest_of(content) == layer.digest

    asyncio.run(main())
