"""Build, serve, upgrade; change one line, and again: what a developer does with a virtual machine beside him.

Podman builds an operating system on a base with an ostree commit, and ``layertee serve`` hands it on from
podman's store. The machine imports it with ostree-ext, through the shim or plain, with skopeo. Later the same
image is pushed to a registry, where its layers have other names, and the machine upgrades from there.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import PLAIN, Cli
from tests.support.rig import prebuild
from tests.support.rig.blobcache import run_with_cache
from tests.support.rig.ostree import OSTreeRig, layer_ref
from tests.support.rig.ostreeclient import OSTreeClient, small_os
from tests.support.rig.registry import RegistryServer
from tests.support.rig.serve import ServeRig
from tests.support.rig.storage import StorageRig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("ostreeclient"),
    pytest.mark.needs("podman", "skopeo"),
    pytest.mark.needs_root("podman builds and ostree imports as root"),
]

PATH = "/usr/bin:/bin"
NAME = "localhost/os:1"
CONTAINERFILE = """\
FROM localhost/base:1
COPY app /usr/libexec/
COPY conf /etc/
"""


@dataclass(frozen=True, slots=True)
class Built:
    """What podman's store has as ``NAME``: the layers' DiffIDs from the bottom up, and the image id."""

    diff_ids: tuple[str, ...]
    config: str


@dataclass(frozen=True, slots=True)
class Developer:
    """Who builds, in a store of their own, and serves it."""

    program: Path
    store: StorageRig
    context: Path
    server: ServeRig
    registry: RegistryServer

    def build(self, line: str) -> Built:
        """``podman build``, after one line was changed."""
        (self.context / "conf" / "motd").write_text(line)
        options = ("--quiet", "--isolation", "chroot", "--layers", "--pull-never", "--tag", NAME)
        self._podman("build", *options, str(self.context))
        (told,) = json.loads(self.store.run("podman", "image", "inspect", NAME))
        return Built(tuple(told["RootFS"]["Layers"]), f"sha256:{told['Id']}")

    def push(self, name: str) -> list[str]:
        """``podman push`` to the registry; the digests of the layers there."""
        self._podman("push", "--quiet", PLAIN, NAME, f"{self.registry.host}/{name}")
        connection = self.registry.connection()
        try:
            repository, _, tag = name.partition(":")
            accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
            connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers=accept)
            return [layer["digest"] for layer in json.loads(connection.getresponse().read())["layers"]]
        finally:
            connection.close()

    def tar_size(self, diff_id: str) -> int:
        """Of one layer, as podman counted it while it wrote the layer."""
        return int(self.store.row(diff_id)["diff-size"])

    def sent(self, built: Built) -> dict[str, int]:
        """What the server has sent of the image's layers; DiffID → bytes."""
        found = {diff_id: self.server.blob_bytes(digests=[diff_id]) for diff_id in built.diff_ids}
        return {diff_id: nbytes for diff_id, nbytes in found.items() if nbytes}

    def _podman(self, *words: str) -> None:
        """With a cache of blobs that is not the machine's."""
        root = self.store.root
        places = ("--root", str(root), "--runroot", f"{root}.run", "--storage-driver", self.store.driver)
        run_with_cache(self.context.parent / "cache", "podman", *places, *words)


@pytest.fixture(scope="module")
def developer(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developer]:
    try:
        program = prebuild.program("ostreeclient")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))
    work = tmp_path_factory.mktemp("developer")
    base = small_os(program, work / "base", "1", work)
    context = work / "context"
    for directory in ("app", "conf"):
        (context / directory).mkdir(parents=True)
    (context / "app" / "app").write_bytes(random.Random(1).randbytes(1_000_000))
    (context / "Containerfile").write_text(CONTAINERFILE)
    # podman takes no runroot of more than 50 characters
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        store = StorageRig(Path(root) / "s", "overlay")
        try:
            store.take(base.skopeo_name, "localhost/base:1")
            with ServeRig(work / "server", store.name) as server:
                yield Developer(program, store, context, server, registry)
        finally:
            store.unmount()


@dataclass(frozen=True, slots=True)
class Machine:
    """The virtual machine: a repository, and the importer on a PATH."""

    repo: OSTreeRig
    home: Path
    program: Path

    def on_shim(self, *options: str) -> OSTreeClient:
        """The importer on our image-proxy with these options."""
        directory = self.home / "bin"
        words = ("--store", self.home / "store", "--client-repo", self.repo.root, *options)
        Cli(self.home).run("install-shim", "--force", directory, "--", *words)
        return OSTreeClient(self.program, f"{directory}:{PATH}", self.home)

    def plain(self) -> OSTreeClient:
        """The importer on skopeo."""
        return OSTreeClient(self.program, PATH, self.home)

    def layers(self) -> set[str]:
        return {ref for ref in self.repo.refs() if "/blob/" in ref}

    def motd(self) -> str:
        """The line, as it is installed."""
        images = [ref for ref in self.repo.refs() if "/image/" in ref]
        return "".join(self.repo.run("cat", ref, "/usr/etc/motd") for ref in images)


@pytest.mark.parametrize("by", ["shim", "plain"])
def test_only_what_changed_crosses_and_nothing_is_compressed(
    developer: Developer, tmp_path: Path, by: str
) -> None:
    machine = Machine(OSTreeRig.create(tmp_path / "repo"), tmp_path / "home", developer.program)
    client = machine.on_shim() if by == "shim" else machine.plain()
    name = f"docker://{developer.server.host}/os:1"
    first = developer.build(f"first, {by}\n")
    developer.server.reset()
    pulled = client.pull(machine.repo, name)
    assert pulled.layers[:2] == (0, len(first.diff_ids))
    # The tars themselves, under their own names: what went over the wire is what ostree has.
    assert developer.sent(first) == {diff_id: developer.tar_size(diff_id) for diff_id in first.diff_ids}
    assert {layer_ref(diff_id) for diff_id in first.diff_ids} == machine.layers()
    assert machine.motd() == f"first, {by}"

    second = developer.build(f"second, {by}\n")
    assert second.diff_ids[:-1] == first.diff_ids[:-1] and second.diff_ids[-1] != first.diff_ids[-1]
    developer.server.reset()
    assert client.pull(machine.repo, name).n_needed == 1
    changed = second.diff_ids[-1]
    assert developer.sent(second) == {changed: developer.tar_size(changed)}
    assert developer.tar_size(changed) < 10_000 < sum(map(developer.tar_size, second.diff_ids))
    assert machine.motd() == f"second, {by}"
    machine.repo.check()

    developer.server.reset()
    assert "No changes" in client.pull(machine.repo, name).out
    assert developer.sent(second) == {}


@pytest.mark.parametrize("way", ["prepare", "diffid"])
def test_what_was_served_is_upgraded_to_from_a_registry_without_a_layer_byte(
    developer: Developer, tmp_path: Path, way: str
) -> None:
    """There the layers are compressed, and have other names."""
    machine = Machine(OSTreeRig.create(tmp_path / "repo"), tmp_path / "home", developer.program)
    built = developer.build("pushed\n")
    developer.server.reset()
    assert machine.on_shim().pull(machine.repo, f"docker://{developer.server.host}/os:1").code == 0
    assert set(developer.sent(built)) == set(built.diff_ids)
    digests = developer.push("devloop/os:1")
    assert not set(digests) & set(built.diff_ids)
    developer.registry.reset()
    name = f"docker://{developer.registry.host}/devloop/os:1"
    if way == "prepare":
        words = ("prepare", PLAIN, "--json", "--ostree-repo", str(machine.repo.root))
        done = Cli(tmp_path / "prepare").run(*words, name)
        assert [layer["step"] for layer in done.layers] == ["link"] * len(digests)
        client = machine.plain()
    else:
        client = machine.on_shim("--layer-identity", "diffid")
    assert client.pull(machine.repo, name).n_needed == 0
    assert developer.registry.blob_bytes(digests=digests) == 0
    assert machine.motd().endswith("pushed")
    machine.repo.check()
