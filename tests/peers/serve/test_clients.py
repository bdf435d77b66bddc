"""Clients as they are typed, at every kind of place that is served: all have the same image at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.support.rig import prebuild
from tests.support.rig.clients import BUILT, CLIENTS
from tests.support.rig.images import run_tool
from tests.support.served import REPOSITORY, TAG, Shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds(*BUILT),
    pytest.mark.needs_root("podman's store is among the places"),
]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_has_the_image(shop: Shop, client: str, tmp_path: Path) -> None:
    try:
        assert CLIENTS[client](shop.server.endpoint, f"{REPOSITORY}:{TAG}", tmp_path) == shop.wanted
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("client", ["skopeo", "podman", "layertee"])
def test_a_client_has_it_by_its_digest(shop: Shop, client: str, tmp_path: Path) -> None:
    wanted = shop.wanted
    name = f"{REPOSITORY}@{wanted.manifest}"
    assert CLIENTS[client](shop.server.endpoint, name, tmp_path) == wanted


@pytest.mark.parametrize("shop", ["store, tars", "podman's store"], indirect=True)
def test_our_own_takes_the_original_whose_blobs_are_gone(shop: Shop, tmp_path: Path) -> None:
    """It has the registry's manifest afterwards, and layers that are the tars that this names."""
    original = shop.image
    assert shop.wanted.manifest != original.digest
    cli = Cli(tmp_path)
    name = f"{shop.server.host}/{REPOSITORY}@{original.digest}"
    shop.server.reset()
    pulled = cli.pull("--insecure-policy", "--layers=uncompressed", name)
    assert pulled.json["manifest_digest"] == original.digest
    asked = {access.reference for access in shop.server.accesses() if access.nbytes > 1000}
    assert {layer.diff_id for layer in original.layers if layer.size > 1000} <= asked
    cli.verified()


def test_skopeo_shows_what_is_there(shop: Shop) -> None:
    source = f"docker://{shop.server.host}/{REPOSITORY}:{TAG}"
    shown = json.loads(run_tool("skopeo", "inspect", "--tls-verify=false", source))
    assert shown["Digest"] == shop.wanted.manifest
    assert shown["RepoTags"] == ["1"]
    raw = run_tool("skopeo", "inspect", "--raw", "--tls-verify=false", source)
    assert raw.encode() == shop.manifest
