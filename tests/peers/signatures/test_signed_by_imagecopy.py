"""What the newest containers/image signs by a key of cosign's, in a registry and in a directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.enforced import Enforced, by_sigstore, layer_requests
from tests.support.imageproxy import serving
from tests.support.process import PLAIN, Cli
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import BuiltImage, build_image, push, run_tool, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt, program
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign3", "imagecopy")]


@dataclass(frozen=True)
class Publisher:
    """Two images, and a key."""

    server: RegistryServer
    image: BuiltImage
    other: BuiltImage
    key: Path
    registries_d: Path

    def sign(self, image: BuiltImage, target: str) -> None:
        """Copy ``image`` to ``target``, with a signature."""
        words = ("-src-tls-verify=false", "-registries.d", str(self.registries_d))
        key = ("-sign-by-sigstore-private-key", str(self.key.with_suffix(".key")))
        run_tool(str(program("imagecopy")), *words, *key, f"oci:{image.root}:{image.ref}", target)

    def name(self, repository: str) -> str:
        return f"{self.server.host}/os/{repository}:1"


@pytest.fixture(scope="module")
def publisher(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    root = tmp_path_factory.mktemp("publisher")
    try:
        program("imagecopy")
        key = Cosign(root).make_key()
    except NotBuilt as exc:
        pytest.skip(str(exc))
    machine = Enforced(root / "machine")
    machine.find(use_sigstore_attachments=True)
    images = [build_image(root / name, [text_layer({"a": name})]) for name in ("image", "other")]
    yield Publisher(registry, images[0], images[1], key, machine.registries_d)


@pytest.fixture
def machine(publisher: Publisher, tmp_path: Path) -> Enforced:
    """It takes what the publisher has signed, for the very name."""
    found = Enforced(tmp_path / "machine")
    found.want("docker", publisher.server.host, by_sigstore(publisher.key, type="matchExact"))
    found.find(use_sigstore_attachments=True)
    return found


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def refused(publisher: Publisher, machine: Enforced, user: Cli, name: str) -> str:
    """What is said of an image, no layer of which is asked for."""
    publisher.server.reset()
    said = user.run("pull", PLAIN, *machine.options, name, code=1).err
    assert "[POLICY]" in said
    assert layer_requests(publisher.server, publisher.image, publisher.other) == []
    return said


def test_an_image_in_a_registry_is_taken_by_the_name_that_it_was_signed_as(
    publisher: Publisher, machine: Enforced, user: Cli
) -> None:
    name = publisher.name("copied")
    publisher.sign(publisher.image, f"docker://{name}")
    (verified,) = user.pull(*machine.options, name).json["policy"]["verified"]
    assert (verified["kind"], verified["signed_name"]) == ("sigstoreSigned", name)
    again = upload(publisher.image, "os/copied:2", publisher.server)
    assert "matchExact" in refused(publisher, machine, user, again)


def test_a_signature_is_none_for_another_image(publisher: Publisher, machine: Enforced, user: Cli) -> None:
    """Whoever may push gives one image the signatures of another, or its tag another image."""
    name = publisher.name("moved")
    publisher.sign(publisher.image, f"docker://{name}")
    push(publisher.other, "os/moved:1", publisher.server)
    assert "there is none" in refused(publisher, machine, user, name)
    tags = [
        f"docker://{publisher.server.host}/os/moved:{one.digest.replace(':', '-')}.sig"
        for one in (publisher.image, publisher.other)
    ]
    run_tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", *tags)
    assert f"it is for {publisher.image.digest}" in refused(publisher, machine, user, name)


def test_a_directory_is_taken_with_its_signature_alone(
    publisher: Publisher, machine: Enforced, user: Cli, tmp_path: Path
) -> None:
    """A directory has no name of its own: it is one for an identity that says which."""
    name = publisher.name("directory")
    publisher.sign(publisher.image, f"docker://{name}")
    directory = tmp_path / "directory"
    copy = (
        "skopeo",
        "--registries.d",
        str(publisher.registries_d),
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    )
    run_tool(*copy, f"docker://{name}", f"dir:{directory}")
    assert (directory / "signature-1").read_bytes().startswith(b"\0sigstore-json\n")
    exact = by_sigstore(publisher.key, type="exactReference", dockerReference=name)
    machine.want("dir", "", exact)
    options = ("--registries.d", str(machine.registries_d))
    with serving(tmp_path / "store", *options, policy=machine.policy) as proxy:
        opened = proxy.open(f"dir:{directory}")
        assert proxy.blob(opened, publisher.image.layers[0])
    (directory / "signature-1").unlink()
    with serving(tmp_path / "store", *options, policy=machine.policy) as proxy:
        assert "[POLICY]" in proxy.refused("OpenImage", f"dir:{directory}")
