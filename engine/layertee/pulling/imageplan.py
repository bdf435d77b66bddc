"""An image, resolved, and what pulling it would do."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from ..record import dataclass
from .consent import Consent
from .plan import Plan
from .report import Asked, PullResult

if TYPE_CHECKING:
    from ..image.document import Digest, ImageConfig, Layer, Manifest
    from ..image.resolved import Member, ResolvedImage
    from .freshness import Freshness


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan(Plan):
    """A plan, and the image that it is for, as it was asked for: ``reference``.

    ``name`` is what the store will call it, None for the only image of a layout. ``asked`` are the endpoints
    of its registry, in the order in which they are configured. ``consent`` is this machine's verdict on the
    image, ``freshness`` how it stands to what was seen under its name (None for an image that has none in a
    registry, or is named by its digest). ``warnings`` say what could
    not be looked at when it was made. A value: it pickles, and any engine can carry it out.
    """

    reference: str
    name: str | None
    image: ResolvedImage
    asked: tuple[Asked, ...] = ()
    warnings: tuple[str, ...] = ()
    consent: Consent = field(default_factory=Consent)
    freshness: Freshness | None = None

    @property
    def manifest(self) -> Manifest:
        return self.image.manifest

    @property
    def digest(self) -> Digest:
        """What the image is called at its registry: its index, if that is pulled whole, or its manifest."""
        return self.image.digest

    @property
    def config(self) -> ImageConfig:
        return self.image.config

    @property
    def config_digest(self) -> Digest | None:
        """None for an index that is pulled whole: each of its images has one."""
        return self.config.digest if self.image.whole is None else None

    @property
    def members(self) -> tuple[Member, ...]:
        """The manifests of an index that is pulled whole; else none."""
        return self.image.whole.members if self.image.whole is not None else ()

    @property
    def index_digest(self) -> Digest | None:
        return self.image.index_digest

    def name_of(self, layer: Layer) -> Digest:
        """What the store calls ``layer`` in the form that is planned."""
        return self.want.name_of(layer)

    def planned(self) -> PullResult:
        """What pulling it would come to: the shape of a result, with planned bytes."""
        planned = PullResult.planned(self.reference, self.manifest, self, self.asked, self.warnings)
        return replace(
            planned,
            manifest_digest=self.digest,
            config_digest=self.config_digest,
            members=self.members,
            consent=self.consent,
            freshness=self.freshness,
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``--dry-run --json`` prints."""
        return self.planned().to_json()
