"""What the layers of an image of an ostree commit are for: the label that says it, read in one place.

Such an image is made of the commit (its first layer), of chunks with the commit's objects, and of layers that
somebody derived from it. Its importer treats these differently, and asks for them in an order of its own.
ostree-ext, ``container/encapsulate.rs`` and ``container/store.rs``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from .document import ImageConfig, Layer

__all__ = ["FINAL_DIFF_ID", "Role", "asking_order", "roles_of"]

# A label of the config: the DiffID of the last layer that is part of an ostree commit.
FINAL_DIFF_ID: Final = "ostree.final-diffid"


class Role(enum.Enum):
    """How a layer is imported. One tar gives different commits in different roles."""

    BASE = "base"  # the ostree commit itself
    CHUNK = "chunk"  # a set of its objects
    DERIVED = "derived"  # files


_ASKED: Final = (Role.CHUNK, Role.BASE, Role.DERIVED)


def roles_of(layers: Sequence[Layer], config: ImageConfig) -> tuple[Role, ...]:
    """The role of each of ``layers``, which are all of the image; empty if its label fits none of them.

    Without the label, every layer is a derived one.
    """
    final = config.labels.get(FINAL_DIFF_ID)
    last = next((at for at, layer in enumerate(layers) if layer.diff_id == final), None)
    if last is None:
        return () if final is not None else (Role.DERIVED,) * len(layers)
    chunks, derived = (Role.CHUNK,) * last, (Role.DERIVED,) * (len(layers) - last - 1)
    return (Role.BASE, *chunks, *derived)


def asking_order(layers: Sequence[Layer], config: ImageConfig) -> list[Layer]:
    """``layers`` as ostree-ext asks for them: the chunks, the commit, what was derived from it.

    Layers of the same role, and those of an image whose label fits none, keep the image's order.
    """
    roles = roles_of(layers, config) or (Role.DERIVED,) * len(layers)
    ranked = sorted(zip(roles, layers, strict=True), key=lambda one: _ASKED.index(one[0]))
    return [layer for _, layer in ranked]
