"""What a pull has to do, decided before anything is done, and decided here only.

Pure: layers, what was found on the machine (a Survey) and what is wanted go in; one step per layer comes
out, in the image's order. A step is an ordered list of candidate *sources*. Carrying it out means: the first
source that turns out to work (ingest.py). So a new way to get a layer is one more kind of source, placed in
one list.

The DiffIDs come from the image and from nowhere else; holdings, however wrong, can only change where bytes
are looked for. A holding that is merely claimed may be read, because whatever is read is hashed on the way;
what does not have the DiffID is discarded, and the next source is tried. No local source can make a pull fail
that the network could do, so one that would cost more than it saves is left out.

A place that shows a layer and cannot give it back is another matter: nothing is hashed, and leaving
the layer to it takes its word. ``Want.trust`` is the weakest basis for which that is done.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Final

from ..errors import LayerteeError, NotFound
from ..image.document import DiffID, Digest, Layer
from ..image.holding import Basis, Form, Holding
from ..image.media import Compression
from ..image.pairs import refuse_contradictions
from ..record import dataclass
from .want import Keep, Verify, Want

if TYPE_CHECKING:
    from ..image.reference import Reference

__all__ = ["Action", "Form", "Keep", "LayerPlan", "Plan", "Source", "Survey", "Verify", "Want", "plan"]

INFLATION: Final = 3  # OS layers inflate 2.2 to 3 times; the estimate errs towards refusing early
# A local blob that is so much larger than the one the registry has is nearly all zeros, or no such layer at
# all: fetching the registry's costs less than finding out.
MAX_GROWTH: Final = 32
SMALL: Final = 64 << 20  # reading so much costs next to nothing, whatever it is


class Action(enum.Enum):
    """What happens to one layer, for people and programs that need no more than that."""

    HAVE = "have"  # nothing: the store holds it, or a place that keeps it for others
    REUSE = "reuse"  # its bytes are read on this machine
    FETCH = "fetch"  # its bytes come from the registry


class SourceKind(enum.Enum):
    """Where a layer may come from; the order of the list is not the order of trying."""

    HAVE = "have"  # the store holds it, checked
    ADOPT = "adopt"  # the store has the file, which nobody checked: hash it where it is
    READ = "read"  # read its bytes from a holding, inflated and hashed on the way
    KEPT = "kept"  # leave it to the place that holds it
    TAR = "tar"  # ask an endpoint of the registry for the tar that it has in place of the blob
    RESUME = "resume"  # ask the registry for what is missing of a blob that has begun to arrive
    NETWORK = "network"  # ask the registry
    SAME = "same"  # an earlier layer of the image brings it


_ACTIONS = {
    SourceKind.HAVE: Action.HAVE,
    SourceKind.ADOPT: Action.REUSE,
    SourceKind.READ: Action.REUSE,
    SourceKind.KEPT: Action.HAVE,
    SourceKind.TAR: Action.FETCH,
    SourceKind.RESUME: Action.FETCH,
    SourceKind.NETWORK: Action.FETCH,
    SourceKind.SAME: Action.HAVE,
}


@dataclass(frozen=True, slots=True)
class TarAt:
    """A layer's tar of ``size`` bytes at the endpoint of that name, which says that it lacks the blob.

    ``is_alone``: the image has no other endpoint.
    """

    endpoint: str
    size: int
    is_alone: bool = False

    @property
    def reason(self) -> str:
        """For a person."""
        return f"as a tar from {self.endpoint}, which lacks the blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One way to get a layer, and why it is in the list (for a person).

    ``wire_bytes`` come over the network; ``disk_bytes`` are added to the store, estimated where the
    uncompressed size is not known. ``holding`` is where the content is on this machine; ``registry``, which
    image's registry is asked; ``tar``, where it is asked for the tar. ``resumed_at`` is the first byte of the
    blob, or of the tar, that is asked for.
    """

    kind: SourceKind
    reason: str
    holding: Holding | None = None
    registry: Reference | None = None
    tar: TarAt | None = None
    wire_bytes: int = 0
    disk_bytes: int = 0
    resumed_at: int = 0

    @property
    def action(self) -> Action:
        return _ACTIONS[self.kind]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer and its candidate sources, the one to be tried first in front.

    ``same_as`` is the index of the earlier step that brings the same bytes or content, None for a layer that
    is brought for itself. What is said of the step is said of its first source: it is what will happen unless
    that source fails.
    """

    layer: Layer
    sources: tuple[Source, ...]
    same_as: int | None = None

    @property
    def action(self) -> Action:
        return self.sources[0].action

    @property
    def reason(self) -> str:
        return self.sources[0].reason

    @property
    def holding(self) -> Holding | None:
        return self.sources[0].holding

    @property
    def wire_bytes(self) -> int:
        return self.sources[0].wire_bytes

    @property
    def disk_bytes(self) -> int:
        return self.sources[0].disk_bytes

    @property
    def resumed_at(self) -> int:
        return self.sources[0].resumed_at

    @property
    def as_tar(self) -> bool:
        """Whether what is fetched is the tar, and not the blob that the image names."""
        return self.sources[0].tar is not None

    @property
    def size(self) -> int:
        """Bytes of what is brought: of the blob, unless that is known to come as a tar."""
        tar = self.sources[0].tar
        return tar.size if tar is not None else self.layer.size

    @property
    def kept_elsewhere(self) -> bool:
        """Whether the layer is left to a place that has it but cannot give it back."""
        return self.action is Action.HAVE and self.holding is not None and not self.holding.readable


@dataclass(frozen=True, slots=True)
class Plan:
    """One step per layer of an image, in its order, and what they are to achieve. Data: it can be pickled."""

    layers: tuple[LayerPlan, ...]
    want: Want

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes over the network."""
        return sum(step.wire_bytes for step in self.layers)

    @property
    def bytes_reused(self) -> int:
        """Bytes of the image that need not come over the network."""
        return sum(max(0, step.layer.size - step.wire_bytes) for step in self.layers)

    @property
    def disk_bytes(self) -> int:
        """Bytes added to the store."""
        return sum(step.disk_bytes for step in self.layers)

    def layers_to(self, action: Action) -> tuple[LayerPlan, ...]:
        """The layers that ``action`` happens to, in order."""
        return tuple(step for step in self.layers if step.action is action)


Held = Mapping[DiffID, Sequence[Holding]]


@dataclass(frozen=True, slots=True)
class Survey:
    """What this machine has of an image's layers, and knows about its blobs.

    ``arrived``: how many bytes of a blob are here from an earlier pull that did not bring all of it.
    ``tars``: of which blobs the registry, asked now, would give the tar.

    ``own`` is what the store holds, unchecked files of it as claims; ``origin`` what the place holds that the
    image itself is in; ``elsewhere`` the other places' holdings, in the order of the places. ``known`` are
    the computed pairs of the layers' blobs, ``sizes`` the uncompressed sizes that were measured. ``registry``
    is the image at its registry, None for an image of this machine. ``warnings`` say what could not be looked
    at; ``refused`` is why the image's own place cannot give a content.
    """

    own: Held = field(default_factory=dict)
    origin: Held = field(default_factory=dict)
    elsewhere: Held = field(default_factory=dict)
    known: Mapping[Digest, DiffID] = field(default_factory=dict)
    sizes: Mapping[DiffID, int] = field(default_factory=dict)
    registry: Reference | None = None
    warnings: tuple[str, ...] = ()
    refused: Mapping[DiffID, LayerteeError] = field(default_factory=dict)
    arrived: Mapping[Digest, int] = field(default_factory=dict)
    tars: Mapping[Digest, TarAt] = field(default_factory=dict)


def plan(layers: Sequence[Layer], survey: Survey, want: Want) -> Plan:
    """Decide for each of ``layers`` where it may come from, in which order.

    Raises DiffIDMismatch, before anything is planned, for an image that contradicts a computed pair, and
    NotFound for a layer that can come from nowhere, or what its own place says of it: SourceUnreadable,
    SizeMismatch.
    """
    refuse_contradictions(layers, survey.known)
    steps: list[LayerPlan] = []
    by_name: dict[Digest, int] = {}
    by_content: dict[DiffID, int] = {}
    for position, layer in enumerate(layers):
        first = by_name.get(want.name_of(layer))
        if first is None and want.keep is not Keep.NAMED:
            first = by_content.get(layer.diff_id)
        if first is not None:
            steps.append(_repeat(layer, first, steps[first]))
            continue
        own = survey.own.get(layer.diff_id, ())
        sources = (*own_sources(layer, own, want), *_others(layer, survey, want))
        if not sources:
            raise _nowhere(layer, survey)
        by_name[want.name_of(layer)] = position
        if _assures_content(layer, survey, want):
            by_content[layer.diff_id] = position
        steps.append(LayerPlan(layer, sources))
    return Plan(tuple(steps), want)


def leanest(plan: Plan) -> Plan:
    """``plan`` with each step's sources in the order of the disk space that they take."""
    return replace(
        plan,
        layers=tuple(
            replace(step, sources=tuple(sorted(step.sources, key=lambda source: source.disk_bytes)))
            for step in plan.layers
        ),
    )


def own_sources(layer: Layer, own: Sequence[Holding], want: Want) -> tuple[Source, ...]:
    """How the store's own holdings serve ``layer``, best first.

    Asked again when the step is carried out, with the layer's lock held: another process may have brought
    the layer meanwhile, or removed it.
    """
    name = want.name_of(layer)
    mine = sorted(
        (held for held in own if held.diff_id == layer.diff_id), key=lambda held: held.digest != name
    )
    found = [
        *(_have(layer, held) for held in mine if held.basis is Basis.COMPUTED and _serves(held, name, want)),
        *(
            _adopt(held)
            for held in mine
            if held.basis is not Basis.COMPUTED
            and held.digest in (layer.digest, layer.tar_digest)
            and _serves(held, name, want)
        ),
    ]
    if want.keep is Keep.NAMED and want.form is Form.UNCOMPRESSED:
        found += [_inflate(layer, held) for held in mine if held.digest != name]
    return tuple(found)


def _serves(held: Holding, name: Digest, want: Want) -> bool:
    return held.digest == name or want.keep is not Keep.NAMED


def _have(layer: Layer, held: Holding) -> Source:
    other = "" if held.digest == layer.digest else f", as {_describe(held)}"
    return Source(kind=SourceKind.HAVE, reason=f"in the {held.place}{other}", holding=held)


def _adopt(held: Holding) -> Source:
    return Source(kind=SourceKind.ADOPT, reason=f"in the {held.place}, to be checked", holding=held)


def _inflate(layer: Layer, held: Holding) -> Source:
    nbytes = _tar_size(held, {}) if held.uncompressed_size is None else held.uncompressed_size
    reason = f"from the {held.place}, inflated"
    return Source(kind=SourceKind.READ, reason=reason, holding=held, disk_bytes=nbytes)


def _others(layer: Layer, survey: Survey, want: Want) -> Iterator[Source]:
    """The sources beside the store: what can be read, what can be left where it is, the network last."""
    origin = [held for held in survey.origin.get(layer.diff_id, ()) if held.readable]
    elsewhere = [held for held in survey.elsewhere.get(layer.diff_id, ()) if _is_trusted(held, want.trust)]
    readable = [
        held
        for held in (*origin, *elsewhere)
        if held.readable and held.diff_id == layer.diff_id and _may_be_read(held, layer, survey.sizes, want)
    ]
    # Those known to be it first, then the claims; each in the order of the places.
    for held in sorted(readable, key=lambda held: held.basis is Basis.CLAIMED):
        how = "checked while it is read" if held.basis is Basis.CLAIMED else held.basis.value
        nbytes = held.size if want.form is Form.AS_IS else _tar_size(held, survey.sizes)
        reason = f"from {held.place}, {how}"
        yield Source(kind=SourceKind.READ, reason=reason, holding=held, disk_bytes=nbytes)
    if want.keep is Keep.ANYWHERE:
        kept = [held for held in elsewhere if not held.readable and held.diff_id == layer.diff_id]
        for held in sorted(kept, key=lambda held: held.basis.rank):
            reason = f"kept by {held.place}, {held.basis.value}"
            yield Source(kind=SourceKind.KEPT, reason=reason, holding=held)
    if survey.registry is not None:
        yield from _from_registry(layer, survey, want, survey.registry)


def _from_registry(layer: Layer, survey: Survey, want: Want, registry: Reference) -> Iterator[Source]:
    """What can be asked for over the network: what is missing, where some is here; the tar, from an endpoint
    that lacks the blob; the blob.
    """
    disk = layer.size
    if want.form is Form.UNCOMPRESSED and layer.compression is not Compression.NONE and not layer.is_opaque:
        disk = survey.sizes.get(layer.diff_id, layer.size * INFLATION)
    fetch = Source(
        kind=SourceKind.NETWORK,
        reason="not on this machine",
        registry=registry,
        wire_bytes=layer.size,
        disk_bytes=disk,
    )
    resume = None
    if 0 < (arrived := survey.arrived.get(layer.digest, 0)) <= layer.size:
        # Where the tar is wanted, it is written from its beginning.
        saved = arrived if disk == layer.size else 0
        resume = replace(
            fetch,
            kind=SourceKind.RESUME,
            reason=f"goes on at byte {arrived}",
            wire_bytes=layer.size - arrived,
            disk_bytes=disk - saved,
            resumed_at=arrived,
        )
    tar = None
    at = survey.tars.get(layer.digest)
    if at is not None and may_come_as_tar(layer, want) and _is_sane(at, layer, survey.sizes):
        tar = _as_tar(layer, survey, at, registry)
    order = [resume, tar, fetch]
    # Of a blob that is mostly here, the rest is less, if another endpoint has it.
    if at is not None and (at.is_alone or arrived * 2 < layer.size):
        order = [tar, resume, fetch]
    yield from (source for source in order if source is not None)


def _as_tar(layer: Layer, survey: Survey, at: TarAt, registry: Reference) -> Source:
    begun = survey.arrived.get(layer.tar_digest, 0)
    left = at.size - begun if begun <= at.size else at.size
    return Source(
        kind=SourceKind.TAR,
        reason=at.reason,
        registry=registry,
        tar=at,
        wire_bytes=left,
        disk_bytes=left,
        resumed_at=at.size - left,
    )


def may_come_as_tar(layer: Layer, want: Want) -> bool:
    """Whether the tar that is in the blob of ``layer`` is as good as that, and is known to be in it."""
    return not (want.blobs_only or layer.is_opaque or layer.compression is Compression.NONE)


def _is_sane(tar: TarAt, layer: Layer, sizes: Mapping[DiffID, int]) -> bool:
    """Whether a tar of that size may be in the blob of ``layer``."""
    return 0 < tar.size <= largest_read(layer) and tar.size == sizes.get(layer.diff_id, tar.size)


def _is_trusted(held: Holding, trust: Basis) -> bool:
    return held.basis.at_least(trust) or (held.readable and trust is not Basis.COMPUTED)


def _may_be_read(held: Holding, layer: Layer, sizes: Mapping[DiffID, int], want: Want) -> bool:
    """Whether ``held`` can become what is wanted, and is not larger than it can be or is worth."""
    if want.blobs_only and held.digest != layer.digest:
        return False  # a tar cannot become the blob again
    if held.digest == layer.digest:
        return held.size == layer.size
    if held.compression is Compression.NONE and layer.diff_id in sizes:
        return held.size == sizes[layer.diff_id]
    return held.size <= largest_read(layer)


def largest_read(layer: Layer) -> int:
    """Bytes that may be read, or may come out of what is read, in search of ``layer`` on this machine."""
    return max(SMALL, layer.size * MAX_GROWTH)


def _assures_content(layer: Layer, survey: Survey, want: Want) -> bool:
    """Whether the layer's content is sure to have its DiffID once it is brought, from whichever source.

    A blob of which only the digest is checked says nothing about what is in it, unless that was computed
    before. Without it, only blobs of one digest are one layer.
    """
    return not want.digest_only or str(layer.diff_id) in (layer.digest, survey.known.get(layer.digest))


def _repeat(layer: Layer, first: int, step: LayerPlan) -> LayerPlan:
    reason = f"same content as layer {step.layer.index}"
    source = Source(kind=SourceKind.SAME, reason=reason, holding=step.holding)
    return LayerPlan(layer, (source,), first)


def _nowhere(layer: Layer, survey: Survey) -> LayerteeError:
    """What to raise for a layer without a source: what the place says that should have it, if it does."""
    which = f"layer {layer.index} ({layer.digest})"
    if (refused := survey.refused.get(layer.diff_id)) is not None:
        refused.add_note(f"that is {which} of the image")
        return refused
    why = "; ".join(survey.warnings[:3])
    return NotFound(f"{which} is not there" + (f": {why}" if why else ""))


def _tar_size(held: Holding, sizes: Mapping[DiffID, int]) -> int:
    if held.uncompressed_size is not None:
        return held.uncompressed_size
    if held.compression is Compression.NONE:
        return held.size
    return sizes.get(held.diff_id, held.size * INFLATION)


def _describe(held: Holding) -> str:
    return (
        "the plain tar" if held.compression is Compression.NONE else f"another {held.compression.value} blob"
    )
