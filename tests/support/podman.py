"""What the tests of containers-storage share: a small image in a real store, and what is read back of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layertee.image.holding import Holding
from layertee.image.reference_storage import parse_storage
from layertee.places.podman.place import ContainersStoragePlace
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.storage import StorageRig

DRIVERS = ("overlay", "vfs")
NAME = "localhost/os:1"


def small_image(root: Path) -> BuiltImage:
    """Three layers: ``etc/a``, 300,000 bytes of ``noise``, and ``etc/b/c``; gzip, zstd and plain."""
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(300_000), text_layer({"etc/b/c": "third"})]
    return build_image(root, layers, compression=["gzip", "zstd", "none"])


def filled_with(image: BuiltImage, root: Path, driver: str) -> StorageRig:
    """A store in ``root`` that has the image as ``NAME``."""
    store = StorageRig(root, driver)
    store.take(image.skopeo_name, NAME)
    return store


@contextmanager
def spoilable(store: StorageRig) -> Iterator[StorageRig]:
    """A copy of ``store``. Its path is short: podman takes no runroot of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        copy = store.copy(Path(root) / "s")
        yield copy
        copy.unmount()


def place_of(store: StorageRig) -> ContainersStoragePlace:
    """The store as a place."""
    return ContainersStoragePlace.of(parse_storage(store.name))


def content(holding: Holding, at_once: int = 1 << 20) -> bytes:
    """Everything that is read back, ``at_once`` bytes a time."""
    assert holding.readable
    reader = holding.open()
    try:
        room = memoryview(bytearray(at_once))
        read = bytearray()
        while n := reader.readinto(room):
            read += room[:n]
            assert n == at_once or reader.readinto(room) == 0, "short, and not at the end"
        return bytes(read)
    finally:
        reader.close()
