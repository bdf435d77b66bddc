"""An ostree repository that container images were imported into, as a place.

One ref for each layer, named by the digest that its blob had in transfer, leads to a commit with the layer's
files. So a layer is seen to be here and cannot be had from here: its tar does not come back out of its
files. What the blob's DiffID is, is known in one of these ways:

- ``computed``: the blob was inflated on this machine, or its name is the DiffID itself. The latter is how
  an image goes in that was installed from podman's store, where layers are plain tars.
- ``attested``: another tool of this machine computed it.
- ``claimed``: an image of the repository says so.

A ref that this program made itself (prepared.py) says of its commit what was known then, and no more.
Nothing is locked and nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DocumentError, LayerteeError
from ...image.document import DiffID, Digest
from ...image.holding import Basis, Found, Holding, Place
from ...image.media import Compression
from ...image.pairs import contradicts
from ...record import dataclass
from .images import Claim, Claims, gather, stored_layers
from .names import BASES, DEPLOYMENTS, IMAGES, LAYERS, layer_digest
from .record import PreparedRef, read_record
from .repo import OSTreeRepo

if TYPE_CHECKING:
    from ...image.roles import Role

Pairs = Callable[[Digest], DiffID | None]


def no_pairs(digest: Digest) -> DiffID | None:
    """Of a machine where nothing was computed yet, or no other tool is asked."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCommit(Holding):
    """A layer that was imported as ``commit``, and is there under the ref of the blob ``imported``.

    It is in no form that could be read, hence ``size`` 0. ``role`` is None where nobody says.
    """

    imported: Digest
    commit: str
    role: Role | None


@dataclass(frozen=True, slots=True)
class Stock:
    """What a repository has: its layers' commits, what its images say of them, and which refs we made."""

    layers: dict[Digest, str]
    claims: Claims
    made: Mapping[Digest, PreparedRef]


def take_stock(repo: OSTreeRepo) -> Stock:
    """Read all refs, and the commits of images. What makes no sense is a warning of ``repo``.

    Raises LocalError, and StoreCorrupt for the record of refs that we made.
    """
    layers: dict[Digest, str] = {}
    strangers: list[str] = []
    for ref, commit in repo.refs(LAYERS).items():
        try:
            layers[layer_digest(ref)] = commit
        except ValueError:
            strangers.append(ref)
    if strangers:
        first = min(strangers)
        repo.warnings.append(
            f"{repo.path}: {len(strangers)} refs of layers name no blob; the first is {first!r:.300}"
        )
    made = {row.digest: row for row in read_record(repo.path) if layers.get(row.digest) == row.commit}
    return Stock(layers, gather(_images(repo)), made)


def _images(repo: OSTreeRepo) -> Iterator[Mapping[Digest, Claim]]:
    """The layers of every image: current, deployed, and protected as a base; each commit once."""
    by_commit: dict[str, str] = {}
    for ref, commit in repo.refs(IMAGES, BASES, *DEPLOYMENTS).items():
        by_commit.setdefault(commit, ref)
    for commit, ref in by_commit.items():
        try:
            yield stored_layers(repo.metadata(commit), ref)
        except LayerteeError as exc:
            repo.warnings.append(f"{repo.path}: skipping {ref}: {exc}")


class OSTreePlace(Place):
    """The repository in ``path``.

    ``known`` answers what a blob was computed to inflate to (``Catalog.diff_id``), ``attested`` what another
    tool of this machine recorded that it computed.
    """

    def __init__(self, path: Path, *, known: Pairs, attested: Pairs = no_pairs) -> None:
        self._path = path
        self._known = known
        self._attested = attested

    @property
    def name(self) -> str:
        return f"ostree:{self._path}"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Layers whose ref leads to a whole commit. Each holding is a LayerCommit, and not readable."""
        warnings: list[str] = []
        try:
            repo = OSTreeRepo.open(self._path)
            warnings = repo.warnings
            return Found(self.find_in(repo, take_stock(repo), diff_ids), warnings)
        except LayerteeError as exc:
            return Found(warnings=[*warnings, str(exc)])

    def find_in(
        self, repo: OSTreeRepo, stock: Stock, diff_ids: Collection[DiffID]
    ) -> dict[DiffID, LayerCommit]:
        """``find``, in a repository that was looked at; warnings go to ``repo``. May raise CatalogError."""
        wanted = set(diff_ids)
        candidates: list[LayerCommit] = []
        for digest, commit in stock.layers.items():
            known = self._content(repo, stock, digest)
            if known is not None and known[0] in wanted:
                claim = stock.claims.of.get(digest)
                candidates.append(self._holding(digest, commit, *known, claim.role if claim else None))
        candidates.sort(key=lambda held: (held.basis.rank, held.imported))
        found: dict[DiffID, LayerCommit] = {}
        for held in candidates:
            if held.diff_id in found:
                continue
            try:
                repo.metadata(held.commit)
                found[held.diff_id] = held
            except DocumentError as exc:
                repo.warnings.append(f"{self.name}: layer {held.imported} cannot be used: {exc}")
        return found

    def _content(self, repo: OSTreeRepo, stock: Stock, digest: Digest) -> tuple[DiffID, Basis] | None:
        """The DiffID of the commit under a blob's ref, by the strongest way that it is known."""
        if (made := stock.made.get(digest)) is not None:
            return made.diff_id, made.basis
        claim = stock.claims.of.get(digest)
        for pairs, basis in ((self._known, Basis.COMPUTED), (self._attested, Basis.ATTESTED)):
            if (diff_id := pairs(digest)) is not None:
                if str(diff_id) == digest and claim is not None and claim.compression is not Compression.NONE:
                    continue  # of the blob as it is; the commit was made of what it inflates to
                if claim is not None and contradicts(digest, claim.diff_id, diff_id, claim.compression):
                    repo.warnings.append(
                        f"{self.name}: {claim.image} says that {digest} has DiffID {claim.diff_id}; it is"
                        f" {basis.value} to be {diff_id}"
                    )
                return diff_id, basis
        if digest in stock.claims.disputed:
            repo.warnings.append(f"{self.name}: images do not agree on what {digest} is; it is not used")
            return None
        if claim is not None and claim.compression is not Compression.NONE:
            return claim.diff_id, Basis.CLAIMED
        # Nobody says that these bytes were a compressed form of others, so they were the tar itself.
        return DiffID(str(digest)), Basis.COMPUTED

    def _holding(
        self, digest: Digest, commit: str, diff_id: DiffID, basis: Basis, role: Role | None
    ) -> LayerCommit:
        return LayerCommit(
            diff_id=diff_id,
            digest=Digest(str(diff_id)),
            size=0,
            uncompressed_size=None,
            compression=Compression.NONE,
            place=self.name,
            basis=basis,
            imported=digest,
            commit=commit,
            role=role,
        )
