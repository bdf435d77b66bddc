"""The store itself as a place."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import LocalError
from ..image.document import DiffID, Layer
from ..image.holding import Holding
from ..store.store import PLACE, Store


class OwnStore:
    """What the store committed and still has. ``layers``: of the image that asks; its blobs go first
    where forms compete, and a blob of it that is here unchecked is a claim.
    """

    def __init__(self, store: Store, *, layers: Sequence[Layer] = ()) -> None:
        self.warnings: list[str] = []
        self._store = store
        self._layers = {layer.diff_id: layer for layer in layers}

    @property
    def name(self) -> str:
        return PLACE

    def find(self, diff_ids: Collection[DiffID]) -> dict[DiffID, Holding]:
        """Rows of the catalog whose file was looked at just now.

        A failing catalog knows of nothing, and is one of the store's own warnings.
        """
        self.warnings = []
        found: dict[DiffID, Holding] = {}
        try:
            for diff_id in diff_ids:
                layer = self._layers.get(diff_id)
                holding = self._store.holding(diff_id, prefer=layer.digest if layer else None)
                if holding is None and layer is not None:
                    holding = self._store.unverified(layer)
                if holding is not None:
                    found[diff_id] = holding
        except LocalError as exc:
            self.warnings.append(str(exc))
        return found
