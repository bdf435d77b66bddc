"""Before an upgrade: tell the ostree repository under which new names it has an image's layers already.

bootc asks its repository for each layer by the digest of the blob, which a registry or a build changes
without changing the content. Where the repository has the same DiffID under another name, a ref with the
new name on the same commit makes the layer present, for any version of bootc.

What such a ref says, "blob b is this commit", rests on two legs. That the commit is DiffID d is known on
some basis, and ``trust`` says which are good enough. That b inflates to d is what the image says in its
config, which is all that anybody can know without downloading b; if b was inflated here before, it is
checked. So the lie of one image can leave a wrong ref for a blob of another. Therefore refs are made for
one image at a time: those that were made for another, and that no image of the repository uses, go when the
next is prepared.

Refs of others are never changed or removed.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...disk.locks import Lock
from ...errors import DocumentError
from ...image.holding import Basis
from ...image.pairs import refuse_contradictions
from ...record import dataclass
from .images import blob_roles
from .place import LayerCommit, OSTreePlace, Pairs, Stock, no_pairs, take_stock
from .refs import LOCK_WAIT_S, RefWriter, own_refs
from .repo import OSTreeRepo

if TYPE_CHECKING:
    from ...image.document import DiffID, Digest, ImageConfig, Layer, Manifest
    from .record import PreparedRef


class Step(enum.Enum):
    """What preparing does for one layer."""

    PRESENT = "present"  # nothing: the repository knows the blob by this name
    LINK = "link"  # the name is new, the content is there: a ref is made
    DOWNLOAD = "download"  # nothing: the upgrade will fetch it


@dataclass(frozen=True, slots=True)
class LayerStep:
    """One layer, what is done about it, and why (for a person). ``held`` is the content that is there.

    ``hint`` is that of an error: a word for what could be changed, so that the layer need not be downloaded.
    """

    layer: Layer
    step: Step
    reason: str
    held: LayerCommit | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What preparing does, or did, for each layer of an image, in its order.

    ``stale`` are refs that were made for another image, and go.
    """

    layers: tuple[LayerStep, ...]
    stale: tuple[PreparedRef, ...]
    warnings: tuple[str, ...]

    @property
    def refs(self) -> dict[Digest, LayerCommit]:
        """The refs to make: blob, and the commit that it is."""
        steps = [step for step in self.layers if step.step is Step.LINK]
        return {step.layer.digest: step.held for step in steps if step.held is not None}

    @property
    def bytes_to_download(self) -> int:
        """What is left for the upgrade; a blob that the image repeats is fetched once."""
        left = {step.layer.digest: step.layer.size for step in self.layers if step.step is Step.DOWNLOAD}
        return sum(left.values())


@dataclass(frozen=True, slots=True)
class Undone:
    """``removed`` are gone, or would be. ``in_use`` stay: an image of the repository uses them."""

    removed: tuple[PreparedRef, ...]
    in_use: tuple[PreparedRef, ...]


class Prepare:
    """The image ``name``, with these documents, for the repository in ``path``. Every method blocks.

    ``layers`` are ``image_layers`` of the documents. ``known`` are the pairs computed on this machine
    (``Catalog.diff_id``), ``attested`` those of other tools. ``trust`` is the weakest basis that will do.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        manifest: Manifest,
        config: ImageConfig,
        layers: Sequence[Layer],
        *,
        known: Pairs,
        attested: Pairs = no_pairs,
        trust: Basis = Basis.ATTESTED,
        timeout: float = LOCK_WAIT_S,
    ) -> None:
        self._path = path
        self._name = name
        self._manifest = manifest
        self._roles = blob_roles(layers, config)
        self._layers = layers
        self._known = known
        self._trust = trust
        self._timeout = timeout
        self._place = OSTreePlace(path, known=known, attested=attested)

    def look(self) -> Preparation:
        """What ``run`` would do. Writes nothing.

        Raises NotFound and StoreCorrupt (not a repository), LocalError, CatalogError, and DiffIDMismatch:
        the image contradicts a pair computed on this machine.
        """
        return self._decide(OSTreeRepo.open(self._path))

    def run(self) -> Preparation:
        """Make the refs; what was done. Nothing is written when there is nothing to do.

        Raises as ``look``, and StoreBusy and LocalError where the repository cannot be written. A crash
        leaves a correct repository; running again finishes the work.
        """
        found = self.look()
        if found.stale:
            undo(self._path, rows=found.stale, timeout=self._timeout)
        if not found.refs:
            return found
        repo = OSTreeRepo.open(self._path)
        with RefWriter(repo, timeout=self._timeout) as writer:
            now = self._decide(repo)
            made = writer.create(now.refs, self._name, self._manifest.digest)
        return replace(now, layers=tuple(_outcome(step, made) for step in now.layers), stale=found.stale)

    def _decide(self, repo: OSTreeRepo) -> Preparation:
        known = {layer.digest: found for layer in self._layers if (found := self._known(layer.digest))}
        refuse_contradictions(self._layers, known)
        stock = take_stock(repo)
        stale = [
            row
            for row in own_refs(repo, stock.made.values())
            if row.manifest != self._manifest.digest and row.digest not in stock.claims.digests
        ]
        for row in stale:
            stock.layers.pop(row.digest)
        held = self._place.find_in(repo, stock, {layer.diff_id for layer in self._layers})
        steps = tuple(self._step(repo, stock, layer, held) for layer in self._layers)
        return Preparation(steps, tuple(stale), tuple(repo.warnings))

    def _step(
        self, repo: OSTreeRepo, stock: Stock, layer: Layer, found: Mapping[DiffID, LayerCommit]
    ) -> LayerStep:
        claim = stock.claims.of.get(layer.digest)
        disputed = layer.digest in stock.claims.disputed
        if claim is not None and claim.diff_id != layer.diff_id:
            disputed = True
        if commit := stock.layers.get(layer.digest):
            if disputed:
                repo.warnings.append(
                    f"layer {layer.index} ({layer.digest}): the repository's images do not agree with this"
                    " image on what that blob is; the upgrade will use what is there"
                )
            return LayerStep(layer, Step.PRESENT, _presence(repo, layer, commit))
        held = found.get(layer.diff_id)
        if held is None:
            return LayerStep(layer, Step.DOWNLOAD, "not in the repository")
        why_not = hint = ""
        if not held.basis.at_least(self._trust):
            why_not, hint = f"its content is there, but only {held.basis.value}", "trust-basis"
        elif disputed:
            why_not = "images do not agree on what that blob is"
        elif held.role and held.role is not self._roles.get(layer.digest, held.role):
            why_not = f"its content is there, imported as another kind of layer ({held.role.value})"
        if why_not:
            return LayerStep(layer, Step.DOWNLOAD, why_not, held, hint)
        return LayerStep(layer, Step.LINK, f"there as {held.imported[:19]}, {held.basis.value}", held)


def undo(
    path: Path,
    *,
    image: str | None = None,
    rows: Collection[PreparedRef] | None = None,
    dry_run: bool = False,
    timeout: float = LOCK_WAIT_S,
) -> Undone:
    """Remove the refs that were made (for ``image``, or those of ``rows``), unless an image uses them by now.

    Only refs that still are the files that were made go. Doing it again does nothing. Blocks; raises
    NotFound, StoreCorrupt, StoreBusy, LocalError.
    """

    def chosen(record: Collection[PreparedRef], used: Collection[Digest]) -> Undone:
        named = [row for row in record if image is None or row.image == image]
        mine = [row for row in named if rows is None or row in rows]
        return Undone(
            tuple(row for row in mine if row.digest not in used),
            tuple(row for row in mine if row.digest in used),
        )

    repo = OSTreeRepo.open(path)
    stock = take_stock(repo)
    found = chosen(own_refs(repo, stock.made.values()), stock.claims.digests)
    if dry_run or not found.removed:
        return found
    with RefWriter(repo, Lock.EXCLUSIVE, timeout=timeout) as writer:
        found = chosen(writer.record, take_stock(repo).claims.digests)
        writer.remove(found.removed)
    return found


def _presence(repo: OSTreeRepo, layer: Layer, commit: str) -> str:
    try:
        repo.metadata(commit)
    except DocumentError as exc:
        repo.warnings.append(f"layer {layer.index} ({layer.digest}) has a ref, but {exc}")
        return "has a ref, to a commit that cannot be read"
    return "in the repository"


def _outcome(step: LayerStep, made: Collection[Digest]) -> LayerStep:
    """``step`` as it went. A name that was taken when the ref was to be made is somebody else's."""
    if step.step is Step.LINK and step.layer.digest not in made:
        return LayerStep(step.layer, Step.PRESENT, "has a ref that somebody else made", step.held)
    return step
