"""Pulls as a user types them: the real command, Debian's docker-registry, images pushed by skopeo.

What crossed the network is counted at the registry. What is in the store afterwards is read back by
skopeo and unpacked by umoci.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.image.platform import Platform
from tests.support.compress import digest_of
from tests.support.process import PLAIN, Cli, authfile, flip_a_byte
from tests.support.rig.images import (
    BuiltImage,
    build_image,
    build_index,
    push,
    push_index,
    recompress,
    run_tool,
    upload,
)
from tests.support.rig.layers import (
    LayerSpec,
    device_layer,
    empty_layer,
    hard_link_layer,
    incompressible_layer,
    long_name_layer,
    text_layer,
    xattr_layer,
)
from tests.support.rig.registry import RegistryServer
from tests.support.trees import assert_same_tree, layer_tar, skopeo_reads, tree_of_tars, umoci_unpacks

pytestmark = pytest.mark.slow

ORIGINAL = "dev.layertee.original-manifest"
PASSWORD = "planted pass:word"
# With an empty layer twice, every kind of entry that layers have, and whiteouts that hide something.
LAYERS: list[LayerSpec] = [
    text_layer(
        {"etc/os-release": "ID=rig\n", "var/gone": "x", "var/tmp/hidden": "y", "big": "line\n" * 300_000}
    ),
    empty_layer(),
    hard_link_layer(),
    xattr_layer(),
    long_name_layer(),
    device_layer(),
    incompressible_layer(1_500_000),
    empty_layer(),
    text_layer({"etc/os-release": "ID=rig\nVERSION=2\n"}),
]
MIXED = ["gzip", "none", "zstd", "gzip-members", "zstd-frames", "gzip-fast", "zstd", "none", "gzip"]
KINDS: dict[str, tuple[str | list[str], str]] = {
    "gzip": ("gzip", "oci"),
    "zstd": ("zstd", "oci"),
    "uncompressed": ("none", "oci"),
    "mixed": (MIXED, "oci"),
    "gzip-members": ("gzip-members", "oci"),
    "zstd-frames": ("zstd-frames", "oci"),
    "docker": ("gzip", "docker"),
}


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry, as ``name`` there."""

    image: BuiltImage
    name: str
    server: RegistryServer

    def bytes_sent(self) -> int:
        """Layer bytes that left the registry since the last :meth:`reset`."""
        return self.server.blob_bytes(digests=self.image.layer_digests)


@pytest.fixture(scope="module")
def pushed(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pushed]:
    """All kinds, in the shared registry."""
    room = tmp_path_factory.mktemp("kinds")
    found = {}
    for kind, (codec, media) in KINDS.items():
        image = build_image(room / kind, LAYERS, compression=codec, media=media, labels={"kind": kind})
        found[kind] = Pushed(image, push(image, f"e2e/{kind}:1", registry), registry)
    return found


@pytest.fixture(scope="module")
def private(pushed: dict[str, Pushed]) -> Iterator[Pushed]:
    """A registry that asks for a password, in plain HTTP."""
    with RegistryServer(htpasswd=("planted-user", PASSWORD)) as server:
        image = pushed["gzip"].image
        yield Pushed(image, push(image, "private/os:1", server), server)


@pytest.fixture(scope="module")
def secure(pushed: dict[str, Pushed]) -> Iterator[Pushed]:
    """A registry with TLS and a password."""
    with RegistryServer(tls=True, htpasswd=("planted-user", PASSWORD)) as server:
        image = pushed["gzip"].image
        yield Pushed(image, push(image, "secure/os:1", server), server)


# -- kinds of images -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_pulled_once_and_read_back_by_skopeo_and_umoci(
    cli: Cli, pushed: dict[str, Pushed], tmp_path: Path, kind: str, form: str
) -> None:
    there = pushed[kind]
    image = there.image
    there.server.reset()
    ran = cli.pull("--layers", form, there.name)
    assert there.bytes_sent() == image.blob_bytes == ran.json["bytes_fetched"]
    assert ran.actions == [*["fetch"] * 7, "have", "fetch"]  # the empty layer repeats
    for told, built in zip(ran.layers, image.layers, strict=True):
        assert (told["digest"], told["diff_id"]) == (built.digest, built.diff_id)
        assert (told["size"], told["uncompressed_size"]) == (built.size, built.uncompressed_size)

    assert ran.json["manifest_digest"] == image.digest
    assert ran.json["config_digest"] == image.config_digest
    local = ran.json["local_manifest_digest"]
    kept = json.loads(cli.blob(local).read_bytes())
    as_they_were = [layer["digest"] for layer in kept["layers"]] == [layer.digest for layer in image.layers]
    if as_they_were and image.media_type.startswith("application/vnd.oci."):
        assert local == image.digest
    else:
        assert kept["annotations"][ORIGINAL] == image.digest
        assert kept["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert cli.blob(image.digest).read_bytes() == image.manifest
    if form == "uncompressed":
        assert [layer["digest"] for layer in kept["layers"]] == [layer.diff_id for layer in image.layers]

    name = f"oci:{cli.store}:{there.name}"
    assert skopeo_reads(name, tmp_path / "dir") == [layer["digest"] for layer in kept["layers"]]
    seen = json.loads(run_tool("skopeo", "inspect", name))
    assert (seen["Digest"], seen["Labels"]) == (local, {"kind": kind})
    if form == "uncompressed" or kind in ("gzip", "uncompressed", "gzip-members", "docker"):
        wanted = tree_of_tars(layer_tar(image, at) for at in range(len(image.layers)))
        assert_same_tree(umoci_unpacks(cli.store, there.name, tmp_path / "bundle"), wanted)


def test_of_an_index_only_the_platform_asked_for_is_fetched(
    user: Cli, registry: RegistryServer, tmp_path: Path
) -> None:
    here = str(Platform.host())
    other = "linux/arm64" if here != "linux/arm64" else "linux/amd64"
    images = [
        build_image(tmp_path / f"image{at}", [text_layer({"arch": platform})], platform=platform)
        for at, platform in enumerate((other, here))
    ]
    index = build_index(tmp_path / "index", images)
    name = push_index(index, "e2e/multi:1", registry)
    registry.reset()
    ran = user.pull(name)
    assert ran.json["manifest_digest"] == images[1].digest
    assert registry.blob_bytes(digests=images[0].layer_digests) == 0
    repository = name.rpartition(":")[0]
    ran = user.pull("--platform", other, f"docker://{repository}@{index.digest}")
    assert ran.json["manifest_digest"] == images[0].digest
    assert registry.blob_bytes(digests=images[0].layer_digests) == images[0].blob_bytes
    failed = user.pull("--platform", "linux/s390x", name, code=2)
    assert other in failed.err and "s390x" in failed.err
    assert user.run("inspect", PLAIN, "--json", name).json["index_digest"] == index.digest


def test_an_image_without_layers_is_an_image(cli: Cli, registry: RegistryServer, tmp_path: Path) -> None:
    image = build_image(tmp_path / "none", [])
    name = upload(image, "e2e/none:1", registry)
    assert cli.pull(name).json["layers"] == []
    assert skopeo_reads(f"oci:{cli.store}:{name}", tmp_path / "dir") == []
    assert cli.verified()["blobs"] == 2


# -- kinds of registries -----------------------------------------------------------------


def test_credentials_come_from_the_authfile_or_its_variable(
    cli: Cli, private: Pushed, tmp_path: Path
) -> None:
    auth = authfile(tmp_path / "auth.json", private.server.host, "planted-user", PASSWORD)
    private.server.reset()
    ran = cli.pull("--authfile", auth, private.name)
    assert private.bytes_sent() == private.image.blob_bytes
    assert "planted" not in ran.out + ran.err
    assert cli.pull(private.name, REGISTRY_AUTH_FILE=str(auth)).json["bytes_fetched"] == 0


@pytest.mark.parametrize("password", ["planted but wrong", None])
def test_wrong_or_no_credentials_are_a_plain_error_without_a_secret(
    user: Cli, private: Pushed, tmp_path: Path, password: str | None
) -> None:
    private.server.reset()
    args: list[object] = [private.name]
    if password is not None:
        args[:0] = [
            "--authfile",
            authfile(tmp_path / "a.json", private.server.host, "planted-user", password),
        ]
    ran = user.pull(*args, code=1)
    assert "UNAUTHORIZED" in ran.err and private.server.host in ran.err
    assert "planted" not in ran.err + ran.out and ran.json["error"]["status"] == 401
    assert private.bytes_sent() == 0


def test_a_registry_under_an_authority_of_its_own_is_trusted_with_its_cert_dir(
    cli: Cli, secure: Pushed, tmp_path: Path
) -> None:
    auth = authfile(tmp_path / "auth.json", secure.server.host, "planted-user", PASSWORD)
    secure.server.reset()
    args = ("--json", "--authfile", auth, "--cert-dir", secure.server.cert_dir, secure.name)
    assert cli.run("pull", *args).json["bytes_fetched"] == secure.bytes_sent() == secure.image.blob_bytes


def test_tls_verify_false_takes_any_certificate(user: Cli, secure: Pushed, tmp_path: Path) -> None:
    auth = authfile(tmp_path / "auth.json", secure.server.host, "planted-user", PASSWORD)
    assert user.pull("--authfile", auth, secure.name).json["bytes_fetched"] == secure.image.blob_bytes


def test_an_unknown_certificate_is_refused_and_http_is_never_tried(
    user: Cli, secure: Pushed, tmp_path: Path
) -> None:
    auth = authfile(tmp_path / "auth.json", secure.server.host, "planted-user", PASSWORD)
    secure.server.reset()
    ran = user.run("pull", "--json", "--authfile", auth, secure.name, code=4)
    assert "certificate" in ran.err and secure.server.host in ran.err
    assert secure.server.accesses() == []


def test_a_registry_in_plain_http_is_not_asked_unless_that_is_allowed(
    user: Cli, pushed: dict[str, Pushed]
) -> None:
    there = pushed["gzip"]
    there.server.reset()
    ran = user.run("pull", there.name, code=4)
    assert "does not speak TLS" in ran.err and PLAIN in ran.err
    assert there.server.accesses() == []


# -- what is here is not fetched again -------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_pulling_again_fetches_nothing(cli: Cli, pushed: dict[str, Pushed], form: str) -> None:
    there = pushed["mixed"]
    first = cli.pull("--layers", form, there.name)
    there.server.reset()
    ran = cli.pull("--layers", form, there.name)
    assert there.bytes_sent() == ran.json["bytes_fetched"] == 0
    assert set(ran.actions) == {"have"}
    assert ran.json["local_manifest_digest"] == first.json["local_manifest_digest"]
    assert ran.json["bytes_reused"] == sum(layer.size for layer in there.image.layers)


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
@pytest.mark.parametrize(("before", "after"), [("gzip", "zstd"), ("zstd", "gzip")])
def test_an_image_recompressed_at_the_registry_costs_no_layer_byte(
    cli: Cli,
    pushed: dict[str, Pushed],
    registry: RegistryServer,
    tmp_path: Path,
    before: str,
    after: str,
    form: str,
) -> None:
    there = pushed[before]
    first = cli.pull("--layers", form, there.name)
    other = recompress(there.image, after, tmp_path / "other")
    name = push(other, f"e2e/again-{before}:2", registry)
    registry.reset()
    ran = cli.pull("--layers", form, name)
    assert registry.blob_bytes(digests=other.layer_digests | there.image.layer_digests) == 0
    assert set(ran.actions) == {"have"}
    assert ran.json["config_digest"] == first.json["config_digest"] == other.config_digest
    assert ran.json["manifest_digest"] == other.digest != ran.json["local_manifest_digest"]
    skopeo_reads(f"oci:{cli.store}:{name}", tmp_path / "dir")
    cli.verified()


def test_layers_come_from_another_layout_and_are_checked(
    cli: Cli, pushed: dict[str, Pushed], tmp_path: Path
) -> None:
    there = pushed["gzip"]
    elsewhere = recompress(there.image, "zstd", tmp_path / "stick")
    there.server.reset()
    ran = cli.pull("--from", f"oci:{elsewhere.root}", there.name)
    assert there.bytes_sent() == ran.json["bytes_fetched"] == 0
    assert set(ran.actions) == {"reuse", "have"}  # have: the layer that repeats
    assert str(elsewhere.root) in ran.layers[0]["reason"]
    skopeo_reads(f"oci:{cli.store}:{there.name}", tmp_path / "dir")
    cli.verified()


def test_a_damaged_blob_of_another_layout_is_fetched_instead(
    cli: Cli, pushed: dict[str, Pushed], tmp_path: Path
) -> None:
    there = pushed["gzip"]
    stick = Path(shutil.copytree(there.image.root, tmp_path / "stick"))
    bad = there.image.layers[6]
    flip_a_byte(stick / "blobs" / "sha256" / bad.digest.removeprefix("sha256:"))
    there.server.reset()
    ran = cli.pull("--from", f"oci:{stick}", there.name)
    assert there.bytes_sent() == ran.json["bytes_fetched"] == bad.size
    assert [at for at, action in enumerate(ran.actions) if action == "fetch"] == [6]
    assert f"oci:{stick} could not give it" in ran.layers[6]["reason"]
    cli.verified()


def test_a_layout_that_is_not_there_is_said_and_does_no_harm(
    user: Cli, pushed: dict[str, Pushed], tmp_path: Path
) -> None:
    ran = user.pull("--from", f"oci:{tmp_path}/typo", pushed["gzip"].name)
    assert f"warning: {tmp_path}/typo is not there" in ran.err


# -- OCI layouts as source and destination ------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
@pytest.mark.parametrize("ref", ["", ":latest"])
def test_an_image_is_pulled_into_a_layout_of_its_own(
    user: Cli, pushed: dict[str, Pushed], tmp_path: Path, ref: str, form: str
) -> None:
    there = pushed["zstd"]
    target = f"oci:{tmp_path}/out{ref}"
    ran = user.pull("--layers", form, "--to", target, there.name)
    assert skopeo_reads(target, tmp_path / "dir") == [
        layer.digest if form == "as-is" else layer.diff_id for layer in there.image.layers
    ]
    local = ran.json["local_manifest_digest"]
    manifest = (tmp_path / "out" / "blobs" / "sha256" / local.removeprefix("sha256:")).read_bytes()
    assert digest_of(manifest) == local
    assert not user.store.exists()
    assert user.pull("--to", target, there.name).json["bytes_fetched"] == 0


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_what_others_replaced_in_a_layout_that_they_may_write_to_is_brought_again(
    user: Cli, pushed: dict[str, Pushed], tmp_path: Path, form: str
) -> None:
    there = pushed["gzip"]
    room = tmp_path / "shared"
    room.mkdir()
    room.chmod(0o777)
    target = f"oci:{room}/out"
    user.pull("--layers", form, "--to", target, there.name)
    layer = there.image.layers[6]
    name = layer.digest if form == "as-is" else layer.diff_id
    blob = room / "out/blobs/sha256" / name.removeprefix("sha256:")
    flip_a_byte(blob)
    ran = user.pull("--layers", form, "--to", target, there.name)
    assert ran.json["bytes_fetched"] == layer.size
    assert digest_of(blob.read_bytes()) == name
    assert user.pull("--layers", form, "--to", target, there.name).json["bytes_fetched"] == 0


@pytest.mark.parametrize("ref", ["", ":latest"])
def test_an_image_in_a_layout_is_pulled_without_any_network(
    cli: Cli, pushed: dict[str, Pushed], tmp_path: Path, ref: str
) -> None:
    image = pushed["gzip"].image
    ran = cli.run("pull", "--json", f"oci:{image.root}{ref}")
    assert set(ran.actions) == {"reuse", "have"}
    assert (ran.json["bytes_fetched"], ran.json["local_manifest_digest"]) == (0, image.digest)
    skopeo_reads(f"oci:{cli.store}{ref}", tmp_path / "dir")
    assert "latest" in cli.run("pull", f"oci:{image.root}:nix", code=2).err


def test_a_damaged_layout_cannot_be_pulled_from(user: Cli, pushed: dict[str, Pushed], tmp_path: Path) -> None:
    image = pushed["gzip"].image
    stick = Path(shutil.copytree(image.root, tmp_path / "stick"))
    flip_a_byte(stick / "blobs" / "sha256" / image.layers[6].digest.removeprefix("sha256:"))
    ran = user.run("pull", f"oci:{stick}:latest", code=3)
    assert "layer 6" in ran.err and image.layers[6].digest in ran.err
    assert user.leftovers() == []
    user.verified()
