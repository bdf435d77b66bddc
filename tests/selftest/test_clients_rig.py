"""The clients of other projects, and what is read of what they have: at a docker-registry, which all know."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import flip_a_byte
from tests.support.rig import prebuild
from tests.support.rig.clients import BUILT, CLIENTS, Endpoint, as_built, read_layout
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer, RigError

pytestmark = [pytest.mark.slow, pytest.mark.builds(*BUILT)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(300_000), text_layer({"etc/b": "third"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression=["gzip", "zstd", "none"])


@pytest.fixture(scope="module", params=["plain", "TLS and credentials"])
def server(request: pytest.FixtureRequest, image: BuiltImage) -> Iterator[RegistryServer]:
    strict = request.param != "plain"
    with RegistryServer(htpasswd=("rig", "secret") if strict else None, tls=strict) as running:
        upload(image, "clients/os:1", running)
        yield running


@pytest.mark.needs_root("podman pulls as root")
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_takes_the_image(
    client: str, server: RegistryServer, image: BuiltImage, tmp_path: Path
) -> None:
    if client == "docker-registry" and server.credentials:
        pytest.skip("this version gives its upstream no credentials of basic authentication")
    endpoint = Endpoint(server.host, server.certificates, server.credentials)
    try:
        assert CLIENTS[client](endpoint, "clients/os:1", tmp_path) == as_built(image)
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


def test_a_layout_is_not_believed(image: BuiltImage, tmp_path: Path) -> None:
    root = shutil.copytree(image.root, tmp_path / "layout")
    assert read_layout(root) == as_built(image)
    flip_a_byte(root / "blobs" / "sha256" / image.layers[1].digest.removeprefix("sha256:"))
    with pytest.raises(RigError, match="is sha256"):
        read_layout(root)
