"""The rig proves itself against clients and tools not ours: http.client, skopeo, umoci, gzip, zstd."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.rig.images import (
    BuiltImage,
    build_image,
    build_index,
    demo_image,
    push,
    push_index,
    recompress,
    run_tool,
    upload,
)
from tests.support.rig.layers import (
    LayerSpec,
    content_layers,
    device_layer,
    empty_layer,
    hard_link_layer,
    incompressible_layer,
    long_name_layer,
    text_layer,
    xattr_layer,
    zeros_layer,
)
from tests.support.rig.registry import RegistryServer, RigError

pytestmark = pytest.mark.slow  # processes are started throughout

EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # 1,024 zero bytes

ODD_LAYERS: list[LayerSpec] = [
    text_layer({"etc/os-release": "ID=rig\n"}),
    empty_layer(),
    hard_link_layer(),
    xattr_layer(),
    long_name_layer(),
    device_layer(),
    zeros_layer(3 << 20),
    incompressible_layer(2 << 20),
    empty_layer(),
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Room for images that several tests read."""
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def odd(layouts: Path) -> BuiltImage:
    """An image of everything that is unusual."""
    return build_image(layouts / "odd", ODD_LAYERS, labels={"rig": "1"})


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    """One plain registry for all tests that do not change its settings."""
    with RegistryServer() as running:
        yield running


def get(server: RegistryServer, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = server.connection()
    try:
        connection.request("GET", path, headers=server.auth_headers() | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def decompress(image: BuiltImage, digest: str, compression: str) -> bytes:
    """By the system's tools: an oracle that shares no code with the builder."""
    raw = image.blob_path(digest).read_bytes()
    if compression == "none":
        return raw
    return subprocess.run([compression, "-dc"], input=raw, capture_output=True, check=True).stdout


# -- images --------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "gzip", "gzip-fast", "gzip-members", "zstd", "zstd-frames"])
def test_blobs_are_what_their_layer_says_for_every_codec(tmp_path: Path, codec: str) -> None:
    image = build_image(tmp_path, ODD_LAYERS, compression=codec)
    for layer in image.layers:
        blob = image.blob_path(layer.digest).read_bytes()
        assert (digest_of(blob), len(blob)) == (layer.digest, layer.size)
        tar = decompress(image, layer.digest, layer.compression)
        assert (digest_of(tar), len(tar)) == (layer.diff_id, layer.uncompressed_size)


def test_the_members_and_frames_forms_really_have_several(tmp_path: Path) -> None:
    image = build_image(
        tmp_path, [incompressible_layer(3 << 20)] * 2, compression=["gzip-members", "zstd-frames"]
    )
    gzip_blob, zstd_blob = (image.blob_path(layer.digest).read_bytes() for layer in image.layers)
    assert gzip_blob.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") >= 4
    assert zstd_blob.count(b"\x28\xb5\x2f\xfd") >= 4
    assert b"\x50\x2a\x4d\x18" in zstd_blob  # a skippable frame


def test_the_empty_layer_is_the_one_everybody_knows(odd: BuiltImage) -> None:
    assert odd.layers[1].diff_id == EMPTY_TAR
    assert odd.layers[1] == odd.layers[8]


def test_building_twice_gives_the_same_image(tmp_path: Path, odd: BuiltImage) -> None:
    again = build_image(tmp_path, ODD_LAYERS, labels={"rig": "1"})
    assert again.digest == odd.digest


def test_recompressing_keeps_config_and_diffids_and_changes_every_blob(
    tmp_path: Path, odd: BuiltImage
) -> None:
    other = recompress(odd, "zstd", tmp_path)
    assert other.config == odd.config
    assert [layer.diff_id for layer in other.layers] == [layer.diff_id for layer in odd.layers]
    assert not other.layer_digests & odd.layer_digests
    assert json.loads(other.manifest)["layers"][0]["mediaType"].endswith("tar+zstd")


def test_odd_layers_hold_the_entries_they_promise(odd: BuiltImage) -> None:
    members: dict[str, tarfile.TarInfo] = {}
    for layer in odd.layers:
        with tarfile.open(odd.blob_path(layer.digest), "r:gz") as tar:
            members |= {member.name: member for member in tar}
    assert members["opt/link-2"].islnk()
    assert members["opt/pointer"].issym()
    assert members["labelled"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert members["n" * 240].size == 240
    assert members["var/pipe"].isfifo()


def test_content_layers_are_real_uneven_and_about_the_size_asked_for(tmp_path: Path) -> None:
    image = demo_image(tmp_path, 24_000_000, 6, seed=3)
    assert len(image.layers) == len(image.layer_digests) == 6
    assert 0.95 * 24_000_000 < image.uncompressed_bytes < 1.2 * 24_000_000
    sizes = sorted(layer.uncompressed_size for layer in image.layers)
    assert sizes[-1] > 2 * sizes[0]
    assert 0.2 < image.blob_bytes / image.uncompressed_bytes < 0.8  # neither zeros nor noise
    with tarfile.open(image.blob_path(image.layers[0].digest), "r:gz") as tar:
        member = next(member for member in tar if member.isfile())
        body = tar.extractfile(member)
        assert body is not None
        assert body.read() == (Path("/") / member.name).read_bytes()


def test_content_layers_depend_on_the_seed_alone() -> None:
    assert content_layers(1_000_000, 3, 1) == content_layers(1_000_000, 3, 1)
    assert content_layers(1_000_000, 3, 1) != content_layers(1_000_000, 3, 2)


@pytest.mark.parametrize("media", ["oci", "docker"])
@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_skopeo_pushes_every_kind_digest_for_digest(
    tmp_path: Path, server: RegistryServer, codec: str, media: str
) -> None:
    image = build_image(tmp_path / "layout", ODD_LAYERS, compression=codec, media=media)
    name = push(image, f"kinds/{media}:{codec}", server)
    status, raw = get(
        server, f"/v2/kinds/{media}/manifests/{codec}", {"Accept": f"{image.media_type}, */*;q=0.1"}
    )
    assert (status, raw) == (200, image.manifest)
    if (codec, media) == ("zstd", "docker"):
        return  # skopeo 1.9 knows no such media type
    seen = json.loads(run_tool("skopeo", "inspect", *server.skopeo_options(""), f"docker://{name}"))
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == [layer.digest for layer in image.layers]


def test_skopeo_may_recompress_on_the_way(odd: BuiltImage, server: RegistryServer) -> None:
    push(odd, "kinds/changed:v2s2", server, format="v2s2")
    _, raw = get(
        server,
        "/v2/kinds/changed/manifests/v2s2",
        {"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    assert json.loads(raw)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_umoci_unpacks_a_built_image(tmp_path: Path, odd: BuiltImage) -> None:
    run_tool("umoci", "unpack", "--rootless", "--image", f"{odd.root}:{odd.ref}", str(tmp_path / "bundle"))
    rootfs = tmp_path / "bundle" / "rootfs"
    assert (rootfs / "etc/os-release").read_text() == "ID=rig\n"
    assert (rootfs / "opt/original").stat().st_nlink == 4
    assert (rootfs / "zeros").stat().st_size == 3 << 20


def test_an_index_is_pushed_with_all_its_platforms(tmp_path: Path, server: RegistryServer) -> None:
    platforms = ["linux/amd64", "linux/arm64/v8"]
    images = [
        build_image(tmp_path / name.replace("/", "-"), [text_layer({"arch": name})], platform=name)
        for name in platforms
    ]
    index = build_index(tmp_path / "index", images)
    name = push_index(index, "multi:latest", server)
    raw = run_tool("skopeo", "inspect", "--raw", *server.skopeo_options(""), f"docker://{name}")
    assert digest_of(raw.encode()) == index.digest
    for image in images:
        assert get(server, f"/v2/multi/blobs/{image.config_digest}") == (200, image.config)


def test_upload_brings_images_that_lie_into_the_registry_unchanged(
    tmp_path: Path, server: RegistryServer
) -> None:
    def lie(config: dict[str, object]) -> None:
        config["rootfs"] = {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}

    image = build_image(tmp_path, [text_layer({"a": "b"})], edit_config=lie)
    upload(image, "lies:v1", server)
    _, raw = get(server, "/v2/lies/manifests/v1", {"Accept": image.media_type})
    assert raw == image.manifest
    assert b"0" * 64 in get(server, f"/v2/lies/blobs/{image.config_digest}")[1]


# -- the registry --------------------------------------------------------------------


def test_the_registry_counts_the_blob_bytes_it_served(tmp_path: Path, server: RegistryServer) -> None:
    image = build_image(tmp_path / "in", [incompressible_layer(300_000), text_layer({"a": "b"})])
    name = push(image, "counted/one:latest", server)
    server.reset()
    assert server.accesses() == []
    run_tool(
        "skopeo", "copy", *server.skopeo_options("src"), f"docker://{name}", f"oci:{tmp_path / 'out'}:latest"
    )
    assert server.blob_bytes("counted/one") == image.blob_bytes + len(image.config)
    assert server.blob_bytes("counted/one", digests=image.layer_digests) == image.blob_bytes
    assert server.blob_bytes("counted/two") == 0
    kinds = {access.kind for access in server.accesses()}
    assert kinds == {"blob", "manifest", "other"}
    server.reset()
    assert server.blob_bytes() == 0


def test_a_ranged_request_counts_only_its_range(tmp_path: Path, server: RegistryServer) -> None:
    image = build_image(tmp_path, [incompressible_layer(300_000)])
    push(image, "ranged:latest", server)
    server.reset()
    path = f"/v2/ranged/blobs/{image.layers[0].digest}"
    status, body = get(server, path, {"Range": "bytes=1000-1999"})
    assert (status, body) == (206, image.blob_path(image.layers[0].digest).read_bytes()[1000:2000])
    (access,) = server.accesses()
    assert (access.method, access.path, access.status, access.nbytes) == ("GET", path, 206, 1000)


def test_basic_authentication_is_asked_for_and_accepted(odd: BuiltImage) -> None:
    with RegistryServer(htpasswd=("user", "pass word")) as server:
        push(odd, "private:latest", server)
        connection = server.connection()
        connection.request("GET", f"/v2/private/blobs/{odd.config_digest}")
        answer = connection.getresponse()
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        connection.close()
        assert get(server, f"/v2/private/blobs/{odd.config_digest}") == (200, odd.config)
        assert [access.status for access in server.accesses()[-2:]] == [401, 200]


def test_tls_is_served_under_the_authority_in_the_certificate_directory(odd: BuiltImage) -> None:
    with RegistryServer(tls=True) as server:
        assert server.cert_dir is not None
        assert (server.cert_dir.name, server.cert_dir.parent.name) == (server.host, "certs.d")
        push(odd, "safe:latest", server)
        assert get(server, f"/v2/safe/blobs/{odd.config_digest}") == (200, odd.config)
        stranger = http.client.HTTPSConnection(server.host, context=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("GET", "/v2/")
        stranger.close()


def test_a_pull_through_cache_comes_to_serve_a_blob_by_itself(odd: BuiltImage) -> None:
    layer = odd.layers[7]
    with RegistryServer(tls=True) as origin:
        push(odd, "cached:latest", origin)
        with RegistryServer(proxy_of=origin) as proxy:
            for attempt in range(50):  # it stores in the background, after it has answered
                origin.reset()
                status, body = get(proxy, f"/v2/cached/blobs/{layer.digest}")
                assert (status, digest_of(body)) == (200, layer.digest)
                assert proxy.blob_bytes() == (attempt + 1) * layer.size
                if origin.blob_bytes() == 0:
                    break
            assert 0 < attempt < 49


def test_given_storage_outlives_the_server(tmp_path: Path, odd: BuiltImage) -> None:
    with RegistryServer(tmp_path) as server:
        push(odd, "kept:latest", server)
    with RegistryServer(tmp_path) as server:
        assert get(server, f"/v2/kept/blobs/{odd.config_digest}") == (200, odd.config)


def test_the_registry_starts_without_warnings_and_leaves_no_process() -> None:
    with RegistryServer() as server:
        assert '"level":"warning"' not in server.diagnostics()
        assert "No HTTP secret" not in server.diagnostics()
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists()


def test_a_registry_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="did not start"):
        RegistryServer(proxy_of="not a url").start()
