"""An image, resolved, and what pulling it would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..image.document import Digest, ImageConfig, Layer, Manifest
from ..image.resolved import ResolvedImage
from .plan import Plan
from .report import Asked, PullResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan(Plan):
    """A plan, and the image that it is for, as it was asked for: ``reference``.

    ``name`` is what the store will call it, None for the only image of a layout. ``asked`` are the endpoints
    of its registry, in the order in which they are configured. ``warnings`` say what could
    not be looked at when it was made. A value: it pickles, and any engine can carry it out.
    """

    reference: str
    name: str | None
    image: ResolvedImage
    asked: tuple[Asked, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        return self.image.manifest

    @property
    def config(self) -> ImageConfig:
        return self.image.config

    @property
    def index_digest(self) -> Digest | None:
        return self.image.index_digest

    def name_of(self, layer: Layer) -> Digest:
        """What the store calls ``layer`` in the form that is planned."""
        return self.want.name_of(layer)

    def planned(self) -> PullResult:
        """What pulling it would come to: the shape of a result, with planned bytes."""
        return PullResult.planned(self.reference, self.manifest, self, self.asked, self.warnings)

    def to_json(self) -> dict[str, Any]:
        """The object that ``--dry-run --json`` prints."""
        return self.planned().to_json()
