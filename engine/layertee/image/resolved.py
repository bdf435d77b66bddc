"""An image whose documents were read and hashed, wherever it is. The one record of it; others have one."""

from __future__ import annotations

from ..record import dataclass
from .document import Digest, ImageConfig, Index, Layer, Manifest


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """``manifest`` and ``config`` hashed to what named them; ``layers`` are ``image_layers`` of both.

    ``index`` is the outermost index that the manifest was chosen from; None without one.
    ``warnings``: entries of indexes that make no sense and may have been meant.
    """

    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    index: Index | None = None
    warnings: tuple[str, ...] = ()

    @property
    def index_digest(self) -> Digest | None:
        """Of ``index``."""
        return self.index.digest if self.index is not None else None
