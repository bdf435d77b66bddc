"""``ostree-image-signed:``, as bootc has it, with our image-proxy under the name of skopeo.

A machine whose /etc/containers takes signed images only is upgraded to what is signed, and asks for no layer
of anything else.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.enforced import by_gpg, by_sigstore, run_with
from tests.support.openpgp import Signer, signer
from tests.support.process import Cli
from tests.support.rig import prebuild
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import run_tool
from tests.support.rig.ostree import IMAGES, OSTreeRig
from tests.support.rig.ostreeclient import OSTreeClient, Pulled, encapsulate, pull_words
from tests.support.rig.registry import RegistryServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("ostreeclient", "cosign3"),
    pytest.mark.needs_root("ostree imports as root"),
]

N_VERSIONS = 3
PACKAGES = {"/package-0/": "package-0", "/package-1/": "package-1"}


@dataclass(frozen=True)
class Publisher:
    """Versions of an operating system, each as an OCI layout; and who signs."""

    program: Path
    server: RegistryServer
    layouts: tuple[Path, ...]
    cosign: Cosign
    key: Path
    gpg: Signer
    lookaside: Path

    def push(self, version: int, name: str) -> str:
        """Have ``name`` be that version, without a signature; the whole name."""
        whole = f"{self.server.host}/signed-os/{name}"
        options = (*self.server.skopeo_options("dest"), "--quiet", "--preserve-digests")
        run_tool("skopeo", "copy", *options, f"oci:{self.layouts[version]}:1", f"docker://{whole}")
        return whole

    def layers(self, version: int) -> list[str]:
        """The digests of its layers."""
        raw = run_tool("skopeo", "inspect", "--raw", f"oci:{self.layouts[version]}:1")
        return [layer["digest"] for layer in json.loads(raw)["layers"]]

    def sign_with_cosign(self, version: int, whole: str) -> None:
        self.cosign.sign(whole, bundle=False)

    def sign_with_skopeo(self, version: int, whole: str) -> None:
        """It copies the image once more."""
        registries_d = self.lookaside.parent / "registries.d"
        registries_d.mkdir(exist_ok=True)
        (registries_d / "all.yaml").write_text(
            json.dumps({"default-docker": {"lookaside-staging": self.lookaside.as_uri()}})
        )
        options = ("--sign-by", self.gpg.fingerprints("key")[0], *self.server.skopeo_options("dest"))
        run_with(
            {"GNUPGHOME": self.gpg.home},
            *("skopeo", "--registries.d", str(registries_d), "copy", "--quiet", "--preserve-digests"),
            *(*options, f"oci:{self.layouts[version]}:1", f"docker://{whole}"),
        )


@dataclass(frozen=True)
class Machine:
    """A host with a repository, and an /etc/containers of its own."""

    client: OSTreeClient
    repo: OSTreeRig
    server: RegistryServer

    def upgrade(self, whole: str) -> Pulled:
        """Import the image. The importer refuses a machine whose policy accepts by default."""
        self.server.reset()
        return self.client.run(*pull_words(self.repo, f"docker://{whole}", signed=True))

    def asked_for(self, layers: list[str]) -> set[str]:
        """Those of ``layers`` that the registry was asked for since the upgrade began, in any way."""
        return set(layers) & {one.reference for one in self.server.accesses()}

    def images(self) -> set[str]:
        """The digests of manifests that are installed."""
        commits = [commit for ref, commit in self.repo.refs().items() if ref.startswith(f"{IMAGES}/")]
        return {
            self.repo.run("show", "--print-metadata-key=ostree.manifest-digest", commit).strip("'\n")
            for commit in commits
        }


@pytest.fixture(scope="module")
def publisher(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    try:
        program = prebuild.program("ostreeclient")
        root = tmp_path_factory.mktemp("publisher")
        cosign = Cosign(root)
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))
    repo = OSTreeRig.create(root / "compose")
    layouts = []
    for version in range(N_VERSIONS):
        tree = root / f"tree-{version}"
        for n, package in enumerate(PACKAGES.values()):
            (tree / "usr/lib" / package).mkdir(parents=True)
            changed = version if n else 0
            (tree / "usr/lib" / package / "file").write_text(f"{package} {changed}\n" * 1000)
        (tree / "usr/etc").mkdir()
        (tree / "usr/lib/os-release").write_text(f"ID=example\nVERSION={version}\n")
        owner = ("--owner-uid=0", "--owner-gid=0")
        repo.run("commit", "--no-bindings", "--branch=os", f"--tree=dir={tree}", *owner)
        layouts.append(root / f"layout-{version}")
        encapsulate(program, repo, "os", PACKAGES, f"oci:{layouts[-1]}:1", root)
    lookaside = root / "lookaside"
    lookaside.mkdir()
    with signer() as gpg:
        gpg.key("key")
        yield Publisher(program, registry, tuple(layouts), cosign, cosign.make_key(), gpg, lookaside)


@pytest.fixture
def machine(publisher: Publisher, tmp_path: Path) -> Machine:
    """Its /etc/containers is ``etc`` here, for the importer and its children alone."""
    etc, bin_ = tmp_path / "etc", tmp_path / "bin"
    etc.mkdir()
    script = tmp_path / "on-this-machine"
    mount = f"mount --bind {shlex.quote(str(etc))} /etc/containers"
    inner = f'{mount} && exec {shlex.quote(str(publisher.program))} "$@"'
    script.write_text(f'#!/bin/sh\nexec unshare --mount sh -c {shlex.quote(inner)} sh "$@"\n')
    script.chmod(0o755)
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"nothing can be mounted on this machine: {tried.stderr.strip()}")
    home = tmp_path / "home"
    Cli(home).run("install-shim", bin_, "--", "--store", home / "store", "--client-repo", "none")
    client = OSTreeClient(script, f"{bin_}:/usr/bin:/bin", home)
    return Machine(client, OSTreeRig.create(tmp_path / "repo"), publisher.server)


def write(etc: Path, policy: dict[str, Any], where: dict[str, Any]) -> None:
    """/etc/containers."""
    (etc / "policy.json").write_text(json.dumps(policy))
    (etc / "registries.d").mkdir(exist_ok=True)
    (etc / "registries.d" / "all.yaml").write_text(json.dumps({"default-docker": where}))


@pytest.mark.parametrize("by", ["cosign", "skopeo"])
def test_upgrades_are_to_what_is_signed(
    publisher: Publisher, machine: Machine, tmp_path: Path, by: str
) -> None:
    sign: Callable[[int, str], None]
    if by == "cosign":
        sign, wanted = publisher.sign_with_cosign, by_sigstore(publisher.key)
    else:
        (tmp_path / "key.gpg").write_bytes(publisher.gpg.public("key"))
        sign, wanted = publisher.sign_with_skopeo, by_gpg(tmp_path / "key.gpg")
    sections = {"docker": {f"{publisher.server.host}/signed-os": [wanted]}}
    policy = {"default": [{"type": "reject"}], "transports": sections}
    where = {"lookaside": publisher.lookaside.as_uri(), "use-sigstore-attachments": True}
    write(tmp_path / "etc", policy, where)
    name = f"{by}:stable"
    sign(0, publisher.push(0, name))
    done = machine.upgrade(f"{publisher.server.host}/signed-os/{name}")
    assert done.code == 0, done.err
    installed = machine.images()
    assert machine.asked_for(publisher.layers(0)) == set(publisher.layers(0))

    new = set(publisher.layers(1)) - set(publisher.layers(0))
    whole = publisher.push(1, name)
    refused = machine.upgrade(whole)
    assert refused.code == 1
    assert "[POLICY]" in refused.err
    assert machine.asked_for(publisher.layers(1)) == set()
    assert machine.images() == installed

    sign(1, whole)
    done = machine.upgrade(whole)
    assert done.code == 0, done.err
    assert machine.asked_for(publisher.layers(1)) == new != set()
    assert machine.images() != installed
    machine.repo.check()
