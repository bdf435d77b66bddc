"""Every way a layer comes in gives the same store: network and places, forms, and how much is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee import Engine, Form, Options, Store, sync
from layertee.image.holding import Basis
from layertee.image.placename import parse_place
from layertee.pulling.plan import Verify, Want
from tests.support.archives import members, write
from tests.support.compress import digest_of, unpack
from tests.support.fakes.fault_server import FaultServer
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import AMD64, assert_store_is_sound, visible_blobs

NAME = "example.com/os:1"


@dataclass(frozen=True, slots=True)
class Image:
    """One image in three compressions: the registry's, another, and none."""

    packed: BuiltImage
    otherwise: BuiltImage
    plain: BuiltImage


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("ways")
    layers = [text_layer({"a": "alpha\n" * 30_000}), incompressible_layer(200_000), text_layer({"b": "b\n"})]
    packed = build_image(root / "packed", layers, compression=["gzip", "zstd", "gzip-members"])
    otherwise = recompress(packed, "zstd-frames", root / "otherwise")
    return Image(packed, otherwise, recompress(packed, "none", root / "plain"))


# --- the ways ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """What to pull where, beside which places; ``same_blobs`` if the image's own blobs come in."""

    reference: str
    places: tuple[str, ...] = ()
    same_blobs: bool = True
    fetches: bool = False


def archive(image: BuiltImage, tmp_path: Path) -> str:
    return f"oci-archive:{write(tmp_path / 'image.tar', members(image))}"


def network(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(server, fetches=True)


def network_again(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    pull(Way(server), root, Want())
    return Way(server)


def network_beside_a_layout(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(server, (f"oci:{image.packed.root}",))


def network_beside_an_archive(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(server, (archive(image.packed, tmp_path),))


def network_beside_another_compression(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(server, (f"oci:{image.otherwise.root}",), same_blobs=False)


def network_beside_tars(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(server, (f"oci:{image.plain.root}",), same_blobs=False)


def network_beside_tars_that_are_here(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    pull(Way(f"oci:{image.plain.root}:latest"), root, Want(), name="before")
    return Way(server, same_blobs=False)


def network_with_a_layer_that_another_tool_put_here(
    image: Image, server: str, tmp_path: Path, root: Path
) -> Way:
    with Store.open(root) as store:
        for layer in image.packed.layers:
            path = root / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.packed.blob_path(layer.digest).read_bytes())
        assert store.images.all() == []
    return Way(server)


def from_a_layout(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(f"oci:{image.packed.root}:latest")


def from_an_archive(image: Image, server: str, tmp_path: Path, root: Path) -> Way:
    return Way(f"{archive(image.packed, tmp_path)}:latest")


WAYS: list[Callable[[Image, str, Path, Path], Way]] = [
    network,
    network_again,
    network_beside_a_layout,
    network_beside_an_archive,
    network_beside_another_compression,
    network_beside_tars,
    network_beside_tars_that_are_here,
    network_with_a_layer_that_another_tool_put_here,
    from_a_layout,
    from_an_archive,
]
WANTED = {
    "as-is": Want(trust=Basis.CLAIMED),
    "as-is, digest": Want(trust=Basis.CLAIMED, verify=Verify.DIGEST),
    "uncompressed": Want(Form.UNCOMPRESSED, trust=Basis.CLAIMED),
}


def pull(way: Way, root: Path, want: Want, name: str = NAME) -> None:
    places = tuple(map(parse_place, way.places))

    async def main() -> None:
        async with (
            asyncio.timeout(200),
            Engine(root, options=Options(AMD64, tls_verify=False, places=places)) as engine,
        ):
            await engine.pull(await engine.plan(way.reference, want, name=name))

    sync.run(main())


def contents(root: Path, name: str) -> list[str]:
    """The DiffIDs of the layers that the store has for that image, by code that is not ours."""
    with Store.open(root) as store:
        kept = store.layout.resolve(name, AMD64)
        blobs = [
            (store.layout.blob_path(layer.digest).read_bytes(), layer.compression) for layer in kept.layers
        ]
    return [digest_of(unpack(blob, compression)) for blob, compression in blobs]


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("default_core")
def test_every_way_in_gives_the_same_store(
    way: Callable[[Image, str, Path, Path], Way], wanted: str, image: Image, tmp_path: Path
) -> None:
    want, straight, root = WANTED[wanted], tmp_path / "straight", tmp_path / "store"
    with FaultServer(image.packed) as server:
        pull(Way(server.reference), straight, want)
        taken = way(image, server.reference, tmp_path, root)
        before = {digest: server.bytes_sent("blob", digest) for digest in image.packed.layer_digests}
        pull(taken, root, want)
        server.settle()
        after = {digest: server.bytes_sent("blob", digest) for digest in image.packed.layer_digests}
    assert (after != before) == taken.fetches
    assert (
        contents(root, NAME) == [layer.diff_id for layer in image.packed.layers] == contents(straight, NAME)
    )
    assert_store_is_sound(root)
    with Store.open(root) as ours, Store.open(straight) as theirs:
        (one,) = (kept for kept in ours.images.all() if kept.name == NAME)
        (other,) = theirs.images.all()
        assert (
            (one.original, one.config)
            == (other.original, other.config)
            == (
                image.packed.digest,
                image.packed.config_digest,
            )
        )
        pairs = {pair.digest: pair.diff_id for pair in ours.catalog.pairs()}
        expected = {pair.digest: pair.diff_id for pair in theirs.catalog.pairs()}
        assert pairs.items() >= expected.items() or not taken.same_blobs
        if wanted == "uncompressed" and not {*image.packed.layer_digests} & {*visible_blobs(root)}:
            assert one.digest == other.digest
            assert set(visible_blobs(root)) >= set(visible_blobs(straight))
        if wanted != "uncompressed" and taken.same_blobs:
            assert one.digest == other.digest
            assert set(visible_blobs(root)) == set(visible_blobs(straight))
