"""Signatures that hold where an image is handed on: cosign asks the server as it would ask the registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.support.rig import prebuild
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import BuiltImage, build_image, run_tool, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.serve import ServeRig

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign3")]

REPOSITORY = "signed/os"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/a": "a\n" * 1000}), text_layer({"etc/b": "b\n"})]
    return build_image(tmp_path_factory.mktemp("signed"), layers)


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    try:
        found = Cosign(tmp_path_factory.mktemp("cosign"))
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))
    found.make_key()
    return found


def accepts(cosign: Cosign, name: str, *, bundle: bool, key: str = "cosign.pub") -> bool:
    form = f"--new-bundle-format={'true' if bundle else 'false'}"
    return cosign.accepts(name, "--key", key, "--insecure-ignore-tlog=true", form)


@pytest.mark.parametrize("layers", ["as-is", "uncompressed"])
@pytest.mark.parametrize("form", ["attachment", "bundle"])
def test_an_image_that_was_pulled_with_its_signatures_is_verified_by_its_digest(
    image: BuiltImage, cosign: Cosign, registry: RegistryServer, tmp_path: Path, form: str, layers: str
) -> None:
    """Whatever form its layers are kept in: what was signed is the original manifest."""
    repository = f"{REPOSITORY}-{form}-{layers}"
    signed = f"{registry.host}/{repository}@{image.digest}"
    name = upload(image, f"{repository}:1", registry)
    cosign.sign(signed, bundle=form == "bundle")
    assert accepts(cosign, signed, bundle=form == "bundle")
    home = tmp_path / "home"
    Cli(home).pull("--insecure-policy", "--keep-signatures", f"--layers={layers}", name)
    with ServeRig(home, "store") as server:
        served = f"{server.host}/{repository}@{image.digest}"
        assert accepts(cosign, served, bundle=form == "bundle")
        other = Cosign(tmp_path)
        other.make_key()
        key = str(tmp_path / "cosign.pub")
        assert not accepts(cosign, served, bundle=form == "bundle", key=key)


def test_an_attachment_in_a_layout_is_an_image_like_others(
    image: BuiltImage, cosign: Cosign, registry: RegistryServer, tmp_path: Path
) -> None:
    """As skopeo copies it to a stick, under the tag that cosign gave it."""
    upload(image, f"{REPOSITORY}:1", registry)
    cosign.sign(f"{registry.host}/{REPOSITORY}@{image.digest}", bundle=False)
    tag = f"{image.digest.replace(':', '-')}.sig"
    options = ("--quiet", "--preserve-digests", *registry.skopeo_options("src"))
    for one in ("1", tag):
        source = f"docker://{registry.host}/{REPOSITORY}:{one}"
        run_tool("skopeo", "copy", *options, source, f"oci:{tmp_path}/stick:{REPOSITORY}:{one}")
    unsigned = shutil.copytree(image.root, tmp_path / "unsigned")
    with (
        ServeRig(tmp_path / "home", f"oci:{tmp_path}/stick") as server,
        ServeRig(tmp_path / "other", f"oci:{unsigned}") as other,
    ):
        assert server.json(f"/v2/{REPOSITORY}/tags/list")["tags"] == sorted(["1", tag])
        assert accepts(cosign, f"{server.host}/{REPOSITORY}@{image.digest}", bundle=False)
        assert accepts(cosign, f"{server.host}/{REPOSITORY}:1", bundle=False)
        (repository,) = other.json("/v2/_catalog")["repositories"]
        assert not accepts(cosign, f"{other.host}/{repository}@{image.digest}", bundle=False)
