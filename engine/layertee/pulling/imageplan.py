"""An image, resolved, and what pulling it would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..image.document import Digest, ImageConfig, Layer, Manifest
from ..image.holding import Holding
from ..transfer.fetcher import OpenBlob
from .plan import Form, LayerPlan, Plan, Verify
from .report import PullResult


def name_in(form: Form, layer: Layer) -> Digest:
    """The digest of ``layer`` in ``form``: the blob's, or, for the tar, the DiffID."""
    return layer.digest if form is Form.AS_IS else Digest(str(layer.diff_id))


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image, resolved, and what pulling it would do. ``layers`` are in the image's order.

    ``name`` is what the store will call it, None for the only image of a layout. ``open_blob`` asks
    the image's registry for a blob; None when the image comes from a place on this machine.
    ``still_held`` looks again whether a holding is where it was; it blocks. ``exact``: each layer must be
    in the store under the name that its form gives it (``name_of``), whatever else is there.
    """

    image: str
    name: str | None
    manifest: Manifest
    config: ImageConfig
    index_digest: Digest | None
    plan: Plan
    open_blob: OpenBlob | None
    host: str
    verify: Verify = Verify.BOTH
    still_held: Callable[[Holding], bool] = lambda _: True
    exact: bool = False

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        return self.plan.layers

    @property
    def bytes_to_fetch(self) -> int:
        return self.plan.bytes_to_fetch

    def name_of(self, layer: Layer) -> Digest:
        """What the store calls ``layer`` in the form that is planned."""
        return name_in(self.plan.form, layer)

    def to_json(self) -> dict[str, Any]:
        """The object that ``--dry-run --json`` prints."""
        return PullResult.planned(self.image, self.manifest, self.plan).to_json()
