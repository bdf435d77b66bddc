"""The store of podman, buildah and skopeo: a place that reads only.

No lock of theirs is taken and no file of theirs is written. What may change meanwhile is dealt with as it
is met: records are whole (they are replaced by rename), a layer that vanishes or changes is
SourceUnreadable or fails its hash, and comes from elsewhere.

A layer's DiffID was computed by the tool that unpacked it, on this machine: ``attested``. Its files may
have been changed since, or never have reached the disk, so reading it back hashes it like anything else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

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
    Platform,
    choose_platform,
    image_layers,
    parse_config,
    parse_document,
)
from ...image.holding import Basis, Found, Holding, Place
from ...image.media import Compression
from ...image.resolved import ResolvedImage
from ...image.stored_name import StoredName, parse_stored
from ...image.strictjson import printable
from ...record import dataclass
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
    signatures_key,
)

if TYPE_CHECKING:
    from ...image.reference_storage import StorageReference

_Row = TypeVar("_Row")
_SHOWN: Final = 12  # what podman shows of an id
MAX_SIGNATURES: Final = 128  # of one manifest


@dataclass(frozen=True, slots=True)
class StorageImage:
    """An image of the store, every document of it hashed. ``index``: one that lists it, if kept.

    ``documents`` are all its manifests and indexes that the store kept, the image's manifest among them.
    ``asked`` is its name as it was asked for, None for one that was named by its id. ``signatures`` are those
    that the store kept, by the digest of the manifest: nobody has looked into them.
    """

    image_id: str
    names: tuple[str, ...]
    image: ResolvedImage
    documents: tuple[Manifest | Index, ...]
    asked: str | None = None
    signatures: Mapping[Digest, tuple[bytes, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class _Store:
    root: Path
    driver: str


_Image = tuple[_Store, ImageRow]


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
        unusable: dict[DiffID, LayerteeError] = {}
        stores = self._stores(warnings)
        if not stores and not warnings:
            warnings.append(f"{self.name}: there is no store")
        for store in stores:
            for row in self._rows(store, warnings):
                if row.diff_id not in wanted or row.diff_id in found:
                    continue
                try:
                    found[row.diff_id] = self._holding(store, row)
                except SourceUnreadable as exc:
                    unusable.setdefault(row.diff_id, exc)
        refused = {diff_id: exc for diff_id, exc in unusable.items() if diff_id not in found}
        return Found(found, [*warnings, *map(str, refused.values())], refused)

    # --- images ---------------------------------------------------------------

    def resolve(self, name: str, platform: Platform | None = None) -> StorageImage:
        """The image called ``name``, as ``stored_name`` reads it; of a list, the one for ``platform``.

        None is this machine's platform. Raises NotFound, InvalidReference (several images, or no name), and
        for documents SourceUnreadable and as the parsers of ``oci`` do.
        """
        unread: list[str] = []
        rows = self._image_rows(unread)
        named, found = self._named(rows, name)
        if not found:
            listed = printable(", ".join(n for _, row in rows for n in row.names) or "none", 400)
            said = "; ".join([f"it has: {listed}", *unread])
            raise NotFound(f"{self.name} has no image called {name!r:.200}; {said}")
        if len({row.image_id for _, row in found}) > 1:
            raise InvalidReference(f"{self.name}: {name!r:.200} may be any of {len(found)} images")
        image = self._image(rows, found[0], platform or Platform.host(), named.digest)
        return replace(image, asked=named.name)

    def _named(self, rows: list[_Image], text: str) -> tuple[StoredName, list[_Image]]:
        """What ``text`` means here: no image, one, or several. Raises NotFound, InvalidReference."""
        several: list[_Image] = []

        def expand(prefix: str) -> str | None:
            begun = [(store, row) for store, row in rows if row.image_id.startswith(prefix)]
            ids = {row.image_id for _, row in begun}
            several[:] = begun if len(ids) > 1 else []
            if several and "@" in text:  # without it, it may yet be a name
                raise InvalidReference(f"{self.name}: {text!r:.200} may be any of {len(ids)} images")
            return ids.pop() if len(ids) == 1 else None

        named = parse_stored(text.removeprefix("sha256:"), expand)  # which podman writes before an id
        if named.image_id is not None:
            found = [(store, row) for store, row in rows if row.image_id == named.image_id]
        else:
            found = [(store, row) for store, row in rows if named.name in row.names]
            if not found and named.digest is not None:
                found = [(store, row) for store, row in rows if _has_digest(row, named.digest)]
        return named, [one for one in found if _is_of(one[1], named.repository)] or several

    def _image(
        self, rows: list[_Image], found: _Image, platform: Platform, digest: str | None
    ) -> StorageImage:
        """``digest`` asks for one of the image's manifests or lists, where it has several."""
        store, row = found
        documents, last = _documents(store, row)
        chosen = documents.get(digest or "", last)
        lists = [one for one in documents.values() if isinstance(one, Index)]
        if isinstance(chosen, Index) and _lists(chosen, last):
            chosen = last  # what was pulled of the list
        elif isinstance(chosen, Index):
            lists = [chosen]
            wanted = choose_platform(chosen, platform).digest
            store, held, documents = self._of_list(rows, found, wanted)
            row = replace(held, names=row.names)
            chosen = documents[wanted]
        if not isinstance(chosen, Manifest):
            raise DocumentError(f"image {row.image_id[:_SHOWN]} has no manifest of its own")
        with _files_of(store, row) as files:
            config = parse_config(_read(files, str(chosen.config.digest)), chosen.config)
        layers = image_layers(chosen, config)
        index = next((one for one in lists if _lists(one, chosen)), None)
        resolved = ResolvedImage(chosen, config, layers, index)
        kept = _signatures(store, row, last)
        return StorageImage(row.image_id, row.names, resolved, tuple(documents.values()), signatures=kept)

    def _of_list(
        self, rows: list[_Image], found: _Image, digest: Digest
    ) -> tuple[_Store, ImageRow, dict[str, Manifest | Index]]:
        """The image with the manifest ``digest``: the one found, or another one, as podman's lists have it.

        Raises NotFound.
        """
        for store, row in (found, *rows):
            if _has_digest(row, str(digest)):
                documents, _ = _documents(store, row)
                if digest in documents:
                    return store, row, documents
        _, row = found
        shown = row.names[0] if row.names else row.image_id[:_SHOWN]
        raise NotFound(f"{self.name} has the list {shown}, but not its image {digest}: pull that, too")

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

    def _stores(self, warnings: list[str] | None = None) -> list[_Store]:
        """The parts of the store that are there, the machine's own first.

        ``warnings`` is told of those that cannot be looked into, and of those that were named and are gone.
        """
        said: list[str] = []
        found: list[_Store] = []
        for root in self._where.roots:
            before = len(found) + len(said)
            for driver in self._where.drivers:
                directory = root / f"{driver}-layers"
                try:
                    if stat.S_ISDIR(os.stat(directory).st_mode):
                        found.append(_Store(root, driver))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as exc:
                    said.append(f"{self.name}: {directory}: {exc.strerror}")
            if len(found) + len(said) == before and root in self._where.named:
                said.append(f"{self.name}: {root} has no store in it")
        if warnings is not None:
            warnings += said
        return found

    def _rows(self, store: _Store, warnings: list[str]) -> list[LayerRow]:
        return self._parsed(store, "layers", partial(layer_rows, source=self.name), warnings)

    def _image_rows(self, warnings: list[str]) -> list[_Image]:
        return [
            (store, row)
            for store in self._stores(warnings)
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
        directory = store.root / f"{store.driver}-{kind}"
        try:
            with Tree.open(directory) as records:
                raw = records.read(f"{kind}.json".encode(), MAX_RECORDS)
            return list(parse(raw, f"{directory}/{kind}.json"))
        except LayerteeError as exc:
            warnings.append(f"{self.name}: {exc}")
            return []

    def _holding(self, store: _Store, row: LayerRow) -> Holding:
        """Raises SourceUnreadable."""
        if row.problem is not None:
            raise SourceUnreadable(
                f"{self.name}: {store.driver} layer {row.layer_id[:_SHOWN]} cannot be used: {row.problem}"
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


def _files_of(store: _Store, row: ImageRow) -> Tree:
    """What the store keeps of an image beside its layers. Raises SourceUnreadable."""
    with Tree.open(store.root / f"{store.driver}-images") as images:
        return images.sub(row.image_id)


def _documents(store: _Store, row: ImageRow) -> tuple[dict[str, Manifest | Index], Manifest | Index]:
    """All manifests and indexes of an image by their digests, and the one that was written last."""
    documents: dict[str, Manifest | Index] = {}
    with _files_of(store, row) as files:
        last = _document(files, MANIFEST_KEY)
        documents[last.digest] = last
        for key in row.manifest_keys:
            with suppress(LayerteeError):  # of other forms or kinds of the image, or damaged
                document = _document(files, key)
                documents.setdefault(document.digest, document)
    return documents, last


def _signatures(store: _Store, row: ImageRow, last: Manifest | Index) -> dict[Digest, tuple[bytes, ...]]:
    """What the store kept of signatures, by manifest. Those that make no sense are none."""
    found: dict[Digest, tuple[bytes, ...]] = {}
    for digest, sizes in row.signature_sizes.items():
        if len(sizes) > MAX_SIGNATURES or sum(sizes) > MAX_DOCUMENT:
            continue
        with suppress(LayerteeError, OSError), _files_of(store, row) as files:
            key = signatures_key(digest)
            whole = files.read(file_name(key).encode(), MAX_DOCUMENT)
            if len(whole) == sum(sizes):
                ends = list(accumulate(sizes))
                blobs = tuple(whole[end - size : end] for end, size in zip(ends, sizes, strict=True))
                of = Digest.parse(digest) if digest else last.digest
                found[of] = (*found.get(of, ()), *blobs)
    return found


def _document(files: Tree, key: str) -> Manifest | Index:
    """The manifest or index under ``key``, which names its digest unless it is MANIFEST_KEY."""
    raw = _read(files, key)
    if key != MANIFEST_KEY:
        Digest.parse(key.removeprefix(MANIFEST_PREFIX), "the key of a manifest").check(raw, key)
    return parse_document(raw, None)


def _read(files: Tree, key: str) -> bytes:
    return files.read(file_name(key).encode(), MAX_DOCUMENT)


def _lists(index: Index, document: Manifest | Index) -> bool:
    return any(entry.digest == document.digest for entry in index.manifests)


def _has_digest(row: ImageRow, digest: str) -> bool:
    """Whether one of the image's manifests has that digest."""
    return row.digest == digest or f"{MANIFEST_PREFIX}{digest}" in row.keys


def _is_of(row: ImageRow, repository: str | None) -> bool:
    """Whether the image has a name in ``repository``; None is any, and none."""
    return repository is None or any(_repository(name) == repository for name in row.names)


def _repository(name: str) -> str:
    """A name from the records, without tag and digest."""
    name = name.partition("@")[0]
    head, _, tag = name.rpartition(":")
    return name if "/" in tag else head or name
