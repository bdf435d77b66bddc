"""What came of the images of one session, for who keeps count of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pulling.plan import Action
from ..record import dataclass

if TYPE_CHECKING:
    from ..errors import LayerteeError
    from ..pulling.report import Ingested


@dataclass(frozen=True, slots=True)
class LayerTally:
    """A layer that was brought: what became of it, and sizes in bytes, as ``LayerResult`` has them."""

    action: Action
    bytes_fetched: int
    bytes_reused: int

    @classmethod
    def of(cls, got: Ingested, size: int) -> LayerTally:
        """Of a blob of ``size`` bytes."""
        here = min(got.resumed_at, size) if got.action is Action.FETCH else size
        return cls(got.action, got.nbytes, here)


@dataclass(frozen=True, slots=True)
class ImageTally:
    """An image, as the client called it: the layers that were brought until it was closed.

    ``error`` is what it could not be opened for, or else the last that kept a layer from the client, unless
    that got the layer after all.
    """

    name: str
    layers: tuple[LayerTally, ...] = ()
    error: LayerteeError | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing was done but to look at its manifest and config."""
        return not self.layers and self.error is None
