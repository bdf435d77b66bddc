"""Layers whose media types are wrong: they are taken for what they are, and the user hears of it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy import ImageProxy
from tests.support.imageproxy_pair import find_server
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

TYPES = {
    "oci": {
        "none": "application/vnd.oci.image.layer.v1.tar",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    },
    "docker": {
        "none": "application/vnd.docker.image.rootfs.diff.tar",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
    },
}
SHOWN = {"none": "a plain tar", "gzip": "gzip", "zstd": "zstd"}
LIES = list(itertools.permutations(("none", "gzip", "zstd"), 2))


def lying(root: Path, media: str = "oci") -> BuiltImage:
    """A layer for each way in which a type can be wrong: (what it is, what it is called)."""

    def relabel(manifest: dict[str, Any]) -> None:
        for layer, (_, said) in zip(manifest["layers"], LIES, strict=True):
            layer["mediaType"] = TYPES[media][said]

    layers = [text_layer({f"file-{n}": f"content {n} " * 300}) for n in range(len(LIES))]
    return build_image(
        root, layers, compression=[actual for actual, _ in LIES], media=media, edit_manifest=relabel
    )


@pytest.fixture(scope="module", params=["oci", "docker"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return lying(tmp_path_factory.mktemp("lying"), request.param)


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_a_registry_s_layers_are_taken_for_what_they_are(cli: Cli, image: BuiltImage, form: str) -> None:
    with FaultServer(image) as server:
        ran = cli.pull("--layers", form, server.reference)
        assert [layer["diff_id"] for layer in ran.layers] == [layer.diff_id for layer in image.layers]
        told = ran.json["warnings"]
        for layer, (actual, said) in zip(image.layers, LIES, strict=True):
            (line,) = [text for text in told if layer.digest in text]
            media = "docker" if "docker" in image.media_type else "oci"
            assert f"is called {TYPES[media][said]}, but" in line and line in ran.err
            if said != "none":  # of that it was known beforehand that it is compressed, and no more
                assert f"it is {SHOWN[actual]};" in line
        cli.verified()
        again = cli.pull("--layers", form, server.reference)
        assert again.actions == ["have"] * len(LIES)
    for layer, (actual, _) in zip(image.layers, LIES, strict=True):
        assert cli.run("map", "--json", layer.digest).json["pairs"][0]["compression"] == actual
        kept = layer.digest if form == "as-is" else layer.diff_id
        assert cli.blob(kept).stat().st_size == (layer.size if form == "as-is" else layer.uncompressed_size)


def test_what_is_known_beforehand_is_told_without_a_download(user: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        told = user.pull("--dry-run", server.reference).json["warnings"]
        assert server.bytes_sent("blob") < 2000, "the config only"
    known = [layer.digest for layer, lie in zip(image.layers, LIES, strict=True) if "none" in lie]
    assert sorted(text.split("(")[1].split(")")[0] for text in told) == sorted(known)


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_so_are_those_of_a_layout(cli: Cli, image: BuiltImage, form: str) -> None:
    cli.run("pull", "--layers", form, f"oci:{image.root}")
    cli.verified()


def test_so_are_those_of_an_archive(cli: Cli, image: BuiltImage, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(image.root / name, name)
    ran = cli.run("pull", "--json", f"oci-archive:{archive}")
    assert len(ran.json["warnings"]) == len(LIES)
    cli.verified()


def test_blobs_that_were_only_hashed_are_known_for_what_they_are_later(cli: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        cli.pull("--verify", "digest", server.reference)
    assert cli.run("map", "--json").json["pairs"] == []
    assert cli.verified()["adopted"] == len(LIES)
    for layer, (actual, _) in zip(image.layers, LIES, strict=True):
        assert cli.run("map", "--json", layer.digest).json["pairs"][0]["compression"] == actual


def test_a_stream_of_a_layer_is_its_tar(image: BuiltImage, tmp_path: Path) -> None:
    async def read() -> list[str]:
        found = []
        async with Engine(tmp_path / "store", options=Options(tls_verify=False)) as engine:
            for step in (await engine.plan(server.reference)).layers:
                seen = hashlib.sha256()
                async with engine.open_layer(step) as stream:
                    async for piece in stream:
                        seen.update(piece)
                found.append("sha256:" + seen.hexdigest())
        return found

    with FaultServer(image) as server:
        assert asyncio.run(read()) == [layer.diff_id for layer in image.layers]


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_layers_of_another_place_serve_an_image_that_calls_them_by_other_types(
    cli: Cli, tmp_path: Path, form: str
) -> None:
    right = [text_layer({f"file-{n}": f"content {n} " * 300}) for n in range(len(LIES))]
    wanted = build_image(tmp_path / "right", right, compression="gzip")
    place = lying(tmp_path / "lying")
    with FaultServer(wanted) as server:
        ran = cli.pull("--layers", form, "--from", f"oci:{place.root}", server.reference)
    assert ran.actions == ["reuse"] * len(LIES)
    cli.verified()


def test_a_lost_catalog_is_made_again_from_what_the_blobs_are(user: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        user.pull(server.reference)
    for file in (user.store / "layertee").glob("catalog*"):
        file.unlink()
    report = user.verified()
    assert report["adopted"] == len(LIES)
    for layer, (actual, _) in zip(image.layers, LIES, strict=True):
        assert user.run("map", "--json", layer.digest).json["pairs"][0]["compression"] == actual


def test_a_tar_with_another_diff_id_is_refused_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    other = "sha256:" + "7" * 64

    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"] = [other]

    image = build_image(tmp_path, [text_layer({"a": "b"})], compression="none", edit_config=lie)
    with FaultServer(image) as server:
        ran = cli.pull(server.reference, code=3)
    assert "no valid gzip member or zstd frame header at byte 0" in ran.err
    assert f"a plain tar would have its digest as DiffID; the config says {other}" in ran.err
    assert cli.leftovers() == []


def test_a_tar_that_begins_like_gzip_is_a_tar_where_the_digest_is_the_diff_id(
    cli: Cli, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "inner", [text_layer({"a": "b"})], compression="gzip")
    blob = image.layers[0]

    def call_it_a_tar(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"] = [blob.digest]

    odd = build_image(
        tmp_path / "odd", [text_layer({"a": "b"})], compression="gzip", edit_config=call_it_a_tar
    )
    with FaultServer(odd) as server:
        ran = cli.pull("--layers", "uncompressed", server.reference)
    (layer,) = ran.layers
    assert (layer["digest"], layer["diff_id"]) == (blob.digest, blob.digest)
    assert cli.blob(blob.digest).read_bytes() == odd.blob_path(blob.digest).read_bytes()


# --- clients of skopeo -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["layertee", "skopeo"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageProxy]:
    server = find_server(str(request.param), tmp_path_factory.mktemp(str(request.param)))
    with server.start() as started:
        started.value("Initialize")
        yield started


def test_a_client_gets_the_bytes_as_they_are_under_the_types_that_the_image_says(
    proxy: ImageProxy, image: BuiltImage
) -> None:
    with FaultServer(image) as server:
        number = proxy.open(f"docker://{server.reference}")
        reply = proxy.call("GetManifest", number)
        if not reply.success and "unsupported docker v2s2 media type" in reply.error:
            pytest.skip("a skopeo that knows no zstd in Docker's manifests")
        proxy.drain(reply)
        _, manifest = proxy.manifest(number)
        said = [layer["mediaType"] for layer in manifest["layers"]]
        assert said == [TYPES["oci"][lie] for _, lie in LIES]
        for layer in image.layers:
            assert proxy.blob(number, layer) == image.blob_path(layer.digest).read_bytes()
        proxy.value("CloseImage", number)
