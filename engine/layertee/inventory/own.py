"""The store itself as a place."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import SinkError
from ..oci import DiffID, Digest
from ..store import PLACE, Store
from . import Holding


class OwnStore:
    """What the store committed and still has. ``prefer``: the blob an image names, where forms compete."""

    def __init__(self, store: Store, *, prefer: Mapping[DiffID, Digest] | None = None) -> None:
        self.warnings: list[str] = []
        self._store = store
        self._prefer = prefer or {}

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
                holding = self._store.holding(diff_id, prefer=self._prefer.get(diff_id))
                if holding is not None:
                    found[diff_id] = holding
        except SinkError as exc:
            self.warnings.append(str(exc))
        return found
