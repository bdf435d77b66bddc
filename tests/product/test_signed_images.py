"""policy.json and signatures before ``pull`` and its kin: what does not pass is refused before a layer is
asked for, and what passes says by what.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options
from layertee.errors import DowngradeRefused, PolicyRefused
from layertee.image.document import Digest
from layertee.options import PolicyOptions
from layertee.signatures.signature import Attachment
from layertee.sync import run
from tests.support import sigstorekit as kit
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy import serving
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, BuiltIndex, build_image, build_two_platforms
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.slow

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
KEY, OTHER = kit.new_key(), kit.new_key()
PLAIN = "--tls-verify=false"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Two small layers."""
    layers = [text_layer({"first": "first"}), text_layer({"second": "second"})]
    return build_image(tmp_path_factory.mktemp("signed"), layers)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BuiltIndex:
    """Of two platforms."""
    return build_two_platforms(tmp_path_factory.mktemp("index"))


@dataclass(frozen=True)
class Machine:
    """One that takes only what KEY has signed for the repository, of the server's registry."""

    home: Path
    server: FaultServer
    policy: Path
    registries_d: Path

    @property
    def options(self) -> list[str]:
        return ["--policy", str(self.policy), "--registries.d", str(self.registries_d)]

    @property
    def library(self) -> Options:
        policy = PolicyOptions(file=self.policy, registries_d=self.registries_d)
        return Options(tls_verify=False, policy=policy)

    def write(self, *requirements: dict[str, Any]) -> None:
        sections = {self.server.host: list(requirements)}
        self.policy.write_text(json.dumps({"default": REJECT, "transports": {"docker": sections}}))

    def sign(self, digest: str, *attachments: Attachment) -> None:
        """Put ``attachments`` beside the image ``digest``."""
        raw, blobs = kit.manifest(attachments)
        self.server.put(raw, kit.OCI_MANIFEST, "rig/image", kit.tag_of(Digest(digest)), blobs)

    def by(self, key: kit.PrivateKey, digest: str, name: str | None = None) -> Attachment:
        return kit.by_key(key, kit.payload(digest, name or f"{self.server.host}/rig/image"))

    def nothing_was_fetched(self, image: BuiltImage) -> None:
        self.server.settle()
        assert [self.server.requests("blob", layer.digest) for layer in image.layers] == [
            [] for _ in image.layers
        ]


def requirement(key: kit.PrivateKey = KEY, identity: str = "matchRepository", **more: Any) -> dict[str, Any]:
    data = kit.b64(kit.public_pem(key))
    return {"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": identity}} | more


@pytest.fixture
def machine(image: BuiltImage, tmp_path: Path) -> Iterator[Machine]:
    with FaultServer(image) as server:
        registries_d = tmp_path / "registries.d"
        registries_d.mkdir()
        (registries_d / "all.yaml").write_text("default-docker: {use-sigstore-attachments: true}")
        found = Machine(tmp_path, server, tmp_path / "policy.json", registries_d)
        found.write(requirement())
        yield found


def test_what_is_signed_is_pulled_and_the_output_says_by_whom(
    user: Cli, machine: Machine, image: BuiltImage
) -> None:
    machine.sign(image.digest, machine.by(KEY, image.digest))
    name = machine.server.reference
    said = user.run("pull", PLAIN, *machine.options, name)
    fingerprint = f"SHA256:{hashlib.sha256(kit.public_der(KEY)).hexdigest()}"
    assert f"signed: by key {fingerprint}, as {machine.server.host}/rig/image" in said.out
    found = user.pull(*machine.options, name).json
    assert found["policy"]["accepted"] is True
    assert found["policy"]["by"] == "layertee"
    assert found["policy"]["signed"] == [image.digest]
    (verified,) = found["policy"]["verified"]
    assert verified["kind"] == "sigstoreSigned"
    assert verified["key"] == fingerprint
    assert verified["signed_name"] == f"{machine.server.host}/rig/image"
    (section,) = found["policy"]["sections"]
    assert section["file"] == str(machine.policy)
    assert section["verdict"] == "signatures"


@pytest.mark.parametrize("command", [["pull"], ["pull", "--dry-run"]], ids=" ".join)
def test_what_is_not_signed_is_refused_before_a_layer_is_asked_for(
    user: Cli, machine: Machine, image: BuiltImage, command: list[str]
) -> None:
    said = user.run(*command, PLAIN, *machine.options, machine.server.reference, code=1)
    assert "[POLICY]" in said.err
    assert str(machine.policy) in said.err
    machine.nothing_was_fetched(image)


def test_inspect_tells_and_does_not_stop(user: Cli, machine: Machine, image: BuiltImage) -> None:
    name = machine.server.reference
    found = user.run("inspect", PLAIN, "--json", *machine.options, name).json
    assert found["policy"]["accepted"] is False
    assert "is asked for" in found["policy"]["refused"]
    assert "refused:" in user.run("inspect", PLAIN, *machine.options, name).out
    machine.nothing_was_fetched(image)


@pytest.mark.parametrize(
    "what", ["another key", "another image", "another repository", "another name", "damaged", "cut short"]
)
def test_a_signature_of_something_else_is_none(
    user: Cli, machine: Machine, image: BuiltImage, what: str
) -> None:
    good = machine.by(KEY, image.digest)
    signature = good.annotations[kit.SIGNATURE]
    wrong = {
        "another key": machine.by(OTHER, image.digest),
        "another image": machine.by(KEY, Digest.of(b"another")),
        "another repository": machine.by(KEY, image.digest, f"{machine.server.host}/rig/other"),
        "another name": machine.by(KEY, image.digest, "quay.io/rig/image"),
        "damaged": kit.with_annotation(good, kit.SIGNATURE, "A" + signature[1:]),
        "cut short": kit.with_annotation(good, kit.SIGNATURE, signature[:-8]),
    }[what]
    machine.sign(image.digest, wrong)
    assert "[POLICY]" in user.run("pull", PLAIN, *machine.options, machine.server.reference, code=1).err
    machine.nothing_was_fetched(image)
    machine.sign(image.digest, wrong, good)  # one good one is enough
    user.pull(*machine.options, machine.server.reference)


def test_registries_d_says_whether_attachments_count(user: Cli, machine: Machine, image: BuiltImage) -> None:
    machine.sign(image.digest, machine.by(KEY, image.digest))
    (machine.registries_d / "all.yaml").write_text("default-docker: {use-sigstore-attachments: false}")
    said = user.run("pull", PLAIN, *machine.options, machine.server.reference, code=1).err
    assert "[POLICY]" in said
    assert "registries.d has no 'use-sigstore-attachments: true'" in said
    machine.nothing_was_fetched(image)


def test_an_index_that_is_signed_alone_counts_for_its_images(
    user: Cli, machine: Machine, index: BuiltIndex
) -> None:
    machine.server.add(index, "rig/image", "multi")
    name = f"{machine.server.host}/rig/image:multi"
    said = user.run("pull", PLAIN, "--platform", "linux/arm64", *machine.options, name, code=1)
    assert "its index: " in said.err
    assert "its manifest: " in said.err
    machine.sign(index.digest, machine.by(KEY, index.digest))
    found = user.pull("--platform", "linux/arm64", *machine.options, name).json
    assert found["policy"]["signed"] == [index.digest]
    assert found["manifest_digest"] == index.images[1].digest


def test_a_platforms_manifest_that_is_signed_alone_counts(
    user: Cli, machine: Machine, index: BuiltIndex
) -> None:
    machine.server.add(index, "rig/image", "multi")
    arm64 = index.images[1]
    machine.sign(arm64.digest, machine.by(KEY, arm64.digest))
    name = f"{machine.server.host}/rig/image:multi"
    found = user.pull("--platform", "linux/arm64", *machine.options, name).json
    assert found["policy"]["signed"] == [arm64.digest]
    user.run("pull", PLAIN, "--platform", "linux/amd64", *machine.options, name, code=1)


def test_all_of_an_index_is_taken_for_a_signature_of_the_index_and_of_nothing_less(
    user: Cli, machine: Machine, index: BuiltIndex
) -> None:
    machine.server.add(index, "rig/image", "multi")
    name = f"{machine.server.host}/rig/image:multi"
    for image in index.images:
        machine.sign(image.digest, machine.by(KEY, image.digest))
    said = user.pull("--all", *machine.options, name, code=1).json["error"]
    assert said["code"] == "POLICY" and "its manifest" not in said["message"]
    for image in index.images:
        machine.nothing_was_fetched(image)
    machine.sign(index.digest, machine.by(KEY, index.digest))
    found = user.pull("--all", *machine.options, name).json
    assert found["policy"]["signed"] == [index.digest] == [found["manifest_digest"]]


def test_skopeo_is_no_judge_of_all_of_an_index(user: Cli, machine: Machine, index: BuiltIndex) -> None:
    machine.server.add(index, "rig/image", "multi")
    name = f"{machine.server.host}/rig/image:multi"
    said = user.pull("--all", "--signatures-by", "skopeo", *machine.options, name, code=1).json["error"]
    assert said["code"] == "POLICY" and "judges one image of an index" in said["message"]


def test_the_verdict_is_for_the_bytes_that_were_resolved(
    machine: Machine, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The tag moves between the check and the pull."""
    other = build_image(tmp_path_factory.mktemp("moved"), [text_layer({"not": "signed"})])
    machine.sign(image.digest, machine.by(KEY, image.digest))

    async def main() -> str:
        async with Engine(machine.home / "store", options=machine.library) as engine:
            plan = await engine.plan(machine.server.reference)
            machine.server.add(other, "rig/image", "latest")
            result = await engine.pull(plan)
            with pytest.raises(PolicyRefused):
                await engine.plan(machine.server.reference)
            return str(result.manifest_digest)

    assert run(main()) == image.digest


def test_rejected_by_name_costs_no_request(user: Cli, machine: Machine) -> None:
    machine.write({"type": "reject"})
    assert "[POLICY]" in user.run("pull", PLAIN, *machine.options, machine.server.reference, code=1).err
    machine.server.settle()
    assert machine.server.requests() == []


NO_POLICY = "for d in /etc/containers /usr/share/containers; do mount -t tmpfs none $d; done; exec "


@pytest.mark.needs_root("mounts")
def test_a_machine_without_a_policy_is_told_so(user: Cli, machine: Machine) -> None:
    """In a mount namespace of its own, where neither /etc nor /usr/share has a policy.json."""
    words = shlex.join(user.command("pull", PLAIN, machine.server.reference))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", NO_POLICY + words],
        env=user.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this machine has no policy.json: signatures are not required here") == 1
    for options in (["--insecure-policy"], ["--policy", str(machine.policy)]):
        machine.policy.write_text(json.dumps({"default": ACCEPT}))
        assert "policy.json" not in user.run("pull", PLAIN, *options, machine.server.reference).err
    found = user.pull("--insecure-policy", machine.server.reference).json["policy"]
    assert (found["insecure"], found["sections"], found["by"]) == (True, [], None)


def test_two_files_hold_where_programs_differ(user: Cli, machine: Machine, image: BuiltImage) -> None:
    own = user.home / ".config/containers/policy.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"default": REJECT}))
    named = user.home / "named.json"
    named.write_text(json.dumps({"default": ACCEPT}))
    said = user.run("pull", PLAIN, machine.server.reference, code=1, CONTAINERS_POLICY_JSON=str(named))
    assert str(own) in said.err
    assert "both hold" in user.run("doctor", CONTAINERS_POLICY_JSON=str(named)).out
    own.write_text(json.dumps({"default": ACCEPT}))
    user.run("pull", PLAIN, machine.server.reference, CONTAINERS_POLICY_JSON=str(named))


def test_image_proxy_verifies_without_a_skopeo(machine: Machine, image: BuiltImage) -> None:
    store, name = machine.home / "store", f"docker://{machine.server.reference}"
    options = ("--skopeo", "/nonexistent", "--registries.d", str(machine.registries_d))
    with serving(store, *options, policy=machine.policy) as proxy:
        assert "[POLICY]" in proxy.refused("OpenImage", name)
        machine.nothing_was_fetched(image)
        machine.sign(image.digest, machine.by(KEY, image.digest))
        assert proxy.blob(proxy.open(name), image.layers[0])


def test_other_transports_have_no_signatures(user: Cli, machine: Machine, image: BuiltImage) -> None:
    sections = {"oci": {"": [requirement()]}}
    machine.policy.write_text(json.dumps({"default": ACCEPT, "transports": sections}))
    said = user.run("pull", *machine.options, image.skopeo_name, code=1)
    assert "images of this kind have none" in said.err


# --- age ---------------------------------------------------------------------------------------------


def made(root: Path, text: str, created: str) -> BuiltImage:

    def edit(config: dict[str, Any]) -> None:
        config["created"] = created

    return build_image(root, [text_layer({"made": text})], edit_config=edit)


def test_an_older_image_is_a_warning_and_the_newest_stays(
    user: Cli, machine: Machine, tmp_path: Path
) -> None:
    old = made(tmp_path / "old", "old", "2026-01-01T00:00:00Z")
    new = made(tmp_path / "new", "new", "2026-06-01T00:00:00Z")
    name = f"{machine.server.host}/rig/os:stable"
    accept = ["--insecure-policy"]
    machine.server.add(new, "rig/os", "stable")
    assert user.pull(*accept, name).json["seen"]["first_seen"] is True
    machine.server.add(old, "rig/os", "stable")
    for _ in range(2):
        said = user.pull(*accept, name)
        assert said.json["seen"]["older"] is True
        assert said.json["seen"]["newest"]["digest"] == new.digest
        assert "older than what was seen" in said.err
    user.pull(*accept, "--allow-downgrade", name)
    assert user.pull(*accept, name).json["seen"]["older"] is False
    pinned = user.pull(*accept, f"{machine.server.host}/rig/os@{old.digest}").json
    assert pinned["seen"] is None


def test_trust_toml_makes_it_a_refusal(user: Cli, machine: Machine, tmp_path: Path) -> None:
    old = made(tmp_path / "old", "old", "2026-01-01T00:00:00Z")
    new = made(tmp_path / "new", "new", "2026-06-01T00:00:00Z")
    trust = tmp_path / "trust.toml"
    trust.write_text(f'[scope."{machine.server.host}/rig/os"]\ndowngrade = "refuse"\n')
    machine.policy.write_text(json.dumps({"default": ACCEPT}))
    options = [*machine.options, "--trust-file", str(trust)]
    name = f"{machine.server.host}/rig/os:stable"
    machine.server.add(new, "rig/os", "stable")
    user.pull(*options, name)
    machine.server.add(old, "rig/os", "stable")
    said = user.run("pull", PLAIN, *options, name, code=1)
    assert "[DOWNGRADE]" in said.err
    assert "--allow-downgrade" in said.err
    machine.nothing_was_fetched(old)
    user.pull(*options, "--allow-downgrade", name)
    user.pull(*options, name)
    trust.write_text(f'[scope."{machine.server.host}/rig/os"]\nmax-age = "30d"\nfreeze = "refuse"\n')
    assert "days old" in user.run("pull", PLAIN, *options, name, code=1).err


def test_max_age_is_a_warning(user: Cli, machine: Machine, tmp_path: Path) -> None:
    machine.server.add(made(tmp_path / "old", "old", "2026-01-01T00:00:00Z"), "rig/os", "stable")
    name = f"{machine.server.host}/rig/os:stable"
    assert "days old" in user.pull("--insecure-policy", "--max-age", "30d", name).err
    assert "days old" not in user.pull("--insecure-policy", "--max-age", "9000d", name).err


def test_the_library_refuses_a_downgrade_by_its_own_class(machine: Machine, tmp_path: Path) -> None:
    new = made(tmp_path / "new", "new", "2026-06-01T00:00:00Z")
    old = made(tmp_path / "old", "old", "2026-01-01T00:00:00Z")
    trust = tmp_path / "trust.toml"
    trust.write_text(f'[scope."{machine.server.host}"]\ndowngrade = "refuse"\n')
    policy = tmp_path / "accept.json"
    policy.write_text(json.dumps({"default": ACCEPT}))
    options = Options(tls_verify=False, policy=PolicyOptions(file=policy, trust_file=trust))
    name = f"{machine.server.host}/rig/os:stable"

    async def main() -> None:
        async with Engine(tmp_path / "store", options=options) as engine:
            machine.server.add(new, "rig/os", "stable")
            await engine.pull(await engine.plan(name))
            machine.server.add(old, "rig/os", "stable")
            with pytest.raises(DowngradeRefused):
                await engine.plan(name)
            told = await engine.inspect(name)
            assert told.plan.freshness is not None and told.plan.freshness.older
            with pytest.raises(PolicyRefused):
                await engine.pull(told.plan)
            machine.nothing_was_fetched(old)

    run(main())


def test_what_was_only_told_of_a_refused_image_is_no_way_to_its_layers(
    machine: Machine, image: BuiltImage, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "store", options=machine.library) as engine:
            told = await engine.inspect(f"{machine.server.host}/rig/image:latest")
            assert told.plan.consent.refused is not None
            with pytest.raises(PolicyRefused):
                await engine.pull(pickle.loads(pickle.dumps(told.plan)))
            with pytest.raises(PolicyRefused):
                async with engine.ingest(told.plan):
                    raise AssertionError("it was taken")

    run(main())
    machine.nothing_was_fetched(image)


def test_an_older_pull_that_ends_later_does_not_become_the_newest(machine: Machine, tmp_path: Path) -> None:
    new = made(tmp_path / "new", "new", "2026-06-01T00:00:00Z")
    old = made(tmp_path / "old", "old", "2026-01-01T00:00:00Z")
    options = Options(tls_verify=False, policy=PolicyOptions(insecure=True))
    name = f"{machine.server.host}/rig/os:stable"

    async def main() -> None:
        async with Engine(tmp_path / "store", options=options) as engine:
            machine.server.add(old, "rig/os", "stable")
            first = await engine.plan(name)
            machine.server.add(new, "rig/os", "stable")
            await engine.pull(await engine.plan(name))
            await engine.pull(first)
            again = (await engine.plan(name)).freshness
            assert again is not None and again.newest is not None
            assert again.newest.digest == new.digest

    run(main())
