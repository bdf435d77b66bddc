"""A place that answers what a test tells it to, true or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from layertee.disk.blob_file import FileContent
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis, Found, Holding, Place
from layertee.image.media import Compression
from tests.support.rig.blobs import BuiltLayer


class FakePlace(Place):
    """Holds ``holdings``, by the DiffID they are an answer to."""

    def __init__(self, holdings: Mapping[DiffID, Holding], name: str = "fake:/place") -> None:
        self._name = name
        self.holdings = dict(holdings)
        self.asked = 0

    @property
    def name(self) -> str:
        return self._name

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Also what does not fit the question."""
        self.asked += 1
        return Found({diff_id: self.holdings[diff_id] for diff_id in diff_ids if diff_id in self.holdings})


def shown(layer: BuiltLayer, basis: Basis = Basis.ATTESTED, place: str = "fake:/place") -> Holding:
    """The layer in a place that cannot give it back."""
    diff_id = DiffID(layer.diff_id)
    return Holding(
        diff_id=diff_id,
        digest=Digest(layer.diff_id),
        size=0,
        uncompressed_size=None,
        compression=Compression.NONE,
        place=place,
        basis=basis,
    )


def shows(*layers: BuiltLayer, basis: Basis = Basis.ATTESTED, name: str = "fake:/place") -> FakePlace:
    """A place that shows ``layers`` and gives no bytes."""
    return FakePlace({DiffID(layer.diff_id): shown(layer, basis, name) for layer in layers}, name)


def readable(
    layer: BuiltLayer, path: Path, basis: Basis = Basis.CLAIMED, place: str = "fake:/place"
) -> Holding:
    """The layer's blob in ``path``, as far as the place says."""
    return Holding(
        diff_id=DiffID(layer.diff_id),
        digest=Digest(layer.digest),
        size=layer.size,
        uncompressed_size=None,
        compression=Compression(layer.compression),
        place=place,
        basis=basis,
        content=FileContent(path),
    )
