"""Images that do not say what is in all of their layers: the image-proxy has them as skopeo has, a pull not.

Some tools write DiffIDs without their algorithm, others leave DiffIDs of another image in a config.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options, PullResult
from layertee.errors import DocumentError, UnsupportedImage
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Replace
from tests.support.imageproxy import ImageProxy, layertee_proxy, serving
from tests.support.imageproxy_pair import NAMES, PLAIN_HTTP, find_server
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

SPECS = (text_layer({"a": "a" * 9000}), incompressible_layer(400_000, seed=5), text_layer({"b": "b" * 7000}))
FOREIGN = [f"sha256:{digit * 64}" for digit in "123"]
Edit = Callable[[list[str]], list[str]]


def without_algorithm(diff_ids: list[str]) -> list[str]:
    """Of the second layer."""
    return [diff_ids[0], diff_ids[1].removeprefix("sha256:"), diff_ids[2]]


# What becomes of the DiffIDs, the layers that are then opaque, and how that is said.
EDITS: dict[str, tuple[Edit, tuple[int, ...], str]] = {
    "no algorithm": (
        without_algorithm,
        (1,),
        "layers 1 are checked by the digests of their blobs only: its config gives no usable DiffID for them",
    ),
    "more than layers": (
        lambda diff_ids: [*FOREIGN, *diff_ids],
        (0, 1, 2),
        "all layers are checked by the digests of their blobs only: its config has 6 DiffIDs for 3 layers",
    ),
    "fewer than layers": (lambda diff_ids: diff_ids[:2], (0, 1, 2), "its config has 2 DiffIDs for 3 layers"),
    "none": (lambda diff_ids: [], (0, 1, 2), "its config has 0 DiffIDs for 3 layers"),
    "of another algorithm": (
        lambda diff_ids: [diff_ids[0], f"sha512:{'a' * 128}", "md5:0"],
        (1, 2),
        "layers 1, 2 are checked by the digests of their blobs only",
    ),
}


def image_with(edit: Edit, root: Path, **options: Any) -> BuiltImage:
    """Three gzipped layers, with DiffIDs that ``edit`` has changed."""

    def rewrite(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"] = edit(config["rootfs"]["diff_ids"])

    return build_image(root, SPECS, edit_config=rewrite, **options)


def identity(proxy: ImageProxy, number: int) -> list[str | None]:
    """What each layer is said to hold."""
    return [layer["diff_id"] for layer in json.loads(proxy.body("LayerteeLayerIdentity", number))]


def blobs(image: BuiltImage) -> list[bytes]:
    return [image.blob_path(layer.digest).read_bytes() for layer in image.layers]


def pairs(store: Path) -> dict[str, str]:
    """Blobs and what they inflate to, as computed here."""
    told = Cli(store.parent).run("map", "--json", "--store", store).json
    return {pair["digest"]: pair["diff_id"] for pair in told["pairs"]}


@pytest.mark.parametrize("place", ["docker", "oci"])
@pytest.mark.parametrize("kind", EDITS)
def test_such_an_image_is_served_and_said_to_be_one(
    registry: RegistryServer, tmp_path: Path, kind: str, place: str
) -> None:
    edit, opaque, warning = EDITS[kind]
    image = image_with(edit, tmp_path / "image")
    pushed = push(image, f"opaque/{kind.replace(' ', '-')}:1", registry)
    name = f"docker://{pushed}" if place == "docker" else image.skopeo_name
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(name)
        digest, manifest = proxy.manifest(number)
        assert (digest, manifest) == (image.digest, json.loads(image.manifest))
        assert proxy.body("GetFullConfig", number) == image.config
        assert [proxy.blob(number, layer) for layer in image.layers] == blobs(image)
        told = identity(proxy, number)
        assert warning in proxy.stderr()
    known = [layer.diff_id for layer in image.layers]
    assert told == [None if at in opaque else diff_id for at, diff_id in enumerate(known)]
    assert pairs(tmp_path / "store") == {
        layer.digest: layer.diff_id for at, layer in enumerate(image.layers) if at not in opaque
    }


@pytest.mark.parametrize("server", NAMES)
@pytest.mark.parametrize("kind", EDITS)
def test_both_servers_give_the_same_bytes(kind: str, server: str, tmp_path: Path) -> None:
    edit, _, _ = EDITS[kind]
    image = image_with(edit, tmp_path / "image")
    with find_server(server, tmp_path / "home").start() as proxy:
        proxy.value("Initialize")
        number = proxy.open(image.skopeo_name)
        assert [proxy.blob(number, layer) for layer in image.layers] == blobs(image)


@pytest.mark.parametrize(
    ("kind", "says", "code"),
    [
        ("no algorithm", "diff_ids[1] is not sha256:", "BAD_DOCUMENT"),
        ("more than layers", "the manifest has 3 layers, the image config 6 DiffIDs", "BAD_DOCUMENT"),
        ("none", "the manifest has 3 layers, the image config 0 DiffIDs", "BAD_DOCUMENT"),
        ("of another algorithm", "only sha256", "UNSUPPORTED_IMAGE"),
    ],
)
def test_a_pull_refuses_it_and_says_why(kind: str, says: str, code: str, tmp_path: Path) -> None:
    image = image_with(EDITS[kind][0], tmp_path / "image")
    refused = Cli(tmp_path).run("pull", image.skopeo_name, code=None)
    assert refused.code != 0
    assert says in refused.err and f"[{code}]" in refused.err


def test_an_ordinary_image_is_served_without_a_warning(tmp_path: Path) -> None:
    image = image_with(lambda diff_ids: diff_ids, tmp_path / "image")
    with serving(tmp_path / "store") as proxy:
        assert identity(proxy, proxy.open(image.skopeo_name)) == [layer.diff_id for layer in image.layers]
        assert proxy.stderr() == ""


# --- what is checked all the same --------------------------------------------------------------------


def test_the_digest_of_an_opaque_layer_is_checked(tmp_path: Path) -> None:
    image = image_with(without_algorithm, tmp_path / "image")
    layer = image.layers[1]
    wrong = random.Random(1).randbytes(layer.size)
    with (
        FaultServer(image, [on("blob", Replace(wrong), reference=layer.digest)]) as server,
        serving(tmp_path / "store") as proxy,
    ):
        number = proxy.open(f"docker://{server.reference}")
        assert "[DIGEST_MISMATCH]" in proxy.no_blob(number, layer)
        assert proxy.blob(number, image.layers[0]) == blobs(image)[0]


def test_a_diff_id_that_is_given_is_checked(tmp_path: Path) -> None:
    image = image_with(lambda diff_ids: [FOREIGN[0], *without_algorithm(diff_ids)[1:]], tmp_path / "image")
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(image.skopeo_name)
        assert "[DIFFID_MISMATCH]" in proxy.no_blob(number, image.layers[0])
        assert [proxy.blob(number, layer) for layer in image.layers[1:]] == blobs(image)[1:]


def test_what_is_in_an_opaque_layer_does_not_matter(tmp_path: Path) -> None:
    """As with skopeo, which does not look inside: the bytes are those of the digest, whatever they are."""
    image = image_with(without_algorithm, tmp_path / "image", compression=["gzip", "zstd", "gzip"])

    def other_type(manifest: dict[str, Any]) -> None:
        manifest["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"

    lies = image_with(
        without_algorithm,
        tmp_path / "lies",
        compression=["gzip", "zstd", "gzip"],
        edit_manifest=other_type,
    )
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(lies.skopeo_name)
        assert proxy.blob(number, lies.layers[1]) == blobs(image)[1]


# --- what is not fetched again -----------------------------------------------------------------------


def test_an_opaque_layer_is_fetched_once(registry: RegistryServer, tmp_path: Path) -> None:
    image = image_with(EDITS["none"][0], tmp_path / "image")
    name = f"docker://{push(image, 'opaque/once:1', registry)}"
    for n_fetched in (1, 0):
        registry.reset()
        with serving(tmp_path / "store") as proxy:
            number = proxy.open(name)
            assert [proxy.blob(number, layer) for layer in image.layers] == blobs(image)
        assert registry.blob_bytes(digests=image.layer_digests) == n_fetched * image.blob_bytes


def test_what_was_pulled_before_is_no_longer_opaque(registry: RegistryServer, tmp_path: Path) -> None:
    """Its blobs were inflated here, so what is in them is known, whatever the other image leaves out."""
    cli = Cli(tmp_path)
    good = image_with(lambda diff_ids: diff_ids, tmp_path / "good")
    cli.pull(push(good, "opaque/good:1", registry))
    image = image_with(EDITS["none"][0], tmp_path / "image")
    name = f"docker://{push(image, 'opaque/other:1', registry)}"
    registry.reset()
    with serving(cli.store) as proxy:
        number = proxy.open(name)
        assert [proxy.blob(number, layer) for layer in image.layers] == blobs(image)
        assert identity(proxy, number) == [layer.diff_id for layer in good.layers]
        assert proxy.stderr() == ""
    assert registry.blob_bytes(digests=image.layer_digests) == 0


def test_what_was_opaque_is_checked_and_not_fetched_by_a_later_pull(
    registry: RegistryServer, tmp_path: Path
) -> None:
    cli = Cli(tmp_path)
    image = image_with(EDITS["more than layers"][0], tmp_path / "image")
    with serving(cli.store) as proxy:
        number = proxy.open(image.skopeo_name)
        assert [proxy.blob(number, layer) for layer in image.layers] == blobs(image)
    assert pairs(cli.store) == {}
    good = image_with(lambda diff_ids: diff_ids, tmp_path / "good")
    name = push(good, "opaque/later:1", registry)
    registry.reset()
    cli.pull(name)
    assert registry.blob_bytes(digests=good.layer_digests) == 0
    assert pairs(cli.store) == {layer.digest: layer.diff_id for layer in good.layers}


# --- in the library ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
@pytest.mark.parametrize("kind", EDITS)
def test_the_library_takes_such_an_image_if_it_is_told_to(kind: str, form: str, tmp_path: Path) -> None:
    edit, opaque, _ = EDITS[kind]
    image = image_with(edit, tmp_path / "image")

    async def pulled(options: Options) -> PullResult:
        async with Engine(tmp_path / "store", options=options) as engine:
            plan = await engine.plan(image.skopeo_name, form=form)
            result = await engine.pull(plan)
            assert (await engine.verify()).bad == []
            return result

    with pytest.raises((DocumentError, UnsupportedImage)):
        asyncio.run(pulled(Options()))
    result = asyncio.run(pulled(Options(opaque_layers=True)))
    for at, (layer, built) in enumerate(zip(result.layers, image.layers, strict=True)):
        assert layer.diff_id == (None if at in opaque else built.diff_id)
    kept = json.loads((tmp_path / "store/index.json").read_bytes())["manifests"][0]["digest"]
    manifest = json.loads((tmp_path / "store/blobs" / kept.replace(":", "/")).read_bytes())
    named = [
        built.digest if at in opaque or form == "as-is" else built.diff_id
        for at, built in enumerate(image.layers)
    ]
    assert [layer["digest"] for layer in manifest["layers"]] == named
    for layer in manifest["layers"]:
        assert (tmp_path / "store/blobs" / layer["digest"].replace(":", "/")).stat().st_size == layer["size"]


# --- where layers are named by DiffID ----------------------------------------------------------------


@pytest.mark.parametrize("media", ["oci", "docker"])
def test_an_opaque_layer_keeps_its_name_where_others_are_named_by_diff_id(
    registry: RegistryServer, tmp_path: Path, media: str
) -> None:
    image = image_with(without_algorithm, tmp_path / "image", media=media)
    name = f"docker://{push(image, f'opaque/{media}:1', registry)}"
    with layertee_proxy(tmp_path / "store", PLAIN_HTTP, "--layer-identity", "diffid") as proxy:
        proxy.value("Initialize")
        number = proxy.open(name)
        _, manifest = proxy.manifest(number)
        names = [image.layers[0].diff_id, image.layers[1].digest, image.layers[2].diff_id]
        assert [layer["digest"] for layer in manifest["layers"]] == names
        kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
        assert kinds == ["tar", "tar+gzip", "tar"]
        assert [layer["digest"] for layer in proxy.value("GetLayerInfo", number)] == names
        opaque = manifest["layers"][1]
        assert opaque["size"] == image.layers[1].size
        assert proxy.body("GetBlob", number, opaque["digest"], opaque["size"]) == blobs(image)[1]
        tar = manifest["layers"][0]
        assert len(proxy.body("GetBlob", number, tar["digest"], tar["size"])) == tar["size"]
        assert tar["size"] == image.layers[0].uncompressed_size
