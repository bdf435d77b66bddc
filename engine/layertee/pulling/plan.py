"""What a pull has to do, decided before anything is done.

Pure: layers and holdings in, one action per layer out, in the image's order. The DiffIDs come from the image
and from nowhere else; holdings, however wrong, can only change where bytes are looked for. A holding
that is merely claimed may be read because whatever is read is hashed on the way; what does not have
the DiffID is discarded and fetched instead.

A place that shows a layer and cannot give it back is another matter: nothing is hashed, and leaving
the layer to it takes its word. ``trust`` is the weakest basis for which that is done.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..image.document import Compression, DiffID, Digest, Layer
from ..image.holding import Basis, Form, Holding
from ..image.pairs import refuse_contradictions

__all__ = ["Action", "Form", "LayerPlan", "Plan", "Verify", "plan"]

_STRENGTH = {basis: rank for rank, basis in enumerate(Basis)}  # the strongest is 0
INFLATION = 3  # OS layers inflate 2.2 to 3 times; the estimate errs towards refusing early


class Action(enum.Enum):
    """What happens to one layer."""

    HAVE = "have"  # nothing: the store holds it, or a place that keeps it for others
    REUSE = "reuse"  # its bytes are read from a place on this machine
    FETCH = "fetch"  # its bytes come from the registry


class Verify(enum.Enum):
    """What is checked of a layer that is fetched.

    ``DIGEST`` inflates nothing of a blob that is kept as it is: its content is then only what the
    image says, no pair is recorded, and the first pull or verification that needs it computes it.
    Layers kept uncompressed are named by their DiffID, so they are always checked against both.
    """

    BOTH = "both"  # the blob's digest and the DiffID
    DIGEST = "digest"  # the blob's digest


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer, what happens to it, and why (for a person).

    ``wire_bytes`` come over the network; ``disk_bytes`` are added to the store, estimated where the
    uncompressed size is not known. ``holding`` is where the content is, or is read from.
    """

    layer: Layer
    action: Action
    reason: str
    holding: Holding | None
    wire_bytes: int
    disk_bytes: int

    @property
    def kept_elsewhere(self) -> bool:
        """Whether the layer is left to a place that has it but cannot give it back."""
        return self.action is Action.HAVE and self.holding is not None and not self.holding.readable


@dataclass(frozen=True, slots=True)
class Plan:
    """One LayerPlan per layer of the image, in its order, for a store that keeps ``form``."""

    layers: tuple[LayerPlan, ...]
    form: Form

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes over the network."""
        return sum(step.wire_bytes for step in self.layers)

    @property
    def bytes_reused(self) -> int:
        """Bytes of the image that need not come over the network."""
        return sum(step.layer.size - step.wire_bytes for step in self.layers)

    @property
    def disk_bytes(self) -> int:
        """Bytes added to the store."""
        return sum(step.disk_bytes for step in self.layers)

    def layers_to(self, action: Action) -> tuple[LayerPlan, ...]:
        """The layers that ``action`` happens to, in order."""
        return tuple(step for step in self.layers if step.action is action)


def plan(
    layers: Sequence[Layer],
    own: Mapping[DiffID, Holding],
    elsewhere: Sequence[Mapping[DiffID, Holding]],
    *,
    form: Form,
    known: Mapping[Digest, DiffID],
    sizes: Mapping[DiffID, int],
    origin: Mapping[DiffID, Holding] | None = None,
    trust: Basis = Basis.ATTESTED,
) -> Plan:
    """Decide for each of ``layers``: held by the store, read from a place, left in a place, or fetched.

    ``own`` is what the store holds, ``origin`` what the place holds that the image itself is in,
    ``elsewhere`` the other places, best first. ``known`` are the computed pairs of the layers' blobs,
    ``sizes`` the uncompressed sizes that were measured.

    ``trust``: with ``COMPUTED``, other places are used only for what was computed here. Otherwise readable
    holdings are read whatever their basis; one that is not readable skips the download if its basis is
    ``trust`` or stronger. Raises DiffIDMismatch, before anything is planned, for an image that contradicts
    a computed pair.
    """
    usable = [_from_origin(origin or {}), *(_trusted(place, trust) for place in elsewhere)]
    refuse_contradictions(layers, known)
    steps: list[LayerPlan] = []
    first_with: dict[DiffID, int] = {}
    for position, layer in enumerate(layers):
        first = first_with.setdefault(layer.diff_id, position)
        if first == position:
            steps.append(_step(layer, own, usable, form, sizes))
        else:
            reason = f"same content as layer {layers[first].index}"
            steps.append(LayerPlan(layer, Action.HAVE, reason, steps[first].holding, 0, 0))
    return Plan(tuple(steps), form)


def _from_origin(held: Mapping[DiffID, Holding]) -> dict[DiffID, Holding]:
    """The image's own layers: reading them is no more trust than reading the image."""
    return {diff_id: holding for diff_id, holding in held.items() if holding.readable}


def _trusted(held: Mapping[DiffID, Holding], trust: Basis) -> dict[DiffID, Holding]:
    enough = _STRENGTH[trust]
    return {
        diff_id: holding
        for diff_id, holding in held.items()
        if _STRENGTH[holding.basis] <= enough or (holding.readable and trust is not Basis.COMPUTED)
    }


def _step(
    layer: Layer,
    own: Mapping[DiffID, Holding],
    elsewhere: Sequence[Mapping[DiffID, Holding]],
    form: Form,
    sizes: Mapping[DiffID, int],
) -> LayerPlan:
    held = own.get(layer.diff_id)
    if held is not None and held.diff_id == layer.diff_id and held.basis is Basis.COMPUTED:
        other = "" if held.digest == layer.digest else f", as {_describe(held)}"
        return LayerPlan(layer, Action.HAVE, f"in the {held.place}{other}", held, 0, 0)
    if held is not None and held.diff_id == layer.diff_id and held.digest == layer.digest:
        return LayerPlan(layer, Action.REUSE, f"in the {held.place}, to be checked", held, 0, 0)
    source = next(_sources(layer.diff_id, elsewhere), None)
    if source is not None:
        how = "checked while it is read" if source.basis is Basis.CLAIMED else source.basis.value
        reason = f"from {source.place}, {how}"
        return LayerPlan(layer, Action.REUSE, reason, source, 0, _reused_size(source, form, sizes))
    kept = next(_keepers(layer.diff_id, elsewhere), None)
    if kept is not None:
        return LayerPlan(layer, Action.HAVE, f"kept by {kept.place}, {kept.basis.value}", kept, 0, 0)
    disk = (
        layer.size if form is Form.AS_IS else _tar_size(layer.diff_id, layer.compression, layer.size, sizes)
    )
    return LayerPlan(layer, Action.FETCH, "not on this machine", None, layer.size, disk)


def _sources(diff_id: DiffID, elsewhere: Sequence[Mapping[DiffID, Holding]]) -> Iterator[Holding]:
    """Readable holdings of ``diff_id``: those known to be it first, then the claims, in place order."""
    found = [place[diff_id] for place in elsewhere if diff_id in place]
    usable = [holding for holding in found if holding.diff_id == diff_id and holding.readable]
    yield from (holding for holding in usable if holding.basis is not Basis.CLAIMED)
    yield from (holding for holding in usable if holding.basis is Basis.CLAIMED)


def _keepers(diff_id: DiffID, elsewhere: Sequence[Mapping[DiffID, Holding]]) -> Iterator[Holding]:
    """Holdings of ``diff_id`` that cannot be read, the best known first."""
    found = [place[diff_id] for place in elsewhere if diff_id in place]
    kept = [holding for holding in found if holding.diff_id == diff_id and not holding.readable]
    yield from sorted(kept, key=lambda holding: _STRENGTH[holding.basis])


def _reused_size(source: Holding, form: Form, sizes: Mapping[DiffID, int]) -> int:
    if form is Form.AS_IS:
        return source.size
    if source.uncompressed_size is not None:
        return source.uncompressed_size
    return _tar_size(source.diff_id, source.compression, source.size, sizes)


def _tar_size(diff_id: DiffID, compression: Compression, size: int, sizes: Mapping[DiffID, int]) -> int:
    if compression is Compression.NONE:
        return size
    return sizes.get(diff_id, size * INFLATION)


def _describe(held: Holding) -> str:
    return (
        "the plain tar" if held.compression is Compression.NONE else f"another {held.compression.value} blob"
    )
