"""What a plan or a pull tells its caller: values, and the one JSON shape they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .oci import DiffID, Digest, Manifest
from .plan import Action, LayerPlan, Plan


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What happened, or is planned, for one layer. Sizes in bytes.

    ``size`` is that of the blob the image names; ``uncompressed_size`` is None where it is not known.
    ``bytes_fetched`` counts all body bytes that came over the network for it, repeated ones included.
    """

    digest: Digest
    diff_id: DiffID
    size: int
    uncompressed_size: int | None
    action: Action
    reason: str
    bytes_fetched: int

    @classmethod
    def planned(cls, step: LayerPlan) -> LayerResult:
        """As it would be if all goes as planned."""
        known = step.holding.uncompressed_size if step.holding is not None else None
        layer = step.layer
        return cls(layer.digest, layer.diff_id, layer.size, known, step.action, step.reason, step.wire_bytes)


@dataclass(frozen=True, slots=True)
class PullResult:
    """A finished pull. ``manifest_digest`` is the registry's; ``local_manifest_digest`` names the
    manifest in the store, which differs where a layer is kept in another form.
    """

    image: str
    manifest_digest: Digest
    local_manifest_digest: Digest | None
    config_digest: Digest
    layers: tuple[LayerResult, ...]
    seconds: float
    warnings: tuple[str, ...] = field(default=())

    @classmethod
    def planned(cls, image: str, manifest: Manifest, plan: Plan) -> PullResult:
        """What ``--dry-run`` shows: the same shape, with planned bytes."""
        layers = tuple(LayerResult.planned(step) for step in plan.layers)
        return cls(image, manifest.digest, None, manifest.config.digest, layers, 0.0)

    @property
    def bytes_fetched(self) -> int:
        return sum(layer.bytes_fetched for layer in self.layers)

    @property
    def bytes_reused(self) -> int:
        """Bytes of the image's blobs that did not have to come over the network."""
        return sum(layer.size for layer in self.layers if layer.action is not Action.FETCH)

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "image": self.image,
            "manifest_digest": self.manifest_digest,
            "local_manifest_digest": self.local_manifest_digest,
            "config_digest": self.config_digest,
            "layers": [
                {
                    "digest": layer.digest,
                    "diff_id": layer.diff_id,
                    "size": layer.size,
                    "uncompressed_size": layer.uncompressed_size,
                    "action": layer.action.value,
                    "reason": layer.reason,
                    "bytes_fetched": layer.bytes_fetched,
                }
                for layer in self.layers
            ],
            "bytes_fetched": self.bytes_fetched,
            "bytes_reused": self.bytes_reused,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class LayerProgress:
    """One layer under way. ``done`` of ``size`` bytes; ``state`` is waiting, running or done."""

    index: int
    digest: Digest
    action: Action
    size: int
    done: int = 0
    state: str = "waiting"


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot, at most ten a second and one at the end. Bytes are of blobs, as transferred."""

    layers: tuple[LayerProgress, ...]
    seconds: float

    @property
    def bytes_done(self) -> int:
        return sum(layer.done for layer in self.layers)

    @property
    def bytes_total(self) -> int:
        return sum(layer.size for layer in self.layers if layer.action is not Action.HAVE or layer.done)


ProgressCallback = Callable[[Progress], None]
