"""The store itself as a place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import LocalError
from ..image.holding import Basis, Found, Holding, Place
from ..record import dataclass
from ..store.blobs import PLACE

if TYPE_CHECKING:
    from ..image.document import DiffID, Layer
    from ..store.store import Store


@dataclass(frozen=True, slots=True)
class Forms:
    """Each layer in every form that is there, and what could not be looked at."""

    holdings: Mapping[DiffID, Sequence[Holding]]
    warnings: tuple[str, ...]


class OwnStore(Place):
    """What the store has of ``layers``, those of the image that asks."""

    def __init__(self, store: Store, *, layers: Sequence[Layer]) -> None:
        self._store = store
        self._layers = {layer.diff_id: layer for layer in layers}
        self._all = layers

    @property
    def name(self) -> str:
        return PLACE

    def forms(self) -> Forms:
        """Rows of the catalog whose file was looked at just now, and files that nobody checked, as claims.

        A failing catalog knows of nothing, and is one of the store's own warnings.
        """
        found: dict[DiffID, list[Holding]] = {}
        try:
            for layer in self._all:
                known = found.setdefault(layer.diff_id, [])
                known += [one for one in self._store.blobs.forms(layer) if one not in known]
        except LocalError as exc:
            return Forms(found, (str(exc),))
        return Forms(found, ())

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """The best form of each: checked before unchecked, the blob that the image names before others."""
        forms = self.forms()
        best: dict[DiffID, Holding] = {}
        for diff_id in diff_ids:
            if candidates := forms.holdings.get(diff_id):
                wanted = self._layers[diff_id].digest
                best[diff_id] = min(
                    candidates, key=lambda one: (one.basis is not Basis.COMPUTED, one.digest != wanted)
                )
        return Found(best, forms.warnings)
