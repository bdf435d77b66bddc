"""The store of podman, buildah and skopeo: a place that reads only.

No lock of theirs is taken and no file of theirs is written. What may change meanwhile is dealt with as it
is met: records are whole (they are replaced by rename), a layer that vanishes or changes is
SourceUnreadable or fails its hash, and comes from elsewhere.

A layer's DiffID was computed by the tool that unpacked it, on this machine: ``attested``. Its files may
have been changed since, or never have reached the disk, so reading it back hashes it like anything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ...config.storage import StorageRoots, find_roots
from ...disk.tree import Tree
from ...errors import DocumentError, InvalidReference, LayerteeError, NotFound, SourceUnreadable
from ...image.blobname import BlobName, KnownNames
from ...image.document import (
    MAX_DOCUMENT,
    DiffID,
    Digest,
    Index,
    Manifest,
    image_layers,
    parse_config,
    parse_document,
)
from ...image.holding import Basis, Found, Holding, Place
from ...image.media import Compression
from ...image.reference_storage import StorageReference
from ...image.resolved import ResolvedImage
from ...image.strictjson import printable
from .layer import LayerFiles
from .records import (
    MANIFEST_KEY,
    MANIFEST_PREFIX,
    MAX_RECORDS,
    ImageRow,
    LayerRow,
    file_name,
    image_rows,
    layer_rows,
)

_Row = TypeVar("_Row")
_MIN_ID: Final = 12  # what podman shows of an image id; shorter ones are names


@dataclass(frozen=True, slots=True)
class StorageImage:
    """An image of the store, every document of it hashed. ``index_digest``: an index that lists it, if kept.

    ``documents`` are all its manifests and indexes that the store kept, the image's manifest among them.
    """

    image_id: str
    names: tuple[str, ...]
    image: ResolvedImage
    documents: tuple[Manifest | Index, ...]


@dataclass(frozen=True, slots=True)
class _Store:
    root: Path
    driver: str


class ContainersStoragePlace(Place):
    """The store in ``where``, called ``name`` (a reference's ``store``). Every method blocks."""

    def __init__(self, where: StorageRoots, *, name: str) -> None:
        self._where = where
        self._name = name

    @classmethod
    def of(cls, reference: StorageReference) -> ContainersStoragePlace:
        """The store that ``reference`` means on this machine; raises as ``find_roots`` does."""
        return cls(find_roots(reference), name=reference.store)

    @property
    def name(self) -> str:
        return self._name

    def exists(self) -> bool:
        """Whether there is any store to look into."""
        return bool(self._stores())

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Layers whose tree and tar-split are there now. Several layers may have one content.

        A layer that is known and cannot be read back is a warning.
        """
        warnings: list[str] = []
        wanted = set(diff_ids)
        found: dict[DiffID, Holding] = {}
        unusable: dict[DiffID, str] = {}
        stores = self._stores()
        if not stores:
            warnings.append(f"{self.name}: there is no store")
        for store in stores:
            for row in self._rows(store, warnings):
                if row.diff_id not in wanted or row.diff_id in found:
                    continue
                try:
                    found[row.diff_id] = self._holding(store, row)
                except SourceUnreadable as exc:
                    unusable.setdefault(row.diff_id, str(exc))
        warnings += [why for diff_id, why in unusable.items() if diff_id not in found]
        return Found(found, warnings)

    # --- images ---------------------------------------------------------------

    def resolve(self, name: str) -> StorageImage:
        """The image called ``name``: a name with or without its tag, ``name@digest``, an id or 12 or more of
        its first digits.

        Raises NotFound, InvalidReference (several images), and for documents SourceUnreadable and as the
        parsers of ``oci`` do.
        """
        unread: list[str] = []
        rows = self._image_rows(unread)
        names = _spellings(name)
        repository, _, digest = name.partition("@")
        found = [(store, row) for store, row in rows if names & set(row.names)]
        found = found or [(store, row) for store, row in rows if _has_digest(row, repository, digest)]
        found = found or [(store, row) for store, row in rows if _has_id(row, name)]
        if not found:
            listed = printable(", ".join(n for _, row in rows for n in row.names) or "none", 400)
            said = "; ".join([f"it has: {listed}", *unread])
            raise NotFound(f"{self.name} has no image called {name!r:.200}; {said}")
        if len({row.image_id for _, row in found}) > 1:
            raise InvalidReference(f"{self.name}: {name!r:.200} may be any of {len(found)} images")
        store, row = found[0]
        return self._image(store, row, digest)

    def _image(self, store: _Store, row: ImageRow, digest: str = "") -> StorageImage:
        """``digest`` asks for one of the image's manifests, where it has several."""
        documents: dict[str, Manifest | Index] = {}
        with Tree.open(store.root) as root, root.sub(f"{store.driver}-images/{row.image_id}") as files:
            last = _document(files, MANIFEST_KEY)
            documents[last.digest] = last
            for key in row.manifest_keys:
                with suppress(LayerteeError):  # of other forms or kinds of the image, or damaged
                    document = _document(files, key)
                    documents.setdefault(document.digest, document)
            chosen = documents.get(digest, last)
            if isinstance(chosen, Index):
                chosen = last
            if not isinstance(chosen, Manifest):
                raise DocumentError(f"image {row.image_id[:_MIN_ID]} has no manifest of its own")
            config = parse_config(_read(files, str(chosen.config.digest)), chosen.config)
        layers = image_layers(chosen, config)
        indexes = [found for found in documents.values() if isinstance(found, Index)]
        index = next(
            (one.digest for one in indexes if any(m.digest == chosen.digest for m in one.manifests)), None
        )
        return StorageImage(
            row.image_id,
            row.names,
            ResolvedImage(chosen, config, layers, index),
            tuple(documents.values()),
        )

    def blob_names(self, diff_ids: Collection[DiffID]) -> KnownNames:
        """What layers of the store were made from, as far as that was a compressed blob."""
        warnings: list[str] = []
        names: dict[DiffID, tuple[BlobName, ...]] = {}
        for store in self._stores():
            for row in self._rows(store, warnings):
                if row.diff_id in diff_ids and row.blob is not None and row.problem is None:
                    others = names.get(row.diff_id, ())
                    names[row.diff_id] = others if row.blob in others else (*others, row.blob)
        return KnownNames(names, tuple(warnings))

    # --- records --------------------------------------------------------------

    def _stores(self) -> list[_Store]:
        """The parts of the store that are there, the machine's own first."""
        return [
            _Store(root, driver)
            for root in self._where.roots
            for driver in self._where.drivers
            if os.path.isdir(root / f"{driver}-layers")
        ]

    def _rows(self, store: _Store, warnings: list[str]) -> list[LayerRow]:
        return self._parsed(store, "layers", partial(layer_rows, source=self.name), warnings)

    def _image_rows(self, warnings: list[str]) -> list[tuple[_Store, ImageRow]]:
        return [
            (store, row)
            for store in self._stores()
            for row in self._parsed(store, "images", image_rows, warnings)
        ]

    def _parsed(
        self,
        store: _Store,
        kind: str,
        parse: Callable[[bytes, str], Iterator[_Row]],
        warnings: list[str],
    ) -> list[_Row]:
        """What ``<driver>-layers/layers.json`` or its like says; nothing and a warning if it is not whole."""
        name = f"{store.driver}-{kind}/{kind}.json"
        try:
            with Tree.open(store.root) as root:
                raw = root.read(name.encode(), MAX_RECORDS)
            return list(parse(raw, f"{store.root}/{name}"))
        except LayerteeError as exc:
            warnings.append(f"{self.name}: {exc}")
            return []

    def _holding(self, store: _Store, row: LayerRow) -> Holding:
        """Raises SourceUnreadable."""
        if row.problem is not None:
            raise SourceUnreadable(
                f"{self.name}: {store.driver} layer {row.layer_id[:_MIN_ID]} cannot be used: {row.problem}"
            )
        files = LayerFiles(store.root, store.driver, row.layer_id, row.size)
        files.check()
        return Holding(
            diff_id=row.diff_id,
            digest=Digest(str(row.diff_id)),
            size=row.size,
            uncompressed_size=row.size,
            compression=Compression.NONE,
            place=self.name,
            basis=Basis.ATTESTED,
            content=files,
        )


def _document(files: Tree, key: str) -> Manifest | Index:
    """The manifest or index under ``key``, which names its digest unless it is MANIFEST_KEY."""
    raw = _read(files, key)
    if key != MANIFEST_KEY:
        Digest.parse(key.removeprefix(MANIFEST_PREFIX), "the key of a manifest").check(raw, key)
    return parse_document(raw, None)


def _read(files: Tree, key: str) -> bytes:
    return files.read(file_name(key).encode(), MAX_DOCUMENT)


def _spellings(name: str) -> set[str]:
    """``name`` as the store has it, which always says the tag."""
    tagged = ":" in name.rpartition("/")[2] or "@" in name
    return {name} if tagged else {name, f"{name}:latest"}


def _has_digest(row: ImageRow, name: str, digest: str) -> bool:
    """Whether the image is in the repository ``name``, with a manifest of that digest."""
    named = digest and any(known.rpartition(":")[0] == name for known in row.names)
    return bool(named) and (row.digest == digest or f"{MANIFEST_PREFIX}{digest}" in row.keys)


def _has_id(row: ImageRow, name: str) -> bool:
    text = name.removeprefix("@").removeprefix("sha256:")
    return len(text) >= _MIN_ID and row.image_id.startswith(text)
