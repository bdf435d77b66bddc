"""What the layers of an ostree commit's image are for, and the order in which they are asked for."""

from __future__ import annotations

import hashlib

import pytest

from layertee.image.document import Descriptor, DiffID, Digest, ImageConfig, Layer, Platform
from layertee.image.media import OCI_LAYER, Compression
from layertee.image.roles import FINAL_DIFF_ID, Role, asking_order, roles_of

BASE, CHUNK, DERIVED = Role.BASE, Role.CHUNK, Role.DERIVED


def layers_of(*contents: int) -> list[Layer]:
    """One layer per number; the same number is the same content in another blob."""
    return [
        Layer(
            index,
            Descriptor(f"{OCI_LAYER}+gzip", Digest("sha256:" + f"{index:064x}"), 1),
            DiffID("sha256:" + hashlib.sha256(b"%d" % content).hexdigest()),
            Compression.GZIP,
        )
        for index, content in enumerate(contents)
    ]


def config(final: str | None = None) -> ImageConfig:
    labels = {FINAL_DIFF_ID: final} if final is not None else {}
    return ImageConfig(b"{}", Digest.of(b"{}"), (), Platform("linux", "amd64"), None, labels)


@pytest.mark.parametrize(
    ("contents", "final", "roles", "asked"),
    [
        ((0, 1, 2, 3, 4), 2, (BASE, CHUNK, CHUNK, DERIVED, DERIVED), [1, 2, 0, 3, 4]),
        ((0, 1, 2), 2, (BASE, CHUNK, CHUNK), [1, 2, 0]),
        ((0, 1, 2), 0, (BASE, DERIVED, DERIVED), [0, 1, 2]),
        ((0,), 0, (BASE,), [0]),
        # Content that comes again above the commit is not part of it.
        ((0, 1, 2, 1), 1, (BASE, CHUNK, DERIVED, DERIVED), [1, 0, 2, 3]),
    ],
)
def test_the_label_parts_the_commit_from_what_was_derived_from_it(
    contents: tuple[int, ...], final: int, roles: tuple[Role, ...], asked: list[int]
) -> None:
    layers = layers_of(*contents)
    labelled = config(layers[final].diff_id)
    assert roles_of(layers, labelled) == roles
    assert [layer.index for layer in asking_order(layers, labelled)] == asked


def test_without_the_label_every_layer_is_derived_and_asked_for_in_order() -> None:
    layers = layers_of(0, 1, 2)
    assert roles_of(layers, config()) == (DERIVED,) * 3
    assert [layer.index for layer in asking_order(layers, config())] == [0, 1, 2]


def test_a_label_that_fits_no_layer_says_nothing() -> None:
    layers = layers_of(0, 1, 2)
    other = config("sha256:" + "0" * 64)
    assert roles_of(layers, other) == ()
    assert [layer.index for layer in asking_order(layers, other)] == [0, 1, 2]


def test_an_image_without_layers_has_no_roles() -> None:
    assert roles_of([], config()) == ()
    assert asking_order([], config("sha256:" + "0" * 64)) == []
