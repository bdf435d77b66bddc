"""Stores of podman's, filled once for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.podman import DRIVERS, filled_with, small_image, spoilable
from tests.support.rig.images import BuiltImage
from tests.support.rig.storage import StorageRig


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Three small layers."""
    return small_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module", params=DRIVERS)
def filled(
    request: pytest.FixtureRequest, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
) -> StorageRig:
    """A store that has the image, to be looked at."""
    return filled_with(image, tmp_path_factory.mktemp("filled") / "store", str(request.param))


@pytest.fixture
def store(filled: StorageRig) -> Iterator[StorageRig]:
    """Another, to be spoiled."""
    with spoilable(filled) as copy:
        yield copy
