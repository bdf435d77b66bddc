"""From ``cosign sign --key`` to ``layertee pull``: real signatures in a real registry, and a policy.json."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee import Engine
from layertee.errors import PolicyRefused
from layertee.sync import run
from tests.support.enforced import ACCEPT, Enforced, by_sigstore, layer_requests
from tests.support.process import PLAIN, Cli, flip_a_byte
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import BuiltIndex, build_image, build_index, push_index
from tests.support.rig.layers import text_layer
from tests.support.rig.ostree import OSTreeRig
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign3")]

PLATFORMS = ("linux/amd64", "linux/arm64")


@dataclass(frozen=True)
class Publisher:
    """A registry with an image for two platforms, which is signed as a whole at ``os/alone``, by another key
    at ``os/other``, with all that is in it at ``os/all``, in a bundle at ``os/bundle``, and not at all at
    ``os/none``.
    """

    server: RegistryServer
    index: BuiltIndex
    key: Path

    def name(self, repository: str) -> str:
        return f"{self.server.host}/os/{repository}:stable"

    def layers_asked_for(self) -> list[str]:
        return layer_requests(self.server, *self.index.images)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    root = tmp_path_factory.mktemp("publisher")
    images = [build_image(root / name, [text_layer({"of": name})], platform=name) for name in PLATFORMS]
    index = build_index(root / "index", images)
    cosigns = {}
    for name in ("ours", "other"):
        (root / name).mkdir()
        cosigns[name] = Cosign(root / name)
        cosigns[name].make_key()
    with RegistryServer() as server:
        found = Publisher(server, index, root / "ours" / "cosign.pub")
        for repository in ("alone", "other", "all", "bundle", "none"):
            push_index(index, f"os/{repository}:stable", server)
        cosigns["ours"].sign(found.name("alone"), bundle=False)
        cosigns["other"].sign(found.name("other"), bundle=False)
        cosigns["ours"].sign(found.name("all"), bundle=False, recursive=True)
        cosigns["ours"].sign(found.name("bundle"))
        server.reset()
        yield found


@pytest.fixture
def machine(publisher: Publisher, tmp_path: Path) -> Enforced:
    """It takes what the publisher has signed for the repository."""
    publisher.server.reset()
    found = Enforced(tmp_path / "machine")
    found.want("docker", f"{publisher.server.host}/os", by_sigstore(publisher.key))
    found.find(use_sigstore_attachments=True)
    return found


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_index_that_is_signed_by_its_tag_counts_for_each_of_its_platforms(
    publisher: Publisher, machine: Enforced, user: Cli, platform: str
) -> None:
    found = user.pull("--platform", platform, *machine.options, publisher.name("alone")).json
    assert found["policy"]["accepted"] is True
    assert found["policy"]["signed"] == [publisher.index.digest]
    assert found["manifest_digest"] == publisher.index.images[PLATFORMS.index(platform)].digest
    (verified,) = found["policy"]["verified"]
    assert verified["kind"] == "sigstoreSigned"
    assert verified["signed_name"] == publisher.name("alone").removesuffix(":stable")


def test_all_that_is_signed_recursively_counts_by_its_digest(
    publisher: Publisher, machine: Enforced, user: Cli
) -> None:
    repository = publisher.name("all").removesuffix(":stable")
    for image in publisher.index.images:
        name = f"{repository}@{image.digest}"
        found = user.pull("--platform", image.platform, *machine.options, name).json
        assert found["policy"]["signed"] == [image.digest]
    assert user.pull(*machine.options, publisher.name("all")).json["policy"]["signed"] == [
        publisher.index.digest
    ]
    # Of what is signed as a whole, the parts are not: they are refused by their own names.
    alone = publisher.name("alone").removesuffix(":stable")
    name = f"{alone}@{publisher.index.images[0].digest}"
    assert "[POLICY]" in user.run("pull", PLAIN, *machine.options, name, code=1).err


@pytest.mark.parametrize("what", ["other", "none"])
def test_another_key_or_none_is_refused_before_a_layer_is_asked_for(
    publisher: Publisher, machine: Enforced, user: Cli, what: str
) -> None:
    said = user.run("pull", PLAIN, *machine.options, publisher.name(what), code=1).err
    assert "[POLICY]" in said
    assert str(machine.policy) in said
    why = "no sigstore signature is accepted" if what == "other" else "a sigstore signature is asked for"
    assert f"its index: {why}" in said
    assert publisher.layers_asked_for() == []
    assert list((user.store / "blobs" / "sha256").iterdir()) == []


TRUST = """\
[scope."{host}/os"]
transparency-log = false
forms = ["bundle"]
[[scope."{host}/os".signer]]
key = "{key}"
"""


def test_a_bundle_counts_where_trust_toml_asks_for_one(
    publisher: Publisher, machine: Enforced, user: Cli, tmp_path: Path
) -> None:
    """policy.json has no words for it, and leaves these images to trust.toml."""
    trust = tmp_path / "trust.toml"
    trust.write_text(TRUST.format(host=publisher.server.host, key=publisher.key))
    options = [*machine.options, "--trust-file", str(trust)]
    said = user.run("pull", PLAIN, *options, publisher.name("bundle"), code=1).err
    assert str(machine.policy) in said  # trust.toml takes nothing that policy.json does not take
    machine.want("docker", publisher.server.host, ACCEPT)
    for what in ("none", "alone"):
        said = user.run("pull", PLAIN, *options, publisher.name(what), code=1).err
        assert "[POLICY]" in said
        assert str(trust) in said
    assert publisher.layers_asked_for() == []
    found = user.pull(*options, publisher.name("bundle")).json
    assert [one["kind"] for one in found["policy"]["verified"]] == ["bundle"]
    assert found["policy"]["signed"] == [publisher.index.digest]


@pytest.mark.skipif(shutil.which("ostree") is None, reason="ostree is not installed")
def test_prepare_is_held_to_the_policy(
    publisher: Publisher, machine: Enforced, user: Cli, tmp_path: Path
) -> None:
    repo = OSTreeRig.create(tmp_path / "repo")
    words = ("prepare", PLAIN, "--ostree-repo", str(repo.root), "--json", *machine.options)
    said = user.run(*words, publisher.name("other"), code=1).err
    assert "[POLICY]" in said
    assert publisher.layers_asked_for() == []
    assert user.run(*words, publisher.name("alone")).layers


def test_a_repair_is_held_to_the_policy(publisher: Publisher, machine: Enforced, user: Cli) -> None:
    """It pulls the image anew; a damaged copy is no reason to take what is not signed."""
    user.pull("--insecure-policy", publisher.name("other"))
    (layer,) = publisher.index.images[0].layers
    repair = ("verify", PLAIN, *machine.options, "--repair")
    flip_a_byte(user.blob(layer.digest))
    publisher.server.reset()
    said = user.run(*repair, publisher.name("other"), code=1)
    assert "[POLICY]" in said.err
    assert f"bad: {layer.digest}: " in said.out
    assert publisher.layers_asked_for() == []
    assert not user.blob(layer.digest).exists()
    user.run(*repair, publisher.name("alone"))
    assert len(publisher.layers_asked_for()) == 1
    user.verified()


def test_the_library_is_held_to_the_policy(publisher: Publisher, machine: Enforced, tmp_path: Path) -> None:

    async def main() -> None:
        async with Engine(tmp_path / "store", options=machine.library) as engine:
            with pytest.raises(PolicyRefused):
                await engine.plan(publisher.name("other"))
            assert publisher.layers_asked_for() == []
            result = await engine.pull(await engine.plan(publisher.name("alone")))
            assert result.manifest_digest == publisher.index.images[0].digest

    run(main())
