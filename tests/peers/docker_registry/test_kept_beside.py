"""``pull --keep-signatures``: what is beside an image in a real registry comes with it, and goes with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.image.digest import Digest
from layertee.store.beside import BESIDE, listed
from layertee.store.layout import Layout
from layertee.store.layout_index import REF_NAME
from tests.support.process import Cli
from tests.support.rig.beside import Beside
from tests.support.rig.images import BuiltImage, BuiltIndex, build_image, build_two_platforms, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.sigstorekit import by_key, manifest, new_key, payload, tag_of

pytestmark = pytest.mark.slow

BUNDLE = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("signed"), [text_layer({"etc/motd": "hello\n"})])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BuiltIndex:
    return build_two_platforms(tmp_path_factory.mktemp("index"))


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture
def registry(image: BuiltImage) -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        upload(image, "a/b:1", server)
        yield server


def sign(registry: RegistryServer, digest: str) -> tuple[bytes, dict[str, bytes]]:
    """Attach a signature in the older way; its manifest and blobs."""
    beside = Beside(registry, "a/b")
    raw, blobs = manifest([by_key(new_key(), payload(digest, f"{registry.host}/a/b"))])
    for blob in blobs.values():
        beside.put_blob(blob)
    beside.put_manifest(tag_of(Digest(digest)), raw)
    return raw, blobs


def kept(user: Cli, name: str) -> dict[str, str]:
    """The tags, or "", of what the store has beside the image, by digest; every file of it was hashed."""
    layout = Layout.open(user.store)
    found = listed(layout, layout.find(name))
    for one in found:
        layout.read_blob(one)
    return {str(one.digest): one.annotations.get(REF_NAME, "") for one in found}


def test_signatures_come_and_go_with_their_image(
    user: Cli, registry: RegistryServer, image: BuiltImage
) -> None:
    raw, blobs = sign(registry, image.digest)
    bundle = Beside(registry, "a/b").attach(image.digest, BUNDLE)
    name = f"{registry.host}/a/b:1"
    user.pull("--keep-signatures", name)
    signature = str(Digest.of(raw))
    assert kept(user, name) == {signature: tag_of(Digest(image.digest)), bundle: ""}
    for digest in (*blobs, str(Digest.of(BUNDLE)), str(Digest.of(b"{}"))):
        assert Digest.of(user.blob(digest).read_bytes()) == digest
    # gc knows of them, verify hashes them, ls does not list them, and a pull without the option leaves them.
    user.run("gc")
    user.run("verify")
    user.pull(name)
    assert set(kept(user, name)) == {signature, bundle}
    (shown,) = user.run("ls", "--json").json["images"]
    assert shown["name"] == name
    user.run("rm", name)
    user.run("gc")
    assert list((user.store / "blobs" / "sha256").iterdir()) == []


def test_without_the_option_nothing_is_kept_or_asked_for(
    user: Cli, registry: RegistryServer, image: BuiltImage
) -> None:
    sign(registry, image.digest)
    registry.reset()
    name = f"{registry.host}/a/b:1"
    user.pull(name)
    assert kept(user, name) == {}
    entry = json.loads((user.store / "index.json").read_text())["manifests"][0]
    assert BESIDE not in entry["annotations"]
    assert not [access for access in registry.accesses() if "/sha256-" in access.path]


def test_of_an_image_that_changes_the_signatures_are_those_of_the_new_one(
    user: Cli, registry: RegistryServer, image: BuiltImage, tmp_path: Path
) -> None:
    sign(registry, image.digest)
    name = f"{registry.host}/a/b:1"
    user.pull("--keep-signatures", name)
    other = build_image(tmp_path / "other", [text_layer({"etc/motd": "hello again\n"})])
    upload(other, "a/b:1", registry)
    user.pull(name)
    assert kept(user, name) == {}
    raw, _ = sign(registry, other.digest)
    user.pull("--keep-signatures", name)
    assert set(kept(user, name)) == {str(Digest.of(raw))}


def test_the_index_is_kept_with_what_signs_it(user: Cli, registry: RegistryServer, index: BuiltIndex) -> None:
    upload(index, "a/b:2", registry)
    raw, _ = sign(registry, index.digest)
    name = f"{registry.host}/a/b:2"
    user.pull("--keep-signatures", "--platform", "linux/amd64", name)
    assert kept(user, name) == {str(Digest.of(raw)): tag_of(Digest(index.digest)), index.digest: ""}
    user.run("gc")
    assert Digest.of(user.blob(index.digest).read_bytes()) == index.digest


def test_other_bytes_than_were_named_are_not_kept(
    user: Cli, registry: RegistryServer, image: BuiltImage
) -> None:
    """And the pull says so: whoever asks for signatures does not get an image without."""
    _, blobs = sign(registry, image.digest)
    victim = next(digest for digest, blob in blobs.items() if blob != b"{}")
    number = victim.removeprefix("sha256:")
    data = registry.storage / "docker/registry/v2/blobs/sha256" / number[:2] / number / "data"
    data.write_bytes(b"x" * data.stat().st_size)
    failed = user.pull("--keep-signatures", f"{registry.host}/a/b:1", code=3)
    assert victim in failed.err
