"""The real Rust client, as bootc uses it, with our image-proxy and with the real skopeo's: the same bytes.

What the two servers do differently is in the table of :mod:`tests.proxypair`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.imageproxy_pair import NAMES, Server, find_server
from tests.support.rig import prebuild, proxyclient
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer, RigError, free_port

pytestmark = [pytest.mark.slow, pytest.mark.builds("proxyclient")]

KINDS = ("gzip", "zstd", "none", "mixed", "docker")
EARLY = 64 << 10
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """One in the registry, by the name that clients open."""

    built: BuiltImage
    name: str


@dataclass(frozen=True, slots=True)
class Peer:
    """The client with one of the two servers."""

    client: Path
    server: Server
    command: Sequence[str]
    home: Path

    def run(self, *words: str, tls: bool = False) -> Report:
        """A scenario, which must end well, the server included."""
        options = ["--insecure-policy"] if tls else ["--insecure-policy", "--insecure-tls"]
        report = proxyclient.run(self.client, self.command, *options, *words, home=self.home)
        assert report["finalize"] == "ok"
        return report


@pytest.fixture(scope="module")
def client() -> Path:
    try:
        return prebuild.program("proxyclient")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def images(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Of each kind one, of three layers; the first is larger than what a pipe and its readers hold."""
    root = tmp_path_factory.mktemp("images")
    layers = [incompressible_layer(3 << 20), text_layer({"a": "a" * 700_000}), text_layer({"b": "b"})]
    made = {}
    for kind in KINDS:
        codec = {"mixed": ["zstd", "none", "gzip"], "docker": "gzip"}.get(kind, kind)
        media = "docker" if kind == "docker" else "oci"
        built = build_image(root / kind, layers, compression=codec, media=media, labels={"kind": kind})
        made[kind] = Image(built, f"docker://{push(built, f'rust/{kind}:1', registry)}")
    return made


def make_peer(name: str, client: Path, home: Path) -> Peer:
    server = find_server(name, home)
    command = proxyclient.ours(home / "store") if name == "layertee" else proxyclient.theirs()
    return Peer(client, server, command, home)


@pytest.fixture(scope="module", params=NAMES)
def peer(request: pytest.FixtureRequest, client: Path, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    name = str(request.param)
    return make_peer(name, client, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def us(client: Path, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    return make_peer("layertee", client, tmp_path_factory.mktemp("us"))


def read_all(peer: Peer, images: dict[str, Image]) -> dict[str, Report]:
    """Every image, through one server."""
    report = peer.run("read", *(image.name for image in images.values()))
    return dict(zip(images, report["images"], strict=True))


@pytest.fixture(scope="module")
def by_us(us: Peer, images: dict[str, Image]) -> dict[str, Report]:
    return read_all(us, images)


@pytest.fixture(scope="module")
def by_skopeo(
    client: Path, images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Report]:
    return read_all(make_peer("skopeo", client, tmp_path_factory.mktemp("skopeo-reads")), images)


def content(digest: str, nbytes: int) -> Report:
    """As the client tells it."""
    return {"sha256": digest.removeprefix("sha256:"), "nbytes": nbytes}


def contents(image: Image) -> list[Report]:
    """Of every layer's blob."""
    return [content(layer.digest, layer.size) for layer in image.built.layers]


def descriptors(image: Image) -> list[Report]:
    """As the registry's manifest has them."""
    fields = ("mediaType", "digest", "size")
    found = [{key: layer[key] for key in fields} for layer in json.loads(image.built.manifest)["layers"]]
    return [{"media_type": it.pop("mediaType"), **it} for it in found]


# -- the same bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_both_servers_give_the_same_bytes(
    by_us: dict[str, Report], by_skopeo: dict[str, Report], images: dict[str, Image], kind: str
) -> None:
    ours, theirs = by_us[kind], by_skopeo[kind]
    assert ours["digest"] == theirs["digest"] == images[kind].built.digest
    for report in (ours, theirs):
        assert [layer["blob"] for layer in report["layers"]] == contents(images[kind])
    asked = ("digest", "size", "media_type")
    assert [{key: layer[key] for key in asked} for layer in ours["layers"]] == [
        {key: layer[key] for key in asked} for layer in theirs["layers"]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_the_registry_s(by_us: dict[str, Report], images: dict[str, Image], kind: str) -> None:
    report, built = by_us[kind], images[kind].built
    assert report["config"] == content(built.config_digest, len(built.config))
    assert report["layer_info"] == descriptors(images[kind])
    if kind != "docker":  # whose manifest is converted
        assert report["manifest"] == content(built.digest, len(built.manifest))


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_gives_the_same_bytes(by_us: dict[str, Report], kind: str) -> None:
    for layer in by_us[kind]["layers"]:
        assert layer["stream"] == layer["blob"] | {"source": "GetRawBlob"}
        assert layer["raw"] == layer["blob"] | {"told_size": layer["size"]}


def test_the_version_is_the_newest_that_skopeo_has(peer: Peer, images: dict[str, Image]) -> None:
    report = peer.run("cycle", "1", images["gzip"].name)
    assert report["protocol"] == peer.server.does("version")


def test_a_method_that_no_release_of_skopeo_has_is_not_offered(peer: Peer, images: dict[str, Image]) -> None:
    """The crate knows OpenVarlinkSocket, for a protocol 0.2.9, and asks for it only where that is spoken."""
    assert peer.run("cycle", "1", images["gzip"].name)["varlink"] is False


@pytest.mark.parametrize("kind", ["gzip", "docker"])
def test_a_config_can_be_had_by_its_descriptor(peer: Peer, images: dict[str, Image], kind: str) -> None:
    (found,) = peer.run("descriptor", images[kind].name)["images"]
    built = images[kind].built
    assert found == {
        "digest": built.config_digest,
        "config": content(built.config_digest, len(built.config)),
    }


def test_an_image_that_is_not_there_is_no_error_if_optional(us: Peer, images: dict[str, Image]) -> None:
    name = images["gzip"].name
    there, absent, unreachable = us.run(
        "optional", name, f"{name}-absent", f"docker://127.0.0.1:{free_port()}/os:1"
    )["images"]
    assert (there, absent) == ({"found": True}, {"found": False})
    assert unreachable["at"] == "OpenImageOptional" and unreachable["retryable"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("identity", ["as-is", "diffid"])
def test_layers_inflate_to_their_tars(
    us: Peer, images: dict[str, Image], tmp_path: Path, kind: str, identity: str
) -> None:
    command = proxyclient.ours(tmp_path / "store", "--layer-identity", identity)
    report = Peer(us.client, us.server, command, tmp_path).run("decompress", images[kind].name)
    tars = sum(layer.uncompressed_size for layer in images[kind].built.layers)
    blobs = sum(layer.size for layer in images[kind].built.layers)
    assert (report["layers"], report["nbytes"]) == (3, tars)
    assert report["blob_nbytes"] == (blobs if identity == "as-is" else tars)


def test_a_tar_is_the_same_layer_wherever_it_comes_from(
    us: Peer, images: dict[str, Image], tmp_path: Path
) -> None:
    command = proxyclient.ours(tmp_path / "store", "--layer-identity", "diffid")
    reports = read_all(Peer(us.client, us.server, command, tmp_path), images)
    for kind, report in reports.items():
        built = images[kind].built
        tars = [content(layer.diff_id, layer.uncompressed_size) for layer in built.layers]
        for way in ("blob", "raw", "stream"):
            assert [{key: layer[way][key] for key in tars[0]} for layer in report["layers"]] == tars
        assert [it["digest"] for it in report["layer_info"]] == [layer.diff_id for layer in built.layers]
        assert report["digest"] == f"sha256:{report['manifest']['sha256']}"
        assert report["config"] == content(built.config_digest, len(built.config))
        compressed = any(layer.size != layer.uncompressed_size for layer in built.layers)
        assert (report["digest"] != built.digest) == compressed


# -- readers that leave, and images side by side -----------------------------------------------


def test_a_layer_that_is_left_early_does_not_harm_the_next(peer: Peer, images: dict[str, Image]) -> None:
    report = peer.run("drop", images["gzip"].name)
    assert report["early"]["nbytes"] == EARLY
    assert report["next"] == contents(images["gzip"])[1]
    complaint = peer.server.does("FinishPipe without its reader")
    if complaint:
        assert report["ended"]["at"] == "FinishPipe" and report["ended"]["error"].endswith(complaint)
    else:
        assert report["ended"] is None
    if peer.server.does("methods of 0.2.4 to 0.2.8"):
        assert report["raw_early"] == report["early"]
        assert report["raw_ended"] is None
        assert report["raw_next"] == contents(images["gzip"])[1] | {
            "told_size": images["gzip"].built.layers[1].size
        }


@pytest.mark.parametrize("other", ["zstd", "docker", "gzip"])
def test_two_images_may_be_open_at_once(peer: Peer, images: dict[str, Image], other: str) -> None:
    report = peer.run("two", images["gzip"].name, images[other].name)
    pairs = zip(contents(images["gzip"]), contents(images[other]), strict=True)
    expected = [blob for pair in pairs for blob in pair]
    assert report["alternately"] == expected
    assert report["together"] == expected


def test_opening_and_closing_costs_the_client_nothing(peer: Peer, images: dict[str, Image]) -> None:
    report = peer.run("cycle", "30", images["gzip"].name)
    before, after = report["fds"]
    assert report["digests"] == [images["gzip"].built.digest]
    assert before == after


# -- what must fail ----------------------------------------------------------------------------


def test_errors_are_told_and_the_server_goes_on(peer: Peer, images: dict[str, Image]) -> None:
    name = images["gzip"].name
    unknown = [f"{name}-absent", f"docker://127.0.0.1:{free_port()}/os:1", "nonsense:os", "docker://UPPER/:"]
    report = peer.run("errors", name, *unknown)
    absent, unreachable, *_ = report["unknown"]
    for failure in report["unknown"]:
        assert failure["at"] == "OpenImage" and failure["error"]
    assert "manifest unknown" in absent["error"]
    assert "refused" in unreachable["error"]
    assert report["wrong digest"]["at"] == "GetBlob"
    assert report["wrong size"]["at"] == peer.server.does("a wrong size is told by")
    assert report["wrong digest, stream"]["at"] == "get_blob_stream"
    assert report["wrong size, stream"]["error"]
    assert report["then"] == contents(images["gzip"])[0]


def test_the_client_learns_whether_to_try_again(us: Peer, images: dict[str, Image]) -> None:
    name = images["gzip"].name
    report = us.run("errors", name, f"{name}-absent", f"docker://127.0.0.1:{free_port()}/os:1")
    absent, unreachable = report["unknown"]
    assert (absent["retryable"], unreachable["retryable"]) == (False, True)
    assert not report["wrong size"]["retryable"]
    assert report["wrong digest, raw"]["at"] == "GetRawBlob"


def test_nothing_of_a_layer_that_contradicts_the_config_is_given(
    us: Peer, registry: RegistryServer, tmp_path: Path
) -> None:
    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = f"sha256:{'1' * 64}"

    layers = [incompressible_layer(300_000, seed=9), text_layer({"honest": "layer"})]
    built = build_image(tmp_path / "image", layers, edit_config=lie)
    name = f"docker://{push(built, 'rust/lie:1', registry)}"
    (report,) = us.run("read", name)["images"]
    lied, honest = report["layers"]
    assert [lied[way]["at"] for way in ("blob", "stream", "raw")] == [
        "GetBlob",
        "get_blob_stream",
        "GetRawBlob",
    ]
    for way in ("blob", "stream", "raw"):
        assert "[DIFFID_MISMATCH]" in lied[way]["error"] and not lied[way]["retryable"]
    assert honest["blob"] == content(built.layers[1].digest, built.layers[1].size)


# -- what the client passes on -----------------------------------------------------------------


def test_credentials_are_those_that_the_client_names(
    peer: Peer, images: dict[str, Image], tmp_path: Path
) -> None:
    with RegistryServer(htpasswd=("reader", "secret")) as registry:
        name = f"docker://{push(images['gzip'].built, 'rust/private:1', registry)}"
        authfile = tmp_path / "auth.json"
        login = base64.b64encode(b"reader:secret").decode()
        authfile.write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
        (report,) = peer.run("--authfile", str(authfile), "read", name)["images"]
        assert [layer["blob"] for layer in report["layers"]] == contents(images["gzip"])
        with pytest.raises(RigError, match="OpenImage"):
            peer.run("--no-creds", "read", name)


def test_certificates_are_those_that_the_client_names(peer: Peer, images: dict[str, Image]) -> None:
    with RegistryServer(tls=True) as registry:
        name = f"docker://{push(images['gzip'].built, 'rust/tls:1', registry)}"
        (report,) = peer.run("--cert-dir", str(registry.cert_dir), "read", name, tls=True)["images"]
        assert [layer["blob"] for layer in report["layers"]] == contents(images["gzip"])
        with pytest.raises(RigError, match="OpenImage"):
            peer.run("read", name, tls=True)


def test_a_client_with_its_defaults_finds_the_shim(
    client: Path, registry: RegistryServer, images: dict[str, Image], tmp_path: Path
) -> None:
    shims = tmp_path / "bin"
    layertee = str(Path(sys.executable).with_name("layertee"))
    subprocess.run(
        [layertee, "install-shim", str(shims), "--", "--store", str(tmp_path / "store")],
        check=True,
        capture_output=True,
    )
    registry.reset()
    report = proxyclient.run(
        client,
        [],
        *("--insecure-policy", "--insecure-tls", "--user-agent-prefix", "bootc/9.9"),
        *("read", images["mixed"].name),
        home=tmp_path,
        PATH=f"{shims}:/usr/bin:/bin",
    )
    assert (report["protocol"], report["finalize"]) == ("0.2.8", "ok")
    assert [layer["blob"] for layer in report["images"][0]["layers"]] == contents(images["mixed"])
    agents = {access.user_agent for access in registry.accesses() if access.repository == "rust/mixed"}
    assert agents and all(agent.startswith("bootc/9.9 ") for agent in agents)
