"""Which documents a tag is answered with: those of which every blob can be had on this machine.

An image is often kept in another form than its registry has it: as tars, under their DiffIDs. Then its
manifest is of no use to a client, and one is made (image/rewrite.py) that names what is there: each layer's
own blob, or else its tar, or else another blob that was computed to hold it. Made from the same things it is
the same bytes, so it need not be kept; its annotation names the registry's manifest. A client that can do
with DiffIDs gets the registry's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..aio import is_given_up
from ..errors import IntegrityError, InvalidReference, LayerteeError, NotFound, UnsupportedImage
from ..image.document import (
    Descriptor,
    DiffID,
    Digest,
    Index,
    Layer,
    Manifest,
    Platform,
    choose_platform,
    layers_as_far_as_known,
    parse_config,
)
from ..image.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, Compression
from ..image.pairs import refuse_contradictions
from ..image.rewrite import ORIGINAL_MANIFEST, layer_descriptor, oci_manifest
from ..record import dataclass
from ..store.layout_reader import INDEX_DEPTH
from .facts import is_same_image
from .offer import Document

if TYPE_CHECKING:
    from ..store.catalog import Pair
    from .facts import Facts
    from .shelf import Entry

log = logging.getLogger(__name__)

MAX_LISTED: Final = 1000  # documents of an index and those in it: platforms and forms are a few dozen
_DOCUMENTS: Final = INDEX_TYPES | MANIFEST_TYPES


class Here(Protocol):
    """What is on this machine now, in whichever place."""

    def facts(self, digest: Digest) -> Facts | None:
        """The manifest or index under that digest."""

    def bytes_of(self, digest: Digest) -> bytes | None:
        """A document of at most 4 MiB, whatever it says: a config."""

    def has(self, digest: Digest, size: int) -> bool:
        """Whether there is a blob of that size under that digest."""

    def tar_size(self, diff_id: DiffID) -> int | None:
        """Of the tar under that DiffID; None where it cannot be had."""

    def computed(self, digest: Digest) -> DiffID | None:
        """What this machine's own programs saw that blob inflate to."""

    def blobs_with(self, diff_id: DiffID) -> Sequence[Pair]:
        """Compressed blobs that were computed to hold ``diff_id``; they need not be here."""


@dataclass(frozen=True, slots=True)
class Meant:
    """What a name means: indexes that list the image, outermost first, and its manifest as it is kept.

    ``kept`` is None where no manifest is for this platform, or it is not here; ``why`` says which.
    """

    indexes: tuple[Facts, ...]
    kept: Facts | None
    why: str = ""


class _Walk:
    """What was looked at for one question, and what was found: each document once, and not for ever."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Digest, int, int], bool] = {}
        self.is_cut = False

    def goes_on(self) -> bool:
        """Whether one more may be looked at."""
        self.is_cut = len(self.seen) >= MAX_LISTED
        return not self.is_cut and not is_given_up()


class Choice:
    """Chooses among what is ``here``, for clients that run on ``platform``. Every method blocks."""

    def __init__(self, here: Here, platform: Platform) -> None:
        self._here = here
        self._platform = platform

    def answers(self, entries: Sequence[Entry], *, original: bool) -> list[Document]:
        """What the entries of one name in one place are answered with, as ``Stock.named`` has it.

        Raises InvalidReference where they are several images, and NotFound where there is nothing, which says
        why.
        """
        meant = self._meant(entries)
        found: list[Document] = []
        reasons = [meant.why] if meant.why else []
        if original:
            found += [_as_kept(index) for index in meant.indexes if self._serves_by_diff_ids(index)]
            of_registry = self._of_registry(meant.kept) if meant.kept is not None else None
            if of_registry is not None and self._is_had_by_diff_ids(of_registry):
                found.append(_as_kept(of_registry))
                if of_registry.media_type == OCI_MANIFEST:  # which no client of ours refuses
                    return _each_once(found)
        walk = _Walk()
        found += [_as_kept(index) for index in meant.indexes if self._is_whole(index, INDEX_DEPTH, walk)]
        if walk.is_cut:
            log.warning("an index is not offered: it names more than %d documents", MAX_LISTED)
        if meant.kept is not None:
            try:
                found.append(self.manifest(meant.kept))
            except LayerteeError as exc:
                reasons.append(str(exc))
        if not found:
            raise NotFound("; ".join(reasons) or "not all of it is here")
        return _each_once(found)

    def manifest(self, kept: Facts) -> Document:
        """The manifest of an image, as kept, of its registry, or made. Raises NotFound, which says what is
        missing; IntegrityError where it contradicts itself or what was computed.
        """
        self._refuse_contradictions(kept)
        if self._is_exact(kept):
            return _as_kept(kept)
        original = self._of_registry(kept)
        if original is not None and original is not kept and self._is_exact(original):
            return _as_kept(original)
        return self.made(original or kept)

    def made(self, source: Facts) -> Document:
        """A manifest of what is here of the image. Raises as ``manifest``, and UnsupportedImage."""
        image = source.document
        if not isinstance(image, Manifest):
            raise NotFound(f"{source.digest} is of no image, and not all that it names is here")
        layers = self._layers(image)
        refuse_contradictions(layers, self._computed(layers))
        described = [self._described(layer) for layer in layers]
        original = source.original or source.digest
        raw = oci_manifest(image, described, {ORIGINAL_MANIFEST: original})
        return Document(raw, Digest.of(raw), OCI_MANIFEST, original)

    def identity(self, entry: Entry) -> Digest:
        """What tells the image from others, in whichever form it is kept: the digest at its registry."""
        kept = self._here.facts(entry.root.digest)
        if kept is None or kept.original is None:
            return entry.root.digest
        # What an image says of itself counts as far as the other one's config bears it out.
        original = self._here.facts(kept.original)
        is_it = original is not None and is_same_image(kept, original)
        return kept.original if is_it else entry.root.digest

    # --- what a name means ------------------------------------------------------

    def _meant(self, entries: Sequence[Entry]) -> Meant:
        """Raises InvalidReference, NotFound."""
        entry = self._entry(entries)
        facts = self._here.facts(entry.root.digest)
        if facts is None:
            raise NotFound(f"its manifest {entry.root.digest} is not here, or is none")
        indexes = [facts] if facts.is_index else []
        for _ in range(INDEX_DEPTH + 1):
            if facts is None or not isinstance(facts.document, Index):
                break
            try:
                child = choose_platform(facts.document, self._platform)
            except NotFound as exc:
                return Meant(tuple(indexes), None, str(exc))
            facts = self._here.facts(child.digest)
            if facts is None:
                return Meant(tuple(indexes), None, f"its manifest {child.digest} is not here")
        if facts is None or facts.is_index:
            return Meant(tuple(indexes), None, "its indexes are nested too deep")
        wanted = {facts.digest, facts.original}
        for digest in entry.beside:
            listed = self._here.facts(digest)
            if listed is not None and any(child.digest in wanted for child in listed.children):
                indexes.append(listed)
        return Meant(tuple(indexes), facts)

    def _entry(self, entries: Sequence[Entry]) -> Entry:
        """Of several with one name, the one for the platform. Raises InvalidReference, NotFound."""
        by_digest: dict[Digest, Entry] = {}
        for entry in entries:
            by_digest.setdefault(entry.root.digest, entry)
        several = list(by_digest.values())
        if len(several) == 1:
            return several[0]
        platforms = [entry.root.platform for entry in several]
        if None in platforms or len(set(platforms)) < len(platforms):
            digests = ", ".join(sorted(entry.root.digest for entry in several))
            raise InvalidReference(f"that may be any of these images: {digests}")
        listed = Index(b"", Digest.of(b""), OCI_INDEX, tuple(entry.root for entry in several))
        chosen = choose_platform(listed, self._platform)
        return next(entry for entry in several if entry.root is chosen)

    def _of_registry(self, kept: Facts) -> Facts | None:
        """The manifest as the registry has it, if that is kept."""
        if kept.original is None:
            return kept
        found = self._here.facts(kept.original)
        return found if found is not None and is_same_image(kept, found) else None

    # --- what is here -----------------------------------------------------------

    def _is_exact(self, facts: Facts) -> bool:
        """Whether all that a manifest names is here as it names it."""
        return all(self._here.has(blob.digest, blob.size) for blob in facts.named)

    def _is_whole(self, index: Facts, depth: int, walk: _Walk) -> bool:
        """Whether every image of an index is here, as its manifest names it."""
        if depth < 0 or (isinstance(index.document, Index) and index.document.unreadable):
            return False
        children = {(child.digest, child.size, child.media_type): child for child in index.children}
        return all(self._is_child_whole(child, depth, walk) for child in children.values())

    def _is_child_whole(self, child: Descriptor, depth: int, walk: _Walk) -> bool:
        step = child.digest, child.size, depth
        if step not in walk.seen:
            if not walk.goes_on():
                return False
            walk.seen[step] = self._looks_whole(child, depth, walk)
        return walk.seen[step]

    def _looks_whole(self, child: Descriptor, depth: int, walk: _Walk) -> bool:
        facts = self._here.facts(child.digest)
        if facts is None:
            return child.media_type not in _DOCUMENTS and self._here.has(child.digest, child.size)
        if facts.is_index:
            return self._is_whole(facts, depth - 1, walk)
        with suppress(IntegrityError):
            self._refuse_contradictions(facts)
            return self._is_exact(facts)
        return False

    def _serves_by_diff_ids(self, index: Facts) -> bool:
        """Whether the image for this platform is here in whichever form, with its manifest."""
        facts: Facts | None = index
        for _ in range(INDEX_DEPTH + 1):
            if facts is None or not isinstance(facts.document, Index):
                break
            try:
                facts = self._here.facts(choose_platform(facts.document, self._platform).digest)
            except NotFound:
                return False
        return facts is not None and not facts.is_index and self._is_had_by_diff_ids(facts)

    def _is_had_by_diff_ids(self, facts: Facts) -> bool:
        image = facts.document
        if not isinstance(image, Manifest):
            return self._is_exact(facts)
        try:
            layers = self._layers(image)
            refuse_contradictions(layers, self._computed(layers))
        except UnsupportedImage:
            return self._is_exact(facts)
        except LayerteeError:
            return False
        return all(
            self._here.has(layer.digest, layer.size)
            or (not layer.is_opaque and self._here.tar_size(layer.diff_id) is not None)
            for layer in layers
        )

    def _refuse_contradictions(self, facts: Facts) -> None:
        """Raises IntegrityError for an image that contradicts itself or what was computed."""
        if isinstance(facts.document, Manifest):
            with suppress(NotFound, UnsupportedImage):  # what has no layers of images says nothing of them
                layers = self._layers(facts.document)
                refuse_contradictions(layers, self._computed(layers))

    def _layers(self, image: Manifest) -> tuple[Layer, ...]:
        """Raises NotFound, IntegrityError, UnsupportedImage."""
        raw = self._here.bytes_of(image.config.digest)
        if raw is None:
            raise NotFound(f"its config {image.config.digest} is not here")
        return layers_as_far_as_known(image, parse_config(raw, image.config))

    def _computed(self, layers: Sequence[Layer]) -> dict[Digest, DiffID]:
        found = {layer.digest: self._here.computed(layer.digest) for layer in layers}
        return {digest: diff_id for digest, diff_id in found.items() if diff_id is not None}

    def _described(self, layer: Layer) -> dict[str, Any]:
        """The best form of a layer that is here, as a descriptor. Raises NotFound."""
        if self._here.has(layer.digest, layer.size):
            return layer_descriptor(layer, layer.digest, layer.size, layer.compression)
        what = f"its layer {layer.index} is not here, neither as {layer.digest}"
        if layer.is_opaque:
            raise NotFound(f"{what}, nor is it known what that holds")
        tar = self._here.tar_size(layer.diff_id)
        if tar is not None:
            return layer_descriptor(layer, layer.tar_digest, tar, Compression.NONE)
        for pair in sorted(self._here.blobs_with(layer.diff_id), key=lambda pair: (pair.size, pair.digest)):
            if self._here.has(pair.digest, pair.size):
                return layer_descriptor(layer, pair.digest, pair.size, pair.compression)
        raise NotFound(f"{what} nor as its tar {layer.diff_id}")


def _each_once(found: Sequence[Document]) -> list[Document]:
    return list({one.digest: one for one in found}.values())


def _as_kept(facts: Facts) -> Document:
    return Document(facts.raw, facts.digest, facts.media_type, facts.original)
