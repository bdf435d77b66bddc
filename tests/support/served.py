"""One image in every place that can be served, and a ``layertee serve`` of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.support.compress import digest_of
from tests.support.process import Cli
from tests.support.rig.clients import Taken, as_built
from tests.support.rig.images import BuiltImage, build_image, run_tool, upload
from tests.support.rig.layers import hard_link_layer, incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.serve import ServeRig
from tests.support.rig.storage import StorageRig

TAG = "1"
REPOSITORY = "os"
NAME = f"localhost/{REPOSITORY}:{TAG}"


@dataclass(frozen=True, slots=True)
class Shop:
    """A server, and the one image that it has, as ``REPOSITORY:TAG``."""

    server: ServeRig
    image: BuiltImage

    @property
    def manifest(self) -> bytes:
        """What the server answers the tag with."""
        status, _, raw = self.server.get(f"/v2/{REPOSITORY}/manifests/{TAG}", {"Accept": "*/*"})
        assert status == 200, raw
        return raw

    @property
    def wanted(self) -> Taken:
        """What a client has at the end: the content is the image's, whatever the layers are called."""
        built = as_built(self.image)
        return Taken(digest_of(self.manifest), built.config, built.diff_ids)


def build(root: Path) -> BuiltImage:
    """Four layers, in every form that a layer has."""
    layers = [
        text_layer({"etc/os-release": "ID=os\n" * 1000}),
        incompressible_layer(3_000_000),
        text_layer({"etc/motd": "hello\n"}),
        hard_link_layer(),
    ]
    return build_image(root, layers, compression=["gzip", "zstd", "none", "gzip"], ref=NAME)


# --- the places -----------------------------------------------------------------------------------------
# Each puts the image there, and gives a server of it that is not yet started. ``work`` is a new directory.


def in_store(image: BuiltImage, registry: RegistryServer, work: Path, stack: ExitStack) -> ServeRig:
    """Layers as they came."""
    return _pulled(image, registry, work)


def in_store_as_tars(image: BuiltImage, registry: RegistryServer, work: Path, stack: ExitStack) -> ServeRig:
    """Layers inflated."""
    return _pulled(image, registry, work, "--layers=uncompressed")


def _pulled(image: BuiltImage, registry: RegistryServer, work: Path, *options: str) -> ServeRig:
    name = upload(image, f"{REPOSITORY}:{TAG}", registry)
    Cli(work).pull("--insecure-policy", *options, name)
    return ServeRig(work, "store")


def in_layout(image: BuiltImage, registry: RegistryServer, work: Path, stack: ExitStack) -> ServeRig:
    """As it was built."""
    return ServeRig(work, f"oci:{image.root}")


def in_archive(image: BuiltImage, registry: RegistryServer, work: Path, stack: ExitStack) -> ServeRig:
    """As skopeo writes one."""
    path = work.with_suffix(".tar")
    run_tool("skopeo", "copy", "-q", "--preserve-digests", image.skopeo_name, f"oci-archive:{path}:{NAME}")
    return ServeRig(work, f"oci-archive:{path}")


def in_podmans_store(image: BuiltImage, registry: RegistryServer, work: Path, stack: ExitStack) -> ServeRig:
    """Its path is short: podman takes no runroot of more than 50 characters."""
    root = stack.enter_context(tempfile.TemporaryDirectory(prefix="store-", dir="/tmp"))
    store = StorageRig(Path(root) / "s", "overlay")
    stack.callback(store.unmount)
    store.take(image.skopeo_name, NAME)
    return ServeRig(work, store.name)


Opening: TypeAlias = Callable[[BuiltImage, RegistryServer, Path, ExitStack], ServeRig]
PLACES: dict[str, Opening] = {
    "store": in_store,
    "store, tars": in_store_as_tars,
    "OCI layout": in_layout,
    "OCI archive": in_archive,
    "podman's store": in_podmans_store,
}
