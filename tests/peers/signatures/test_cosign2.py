"""Cosign 2, whose signatures registries are full of. It is built where LAYERTEE_ALL_PEERS=1 asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.enforced import Enforced, by_sigstore, layer_requests
from tests.support.process import PLAIN, Cli
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import build_image, build_index, push_index
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign2")]


@pytest.mark.parametrize("recursive", [False, True], ids=["alone", "recursive"])
def test_what_cosign_2_signs_is_taken(registry: RegistryServer, tmp_path: Path, recursive: bool) -> None:
    (tmp_path / "signer").mkdir()
    try:
        cosign = Cosign(tmp_path / "signer", 2)
    except NotBuilt as exc:
        pytest.skip(str(exc))
    images = [
        build_image(tmp_path / name, [text_layer({"of": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64")
    ]
    repository = f"cosign2/{'all' if recursive else 'alone'}"
    name = push_index(build_index(tmp_path / "index", images), f"{repository}:1", registry)
    machine, user = Enforced(tmp_path / "machine"), Cli(tmp_path / "home")
    machine.want("docker", registry.host, by_sigstore(cosign.make_key()))
    machine.find(use_sigstore_attachments=True)
    registry.reset()
    assert "[POLICY]" in user.run("pull", PLAIN, *machine.options, name, code=1).err
    assert layer_requests(registry, *images) == []
    cosign.sign(name, bundle=False, recursive=recursive)
    (verified,) = user.pull(*machine.options, name).json["policy"]["verified"]
    assert verified["kind"] == "sigstoreSigned"
    own = f"{registry.host}/{repository}@{images[1].digest}"
    user.run("pull", PLAIN, "--platform", "linux/arm64", *machine.options, own, code=0 if recursive else 1)
