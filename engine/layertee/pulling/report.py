"""What a plan or a pull tells its caller: values, and the one JSON shape they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from ..record import dataclass
from .consent import Consent
from .plan import Action, LayerPlan, Plan

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest, Manifest
    from ..image.holding import Basis, Holding
    from ..image.resolved import Member
    from .freshness import Freshness


@dataclass(frozen=True, slots=True)
class Asked:
    """One endpoint of an image, as reports have it: ``name`` is the repository there."""

    name: str
    is_mirror: bool
    insecure: bool


@dataclass(frozen=True, slots=True)
class Ingested:
    """How a layer came to be where it is.

    ``held`` is what the store has of it now, None for a layer that was left in another place. ``source`` is
    the holding that it was read from or left to. ``nbytes`` came over the network for it; ``by_endpoint``
    divides them among the endpoints that sent them. ``warning``: what is wrong with the blob's media type.
    ``resumed_at``: so many bytes of the blob were here from an earlier pull. ``as_tar``: it was the tar that
    was fetched, and not the blob.
    """

    action: Action
    reason: str
    held: Holding | None
    source: Holding | None = None
    nbytes: int = 0
    by_endpoint: Mapping[str, int] = field(default_factory=dict)
    warning: str | None = None
    resumed_at: int = 0
    as_tar: bool = False


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What happened, or is planned, for one layer. Sizes in bytes.

    ``size`` is that of the blob the image names; ``uncompressed_size`` is None where it is not known.
    ``bytes_fetched`` counts all body bytes that came over the network for it, repeated ones included.
    ``place`` is where on this machine the content is or was read from, and ``basis`` how it was known to be
    there; both None for what was fetched. ``diff_id`` is None for an opaque layer. ``kept_elsewhere``: it is
    not in the store, but left in ``place``. ``by_endpoint`` divides ``bytes_fetched`` among the names of the
    endpoints that sent them. ``resumed_at`` is the first byte of the blob that was asked for: those before it
    were here from an earlier pull. ``as_tar``: what is fetched is the tar, from an endpoint that lacks the
    blob.
    """

    digest: Digest
    diff_id: DiffID | None
    size: int
    uncompressed_size: int | None
    action: Action
    reason: str
    bytes_fetched: int
    place: str | None = None
    basis: Basis | None = None
    kept_elsewhere: bool = False
    by_endpoint: Mapping[str, int] = field(default_factory=dict)
    resumed_at: int = 0
    as_tar: bool = False

    @classmethod
    def planned(cls, step: LayerPlan) -> LayerResult:
        """As it would be if all goes as planned."""
        known = step.holding.uncompressed_size if step.holding is not None else None
        layer = step.layer
        return cls(
            layer.digest,
            layer.known_diff_id,
            layer.size,
            known,
            step.action,
            step.reason,
            step.wire_bytes,
            step.holding.place if step.holding is not None else None,
            step.holding.basis if step.holding is not None else None,
            step.kept_elsewhere,
            resumed_at=step.resumed_at,
            as_tar=step.as_tar,
        )

    @classmethod
    def done(cls, step: LayerPlan, got: Ingested) -> LayerResult:
        """What became of ``step``."""
        layer, held, source = step.layer, got.held, got.source
        size = held.uncompressed_size if held is not None else None
        named = (layer.digest, layer.known_diff_id, layer.size, size, got.action, got.reason, got.nbytes)
        if source is None:
            return cls(*named, by_endpoint=got.by_endpoint, resumed_at=got.resumed_at, as_tar=got.as_tar)
        return cls(*named, source.place, source.basis, kept_elsewhere=held is None)

    def repeated(self, step: LayerPlan) -> LayerResult:
        """Of ``step``, a later layer with the same content, which cost nothing more."""
        layer = step.layer
        return replace(
            self,
            digest=layer.digest,
            size=layer.size,
            action=Action.HAVE,
            reason=step.reason,
            bytes_fetched=0,
            by_endpoint={},
            resumed_at=0,
            as_tar=False,
        )


@dataclass(frozen=True, slots=True)
class PullResult:
    """A finished pull. ``manifest_digest`` is the registry's; ``local_manifest_digest`` names the
    manifest in the store, which differs where a layer is kept in another form. It is None after a pull
    that left layers in the places of ``kept_by``: the store then has the rest, and no such image. ``asked``
    are the endpoints that the image has, in the order of their configuration. ``consent`` and ``freshness``
    are those of the plan. ``dry_run``: nothing was pulled, and all of it is what a pull would come to.

    Of an index that is pulled whole, both digests are those of the index, ``config_digest`` is None,
    ``layers`` are the blobs of all that it names, each once, and ``members`` the manifests.
    """

    image: str
    manifest_digest: Digest
    local_manifest_digest: Digest | None
    config_digest: Digest | None
    layers: tuple[LayerResult, ...]
    seconds: float
    warnings: tuple[str, ...] = field(default=())
    asked: tuple[Asked, ...] = ()
    consent: Consent = field(default_factory=Consent)
    freshness: Freshness | None = None
    dry_run: bool = False
    members: tuple[Member, ...] = ()

    @classmethod
    def planned(
        cls,
        image: str,
        manifest: Manifest,
        plan: Plan,
        asked: tuple[Asked, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> PullResult:
        """What ``--dry-run`` shows: the same shape, with planned bytes."""
        layers = tuple(LayerResult.planned(step) for step in plan.layers)
        config = manifest.config.digest
        return cls(image, manifest.digest, None, config, layers, 0.0, warnings, asked, dry_run=True)

    @property
    def bytes_fetched(self) -> int:
        return sum(layer.bytes_fetched for layer in self.layers)

    @property
    def by_endpoint(self) -> dict[str, int]:
        """``bytes_fetched`` by the names of the endpoints: all that the image has, in their order."""
        total = {endpoint.name: 0 for endpoint in self.asked}
        for layer in self.layers:
            for name, nbytes in layer.by_endpoint.items():
                total[name] = total.get(name, 0) + nbytes
        return total

    @property
    def bytes_reused(self) -> int:
        """Bytes of the image's blobs that did not have to come over the network."""
        return sum(
            min(layer.resumed_at, layer.size) if layer.action is Action.FETCH else layer.size
            for layer in self.layers
        )

    @property
    def kept_by(self) -> tuple[str, ...]:
        """The places that layers were left in because they cannot be read back from there."""
        return tuple(sorted({layer.place for layer in self.layers if layer.kept_elsewhere and layer.place}))

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "image": self.image,
            "dry_run": self.dry_run,
            "manifest_digest": self.manifest_digest,
            "local_manifest_digest": self.local_manifest_digest,
            "config_digest": self.config_digest,
            "manifests": [
                {
                    "digest": member.digest,
                    "media_type": member.media_type,
                    "size": member.size,
                    "platform": None if member.platform is None else str(member.platform),
                    "config_digest": member.config_digest,
                }
                for member in self.members
            ],
            "layers": [
                {
                    "digest": layer.digest,
                    "diff_id": layer.diff_id,
                    "size": layer.size,
                    "uncompressed_size": layer.uncompressed_size,
                    "action": layer.action.value,
                    "reason": layer.reason,
                    "bytes_fetched": layer.bytes_fetched,
                    "resumed_at": layer.resumed_at,
                    "as_tar": layer.as_tar,
                    "place": layer.place,
                    "basis": layer.basis.value if layer.basis else None,
                    "kept_elsewhere": layer.kept_elsewhere,
                    "endpoints": dict(layer.by_endpoint),
                }
                for layer in self.layers
            ],
            "endpoints": [
                {
                    "name": endpoint.name,
                    "mirror": endpoint.is_mirror,
                    "insecure": endpoint.insecure,
                    "bytes_fetched": self.by_endpoint[endpoint.name],
                }
                for endpoint in self.asked
            ],
            "bytes_fetched": self.bytes_fetched,
            "bytes_reused": self.bytes_reused,
            "seconds": round(self.seconds, 3),
            "policy": self.consent.to_json(),
            "seen": self.freshness.to_json() if self.freshness is not None else None,
            "warnings": list(self.warnings),
        }


@dataclass(slots=True)
class LayerProgress:
    """One layer under way. ``done`` of ``size`` bytes, of the blob or of what comes in its place; ``state``
    is waiting, checking (what an earlier pull left of it), running or done.
    """

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


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification is: of ``n_total`` blobs, and of their bytes. At most ten a second."""

    n_done: int
    n_total: int
    bytes_done: int
    bytes_total: int
    seconds: float


ProgressCallback = Callable[[Progress], None]
VerifyCallback = Callable[[VerifyProgress], None]
