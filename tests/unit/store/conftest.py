"""A store, and an image to fill it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.store.store import Store
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import empty_layer, incompressible_layer, text_layer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where ``store`` is."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """An open one, with nothing in it."""
    with Store.open(root) as opened:
        yield opened


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    """Four layers, one of them empty."""
    layers = [text_layer({"a": "1"}), incompressible_layer(20_000), empty_layer(), text_layer({"b": "2"})]
    return build_image(tmp_path / "built", layers, annotations={"org.example": "kept"})
