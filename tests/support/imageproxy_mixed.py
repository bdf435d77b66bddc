"""An image with a layer of each form, and how clients of the image-proxy name it."""

from __future__ import annotations

from pathlib import Path

from tests.support.fakes.fault_server import FaultServer
from tests.support.rig.blobs import BuiltLayer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer


def mixed_image(root: Path) -> BuiltImage:
    """A small gzip layer, 1 MiB in zstd, 2 MiB in gzip, and a small plain one."""
    layers = [
        text_layer({"first": "first\n" * 2000}),
        incompressible_layer(1 << 20, seed=31),
        incompressible_layer(2 << 20, seed=32),
        text_layer({"last": "last\n" * 2000}),
    ]
    return build_image(root, layers, compression=["gzip", "zstd", "gzip-fast", "none"])


def content(image: BuiltImage, layer: BuiltLayer) -> bytes:
    """The blob as it was built."""
    return image.blob_path(layer.digest).read_bytes()


def docker(server: FaultServer) -> str:
    """The image of that server, as clients name it."""
    return f"docker://{server.reference}"
