"""policy.json before the image-proxy: what it does not accept is not opened, and nothing of it is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy import serving
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.slow

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent"}]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Two small layers."""
    layers = [text_layer({"first": "first"}), text_layer({"second": "second"})]
    return build_image(tmp_path_factory.mktemp("policy"), layers)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Of a machine that has nothing yet."""
    return tmp_path / "store"


def docker(server: FaultServer) -> str:
    """The image of that server."""
    return f"docker://{server.reference}"


def written(path: Path, document: object) -> Path:
    """A policy; text as it is."""
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize(
    "document",
    [
        {"default": REJECT},
        {"default": ACCEPT, "transports": {"docker": {"": REJECT}}},
        {"default": ACCEPT, "transports": {"docker": {"HOST": REJECT}}},
        {"default": ACCEPT, "transports": {"docker": {"HOST/rig/image": REJECT}}},
        {"default": ACCEPT, "transports": {"docker": {"HOST/rig": REJECT}}},
        {"default": ACCEPT, "transports": {"docker": {"HOST": [*ACCEPT, *REJECT]}}},
        {"default": SIGNED},
        {"default": [{"type": "unheard-of"}]},
        {"default": []},
        {},
        "",
        "not JSON",
    ],
    ids=repr,
)
def test_an_image_that_the_policy_does_not_accept_is_refused(
    image: BuiltImage, store: Path, tmp_path: Path, document: Any
) -> None:
    with FaultServer(image) as server:
        text = json.dumps(document) if not isinstance(document, str) else document
        policy = written(tmp_path / "policy.json", text.replace("HOST", server.host))
        with serving(store, "--skopeo", "/nonexistent", policy=policy) as proxy:
            for method in ("OpenImage", "OpenImageOptional"):
                assert "[POLICY]" in proxy.refused(method, docker(server))
        server.settle()
        assert all(server.requests("blob", layer.digest) == [] for layer in image.layers)


@pytest.mark.parametrize("policy", ["missing", "a directory"])
def test_a_policy_that_cannot_be_read_is_one_that_refuses(
    image: BuiltImage, store: Path, tmp_path: Path, policy: str
) -> None:
    place = tmp_path if policy == "a directory" else tmp_path / "nope" / "policy.json"
    with FaultServer(image) as server, serving(store, policy=place) as proxy:
        assert "[POLICY]" in proxy.refused("OpenImage", docker(server))


@pytest.mark.parametrize(
    "document",
    [
        {"default": ACCEPT},
        {"default": REJECT, "transports": {"docker": {"": ACCEPT}}},
        {"default": REJECT, "transports": {"docker": {"HOST": ACCEPT}}},
        {"default": REJECT, "transports": {"docker": {"HOST": REJECT, "HOST/rig/image": ACCEPT}}},
    ],
    ids=repr,
)
def test_an_image_that_the_policy_accepts_is_opened(
    image: BuiltImage, store: Path, tmp_path: Path, document: Any
) -> None:
    with FaultServer(image) as server:
        policy = written(tmp_path / "policy.json", json.dumps(document).replace("HOST", server.host))
        with serving(store, policy=policy) as proxy:
            number = proxy.open(docker(server))
            assert proxy.blob(number, image.layers[0])


def test_a_policy_is_one_per_transport(image: BuiltImage, store: Path, tmp_path: Path) -> None:
    document = {"default": REJECT, "transports": {"oci": {"": ACCEPT}}}
    policy = written(tmp_path / "policy.json", document)
    with FaultServer(image) as server, serving(store, policy=policy) as proxy:
        assert "[POLICY]" in proxy.refused("OpenImage", docker(server))
        assert proxy.blob(proxy.open(image.skopeo_name), image.layers[0])


def test_the_policy_is_read_at_every_open(image: BuiltImage, store: Path, tmp_path: Path) -> None:
    policy = written(tmp_path / "policy.json", {"default": ACCEPT})
    with FaultServer(image) as server, serving(store, policy=policy) as proxy:
        proxy.open(docker(server))
        written(policy, {"default": REJECT})
        assert "[POLICY]" in proxy.refused("OpenImage", docker(server))
