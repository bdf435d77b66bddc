"""Our image-proxy and the real skopeo's, side by side: the same images for both, and where they differ.

Whatever a client may rely on is asserted of both. Where ours does something else on purpose, ``DIFFERENCES``
says so, and the tests assert both sides of it.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.imageproxy import KEYS, ImageProxy, layertee_proxy, real_skopeo
from tests.support.rig.images import BuiltImage, build_image, build_index, push, push_index, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

PLAIN_HTTP = "--tls-verify=false"
NOWHERE = "sha256:" + "0" * 64
LARGEST = 2**53 - 1  # the last number that every JSON reader keeps exactly
OCI = "application/vnd.oci.image"
NAMES = ("layertee", "skopeo")


@dataclass(frozen=True, slots=True)
class Difference:
    """What our server does, what skopeo's does by the protocol version it speaks, and why."""

    ours: Any
    theirs: dict[str, Any]
    why: str


DIFFERENCES = {
    "version": Difference("0.2.8", {"0.2.3": "0.2.3"}, "ours speaks the newest"),
    "keys": Difference(
        KEYS, {"0.2.3": KEYS - {"error_code"}}, "error_code is of 0.2.8; clients ignore keys they don't know"
    ),
    "methods of 0.2.4 to 0.2.8": Difference(True, {"0.2.3": False}, "they came later"),
    "a wrong size is told by": Difference(
        "GetBlob", {"0.2.3": "FinishPipe"}, "ours hands nothing out that is not verified"
    ),
    "wrong content is told by": Difference(
        "GetBlob", {"0.2.3": "FinishPipe"}, "ours hands nothing out that is not verified"
    ),
    "size -1": Difference("any size", {"0.2.3": "a wrong size"}, "the protocol's word for an unknown size"),
    "a blob of another image": Difference(
        "refused", {"0.2.3": "given"}, "ours gives what the image's own documents name"
    ),
    "the config of schema 2": Difference(
        "the registry's",
        {"0.2.3": "converted"},
        "so that the manifest names a config that can be had, byte for byte, and the image id stays",
    ),
    "GetFullConfig's bytes": Difference(
        "as stored", {"0.2.3": "written anew"}, "what hashes to the manifest's digest is a superset"
    ),
    "FinishPipe without its reader": Difference(
        "", {"0.2.3": "broken pipe"}, "ours had verified the whole before it gave any of it"
    ),
    "the end of the data": Difference(
        "at once",
        {"0.2.3": "at FinishPipe"},
        "ours gives a file; both suit clients, who finish while they read",
    ),
    "FinishPipe without arguments": Difference("refused", {"0.2.3": "dies"}, "ours answers and goes on"),
    "ids that are no uint32": Difference(
        "refused",
        {"0.2.3": "cut off"},
        "another number is another image, not the one it looks like in 32 bits",
    ),
    "SIGTERM": Difference((0, 128 + signal.SIGTERM), {"0.2.3": (-signal.SIGTERM,)}, "ours cleans up"),
    "a policy that rejects": Difference(
        "refused", {"0.2.3": "not asked"}, "the policy is enforced by OpenImage since 0.2.6"
    ),
}


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two, to be started any number of times."""

    name: str
    home: Path
    version: str

    def start(self, *options: str, policy: Path | None = None, sockfd: bool = False) -> ImageProxy:
        """A new one."""
        begin = layertee_proxy if self.name == "layertee" else real_skopeo
        return begin(self.home, PLAIN_HTTP, *options, policy=policy, sockfd=sockfd)

    def does(self, row: str) -> Any:
        """Its side of that difference."""
        difference = DIFFERENCES[row]
        if self.name == "layertee":
            return difference.ours
        if self.version not in difference.theirs:
            pytest.skip(f"what skopeo's {self.version} does about {row!r} is not in the table")
        return difference.theirs[self.version]


@dataclass(frozen=True, slots=True)
class Images:
    """``oci`` has a gzip, a zstd and a plain layer; the names are what OpenImage takes."""

    oci: BuiltImage
    docker: BuiltImage
    names: dict[str, str]


def find_server(name: str, home: Path) -> Server:
    """One of ``NAMES``, asked for its version. Skips the test without a skopeo."""
    if name == "skopeo" and shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    with Server(name, home, "").start() as proxy:
        return Server(name, home, proxy.value("Initialize"))


@contextmanager
def images_everywhere(registry: RegistryServer, root: Path) -> Iterator[Images]:
    """The images in ``registry``, in layouts, in an archive and in a store of podman's."""
    layers = [text_layer({"a": "x" * 5000}), incompressible_layer(300_000), text_layer({"b": "y"})]
    oci = build_image(root / "oci", layers, compression=["gzip", "zstd", "none"], labels={"a": "b"})
    other = build_image(root / "arm", [text_layer({"arm": "arm"})], platform="linux/arm64")
    index = build_index(root / "index", [other, oci])
    docker = build_image(
        root / "docker",
        [text_layer({"docker": "d" * 999}), text_layer({"plain": "p"})],
        compression=["gzip", "none"],
        media="docker",
        edit_config=lambda config: config.update(docker_version="20.10.24", container="0" * 64),
    )
    archive = f"oci-archive:{root}/image.tar:latest"
    run_tool("skopeo", "copy", "--quiet", "--preserve-digests", oci.skopeo_name, archive)
    store = StorageRig(root / "store", "overlay")
    store.take(oci.skopeo_name, "localhost/os:1")
    pushed = push_index(index, "proxy/index:1", registry)
    names = {
        "docker": f"docker://{push(oci, 'proxy/os:1', registry)}",
        "docker-index": f"docker://{pushed}",
        "docker-digest": f"docker://{registry.host}/proxy/index@{index.digest}",
        "oci": oci.skopeo_name,
        "oci-index": index.skopeo_name,
        "oci-archive": archive,
        "containers-storage": f"{store.name}localhost/os:1",
        "schema2": f"docker://{push(docker, 'proxy/docker:1', registry)}",
    }
    try:
        yield Images(oci, docker, names)
    finally:
        store.unmount()


def answers(proxy: ImageProxy) -> bool:
    """Whether the server still does its work."""
    return proxy.refused("Nonsense") == "unknown method: Nonsense"


def layer_content(image: BuiltImage, at: int) -> bytes:
    """A layer's blob."""
    return image.blob_path(image.layers[at].digest).read_bytes()
