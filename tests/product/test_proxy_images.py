"""The image-proxy's documents, blobs and pipes, from our server and from the real skopeo's.

:mod:`tests.support.imageproxy_pair` has the table of what the two do differently.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import OtherBody
from tests.support.imageproxy import Disconnected, ImageProxy, layertee_proxy, read_all, refusal
from tests.support.imageproxy_pair import (
    LARGEST,
    NAMES,
    OCI,
    PLAIN_HTTP,
    Images,
    Server,
    answers,
    find_server,
    layer_content,
)
from tests.support.rig.images import BuiltImage, build_image, push, run_tool
from tests.support.rig.layers import empty_layer, text_layer
from tests.support.rig.registry import RegistryServer, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root("a store of podman's is made as root here"),
]


# -- documents ----------------------------------------------------------------------------------

PLACES = ("docker", "docker-index", "docker-digest", "oci", "oci-index", "oci-archive", "containers-storage")


@pytest.mark.parametrize("place", PLACES)
def test_an_image_is_the_same_from_everywhere(shared: ImageProxy, images: Images, place: str) -> None:
    number, oci = shared.open(images.names[place]), images.oci
    reply = shared.piped("GetManifest", number)
    body, end = shared.drain(reply)
    assert end.success and body == oci.manifest
    assert reply.value == "sha256:" + hashlib.sha256(body).hexdigest() == oci.digest
    config = json.loads(shared.body("GetFullConfig", number))
    assert config == json.loads(oci.config)
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.diff_id for layer in oci.layers]}
    assert len(config["history"]) == len(oci.layers)
    assert json.loads(shared.body("GetConfig", number)) == config["config"] == {"Labels": {"a": "b"}}
    assert shared.body("GetBlob", number, oci.config_digest, len(oci.config)) == oci.config
    shared.value("CloseImage", number)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "containers-storage"])
def test_layers_come_as_the_manifest_names_them(shared: ImageProxy, images: Images, place: str) -> None:
    number = shared.open(images.names[place])
    for at, layer in enumerate(images.oci.layers):
        reply = shared.piped("GetBlob", number, layer.digest, layer.size)
        assert reply.value == layer.size
        content, end = shared.drain(reply)
        assert end.success and content == layer_content(images.oci, at)
    shared.value("CloseImage", number)


def test_layers_of_podmans_store_come_as_tars_named_by_diff_id(shared: ImageProxy, images: Images) -> None:
    number = shared.open(images.names["containers-storage"])
    for layer in images.oci.layers:
        tar = shared.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
        assert "sha256:" + hashlib.sha256(tar).hexdigest() == layer.diff_id
        if layer.compression != "none":
            shared.refused("GetBlob", number, layer.digest, layer.size)
    shared.value("CloseImage", number)


def test_schema_2_comes_as_oci(server: Server, shared: ImageProxy, images: Images) -> None:
    docker, number = images.docker, shared.open(images.names["schema2"])
    digest, manifest = shared.manifest(number)
    assert digest == docker.digest, "of the registry's manifest, not of what was made of it"
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, f"{OCI}.manifest.v1+json")
    assert manifest["config"]["mediaType"] == f"{OCI}.config.v1+json"
    assert manifest["layers"] == [
        {"mediaType": f"{OCI}.layer.v1.{kind}", "digest": layer.digest, "size": layer.size}
        for kind, layer in zip(("tar+gzip", "tar"), docker.layers, strict=True)
    ]
    same = manifest["config"]["digest"] == docker.config_digest
    assert same is (server.does("the config of schema 2") == "the registry's")
    assert shared.body("GetBlob", number, docker.config_digest, len(docker.config)) == docker.config
    for at, layer in enumerate(docker.layers):
        assert shared.blob(number, layer) == layer_content(docker, at)
    if same:
        assert manifest["config"]["size"] == len(docker.config)
    else:
        shared.refused("GetBlob", number, manifest["config"]["digest"], manifest["config"]["size"])
    full = shared.body("GetFullConfig", number)
    assert (full == docker.config) is (server.does("GetFullConfig's bytes") == "as stored")
    assert json.loads(full)["rootfs"] == json.loads(docker.config)["rootfs"]
    shared.value("CloseImage", number)


# -- blobs and pipes ----------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-1, 1, LARGEST])
def test_a_wrong_size_is_an_error(
    server: Server, shared: ImageProxy, images: Images, image: int, off: int
) -> None:
    layer = images.oci.layers[0]
    for digest, size in ((layer.digest, layer.size), (images.oci.config_digest, len(images.oci.config))):
        reply = shared.call("GetBlob", image, digest, min(size + off, LARGEST))
        if server.does("a wrong size is told by") == "GetBlob":
            refusal(reply)
        else:
            refusal(shared.drain(reply)[1])


def test_a_size_of_0_is_a_wrong_size(server: Server, shared: ImageProxy, images: Images, image: int) -> None:
    reply = shared.call("GetBlob", image, images.oci.layers[0].digest, 0)
    late = server.does("a wrong size is told by") == "FinishPipe"
    refusal(shared.drain(reply)[1] if late else reply)


def test_a_size_of_minus_1_is_none(server: Server, shared: ImageProxy, images: Images, image: int) -> None:
    reply = shared.piped("GetBlob", image, images.oci.layers[0].digest, -1)
    content, end = shared.drain(reply)
    assert content == layer_content(images.oci, 0) and reply.value == len(content)
    assert end.success is (server.does("size -1") == "any size")


def test_a_blob_that_the_image_does_not_name(
    server: Server, registry: RegistryServer, images: Images, tmp_path: Path
) -> None:
    stranger = build_image(tmp_path / "stranger", [text_layer({"stranger": "s"})])
    push(stranger, "proxy/os:stranger", registry)
    with server.start() as proxy:
        proxy.value("Initialize")
        number, layer = proxy.open(images.names["docker"]), stranger.layers[0]
        reply = proxy.call("GetBlob", number, layer.digest, layer.size)
        assert reply.success is (server.does("a blob of another image") == "given")


def test_content_that_is_not_what_its_digest_says_is_an_error(server: Server, tmp_path: Path) -> None:
    layers = [text_layer({"good": "good"}), text_layer({"bad": "bad"})]
    image = build_image(tmp_path / "image", layers, compression="none")
    good, bad = image.layers
    script = [on("blob", OtherBody(), reference=bad.digest)]
    with FaultServer(image, script) as registry, server.start() as proxy:
        proxy.value("Initialize")
        number = proxy.open(f"docker://{registry.reference}")
        reply = proxy.call("GetBlob", number, bad.digest, bad.size)
        if server.does("wrong content is told by") == "GetBlob":
            assert "DIGEST_MISMATCH" in refusal(reply)
        else:
            refusal(proxy.drain(reply)[1])
        assert proxy.blob(number, good) == layer_content(image, 0)


def test_pipes_are_finished_in_any_order(shared: ImageProxy, images: Images, image: int) -> None:
    small, large, _ = images.oci.layers
    pipes = [
        (shared.piped("GetBlob", image, small.digest, small.size), layer_content(images.oci, 0)),
        (shared.piped("GetBlob", image, large.digest, large.size), layer_content(images.oci, 1)),
        (shared.piped("GetManifest", image), images.oci.manifest),
        (shared.piped("GetBlob", image, large.digest, large.size), layer_content(images.oci, 1)),
        (shared.piped("GetBlob", image, images.oci.config_digest, -1), images.oci.config),
    ]
    assert len({reply.pipeid for reply, _ in pipes}) == len(pipes)
    for at in (3, 0, 4, 2, 1):
        reply, want = pipes[at]
        content, _ = shared.drain(reply)
        assert content == want
    assert answers(shared)


def test_bytes_do_not_wait_for_finish_pipe(
    server: Server, shared: ImageProxy, images: Images, image: int
) -> None:
    layer = images.oci.layers[1]
    reply = shared.piped("GetBlob", image, layer.digest, layer.size)
    (fd,) = reply.fds
    content = b""
    while len(content) < layer.size:
        content += os.read(fd, layer.size - len(content))
    assert content == layer_content(images.oci, 1)
    at_once = server.does("the end of the data") == "at once"
    assert bool(select.select([fd], [], [], 0 if at_once else 0.3)[0]) is at_once
    assert shared.value("FinishPipe", reply.pipeid) is None
    assert os.read(fd, 1) == b""


def test_a_reader_may_leave_early(server: Server, shared: ImageProxy, images: Images, image: int) -> None:
    layer = images.oci.layers[1]
    reply = shared.piped("GetBlob", image, layer.digest, layer.size)
    os.read(reply.fds[0], 1000)
    shared.close_fd(reply.fds[0])
    end = shared.call("FinishPipe", reply.pipeid)
    expected = server.does("FinishPipe without its reader")
    assert end.success is (expected == "") and end.error.endswith(expected)
    assert shared.blob(image, layer) == layer_content(images.oci, 1)


def test_a_pipe_that_is_not_there_cannot_be_finished(shared: ImageProxy, images: Images, image: int) -> None:
    reply = shared.piped("GetManifest", image)
    for number in (0, reply.pipeid + 1000, 2**32 - 1, LARGEST):
        assert shared.refused("FinishPipe", number).startswith("finishpipe: no active pipe")
    assert shared.drain(reply)[1].success
    assert shared.refused("FinishPipe", reply.pipeid).startswith("finishpipe: no active pipe")


def test_finish_pipe_without_arguments(server: Server) -> None:
    with server.start() as proxy:
        proxy.value("Initialize")
        if server.does("FinishPipe without arguments") == "refused":
            proxy.refused("FinishPipe")
            assert answers(proxy)
        else:
            with pytest.raises(Disconnected):
                proxy.call("FinishPipe")
            assert proxy.exit_status() != 0


def test_descriptors_are_for_reading(shared: ImageProxy, images: Images, image: int) -> None:
    for method, *args in (
        ("GetManifest", image),
        ("GetFullConfig", image),
        ("GetBlob", image, images.oci.layers[0].digest, images.oci.layers[0].size),
    ):
        reply = shared.piped(method, *args)
        (fd,) = reply.fds
        if method == "GetBlob":
            assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        with pytest.raises(OSError):
            os.write(fd, b"x")
        assert shared.drain(reply)[1].success


# -- what is left to skopeo ----------------------------------------------------------------------


def refusals_of_a_directory(server: Server, image: BuiltImage, directory: Path) -> list[str]:
    """What the server says to requests about ``directory`` that must fail."""
    layer = image.layers[1]
    with server.start() as proxy:
        proxy.value("Initialize")
        said = [proxy.refused("OpenImage", f"docker-archive:{directory}/absent")]
        number = proxy.open(f"dir:{directory}")
        said.append(proxy.refused("GetBlob", number, f"sha256:{'0' * 64}", 1))
        reply = proxy.piped("GetBlob", number, layer.digest, layer.size)
        assert len(os.read(reply.fds[0], 10)) == 10
        proxy.close_fd(reply.fds[0])
        said.append(proxy.refused("FinishPipe", reply.pipeid))
    return said


def test_what_skopeo_refuses_is_refused_in_its_words(images: Images, tmp_path: Path) -> None:
    """ostree-ext, for one, goes by how they end."""
    directory = tmp_path / "copy"
    run_tool("skopeo", "copy", "--quiet", "--preserve-digests", images.oci.skopeo_name, f"dir:{directory}")
    ours, theirs = (
        refusals_of_a_directory(find_server(name, tmp_path / name), images.oci, directory) for name in NAMES
    )
    assert ours == theirs
    assert ours[-1].endswith("broken pipe")


# -- what is newer than 0.2.3 -------------------------------------------------------------------


def test_methods_are_unknown_where_the_version_says_so(
    server: Server, shared: ImageProxy, images: Images, image: int
) -> None:
    digest = images.oci.layers[0].digest
    calls: tuple[tuple[Any, ...], ...] = (
        ("OpenImageOptional", images.names["docker"]),
        ("GetLayerInfo", image),
        ("GetLayerInfoPiped", image),
        ("GetRawBlob", image, digest),
    )
    for method, *args in calls:
        reply = shared.call(method, *args)
        if server.does("methods of 0.2.4 to 0.2.8"):
            assert reply.success, reply.error
        else:
            assert refusal(reply) == f"unknown method: {method}"


@pytest.mark.parametrize("method", ["OpenVarlinkSocket", "GetEngineConfig"])
def test_methods_that_are_only_proposed_are_unknown(shared: ImageProxy, image: int, method: str) -> None:
    """Two proposals for a version 0.2.9; what no release of skopeo has, clients must not find either."""
    reply = shared.call(method, image)
    assert refusal(reply) == f"unknown method: {method}"
    assert reply.document.get("error_code", "other") == "other"


def test_layer_info_is_the_same_inline_and_through_a_pipe(newest: ImageProxy, images: Images) -> None:
    expected = {
        "docker": [(layer.digest, layer.size, layer.media_type) for layer in images.oci.layers],
        "schema2": [(layer.digest, layer.size, layer.media_type) for layer in images.docker.layers],
        "containers-storage": [
            (layer.diff_id, layer.uncompressed_size, f"{OCI}.layer.v1.tar") for layer in images.oci.layers
        ],
    }
    expected["oci"] = expected["docker-index"] = expected["docker"]
    for place, want in expected.items():
        number = newest.open(images.names[place])
        reply = newest.piped("GetLayerInfoPiped", number)
        body, end = newest.drain(reply)
        assert (end.success, reply.value) == (True, None)
        layers = newest.value("GetLayerInfo", number)
        assert json.loads(body) == layers
        assert [(layer["digest"], layer["size"], layer["media_type"]) for layer in layers] == want
        for layer in layers:
            assert set(layer) >= {"digest", "size", "media_type"} and layer["size"] >= 0
            content = newest.body("GetBlob", number, layer["digest"], layer["size"])
            assert len(content) == layer["size"]
        newest.value("CloseImage", number)


def test_a_raw_blob_has_two_descriptors_and_no_pipe_id(
    newest: ImageProxy, images: Images, image: int
) -> None:
    known = [(layer.digest, layer_content(images.oci, at)) for at, layer in enumerate(images.oci.layers)]
    for digest, want in [*known, (images.oci.config_digest, images.oci.config)]:
        reply = newest.call("GetRawBlob", image, digest)
        assert (reply.success, reply.pipeid, len(reply.fds)) == (True, 0, 2), reply.error
        assert reply.value in (len(want), -1)
        data, failure = reply.fds
        assert (read_all(data), read_all(failure)) == (want, b"")
        newest.close_fd(data)
        newest.close_fd(failure)


def test_an_image_that_may_be_absent(
    newest: ImageProxy, images: Images, registry: RegistryServer, tmp_path: Path
) -> None:
    for name in (
        f"docker://{registry.host}/proxy/os:nope",
        f"oci:{images.oci.root}:nope",
        f"{images.names['containers-storage']}nope",
    ):
        assert newest.value("OpenImageOptional", name) == 0
    number = newest.value("OpenImageOptional", images.names["docker"])
    assert newest.manifest(number)[0] == images.oci.digest
    newest.refused("OpenImageOptional", f"docker://127.0.0.1:{free_port()}/proxy/os:1")


def test_layer_info_that_is_too_long_for_a_packet_goes_through_the_pipe(
    newest: ImageProxy, tmp_path: Path
) -> None:
    many = build_image(tmp_path / "many", [empty_layer()] * 400)
    number = newest.open(many.skopeo_name)
    newest.refused("GetLayerInfo", number)
    layers = json.loads(newest.body("GetLayerInfoPiped", number))
    assert [layer["digest"] for layer in layers] == [layer.digest for layer in many.layers]


# -- what is ours -------------------------------------------------------------------------------


def test_ours_gives_files_of_their_own_that_nobody_can_change(images: Images, tmp_path: Path) -> None:
    with layertee_proxy(tmp_path / "store", PLAIN_HTTP) as proxy:
        proxy.value("Initialize")
        number, layer = proxy.open(images.names["docker"]), images.oci.layers[1]
        one, two = (proxy.piped("GetBlob", number, layer.digest, layer.size).fds[0] for _ in range(2))
        assert stat.S_ISREG(os.fstat(one).st_mode)
        assert os.read(one, 1000) == os.read(two, 1000), "each has an offset of its own"
        for method in ("GetManifest", "GetConfig", "GetFullConfig", "GetLayerInfoPiped"):
            (fd,) = proxy.piped(method, number).fds
            with pytest.raises(PermissionError), open(f"/proc/self/fd/{fd}", "r+b", buffering=0) as file:
                file.write(b"x")
