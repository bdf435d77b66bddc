"""The importer that bootc and rpm-ostree have, ostree-ext, with our image-proxy under the name of skopeo.

Everything is real: podman builds and pushes, a registry serves and counts, ostree keeps what is imported, and
the shim is as ``layertee install-shim`` writes it. The image has an ostree commit in seven layers as its base
and four layers on it. Only where a registry must do wrong, it is ours.
"""

from __future__ import annotations

import ast
import fcntl
import json
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, Replace
from tests.support.imageproxy import assert_clean
from tests.support.mirrors import At, write_conf
from tests.support.process import PLAIN, Cli, wait_until
from tests.support.rig import prebuild
from tests.support.rig.blobcache import run_with_cache
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import text_layer
from tests.support.rig.ostree import IMAGES, OSTreeRig, layer_ref
from tests.support.rig.ostreeclient import OSTreeClient, encapsulate, pull_words, read_image
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("ostreeclient"),
    pytest.mark.needs_root("podman builds and ostree imports as root"),
]

PATH = "/usr/bin:/bin"
NAME = "localhost/os:1"
N_BASE, N_DERIVED = 7, 4
CONTAINERFILE = """\
FROM {base}
COPY doc /usr/share/doc/
COPY app /usr/libexec/
COPY data /usr/share/data/
COPY conf /etc/
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the image was built: podman's store, and the image as it was pushed to the registry."""

    program: Path
    registry: RegistryServer
    store: StorageRig
    pushed: BuiltImage
    name: str

    @property
    def stored(self) -> str:
        """The image in podman's store."""
        return f"{self.store.name}{NAME}"

    def user(self, home: Path, *options: str) -> OSTreeClient:
        """The importer on our image-proxy, which has a store of its own and these options."""
        directory = home / "bin"
        Cli(home).run("install-shim", directory, "--", "--store", home / "store", *options)
        return OSTreeClient(self.program, f"{directory}:{PATH}", home)

    def on_skopeo(self, home: Path) -> OSTreeClient:
        """The importer on the real skopeo's."""
        return OSTreeClient(self.program, PATH, home)

    @property
    def sent(self) -> dict[str, int]:
        """What the registry has sent of the image's layers; digest → bytes."""
        found = {digest: self.registry.blob_bytes(digests=[digest]) for digest in self.pushed.layer_digests}
        return {digest: nbytes for digest, nbytes in found.items() if nbytes}


# --- what there is to import ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return prebuild.program("ostreeclient")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def machine(
    program: Path, registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """podman takes no runroot of more than 50 characters, so the store's path is short."""
    work = tmp_path_factory.mktemp("machine")
    base = make_base(program, registry, work)
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        store = StorageRig(Path(root) / "s", "overlay")
        name = build_and_push(store, base, registry, work)
        copied = work / "pushed"
        options = [*registry.skopeo_options("src"), "--quiet", "--preserve-digests"]
        run_tool("skopeo", "copy", *options, f"docker://{name}", f"oci:{copied}:1")
        image = read_image(copied, "1")
        assert len(image.layers) == N_BASE + N_DERIVED
        try:
            yield Machine(program, registry, store, image, f"docker://{name}")
        finally:
            store.unmount()


def make_base(program: Path, registry: RegistryServer, work: Path) -> str:
    """An ostree commit of 2 MB as an image in the registry."""
    tree = work / "tree"
    for n in range(4):
        package = tree / "usr" / "lib" / f"package-{n}"
        package.mkdir(parents=True)
        for at in range(5):
            (package / f"file-{at}").write_bytes(random.Random(10 * n + at).randbytes(100_000))
    (tree / "usr" / "etc").mkdir()
    (tree / "usr" / "lib" / "os-release").write_text("ID=example\n")
    repo = OSTreeRig.create(work / "compose")
    owner = ("--owner-uid=0", "--owner-gid=0")
    repo.run("commit", "--no-bindings", "--branch=os", f"--tree=dir={tree}", *owner)
    packages = {f"/package-{n}/": f"package-{n}" for n in range(4)}
    encapsulate(program, repo, "os", packages, f"oci:{work}/base:1", work)
    assert len(read_image(work / "base", "1").layers) == N_BASE
    name = f"{registry.host}/ostree-ext/base:1"
    options = [*registry.skopeo_options("dest"), "--quiet"]
    run_tool("skopeo", "copy", *options, f"oci:{work}/base:1", f"docker://{name}")
    return name


def build_and_push(store: StorageRig, base: str, registry: RegistryServer, work: Path) -> str:
    """``podman build`` and ``podman push``, with a cache of blobs that is not the machine's."""
    context = work / "context"
    for directory in ("doc", "app", "data", "conf"):
        (context / directory).mkdir(parents=True)
    (context / "doc" / "numbers").write_text("".join(f"{n}\n" for n in range(100_000)))
    (context / "app" / "app").write_bytes(random.Random(1).randbytes(1_000_000))
    (context / "data" / "data").write_bytes(random.Random(2).randbytes(990_000))
    (context / "conf" / "motd").write_text("hello\n")
    (context / "Containerfile").write_text(CONTAINERFILE.format(base=base))
    places = ("--root", str(store.root), "--runroot", f"{store.root}.run", "--storage-driver", store.driver)
    podman = ("podman", *places)
    options = ("--quiet", "--isolation", "chroot", "--layers", PLAIN, "--tag", NAME)
    run_with_cache(work / "cache", *podman, "build", *options, str(context))
    name = f"{registry.host}/ostree-ext/os:1"
    run_with_cache(work / "other cache", *podman, "push", "--quiet", PLAIN, NAME, name)
    return name


# --- what was imported ----------------------------------------------------------------------------------


def contents(repo: OSTreeRig) -> dict[str, str]:
    """The refs and the trees that they lead to: commits of derived layers have the time of their import."""
    return {ref: repo.run("ls", "-dC", ref, "/").split()[4] for ref in repo.refs()}


def image_commit(repo: OSTreeRig) -> str:
    """The one of the only image that is there."""
    (commit,) = (commit for ref, commit in repo.refs().items() if ref.startswith(f"{IMAGES}/"))
    return commit


def about_image(repo: OSTreeRig) -> list[object]:
    """What the image's commit says. It has no name of its own: the importer writes keys in any order."""
    commit = image_commit(repo)
    documents = [json.loads(metadata(repo, commit, key)) for key in ("manifest", "container.image-config")]
    others = [metadata(repo, commit, key) for key in ("manifest-digest", "importer.version")]
    filtered = repo.run("show", "--print-metadata-key=ostree.tar-filtered", commit)
    date = repo.run("log", commit).splitlines()[2]
    return [repo.run("ls", "-dC", commit, "/"), date, filtered, *others, *documents]


def metadata(repo: OSTreeRig, commit: str, key: str) -> str:
    """Text that the importer keeps in a commit. It is printed in quotes, with escapes as Python has them."""
    text = ast.literal_eval(repo.run("show", f"--print-metadata-key=ostree.{key}", commit))
    assert isinstance(text, str)
    return text


def stored(home: Path) -> set[str]:
    """The digests of what our image-proxy has stored for that user."""
    return {f"sha256:{path.name}" for path in (home / "store" / "blobs" / "sha256").iterdir()}


def is_written(part: Path) -> bool:
    """Whether a process has the lock of ``part``. The first bytes of a layer stay when their process goes."""
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def layer_refs(digests: Iterable[str]) -> set[str]:
    return {layer_ref(digest) for digest in digests}


# --- from a registry ------------------------------------------------------------------------------------


def test_an_image_is_imported_as_through_the_real_skopeo(machine: Machine, tmp_path: Path) -> None:
    repos = [OSTreeRig.create(tmp_path / name) for name in ("ours", "theirs")]
    users = [machine.user(tmp_path / "us"), machine.on_skopeo(tmp_path)]
    sent = []
    for user, repo in zip(users, repos, strict=True):
        machine.registry.reset()
        pulled = user.pull(repo, machine.name)
        assert pulled.layers[:2] == (0, N_BASE + N_DERIVED)
        sent.append(machine.sent)
        repo.check()
    ours, theirs = repos
    assert contents(ours) == contents(theirs)
    assert layer_refs([layer.digest for layer in machine.pushed.layers]) < set(ours.refs())
    base = layer_refs([layer.digest for layer in machine.pushed.layers[:N_BASE]])
    assert {ref: ours.commit_of(ref) for ref in base} == {ref: theirs.commit_of(ref) for ref in base}
    assert about_image(ours) == about_image(theirs)
    assert metadata(ours, image_commit(ours), "manifest-digest") == machine.pushed.digest
    assert sent[0] == sent[1] == {layer.digest: layer.size for layer in machine.pushed.layers}
    assert "No changes" in users[0].pull(ours, machine.name).out
    assert_clean(tmp_path / "us" / "store")


@pytest.mark.parametrize("origin", ["blocked", "out of reach"])
def test_a_disconnected_host_upgrades_from_its_mirror(
    machine: Machine, installed: OSTreeRig, tmp_path: Path, origin: str
) -> None:
    """bootc has no other way to say so than registries.conf. The origin's name leads nowhere at all."""
    repo = copied(installed, tmp_path)
    path, _, tag = machine.name.removeprefix(f"docker://{machine.registry.host}/").rpartition(":")
    mirror = At(f"{machine.registry.host}/{path}")
    conf = write_conf(tmp_path, f"origin.invalid/{path}", [mirror], blocked=origin == "blocked")
    user = machine.user(tmp_path / "us")
    machine.registry.reset()
    name = f"docker://origin.invalid/{path}:{tag}"
    pulled = user.pull(repo, name, CONTAINERS_REGISTRIES_CONF=str(conf))
    assert pulled.n_needed == N_BASE + N_DERIVED
    assert machine.sent == {layer.digest: layer.size for layer in machine.pushed.layers}
    assert layer_refs([layer.digest for layer in machine.pushed.layers]) < set(repo.refs())
    assert "origin.invalid" not in pulled.err  # not even looked up
    machine.registry.reset()
    assert "No changes" in user.pull(repo, name, CONTAINERS_REGISTRIES_CONF=str(conf)).out
    assert machine.sent == {}


def test_layers_of_zstd_are_imported_as_those_of_gzip(
    machine: Machine, installed: OSTreeRig, tmp_path: Path
) -> None:
    image = recompress(machine.pushed, "zstd", tmp_path / "zstd")
    name = push(image, "ostree-ext/zstd:2", machine.registry)
    repo = OSTreeRig.create(tmp_path / "repo")
    user = machine.user(tmp_path / "us", "--client-repo", "none")
    assert user.pull(repo, f"docker://{name}").layers[:2] == (0, N_BASE + N_DERIVED)
    trees, others = contents(repo), contents(installed)
    for layer in image.layers:
        assert trees[layer_ref(layer.digest)] == others[layer_ref(layer.diff_id)]


@pytest.mark.parametrize("known", ["all layers", "no layer"])
def test_a_check_costs_the_documents_and_what_is_read_ahead(
    machine: Machine, installed: OSTreeRig, tmp_path: Path, known: str
) -> None:
    """And nothing is read ahead that the repository has."""
    if known == "all layers":
        repo, ahead = copied(installed, tmp_path), 32 << 20
        prepare(machine, repo, tmp_path)
    else:
        repo, ahead = OSTreeRig.create(tmp_path / "repo"), 1_000_000
    user = machine.user(tmp_path / "us", "--client-repo", str(repo.root), "--ahead", str(ahead))
    machine.registry.reset()
    checked = user.pull(repo, machine.name, "--check", str(tmp_path / "manifest"))
    assert checked.code == 0, checked.err
    assert json.loads((tmp_path / "manifest").read_bytes()) == json.loads(machine.pushed.manifest)
    sent = sum(machine.sent.values())
    assert sent <= (0 if known == "all layers" else ahead) < machine.pushed.blob_bytes


# --- built here, installed here, upgraded from a registry -----------------------------------------------


@pytest.fixture(scope="module")
def installed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> OSTreeRig:
    """A repository with the image from podman's store. Copy it; do not write to it."""
    home = tmp_path_factory.mktemp("install")
    repo = OSTreeRig.create(home / "repo")
    user = machine.user(home / "us", "--client-repo", "none")
    assert user.pull(repo, machine.stored).layers[:2] == (0, N_BASE + N_DERIVED)
    return repo


def copied(installed: OSTreeRig, work: Path) -> OSTreeRig:
    """A repository of the test's own with the same in it."""
    run_tool("cp", "-a", str(installed.root), str(work / "repo"))
    return OSTreeRig(work / "repo")


def prepare(machine: Machine, repo: OSTreeRig, work: Path, *options: str) -> list[str]:
    """``layertee prepare`` for the pushed image; what it did, for each layer."""
    words = ("prepare", PLAIN, "--json", "--ostree-repo", str(repo.root), *options)
    return [layer["step"] for layer in Cli(work / "prepare").run(*words, machine.name).layers]


def test_an_image_is_installed_from_the_store_that_it_is_in(
    machine: Machine, installed: OSTreeRig, tmp_path: Path
) -> None:
    """Each layer is named by its DiffID there, and is what it is when it comes from the registry."""
    diff_ids = [layer.diff_id for layer in machine.pushed.layers]
    assert layer_refs(diff_ids) == {ref for ref in installed.refs() if "/blob/" in ref}
    by_registry = OSTreeRig.create(tmp_path / "repo")
    assert machine.user(tmp_path / "us").pull(by_registry, machine.name).code == 0
    trees, others = contents(installed), contents(by_registry)
    for layer in machine.pushed.layers:
        assert trees[layer_ref(layer.diff_id)] == others[layer_ref(layer.digest)]
    config = json.loads(metadata(installed, image_commit(installed), "container.image-config"))
    assert config == json.loads(machine.pushed.config)
    installed.check()


def test_the_store_may_be_one_that_the_environment_names(
    machine: Machine, installed: OSTreeRig, tmp_path: Path
) -> None:
    """As ``bootc install`` names the store of the machine that it runs on."""
    conf = tmp_path / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver = "{machine.store.driver}"\n'
        f'graphroot = "{tmp_path}/empty"\nrunroot = "{tmp_path}/run"\n'
    )
    env = {
        "CONTAINERS_STORAGE_CONF": str(conf),
        "STORAGE_OPTS": f"additionalimagestore={machine.store.root}",
    }
    repo = OSTreeRig.create(tmp_path / "repo")
    user = machine.user(tmp_path / "us", "--client-repo", "none")
    pulled = user.pull(repo, f"containers-storage:{NAME}", **env)
    assert pulled.layers[:2] == (0, N_BASE + N_DERIVED)
    assert about_image(repo) == about_image(installed)


def test_an_upgrade_alone_needs_every_layer(machine: Machine, installed: OSTreeRig, tmp_path: Path) -> None:
    """ostree-ext 0.15.3 knows layers by the names of their blobs, and these are others at a registry."""
    repo = copied(installed, tmp_path)
    machine.registry.reset()
    pulled = machine.user(tmp_path / "us").pull(repo, machine.name)
    size = f"{machine.pushed.blob_bytes / 1e6:.1f} MB"
    assert pulled.layers == (0, N_BASE + N_DERIVED, size)
    assert sum(machine.sent.values()) == machine.pushed.blob_bytes


@pytest.mark.parametrize("by", ["layertee", "skopeo"])
@pytest.mark.parametrize("source", ["the repository", "the store"])
def test_a_prepared_upgrade_needs_no_layer(
    machine: Machine, installed: OSTreeRig, tmp_path: Path, by: str, source: str
) -> None:
    """Whoever fetches: after ``layertee prepare`` there is nothing to fetch."""
    repo = copied(installed, tmp_path)
    options = ("--from", machine.store.name) if source == "the store" else ()
    machine.registry.reset()
    assert prepare(machine, repo, tmp_path, *options) == ["link"] * (N_BASE + N_DERIVED)
    if by == "layertee":
        user = machine.user(tmp_path / "us", "--client-repo", str(repo.root))
    else:
        user = machine.on_skopeo(tmp_path)
    pulled = user.pull(repo, machine.name)
    assert pulled.n_needed == 0
    assert machine.sent == {}
    upgraded = pulled.out.split()[-1]
    assert metadata(repo, upgraded, "manifest-digest") == machine.pushed.digest
    assert repo.run("ls", "-dC", upgraded, "/") == repo.run("ls", "-dC", image_commit(installed), "/")
    repo.check()


def test_where_layers_are_named_by_diffid_nothing_has_to_be_prepared(
    machine: Machine, installed: OSTreeRig, tmp_path: Path
) -> None:
    """The manifest that the importer keeps is then not the registry's, and says which one that is."""
    repo = copied(installed, tmp_path)
    options = ("--layer-identity", "diffid", "--client-repo", str(repo.root))
    user = machine.user(tmp_path / "us", *options)
    machine.registry.reset()
    pulled = user.pull(repo, machine.name)
    assert pulled.n_needed == 0
    assert machine.sent == {}
    upgraded = pulled.out.split()[-1]
    kept = json.loads(metadata(repo, upgraded, "manifest"))
    assert [layer["digest"] for layer in kept["layers"]] == [one.diff_id for one in machine.pushed.layers]
    assert kept["annotations"]["dev.layertee.original-manifest"] == machine.pushed.digest
    assert kept["config"]["digest"] == machine.pushed.config_digest
    assert metadata(repo, upgraded, "manifest-digest") != machine.pushed.digest
    assert "No changes" in user.pull(repo, machine.name).out
    assert machine.sent == {}


def test_where_layers_are_named_by_diffid_each_is_imported_once_wherever_it_is(
    machine: Machine, installed: OSTreeRig, tmp_path: Path
) -> None:
    """As gzip and as zstd in a registry, and in podman's store."""
    repo = OSTreeRig.create(tmp_path / "repo")
    options = ("--layer-identity", "diffid", "--client-repo", str(repo.root))
    user = machine.user(tmp_path / "us", *options)
    assert user.pull(repo, machine.name).layers[:2] == (0, N_BASE + N_DERIVED)
    trees, others = contents(repo), contents(installed)
    for layer in machine.pushed.layers:
        assert trees[layer_ref(layer.diff_id)] == others[layer_ref(layer.diff_id)]
    zstd = recompress(machine.pushed, "zstd", tmp_path / "zstd")
    again = push(zstd, "ostree-ext/zstd:1", machine.registry)
    machine.registry.reset()
    for name in (f"docker://{again}", machine.stored):
        pulled = user.pull(repo, name)
        assert (pulled.n_needed, "Wrote:" in pulled.out) == (0, True)
    assert machine.registry.blob_bytes(digests=zstd.layer_digests) == 0
    repo.check()


# --- when something goes wrong --------------------------------------------------------------------------


def padded(blob: bytes, size: int) -> bytes:
    """A gzip file with a comment (RFC 1952 section 2.3) by which it has that size."""
    assert blob[3] == 0, "no optional fields yet"
    n = size - len(blob) - 1
    assert n >= 0
    return blob[:3] + b"\x10" + blob[4:10] + b" " * n + b"\0" + blob[10:]


@pytest.mark.parametrize("part", ["the ostree commit", "what is on it"])
def test_wrong_bytes_at_the_registry_leave_no_trace_in_the_repository(
    machine: Machine, tmp_path: Path, part: str
) -> None:
    """They are a layer that the importer could read, in the place of another."""
    layers = (
        machine.pushed.layers[1:N_BASE] if part == "the ostree commit" else machine.pushed.layers[N_BASE:]
    )
    bad, other = sorted(layers, key=lambda layer: layer.size, reverse=True)[:2]
    instead = padded(machine.pushed.blob_path(other.digest).read_bytes(), bad.size)
    repo = OSTreeRig.create(tmp_path / "repo")
    user = machine.user(tmp_path / "us", "--client-repo", "none")
    with FaultServer(machine.pushed, [on("blob", Replace(instead), reference=bad.digest)]) as server:
        image = f"docker://{server.reference}"
        failed = user.pull(repo, image)
        assert failed.code != 0
        assert bad.digest in failed.err
        assert "[DIGEST_MISMATCH]" in failed.err
        assert layer_ref(bad.digest) not in repo.refs()
        assert not any(ref.startswith(f"{IMAGES}/") for ref in repo.refs())
        n_kept = len(repo.refs())
        server.script([])
        n_layers = N_BASE + N_DERIVED
        assert user.pull(repo, image).layers[:2] == (n_kept, n_layers - n_kept)
    repo.check()


def test_what_was_finished_before_an_import_was_killed_is_not_fetched_again(
    machine: Machine, tmp_path: Path
) -> None:
    """Neither what the importer had taken, nor what was read ahead of it."""
    gate, last = Gate(), machine.pushed.layers[N_BASE]
    repo = OSTreeRig.create(tmp_path / "repo")
    home = tmp_path / "us"
    parts = home / "store" / "layertee" / "parts"
    user = machine.user(home, "--client-repo", "none")
    with FaultServer(machine.pushed, [on("blob", Held(gate, 1000), reference=last.digest)]) as server:
        image = f"docker://{server.reference}"
        with user.started(*pull_words(repo, image)):
            gate.wait_arrived(timeout_s=30)
            base = {layer.digest for layer in machine.pushed.layers[:N_BASE]}
            wait_until(lambda: all(repo.ref_path(digest).exists() for digest in base), "the base is there")
            wait_until(lambda: base < stored(home), "a layer was read ahead")
            wait_until(lambda: list(parts.iterdir()), "a layer is on its way")
        wait_until(lambda: not any(map(is_written, parts.iterdir())), "its server has let go of the layers")
        gate.open()
        kept = stored(home)
        server.script([])
        server.forget()
        assert user.pull(repo, image).layers[:2] == (N_BASE, N_DERIVED)
        server.settle()
        asked = {request.reference for request in server.requests("blob")}
        assert not asked & kept
        assert last.digest in asked
    repo.check()


def test_an_image_that_the_policy_rejects_is_not_imported(machine: Machine, tmp_path: Path) -> None:
    home = tmp_path / "us"
    user = machine.user(home, "--client-repo", "none")
    policy = home / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    repo = OSTreeRig.create(tmp_path / "repo")
    machine.registry.reset()
    refused = user.pull(repo, machine.name)
    assert refused.code == 1
    assert "[POLICY]" in refused.err
    assert (repo.refs(), machine.sent) == ({}, {})


def test_what_keeps_the_server_from_beginning_is_told(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    user = machine.user(tmp_path / "us", "--store", f"{tmp_path}/file/store")
    failed = user.pull(OSTreeRig.create(tmp_path / "repo"), machine.name)
    assert failed.code == 1
    assert f"{tmp_path}/file/store: Not a directory [STORE_IO]" in failed.err


def test_an_image_without_an_ostree_commit_is_refused_in_the_same_words(
    machine: Machine, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": "a"}), text_layer({"b": "b"})])
    name = f"docker://{push(image, 'ostree-ext/plain:1', machine.registry)}"
    repo = OSTreeRig.create(tmp_path / "repo")
    refusals = [
        user.pull(repo, name) for user in (machine.user(tmp_path / "us"), machine.on_skopeo(tmp_path))
    ]
    assert {pulled.code for pulled in refusals} == {1}
    assert "not an ostree encapsulated container" in refusals[0].err
    assert refusals[0].err == refusals[1].err
    assert repo.refs() == {}
