"""Another OCI image layout on this machine: a USB stick, a build's output, a mirror.

What its images say about their layers is a claim. It becomes ``computed`` where this machine has
inflated that very blob before (``attested`` where another tool of it has), and where the blob is named by
the DiffID itself, so that hashing it decides. Either way nothing here has been hashed *now*, except the
documents: whoever reads a holding back does so through the tee, which does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import LayerteeError
from ..image.document import Descriptor, DiffID, Digest, Index, Layer
from ..image.holding import Basis, Found, Holding, Place
from ..image.media import Compression
from ..image.pairs import contradicts
from ..record import dataclass
from ..store.layout import Layout
from ..store.layout_reader import INDEX_DEPTH, LayoutReader, is_document

MAX_DOCUMENTS = 2000  # manifests and indexes looked at in one layout

_CHEAPEST_TO_READ = (Compression.NONE, Compression.ZSTD, Compression.GZIP)


@dataclass(frozen=True, slots=True)
class OwnBlobs:
    """The blobs of an image in the layout that the image is in: several may have one content."""

    holdings: tuple[tuple[DiffID, Holding], ...]
    warnings: tuple[str, ...]
    refused: Mapping[DiffID, LayerteeError]


class OCILayoutPlace(Place):
    """The layout in ``path``.

    ``known`` answers what a blob was computed to inflate to (``Catalog.diff_id``), ``attested`` what
    another tool of this machine computed. ``prefer``: the blob an image names, where several have the
    content.
    """

    def __init__(
        self,
        path: Path,
        *,
        known: Callable[[Digest], DiffID | None],
        attested: Callable[[Digest], DiffID | None] = lambda _: None,
        prefer: Mapping[DiffID, Digest] | None = None,
    ) -> None:
        self._path = path
        self._known = known
        self._attested = attested
        self._prefer = prefer or {}

    @property
    def name(self) -> str:
        return f"oci:{self._path}"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Layers of all images for all platforms, and tars stored under their DiffID.

        Documents that are broken or of another kind are skipped, with a warning.
        """
        warnings: list[str] = []
        wanted = set(diff_ids)
        found: dict[DiffID, Holding] = {}
        try:
            layout = self._open()
            for diff_id in wanted:
                self._offer(found, self._tar(layout, diff_id))
            for layer in self._layers(layout, warnings):
                if layer.diff_id in wanted:
                    self._offer(found, self._blob(layout, layer, warnings))
        except LayerteeError as exc:
            warnings.append(str(exc))
        return Found(found, warnings)

    def blobs_of(self, layers: Sequence[Layer]) -> OwnBlobs:
        """The very blobs of ``layers``, those that can be read and have their size.

        Why another one cannot be used is a warning, as is what is wrong with the layout.
        """
        warnings: list[str] = []
        found: list[tuple[DiffID, Holding]] = []
        refused: dict[DiffID, LayerteeError] = {}
        try:
            layout = self._open()
            for layer in layers:
                try:
                    layout.check_blob(layer.descriptor)
                except LayerteeError as exc:
                    refused[layer.diff_id] = exc
                    warnings.append(str(exc))
                    continue
                if (holding := self._blob(layout, layer, warnings)) is not None:
                    found.append((layer.diff_id, holding))
        except LayerteeError as exc:
            warnings.append(str(exc))
        return OwnBlobs(tuple(found), tuple(warnings), refused)

    def _open(self) -> LayoutReader:
        return Layout.open(self._path)

    def _layers(self, layout: LayoutReader, warnings: list[str]) -> Iterator[Layer]:
        todo: list[tuple[Descriptor, int]] = [(entry, 0) for entry in reversed(layout.entries())]
        seen: set[Digest] = set()
        while todo:
            entry, depth = todo.pop()
            if entry.digest in seen:
                continue
            if len(seen) == MAX_DOCUMENTS:
                warnings.append(
                    f"{self.name}: more than {MAX_DOCUMENTS} manifests; the rest is not looked at"
                )
                return
            seen.add(entry.digest)
            try:
                yield from self._layers_of(layout, entry, depth, todo, warnings)
            except LayerteeError as exc:
                warnings.append(f"{self.name}: skipping {entry.digest}: {exc}")

    def _layers_of(
        self,
        layout: LayoutReader,
        entry: Descriptor,
        depth: int,
        todo: list[tuple[Descriptor, int]],
        warnings: list[str],
    ) -> Iterator[Layer]:
        """The layers of one entry, or its children onto ``todo``; children that are not here are no fault."""
        if not is_document(entry) or (depth and layout.blob_size(entry.digest) is None):
            return
        document = layout.document(entry)
        if not isinstance(document, Index):
            yield from layout.image(document).layers
        elif depth < INDEX_DEPTH:
            todo.extend((child, depth + 1) for child in reversed(document.manifests))
        else:
            warnings.append(f"{self.name}: skipping {entry.digest}: indexes are nested too deep")

    def _tar(self, layout: LayoutReader, diff_id: DiffID) -> Holding | None:
        digest = Digest(str(diff_id))
        size = layout.blob_size(digest)
        if size is None:
            return None
        return self._holding(layout, diff_id, digest, size, Compression.NONE, Basis.COMPUTED)

    def _blob(self, layout: LayoutReader, layer: Layer, warnings: list[str]) -> Holding | None:
        if layout.blob_size(layer.digest) != layer.size:
            return None
        if str(layer.digest) == layer.diff_id:
            return self._tar(layout, layer.diff_id)
        computed = self._known(layer.digest)
        if contradicts(layer.digest, layer.diff_id, computed, layer.compression):
            warnings.append(
                f"{self.name}: an image says that {layer.digest} has DiffID {layer.diff_id}; it was computed"
                f" to be {computed}"
            )
            return None
        basis = Basis.COMPUTED
        if computed != layer.diff_id:
            is_attested = self._attested(layer.digest) == layer.diff_id
            basis = Basis.ATTESTED if is_attested else Basis.CLAIMED
        return self._holding(layout, layer.diff_id, layer.digest, layer.size, layer.compression, basis)

    def _holding(
        self,
        layout: LayoutReader,
        diff_id: DiffID,
        digest: Digest,
        size: int,
        compression: Compression,
        basis: Basis,
    ) -> Holding:
        return Holding(
            diff_id=diff_id,
            digest=digest,
            size=size,
            uncompressed_size=size if compression is Compression.NONE else None,
            compression=compression,
            place=self.name,
            basis=basis,
            content=layout.content(digest),
        )

    def _offer(self, found: dict[DiffID, Holding], new: Holding | None) -> None:
        if new is None:
            return
        old = found.get(new.diff_id)
        if old is None or self._rank(new) < self._rank(old):
            found[new.diff_id] = new

    def _rank(self, holding: Holding) -> tuple[bool, bool, int]:
        """Smaller is better: known rather than claimed, the blob asked for, then the least to decode."""
        return (
            holding.basis is Basis.CLAIMED,
            holding.digest != self._prefer.get(holding.diff_id),
            _CHEAPEST_TO_READ.index(holding.compression),
        )
