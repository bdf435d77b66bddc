"""Built here on a base from a registry, installed here, pushed, and upgraded to: no layer is downloaded.

One machine and its registry, with the tools that are used for it: podman builds and pushes, ostree keeps what
is installed, and the registry's log says what was sent. Podman's stores, its cache of blobs and the
repository are the test's own.
"""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.podman import DRIVERS
from tests.support.process import PLAIN, Cli
from tests.support.rig.blobcache import run_with_cache
from tests.support.rig.images import OCI_MANIFEST, BuiltImage, build_image, push, run_tool
from tests.support.rig.layers import Entry, LayerSpec, text_layer
from tests.support.rig.ostree import OSTreeRig, layer_ref
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.trees import skopeo_reads

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root("podman builds and ostree installs as root"),
]

NAME = "localhost/os:1"
BIG = 100 << 20
# The first push knows what the build learned of the base's blobs. podman 4.3 has no --force-compression: in
# another form than a blob that it knows the registry to have, it pushes only with a cache that knows none.
FORMS = {"gzip": "build", "zstd": "first", "zstd:chunked": "second"}

CONTAINERFILE = """\
FROM {base}
COPY doc /usr/share/doc/
RUN echo derived > /usr/lib/derived && rm /usr/lib/from-base
COPY app /usr/libexec/
COPY big /usr/lib/big
"""


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image as the registry has it."""

    name: str
    config_digest: str
    layers: tuple[dict[str, Any], ...]

    @property
    def digests(self) -> list[str]:
        """Of the layers' blobs, in order."""
        return [layer["digest"] for layer in self.layers]


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest) -> Iterator[StorageRig]:
    """An empty store. Its path is short: podman takes no runroot of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        rig = StorageRig(Path(root) / "s", str(request.param))
        yield rig
        rig.unmount()


def test_an_image_that_was_built_and_installed_here_is_upgraded_to_without_a_layer_byte(
    store: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    build(store, registry, tmp_path)
    plain = stored_image(store, tmp_path)
    repo = OSTreeRig.create(tmp_path / "repo")
    commits = install(plain, repo)
    assert len(commits) == 6 == len(set(commits))
    for form in FORMS:
        pushed = podman_push(store, registry, form, tmp_path)
        assert not set(pushed.digests) & set(commits), "the registry has them under other names"
        registry.reset()
        user = Cli(tmp_path / form.replace(":", "-"))
        nothing_is_fetched(user, store, repo, pushed, list(commits), tmp_path)
        the_repository_needs_nothing(user, repo, pushed, commits)
        asked = {access.reference for access in registry.accesses() if access.kind == "blob"}
        assert asked == {pushed.config_digest}
        assert registry.blob_bytes(digests=pushed.digests) == 0
    repo.check()


# --- what is on the machine -----------------------------------------------------------------------------


def build(store: StorageRig, registry: RegistryServer, work: Path) -> None:
    """``podman build`` of four layers on two from the registry; one layer has more than 100 MB."""
    base = build_image(
        work / "base", [text_layer({"usr/lib/os-release": "ID=os\n", "usr/lib/from-base": "old\n"}), shell()]
    )
    name = push(base, f"local-first-{store.driver}/base:1", registry)
    context = work / "context"
    for directory in ("doc", "app"):
        (context / directory).mkdir(parents=True)
    (context / "doc" / "numbers").write_text("".join(f"{n}\n" for n in range(200_000)))
    (context / "app" / "app").write_bytes(random.Random(1).randbytes(2_000_000))
    with (context / "big").open("wb") as big:
        for piece in pieces(BIG):
            big.write(piece)
    (context / "Containerfile").write_text(CONTAINERFILE.format(base=name))
    podman(
        store,
        work / FORMS["gzip"],
        *("build", "--quiet", "--isolation", "chroot", "--layers", PLAIN, "--tag", NAME, str(context)),
    )


def shell() -> LayerSpec:
    """As much of this machine as ``RUN`` needs: a shell, rm, and the libraries they load."""
    programs = ["/bin/sh", "/bin/rm"]
    loaded = re.findall(r"(/\S+) \(0x", run_tool("ldd", *programs))
    return LayerSpec(
        tuple(
            Entry(path.lstrip("/"), source=Path(path).resolve(), size=os.stat(path).st_size, mode=0o755)
            for path in sorted({*programs, *loaded})
        ),
        "shell",
    )


def pieces(size: int) -> Iterator[bytes]:
    """Content of which a quarter cannot be compressed and the rest can, as in a system's image."""
    noise = random.Random(7)
    text = b"".join(b"line %d of a file\n" % n for n in range(40_000))[: 3 << 18]
    for _ in range(size >> 20):
        yield noise.randbytes(1 << 18)
        yield text


def stored_image(store: StorageRig, work: Path) -> BuiltImage:
    """The image as podman's store gives it to an installer: layers by name and content, in ``work``."""
    source = f"{store.name}{NAME}"
    raw = run_tool("skopeo", "inspect", "--raw", source).encode()
    root = work / "installed"
    run_tool("skopeo", "copy", "--quiet", source, f"dir:{root}")
    store.unmount()
    config = (root / json.loads(raw)["config"]["digest"].removeprefix("sha256:")).read_bytes()
    return BuiltImage(root, "", raw, OCI_MANIFEST, config, (), "linux/amd64")


def install(plain: BuiltImage, repo: OSTreeRig) -> dict[str, str]:
    """What ``bootc install`` from podman's store leaves in its repository; DiffID → commit, in order.

    A blob's ref has the name that the stored manifest gives the layer.
    """
    digests = [layer["digest"] for layer in json.loads(plain.manifest)["layers"]]
    assert digests == json.loads(plain.config)["rootfs"]["diff_ids"], "plain tars, named by their DiffIDs"
    files = [plain.root / digest.removeprefix("sha256:") for digest in digests]
    assert max(file.stat().st_size for file in files) > 100e6
    commits = {digest: repo.take_layer(digest, file) for digest, file in zip(digests, files, strict=True)}
    ref = f"ostree/container/image/containers-storage_3A_{NAME.replace(':', '_3A_')}"
    repo.take_documents(plain, ref, list(commits.values()))
    return commits


def podman(store: StorageRig, cache: Path, *command: str) -> None:
    """Run podman on ``store``, with ``cache`` as its cache of blobs."""
    places = ("--root", str(store.root), "--runroot", f"{store.root}.run", "--storage-driver", store.driver)
    run_with_cache(cache, "podman", *places, *command)


def podman_push(store: StorageRig, registry: RegistryServer, form: str, work: Path) -> Pushed:
    """``podman push`` in that form."""
    codec, _, chunked = form.partition(":")
    name = f"{registry.host}/local-first-{store.driver}/os:{codec}{chunked}"
    podman(store, work / FORMS[form], "push", "--quiet", PLAIN, "--compression-format", form, NAME, name)
    manifest = json.loads(
        run_tool("skopeo", "inspect", "--raw", *registry.skopeo_options(""), f"docker://{name}")
    )
    layers = manifest["layers"]
    assert {layer["mediaType"].rpartition("+")[2] for layer in layers} == {codec}
    assert all(("zstd-chunked" in str(layer.get("annotations"))) == bool(chunked) for layer in layers)
    return Pushed(name, manifest["config"]["digest"], tuple(layers))


# --- what an upgrade costs ------------------------------------------------------------------------------


def nothing_is_fetched(
    user: Cli, store: StorageRig, repo: OSTreeRig, pushed: Pushed, diff_ids: list[str], work: Path
) -> None:
    n = len(diff_ids)
    alone = user.pull("--dry-run", pushed.name)
    assert alone.actions == ["fetch"] * n
    assert alone.json["bytes_fetched"] > 20e6, "what is saved"
    places = ("--from", store.name, "--from", f"ostree:{repo.root}")
    for options in (["--dry-run"], []):
        ran = user.pull(*options, *places, pushed.name)
        assert ran.actions == ["reuse"] * n
        assert {(layer["place"], layer["basis"]) for layer in ran.layers} == {(store.name, "attested")}
        assert ran.json["bytes_fetched"] == 0
    assert skopeo_reads(f"oci:{user.store}:{pushed.name}", work / "read") == diff_ids


def the_repository_needs_nothing(user: Cli, repo: OSTreeRig, pushed: Pushed, commits: dict[str, str]) -> None:
    """Nor does bootc: afterwards the repository has each layer under the name that it will be asked for."""
    n = len(commits)
    where = f"ostree:{repo.root}"
    fresh = Cli(user.home / "fresh")
    ran = fresh.pull("--from", where, "--trust", "computed", pushed.name)
    assert ran.actions == ["have"] * n
    assert {(layer["place"], layer["basis"]) for layer in ran.layers} == {(where, "computed")}
    prepare = ("prepare", PLAIN, "--json", "--ostree-repo", str(repo.root))
    before = repo.layers()
    planned = fresh.run(*prepare, "--dry-run", pushed.name)
    assert [layer["step"] for layer in planned.layers] == ["link"] * n
    assert repo.layers() == before
    done = fresh.run(*prepare, pushed.name)
    assert [layer["step"] for layer in done.layers] == ["link"] * n
    assert {layer["basis"] for layer in done.layers} == {"computed"}
    assert done.json["bytes_to_download"] == 0
    for digest, commit in zip(pushed.digests, commits.values(), strict=True):
        assert repo.commit_of(layer_ref(digest)) == commit
    assert [layer["step"] for layer in fresh.run(*prepare, pushed.name).layers] == ["present"] * n
