"""trust.toml before ``pull`` and its kin: what it refuses is refused before a layer is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee import Engine, Options
from layertee.errors import PolicyRefused, TrustFileError
from layertee.options import PolicyOptions
from layertee.sync import run
from tests.support.bundlekit import PROVENANCE, WORKFLOW, Sigstore, statement
from tests.support.imageproxy import serving
from tests.support.process import PLAIN, Cli
from tests.support.rig.beside import Beside
from tests.support.rig.images import BuiltImage, BuiltIndex, build_image, build_two_platforms, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.sigstorekit import ISSUER, new_key, public_pem

pytestmark = pytest.mark.slow

ANYTHING = {"default": [{"type": "insecureAcceptAnything"}]}
PULL = ("pull", PLAIN)
KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"first": "first"}), text_layer({"second": "second"})]
    return build_image(tmp_path_factory.mktemp("trusted"), layers)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BuiltIndex:
    return build_two_platforms(tmp_path_factory.mktemp("trusted-index"))


@dataclass(frozen=True)
class Machine:
    """One whose policy.json accepts anything, with a trust.toml for the server's registry."""

    directory: Path
    server: RegistryServer
    sigstore: Sigstore

    @property
    def name(self) -> str:
        return f"{self.server.host}/team/os:1"

    @property
    def options(self) -> list[str]:
        return ["--policy", str(self.directory / "policy.json"), "--trust-file", str(self.trust)]

    @property
    def trust(self) -> Path:
        return self.directory / "trust.toml"

    def write(self, text: str) -> None:
        self.trust.write_text(f'[scope."{self.server.host}"]\n{text}\n')

    def attach(self, digest: str, bundle: bytes) -> None:
        Beside(self.server, "team/os").attach(digest, bundle)

    def nothing_was_fetched(self, image: BuiltImage) -> None:
        assert self.server.blob_bytes(digests=image.layer_digests) == 0


@pytest.fixture
def machine(image: BuiltImage, tmp_path: Path) -> Iterator[Machine]:
    sigstore = Sigstore()
    (tmp_path / "policy.json").write_text(json.dumps(ANYTHING))
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root())
    with RegistryServer() as server:
        upload(image, "team/os:1", server)
        found = Machine(tmp_path, server, sigstore)
        found.write(f'trusted-root = "root.json"\n{KEYLESS}')
        yield found


def test_what_an_identity_has_signed_is_pulled_and_the_output_says_so(
    user: Cli, machine: Machine, image: BuiltImage
) -> None:
    machine.attach(image.digest, machine.sigstore.keyless(statement(image.digest)))
    said = user.run("pull", PLAIN, *machine.options, machine.name)
    assert WORKFLOW in said.out
    (verified,) = user.pull(*machine.options, machine.name).json["policy"]["verified"]
    assert verified["kind"] == "bundle"
    assert (verified["subject"], verified["issuer"]) == (WORKFLOW, ISSUER)
    assert verified["signed"] == image.digest
    assert verified["log_index"] == 1005


def test_what_it_has_not_signed_is_refused_before_a_layer_is_asked_for(
    user: Cli, machine: Machine, image: BuiltImage
) -> None:
    said = user.run("pull", PLAIN, *machine.options, machine.name, code=1)
    assert "[POLICY]" in said.err
    assert f"{machine.trust}:1, scope '{machine.server.host}'" in said.err
    other = machine.sigstore.keyless(statement(image.digest), "https://github.com/example-fork/os/x@y")
    machine.attach(image.digest, other)
    said = user.run("pull", PLAIN, *machine.options, machine.name, code=1)
    assert "https://github.com/example-fork/os/x@y" in said.err
    machine.nothing_was_fetched(image)


def test_another_registry_is_not_concerned(user: Cli, machine: Machine) -> None:
    machine.trust.write_text(machine.trust.read_text().replace(machine.server.host, "quay.io"))
    assert user.pull(*machine.options, machine.name).json["policy"]["verified"] == []


def test_it_refuses_more_and_accepts_nothing_that_policy_json_rejects(
    user: Cli, machine: Machine, image: BuiltImage
) -> None:
    machine.attach(image.digest, machine.sigstore.keyless(statement(image.digest)))
    (machine.directory / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    said = user.run("pull", PLAIN, *machine.options, machine.name, code=1)
    assert "[POLICY]" in said.err


def test_an_index_that_is_signed_is_enough(user: Cli, machine: Machine, index: BuiltIndex) -> None:
    upload(index, "team/os:2", machine.server)
    name = f"{machine.server.host}/team/os:2"
    platform = ("--platform", "linux/arm64")
    user.run("pull", PLAIN, *platform, *machine.options, name, code=1)
    machine.attach(index.digest, machine.sigstore.keyless(statement(index.digest)))
    found = user.pull(*platform, *machine.options, name).json
    assert found["policy"]["signed"] == [index.digest]


def test_two_of_three_keys_and_an_attestation(user: Cli, machine: Machine, image: BuiltImage) -> None:
    keys = {name: new_key() for name in "abc"}
    for name, key in keys.items():
        (machine.directory / f"{name}.pub").write_bytes(public_pem(key))
    signers = ", ".join(f'{{key = "{name}.pub"}}' for name in keys)
    machine.write(
        f"transparency-log = false\nthreshold = 2\nsigner = [{signers}]\n"
        f'attestation = [{{predicate-type = "{PROVENANCE}", signer = [{{key = "c.pub"}}]}}]'
    )

    def refused() -> str:
        return user.run("pull", PLAIN, *machine.options, machine.name, code=1).err

    def sign(name: str, *what: str) -> None:
        payload = statement(image.digest, *what)
        machine.attach(image.digest, machine.sigstore.by_key(keys[name], payload, logged=False))

    sign("a")
    assert "2 of 3 signers must have signed it, 1 has" in refused()
    sign("b")
    assert f"attested {PROVENANCE}" in refused()
    sign("a", PROVENANCE)
    assert "none of those that may say this" in refused()
    sign("c", PROVENANCE)
    found = user.pull(*machine.options, machine.name).json["policy"]["verified"]
    assert sorted(one["kind"] for one in found) == [f"attestation {PROVENANCE}", "bundle", "bundle"]


def test_a_file_that_is_not_understood_stops_the_command(
    user: Cli, machine: Machine, image: BuiltImage
) -> None:
    machine.write("signers = []")
    said = user.run("pull", PLAIN, *machine.options, machine.name, code=1)
    assert "[TRUST_FILE]" in said.err
    assert "'signers' is not known" in said.err
    said = user.run(*(*PULL, "--trust-file", str(machine.directory / "missing"), machine.name), code=1)
    assert "[TRUST_FILE]" in said.err
    machine.trust.chmod(0o666)
    said = user.run("pull", PLAIN, *machine.options, machine.name, code=1)
    assert "[UNSAFE_PATH]" in said.err
    machine.nothing_was_fetched(image)


def test_the_image_proxy_opens_what_is_signed(machine: Machine, image: BuiltImage, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serving(
        store, "--trust-file", str(machine.trust), policy=machine.directory / "policy.json"
    ) as proxy:
        assert "[POLICY]" in proxy.refused("OpenImage", f"docker://{machine.name}")
        machine.attach(image.digest, machine.sigstore.keyless(statement(image.digest)))
        assert proxy.value("OpenImage", f"docker://{machine.name}") > 0


def test_the_library_raises_what_is_wrong(machine: Machine, tmp_path: Path) -> None:
    policy = PolicyOptions(file=machine.directory / "policy.json", trust_file=machine.trust)

    async def plan() -> None:
        async with Engine(tmp_path / "store", options=Options(tls_verify=False, policy=policy)) as engine:
            await engine.plan(machine.name)

    with pytest.raises(PolicyRefused, match="its signer must have signed it"):
        run(plan())
    machine.trust.write_text("nonsense")
    with pytest.raises(TrustFileError, match="not TOML"):
        run(plan())
