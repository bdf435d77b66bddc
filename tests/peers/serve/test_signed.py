"""Signatures that hold where an image is handed on: cosign asks the server as it would ask the registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.enforced import Enforced, by_sigstore
from tests.support.imagepolicy import imagepolicy
from tests.support.mirrors import At, write_conf
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


@pytest.fixture
def neighbour(
    image: BuiltImage, cosign: Cosign, registry: RegistryServer, tmp_path: Path
) -> Iterator[ServeRig]:
    """It has the image with its signature, and layers as tars."""
    name = f"{registry.host}/{REPOSITORY}"
    upload(image, f"{REPOSITORY}:1", registry)
    cosign.sign(f"{name}@{image.digest}", bundle=False)
    home = tmp_path / "neighbour"
    Cli(home).pull("--insecure-policy", "--keep-signatures", "--layers=uncompressed", f"{name}:1")
    with ServeRig(home, "store") as server:
        yield server


@pytest.mark.parametrize("signer", ["right", "other"])
def test_who_takes_signed_images_only_has_all_of_one_from_a_neighbour(
    image: BuiltImage,
    cosign: Cosign,
    neighbour: ServeRig,
    registry: RegistryServer,
    tmp_path: Path,
    signer: str,
) -> None:
    """And asks the registry, by whose name the image is signed, for nothing."""
    key = cosign.public_key if signer == "right" else Cosign(tmp_path).make_key()
    user = Enforced(tmp_path / "user")
    user.want("docker", registry.host, by_sigstore(key))
    user.find(use_sigstore_attachments=True)
    prefix = f"{registry.host}/{REPOSITORY}"
    conf = write_conf(tmp_path, prefix, [At(f"{neighbour.host}/{REPOSITORY}")], blocked=True)
    registry.reset()
    words = (*user.options, f"--registries-conf={conf}", f"{prefix}@{image.digest}")
    ran = Cli(user.home).run("pull", *words, code=0 if signer == "right" else None)
    assert (ran.code == 0) == (signer == "right"), ran.err
    assert registry.accesses() == []
    layers = {layer.diff_id for layer in image.layers}
    asked = {one.reference for one in neighbour.accesses() if one.status == 200 and one.method == "GET"}
    assert (layers <= asked) if signer == "right" else not layers & asked


@pytest.mark.builds("imagepolicy")
def test_containers_image_finds_the_signature_beside_what_is_served(
    image: BuiltImage, cosign: Cosign, neighbour: ServeRig, registry: RegistryServer, tmp_path: Path
) -> None:
    """The library of podman and skopeo, told by which name the image was signed."""
    try:
        program = prebuild.program("imagepolicy")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))
    user = Enforced(tmp_path / "user")
    user.find(use_sigstore_attachments=True)
    served = f"{neighbour.host}/{REPOSITORY}@{image.digest}"

    def policy(name: str) -> dict[str, object]:
        signed_as = {"type": "exactRepository", "dockerRepository": name}
        return {"default": [by_sigstore(cosign.public_key, **signed_as)]}

    with imagepolicy(program) as peer:
        signed = f"{registry.host}/{REPOSITORY}"
        assert peer.refusal_from_registry(policy(signed), served, user.registries_d) is None
        refused = peer.refusal_from_registry(policy("example.com/os"), served, user.registries_d)
        assert refused is not None and signed in refused, "it found the signature, of another name"
