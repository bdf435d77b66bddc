"""From ``podman push --sign-by`` and ``skopeo copy --sign-by`` to what this machine takes: real tools, real
keys, a real registry, and signatures where these tools have put them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.enforced import Enforced, by_gpg, layer_requests, on_the_web, run_with
from tests.support.imageproxy import layertee_proxy
from tests.support.openpgp import Signer, signer
from tests.support.podman import small_image
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image, build_index, push
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

pytestmark = pytest.mark.slow

OURS, OTHER, EXPIRED = "release@example.com", "other@example.com", "expired@example.com"
REPOSITORIES = {OURS: "signed", OTHER: "other", EXPIRED: "expired"}
needs_podman = pytest.mark.needs_root("podman fills stores as root")
STORED = "localhost/os:1"


@dataclass(frozen=True)
class Publisher:
    """An image in a registry, at ``os/signed``, ``os/other``, ``os/expired`` and ``os/none``; skopeo has
    signed it at all but the last, by the keys of REPOSITORIES, with the signatures in ``lookaside``.
    """

    signer: Signer
    files: Enforced
    server: RegistryServer
    lookaside: Path
    image: BuiltImage

    def key(self, user: str = OURS) -> Path:
        return self.files.home / user

    def name(self, repository: str) -> str:
        return f"{self.server.host}/os/{repository}:stable"

    def copy(self, *words: str) -> None:
        """``skopeo copy`` with signatures, as this user."""
        environment = {"GNUPGHOME": self.signer.home, "HOME": self.files.home}
        run_with(environment, "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", *words)

    def layers_asked_for(self) -> list[str]:
        return layer_requests(self.server, self.image)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    root = tmp_path_factory.mktemp("publisher")
    image = small_image(root / "image")
    files, lookaside = Enforced(root / "home"), root / "lookaside"
    where = lookaside.as_uri()
    files.find(lookaside=where, lookaside_staging=where)
    with RegistryServer() as server, signer() as home:
        found = Publisher(home, files, server, lookaside, image)
        for user in (OURS, OTHER, EXPIRED):
            fingerprint = home.key(user, at="20240101T000000")
            where_to = f"docker://{found.name(REPOSITORIES[user])}"
            found.copy(*server.skopeo_options("dest"), "--sign-by", fingerprint, image.skopeo_name, where_to)
        home.gpg("--quick-set-expire", home.fingerprints(EXPIRED)[0], "1d", at="20240101T000100")
        for user in (OURS, OTHER, EXPIRED):
            found.key(user).write_bytes(home.public(user, armor=True))
        push(image, "os/none:stable", server)
        yield found


@pytest.fixture(scope="module")
def store(publisher: Publisher) -> Iterator[StorageRig]:
    """The publisher's, of podman, with the image. Its path is short: podman takes no long ones."""
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        found = StorageRig(Path(root) / "s", "overlay")
        found.take(publisher.image.skopeo_name, STORED)
        yield found
        found.unmount()


@pytest.fixture
def machine(publisher: Publisher, tmp_path: Path) -> Enforced:
    """It takes what the publisher has signed, and finds the signatures in the publisher's directory."""
    publisher.server.reset()
    found = Enforced(tmp_path / "machine")
    found.want("docker", f"{publisher.server.host}/os", by_gpg(publisher.key()))
    found.find(lookaside=publisher.lookaside.as_uri())
    return found


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


# --- from a registry ------------------------------------------------------------------------------------


@needs_podman
@pytest.mark.parametrize("lookaside", ["a directory", "a web server"])
def test_what_podman_has_pushed_and_signed_is_taken(
    publisher: Publisher, store: StorageRig, machine: Enforced, user: Cli, lookaside: str
) -> None:
    name = publisher.name("podman")
    environment = {"GNUPGHOME": publisher.signer.home, "HOME": publisher.files.home}
    podman = ("podman", "--root", str(store.root), "--runroot", f"{store.root}.run")
    words = ("--storage-driver", store.driver, "push", "--quiet", PLAIN, "--sign-by", OURS)
    run_with(environment, *podman, *words, STORED, name)
    with on_the_web(publisher.lookaside) as web:
        if lookaside == "a web server":
            machine.find(lookaside=web)
        found = user.pull(*machine.options, name).json
        (verified,) = found["policy"]["verified"]
        place = web if lookaside == "a web server" else str(publisher.lookaside)
        assert verified["place"].startswith(f"{place}/os/podman@")
    assert verified["kind"] == "signedBy"
    assert verified["signed_name"] == name
    assert verified["key"] == publisher.signer.fingerprints(OURS)[0]
    assert found["policy"]["signed"] == [found["manifest_digest"]]


@pytest.mark.parametrize("by", ["layertee", "skopeo"])
def test_what_skopeo_has_signed_is_taken(publisher: Publisher, machine: Enforced, user: Cli, by: str) -> None:
    """--signatures-by skopeo has the real one judge."""
    found = user.pull("--signatures-by", by, *machine.options, publisher.name("signed")).json
    assert found["policy"]["accepted"] is True
    assert found["policy"]["by"] == by
    assert found["policy"]["signed"] == [found["manifest_digest"]]


@pytest.mark.parametrize("by", ["layertee", "skopeo"])
@pytest.mark.parametrize("what", ["other", "expired", "none"])
def test_what_is_not_signed_by_the_key_is_refused_before_a_layer_is_asked_for(
    publisher: Publisher, machine: Enforced, user: Cli, what: str, by: str
) -> None:
    if what == "expired":
        machine.want("docker", publisher.server.host, by_gpg(publisher.key(EXPIRED)))
    words = ("pull", PLAIN, "--signatures-by", by, *machine.options)
    said = user.run(*words, publisher.name(what), code=1).err
    assert "[POLICY]" in said
    assert str(machine.policy) in said
    assert publisher.layers_asked_for() == []


def test_where_no_lookaside_is_named_the_refusal_says_so(
    publisher: Publisher, machine: Enforced, user: Cli
) -> None:
    machine.find()
    said = user.run("pull", PLAIN, *machine.options, publisher.name("signed"), code=1).err
    repository = publisher.name("signed").removesuffix(":stable")
    assert f"there is none (registries.d has no 'lookaside' for {repository}) [POLICY]" in said
    assert publisher.layers_asked_for() == []


def test_a_name_that_was_not_signed_is_refused(publisher: Publisher, machine: Enforced, user: Cli) -> None:
    """The same manifest, with the same signature beside it, under another tag and at another repository."""
    signed, repository = publisher.name("signed"), publisher.name("renamed").removesuffix(":stable")
    publisher.copy(
        *publisher.server.skopeo_options("src"),
        *publisher.server.skopeo_options("dest"),
        f"docker://{signed}",
        f"docker://{repository}:other",
    )
    said = user.run("pull", PLAIN, *machine.options, f"{repository}:other", code=1).err
    assert "which matchRepoDigestOrExact refuses" in said
    identity = {"type": "exactReference", "dockerReference": signed}
    machine.want("docker", publisher.server.host, by_gpg(publisher.key(), **identity))
    user.pull(*machine.options, f"{repository}:other")


# --- from a directory, by the real skopeo ---------------------------------------------------------------


@dataclass(frozen=True)
class Directories:
    """An image as skopeo's ``dir:``, with the signature and without it."""

    signed: Path
    unsigned: Path


@pytest.fixture
def directories(publisher: Publisher, tmp_path: Path) -> Directories:
    found = Directories(tmp_path / "signed", tmp_path / "unsigned")
    for path in (found.signed, found.unsigned):
        options = [] if path == found.signed else ["--remove-signatures"]
        publisher.copy(
            *publisher.server.skopeo_options("src"),
            *options,
            f"docker://{publisher.name('signed')}",
            f"dir:{path}",
        )
    return found


def exact(publisher: Publisher) -> dict[str, str]:
    """Directories have no name of their own that could be signed."""
    return {
        "type": "exactRepository",
        "dockerRepository": publisher.name("signed").removesuffix(":stable"),
    }


def test_a_directory_is_verified_and_then_served_by_the_real_skopeo(
    publisher: Publisher, machine: Enforced, directories: Directories, user: Cli
) -> None:
    machine.want("dir", "", by_gpg(publisher.key(), **exact(publisher)))
    with layertee_proxy(user.store, policy=machine.policy) as proxy:
        proxy.value("Initialize")
        assert "[POLICY]" in proxy.refused("OpenImage", f"dir:{directories.unsigned}")
        number = proxy.open(f"dir:{directories.signed}")
        digest, manifest = proxy.manifest(number)
        assert [layer["digest"] for layer in manifest["layers"]] == [
            layer.digest for layer in publisher.image.layers
        ]
        assert digest == publisher.image.digest
        for layer in publisher.image.layers:
            assert digest_of(proxy.blob(number, layer)) == layer.digest


def test_a_directory_of_several_platforms_is_served_by_its_signed_manifests(
    publisher: Publisher, machine: Enforced, user: Cli, tmp_path: Path
) -> None:
    """By those of the index alone, and by those of a platform's manifest alone."""
    images = [
        build_image(tmp_path / name, [text_layer({"of": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64")
    ]
    index = build_index(tmp_path / "index", images)
    name = publisher.name("several")
    signing = ("--all", "--sign-by", publisher.signer.fingerprints(OURS)[0])
    to, source = publisher.server.skopeo_options("dest"), publisher.server.skopeo_options("src")
    publisher.copy(*signing, *to, index.skopeo_name, f"docker://{name}")
    directory = tmp_path / "dir"
    publisher.copy("--all", *source, f"docker://{name}", f"dir:{directory}")
    chosen, other = (image.digest.removeprefix("sha256:") for image in images)
    of_index, of_chosen = directory / "signature-1", directory / f"{chosen}.signature-1"
    identity = {"type": "exactRepository", "dockerRepository": name.removesuffix(":stable")}
    machine.want("dir", "", by_gpg(publisher.key(), **identity))
    options = ("--override-os", "linux", "--override-arch", "amd64")
    with layertee_proxy(user.store, *options, policy=machine.policy) as proxy:
        proxy.value("Initialize")
        assert (directory / f"{other}.signature-1").exists()
        for kept, removed in ((of_index, of_chosen), (of_chosen, of_index)):
            content = removed.read_bytes()
            removed.unlink()
            assert kept.exists()
            number = proxy.open(f"dir:{directory}")
            assert proxy.manifest(number)[0] == images[0].digest
            proxy.value("CloseImage", number)
            removed.write_bytes(content)
        of_index.unlink()
        of_chosen.unlink()
        assert "[POLICY]" in proxy.refused("OpenImage", f"dir:{directory}")


def skopeo_after(directory: Path, script: str) -> Path:
    """The real skopeo, once ``script`` has been run."""
    directory.mkdir()
    program = directory / "skopeo"
    program.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("skopeo")} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("when", ["before it is opened", "after it was opened"])
def test_a_manifest_that_is_swapped_after_the_check_is_never_given(
    publisher: Publisher, machine: Enforced, directories: Directories, user: Cli, tmp_path: Path, when: str
) -> None:
    """Skopeo reads it anew, once."""
    machine.want("dir", "", by_gpg(publisher.key(), **exact(publisher)))
    manifest, other = directories.signed / "manifest.json", tmp_path / "other.json"
    other.write_bytes(manifest.read_bytes() + b"\n")
    name = f"dir:{directories.signed}"
    swap = f"cp {other} {manifest}" if when.startswith("before") else ":"
    skopeo = skopeo_after(tmp_path / "bin", swap)
    with layertee_proxy(user.store, "--skopeo", str(skopeo), policy=machine.policy) as proxy:
        proxy.value("Initialize")
        if when.startswith("before"):
            assert "it has changed meanwhile" in proxy.refused("OpenImage", name)
        else:
            number = proxy.open(name)
            manifest.write_bytes(other.read_bytes())
            assert proxy.manifest(number)[0] == publisher.image.digest
        # The server is well, and judges anew what is there now.
        assert "[POLICY]" in proxy.refused("OpenImage", name)


# Not every version of skopeo has such an option, and no layer is encrypted: it is left out.
WITHOUT_KEYS = """\
for word; do
    shift
    case $word in --decryption-key|*.pem) ;; *) set -- "$@" "$word" ;; esac
done"""


def test_with_a_key_for_layers_images_of_registries_are_verified_and_left_to_skopeo(
    publisher: Publisher, machine: Enforced, user: Cli, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    run_with({}, "openssl", "genrsa", "-out", str(key), "2048")
    skopeo = skopeo_after(tmp_path / "bin", WITHOUT_KEYS)
    options = [PLAIN, "--decryption-key", str(key), "--registries.d", str(machine.registries_d)]
    with layertee_proxy(user.store, *options, "--skopeo", str(skopeo), policy=machine.policy) as proxy:
        proxy.value("Initialize")
        for what in ("other", "none"):
            assert "[POLICY]" in proxy.refused("OpenImage", f"docker://{publisher.name(what)}")
        assert publisher.layers_asked_for() == []
        number = proxy.open(f"docker://{publisher.name('signed')}")
        assert proxy.manifest(number)[0] == publisher.image.digest
        layer = publisher.image.layers[0]
        assert digest_of(proxy.blob(number, layer)) == layer.digest
        assert len(publisher.layers_asked_for()) == 1


# --- from podman's store --------------------------------------------------------------------------------


@needs_podman
def test_what_podman_keeps_of_signatures_counts(publisher: Publisher, machine: Enforced, user: Cli) -> None:
    """podman pulls it, by its own look at the same policy; then it is taken from podman's store."""
    name = publisher.name("signed")
    unsigned = build_image(user.home / "unsigned", [text_layer({"not": "signed"})])
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        store = StorageRig(Path(root) / "s", "overlay")
        podman = ("podman", "--root", str(store.root), "--runroot", f"{store.root}.run")
        words = ("--storage-driver", store.driver, "pull", "--quiet", PLAIN)
        policy = ("--signature-policy", str(machine.policy))
        run_with({"HOME": machine.home}, *podman, *words, *policy, name)
        store.run("podman", "tag", name, "localhost/renamed:1")
        store.take(unsigned.skopeo_name, "localhost/unsigned:1")
        machine.want("containers-storage", "", by_gpg(publisher.key()))
        found = user.pull(*machine.options, f"{store.name}{name}").json
        (verified,) = found["policy"]["verified"]
        assert verified["signed_name"] == name
        assert "podman's store" in verified["place"]
        for other in ("localhost/renamed:1", "localhost/unsigned:1"):
            said = user.run("pull", *machine.options, f"{store.name}{other}", code=1).err
            assert "[POLICY]" in said
        store.unmount()
