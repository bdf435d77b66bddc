"""A blob has one DiffID: the one rule by which statements about a blob are held against what was computed.

A *pair* is a blob's digest and the DiffID that the blob inflates to. It is *computed* when this machine
hashed both ends of one stream, and *claimed* when an image, or another tool, says so. A claim never outweighs
a computed pair; an image that contradicts one is refused before anything is fetched or handed on.

One case only looks like a contradiction. Read as they are, any bytes are a blob whose DiffID is its own
digest (a *tautology*), and a tar that is itself a gzip file may be known like that. A statement about what
the same bytes inflate to is about something else, and both are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import DiffIDMismatch
from .document import DiffID, Digest, Layer
from .media import Compression, is_layer_type

__all__ = ["contradicts", "refuse_contradictions", "with_computed"]


def contradicts(
    digest: Digest, claimed: DiffID, computed: DiffID | None, compression: Compression | None
) -> bool:
    """Whether ``claimed`` as the DiffID of ``digest`` cannot be true beside ``computed``.

    ``computed`` is None where nothing was computed. ``compression`` is how the claim reads the blob, None
    where it does not say.
    """
    if computed is None or computed == claimed:
        return False
    is_tautology = str(computed) == str(digest)
    return not (is_tautology and compression is not Compression.NONE)


def refuse_contradictions(layers: Iterable[Layer], computed: Mapping[Digest, DiffID]) -> None:
    """Raise DiffIDMismatch for the first of ``layers`` that contradicts a computed pair."""
    for layer in layers:
        known = None if layer.is_opaque else computed.get(layer.digest)
        if known is not None and contradicts(layer.digest, layer.diff_id, known, layer.compression):
            raise DiffIDMismatch(
                f"layer {layer.index} ({layer.digest}): the image config says {layer.diff_id}, but this blob"
                f" was computed here to be {known}; the image is refused",
                want=layer.diff_id,
                got=known,
            )


def with_computed(layers: Iterable[Layer], computed: Mapping[Digest, DiffID]) -> tuple[Layer, ...]:
    """``layers``, of which those are no longer opaque whose blobs this machine has inflated before."""
    return tuple(_with_computed(layer, computed.get(layer.digest)) for layer in layers)


def _with_computed(layer: Layer, known: DiffID | None) -> Layer:
    # A blob that was only ever read as it is says nothing about what it inflates to; and what an artifact has
    # is no layer, even where it is the blob of one.
    if not layer.is_opaque or not is_layer_type(layer.media_type):
        return layer
    if known is None or str(known) == str(layer.digest):
        return layer
    return replace(layer, diff_id=known, is_opaque=False)
