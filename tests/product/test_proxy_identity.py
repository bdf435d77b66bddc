"""The names of layers: what a client of the image-proxy is told, and what it need not fetch therefore."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.compress import digest_of
from tests.support.imageproxy import ImageProxy, serving
from tests.support.process import wait_until
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.ostree import OSTreeRig
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root("these tools unpack layers as root"),
]

NAME = "localhost/os:1"
TAR = "application/vnd.oci.image.layer.v1.tar"
METHOD = "LayerteeLayerIdentity"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    specs = [
        text_layer({"etc/os-release": "NAME=os\n" * 4000}),
        incompressible_layer(600_000, seed=11),
        text_layer({"usr/share/doc": "words\n" * 60_000}),
    ]
    return build_image(tmp_path_factory.mktemp("image"), specs)


@pytest.fixture(scope="module")
def zstd(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return recompress(image, "zstd", tmp_path_factory.mktemp("zstd"))


@pytest.fixture(scope="module")
def built_here(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> StorageRig:
    """Podman's store with the image as a local build leaves it: made of plain tars."""
    plain = recompress(image, "none", tmp_path_factory.mktemp("plain"))
    store = StorageRig(tmp_path_factory.mktemp("filled") / "store", "overlay")
    store.take(plain.skopeo_name, NAME)
    return store


def identity(proxy: ImageProxy, number: int) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(proxy.body(METHOD, number))
    return told


def tars(image: BuiltImage) -> list[dict[str, Any]]:
    return [
        {"mediaType": TAR, "digest": layer.diff_id, "size": layer.uncompressed_size} for layer in image.layers
    ]


# --- one name for a layer, wherever its image comes from ------------------------------------------------


def test_by_diffid_an_image_has_the_same_layers_whatever_it_was_compressed_with_and_wherever_it_is(
    image: BuiltImage, zstd: BuiltImage, built_here: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    names = [
        f"docker://{push(image, 'identity/gzip:1', registry)}",
        f"docker://{push(zstd, 'identity/zstd:1', registry)}",
        f"{built_here.name}{NAME}",
        image.skopeo_name,
    ]
    with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
        for name in names:
            number = proxy.open(name)
            _, manifest = proxy.manifest(number)
            assert [
                {key: layer[key] for key in ("mediaType", "digest", "size")} for layer in manifest["layers"]
            ] == tars(image), name
            assert manifest["config"]["digest"] == image.config_digest, name
            info = json.loads(proxy.body("GetLayerInfoPiped", number))
            assert [one["digest"] for one in info] == [layer.diff_id for layer in image.layers]
            assert {one["media_type"] for one in info} == {TAR}
            proxy.value("CloseImage", number)


def test_by_diffid_the_digest_is_of_the_manifest_that_is_told_and_names_the_registrys(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "identity/digest:1", registry)
    with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
        number = proxy.open(f"docker://{name}")
        reply = proxy.piped("GetManifest", number)
        raw, _ = proxy.drain(reply)
        assert reply.value == digest_of(raw) != image.digest
        assert json.loads(raw)["annotations"] == {"dev.layertee.original-manifest": image.digest}
        assert reply.document["layertee"] == {
            "version": 1,
            "registry_manifest": image.digest,
            "layers": METHOD,
        }


def test_by_diffid_every_layer_is_its_tar(zstd: BuiltImage, registry: RegistryServer, tmp_path: Path) -> None:
    name = push(zstd, "identity/tars:1", registry)
    with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
        number = proxy.open(f"docker://{name}")
        for layer in zstd.layers:
            tar = proxy.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
            assert digest_of(tar) == layer.diff_id
            assert layer.digest in proxy.no_blob(number, layer), "it is not known by that name now"


def test_by_diffid_what_podman_has_is_not_downloaded(
    image: BuiltImage, built_here: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    """Built here, pushed, and now opened at the registry: the tars come out of podman's store."""
    name = push(image, "identity/pushed:1", registry)
    registry.reset()
    with serving(tmp_path / "store", "--layer-identity", "diffid", "--from", built_here.name) as proxy:
        number = proxy.open(f"docker://{name}")
        proxy.manifest(number)
        for layer in image.layers:
            tar = proxy.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
            assert digest_of(tar) == layer.diff_id
    assert registry.blob_bytes(digests=image.layer_digests) == 0


def test_by_diffid_blobs_that_the_store_has_are_inflated_not_downloaded(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    name = f"docker://{push(image, 'identity/twice:1', registry)}"
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(name)
        for layer in image.layers:
            proxy.blob(number, layer)
    registry.reset()
    with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
        number = proxy.open(name)
        for layer in image.layers:
            tar = proxy.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
            assert digest_of(tar) == layer.diff_id
    assert registry.blob_bytes(digests=image.layer_digests) == 0


def test_by_diffid_the_size_of_what_the_client_has_is_not_downloaded_to_be_known(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    repo = OSTreeRig.create(tmp_path / "repo")
    for n, layer in enumerate(image.layers):
        if n != 1:  # as bootc imports what podman has: under the DiffID
            tar = tmp_path / "layer.tar"
            tar.write_bytes(gzip.decompress(image.blob_path(layer.digest).read_bytes()))
            repo.take_layer(layer.diff_id, tar)
    name = push(image, "identity/client:1", registry)
    registry.reset()
    options = ("--layer-identity", "diffid", "--client-repo", str(repo.root))
    with serving(tmp_path / "store", *options) as proxy:
        number = proxy.open(f"docker://{name}")
        _, manifest = proxy.manifest(number)
        assert [layer["digest"] for layer in manifest["layers"]] == [one.diff_id for one in image.layers]
        new = image.layers[1]
        assert manifest["layers"][1]["size"] == new.uncompressed_size
        proxy.body("GetBlob", number, new.diff_id, new.uncompressed_size)
        assert registry.blob_bytes(digests=image.layer_digests) == new.size
        # A client that asks all the same, with the size that it was told, gets the layer.
        told = manifest["layers"][0]
        assert digest_of(proxy.body("GetBlob", number, told["digest"], told["size"])) == told["digest"]


# --- what the registry calls a layer --------------------------------------------------------------------


def test_of_an_image_at_a_registry_the_names_are_its_own_and_computed_once_they_were_hashed(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "identity/names:1", registry)
    with serving(tmp_path / "store", "--ahead", "0") as proxy:
        number = proxy.open(f"docker://{name}")
        before = identity(proxy, number)
        assert before == [
            {
                "diff_id": layer.diff_id,
                "digest": layer.digest,
                "size": layer.size,
                "media_type": f"{TAR}+gzip",
                "basis": "claimed",
            }
            for layer in image.layers
        ]
        proxy.blob(number, image.layers[0])
        assert [one["basis"] for one in identity(proxy, number)] == ["computed", "claimed", "claimed"]


def test_an_image_that_podman_pulled_keeps_the_names_that_it_had_at_the_registry(
    image: BuiltImage, tmp_path: Path
) -> None:
    store = StorageRig(tmp_path / "podman", "overlay")
    store.take(image.skopeo_name, NAME)
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(f"{store.name}{NAME}")
        reply = proxy.piped("GetManifest", number)
        raw, _ = proxy.drain(reply)
        assert raw == image.manifest, "as podman's store has it"
        assert reply.document["layertee"]["registry_manifest"] == image.digest
        for one, layer in zip(identity(proxy, number), image.layers, strict=True):
            assert one["diff_id"] == layer.diff_id
            assert (one["digest"], one["size"]) == (layer.digest, layer.size)
            assert one["basis"] == "attested"
        # The layers themselves are tars here, and are asked for as GetLayerInfo names them.
        info = json.loads(proxy.body("GetLayerInfoPiped", number))
        for one, layer in zip(info, image.layers, strict=True):
            tar = proxy.body("GetBlob", number, one["digest"], one["size"])
            assert digest_of(tar) == layer.diff_id


def test_an_image_that_was_built_here_gets_the_names_of_what_was_pushed_once_they_are_known(
    image: BuiltImage, built_here: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "identity/known:1", registry)
    with serving(tmp_path / "store", "--annotate-layers") as proxy:
        local = proxy.open(f"{built_here.name}{NAME}")
        assert [one["digest"] for one in identity(proxy, local)] == [None] * 3
        digest, manifest = proxy.manifest(local)
        assert all("annotations" not in layer for layer in manifest["layers"])
        pushed = proxy.open(f"docker://{name}")
        for layer in image.layers:
            proxy.blob(pushed, layer)
        proxy.value("CloseImage", local)
        local = proxy.open(f"{built_here.name}{NAME}")
        again, manifest = proxy.manifest(local)
        assert again == digest
        for layer, one in zip(manifest["layers"], image.layers, strict=True):
            assert layer["digest"] == one.diff_id
            assert layer["annotations"] == {
                "dev.layertee.layer.compressed-digest": one.digest,
                "dev.layertee.layer.compressed-size": str(one.size),
                "dev.layertee.layer.compressed-mediatype": f"{TAR}+gzip",
                "dev.layertee.layer.basis": "computed",
            }


def test_without_being_asked_to_a_manifest_is_never_annotated(
    image: BuiltImage, built_here: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "identity/plain:1", registry)
    with serving(tmp_path / "store") as proxy:
        pushed = proxy.open(f"docker://{name}")
        for layer in image.layers:
            proxy.blob(pushed, layer)
        digest, _ = proxy.manifest(pushed)
        assert digest == image.digest
        local = proxy.open(f"{built_here.name}{NAME}")
        raw = proxy.body("GetManifest", local)
        digest, _ = proxy.manifest(local)
        assert digest_of(raw) == digest


# --- what the client has already ------------------------------------------------------------------------


def test_layers_of_the_clients_repository_are_not_fetched_until_they_are_asked_for(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    repo = OSTreeRig.create(tmp_path / "repo")
    old = build_image(tmp_path / "old", [text_layer({"etc/os-release": "NAME=os\n" * 4000})])
    repo.take(old, "docker://example.com/os:1", tmp_path)
    assert old.layers[0].digest == image.layers[0].digest
    name = push(image, "identity/repo:1", registry)
    registry.reset()
    with serving(tmp_path / "store", "--client-repo", f"ostree:{repo.root}") as proxy:
        number = proxy.open(f"docker://{name}")
        for layer in (*image.layers[1:], image.layers[0]):
            proxy.blob(number, layer)
    asked = [access.reference for access in registry.accesses() if access.kind == "blob"]
    first = asked.index(image.layers[0].digest)
    assert set(asked[:first]) == {layer.digest for layer in image.layers[1:]} | {image.config_digest}, (
        "what is brought ahead is begun when the image is opened, in its order"
    )


def test_layers_come_ahead_of_the_client_without_being_asked_for(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "identity/ahead:1", registry)
    registry.reset()
    with serving(tmp_path / "store", "--client-repo", "none") as proxy:
        proxy.open(f"docker://{name}")
        blobs = tmp_path / "store" / "blobs" / "sha256"
        wait_until(lambda: len(list(blobs.glob("*"))) == len(image.layers), "they do not come")
        assert {f"sha256:{path.name}" for path in blobs.iterdir()} == image.layer_digests


# --- other kinds of images ------------------------------------------------------------------------------


def test_an_archive_is_served_like_the_layout_in_it(image: BuiltImage, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    run_tool("skopeo", "copy", "--quiet", image.skopeo_name, f"oci-archive:{archive}:latest")
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(f"oci-archive:{archive}:latest")
        digest, _ = proxy.manifest(number)
        assert digest == image.digest
        for layer in image.layers:
            assert digest_of(proxy.blob(number, layer)) == layer.digest


def test_other_transports_are_left_to_the_real_skopeo(image: BuiltImage, tmp_path: Path) -> None:
    directory = tmp_path / "dir"
    run_tool("skopeo", "copy", "--quiet", image.skopeo_name, f"dir:{directory}")
    with serving(tmp_path / "store") as proxy:
        number = proxy.open(f"dir:{directory}")
        digest, manifest = proxy.manifest(number)
        assert digest == image.digest == digest_of((directory / "manifest.json").read_bytes())
        for layer in manifest["layers"]:
            blob = proxy.body("GetBlob", number, layer["digest"], layer["size"])
            assert digest_of(blob) == layer["digest"]
        proxy.value("CloseImage", number)


def test_without_a_real_skopeo_other_transports_are_refused(image: BuiltImage, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with serving(tmp_path / "store", "--skopeo", str(nothing)) as proxy:
        assert "skopeo" in proxy.refused("OpenImage", f"dir:{tmp_path}")
        number = proxy.open(image.skopeo_name)
        proxy.blob(number, image.layers[0])
