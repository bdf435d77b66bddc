"""Podman's store on offer: images by their names, layers as tars under their DiffIDs.

No lock of podman's is taken and no file of its is written. Its records are replaced by rename, so each is
whole; they may be of different moments, and what they name may be gone. The manifests that it keeps of images
that were pulled are those of the registries, whose compressed blobs it does not keep: which form of an image
is handed out, choice.py says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ..config.storage import find_roots
from ..disk.blob_file import FileContent
from ..disk.tree import Tree
from ..errors import DocumentError, InvalidReference, LayerteeError
from ..image.document import MAX_DOCUMENT, Descriptor, DiffID, Digest
from ..places.podman.layer import LayerFiles
from ..places.podman.records import (
    MANIFEST_KEY,
    MANIFEST_PREFIX,
    MAX_RECORDS,
    ImageRow,
    LayerRow,
    file_name,
    image_rows,
    layer_rows,
)
from ..record import dataclass
from .names import offered_name
from .offer import Sendable
from .shelf import Complaints, Entry, Shelf, hashes_to, identity_of, stamp_of

if TYPE_CHECKING:
    from ..image.reference_storage import StorageReference
    from .names import OfferedName

_T = TypeVar("_T")
_SHOWN: Final = 12  # what podman shows of an id


class StorageShelf(Shelf):
    """The store that ``reference`` means, with those that its configuration adds.

    Raises InvalidReference and LocalError where the configuration cannot be used.
    """

    def __init__(self, reference: StorageReference) -> None:
        where = find_roots(reference)
        self._name = reference.store
        self.complaints = Complaints(self._name)
        self._parts = [
            _Part(root, driver, self._name, self.complaints)
            for root in where.roots
            for driver in where.drivers
        ]

    @property
    def name(self) -> str:
        return self._name

    def generation(self) -> Hashable:
        return tuple(part.images.stamp() for part in self._parts)

    def holdings(self) -> Hashable:
        return tuple(part.layers.identity() for part in self._parts)

    def entries(self) -> Sequence[Entry]:
        found: list[Entry] = []
        names: set[OfferedName] = set()
        for part in self._parts:
            listed = part.images.now().entries
            # What the machine's own store calls so, hides what an additional one does.
            found += [one for one in listed if one.name is None or one.name not in names]
            names |= {one.name for one in listed if one.name is not None}
        if not any(part.is_there() for part in self._parts):
            self.complaints.say("there is no store")
        return found

    def size(self, digest: Digest) -> int | None:
        blob = self.blob(digest)
        return None if blob is None else blob.size

    def document(self, digest: Digest) -> bytes | None:
        return next((raw for part in self._parts if (raw := part.document(digest)) is not None), None)

    def blob(self, digest: Digest) -> Sendable | None:
        return next((blob for part in self._parts if (blob := part.blob(digest)) is not None), None)

    def attested(self, digest: Digest) -> DiffID | None:
        said = {said for part in self._parts if (said := part.layers.now().blobs.get(digest)) is not None}
        return said.pop() if len(said) == 1 else None

    def close(self) -> None:
        for part in self._parts:
            part.images.forget()
            part.layers.forget()


@dataclass(frozen=True, slots=True)
class _Images:
    """What images.json says. ``documents``: the images, and the keys, under which each is kept."""

    entries: tuple[Entry, ...]
    documents: dict[Digest, list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class _Layers:
    """What layers.json says of layers that are whole. ``blobs``: what each was seen to inflate to, None for
    one of which two records say different things.
    """

    by_diff_id: dict[str, list[tuple[str, int]]]
    blobs: dict[Digest, DiffID | None]


class _Part:
    """What ``driver`` has in ``root``."""

    def __init__(self, root: Path, driver: str, name: str, complaints: Complaints) -> None:
        self._root = root
        self._driver = driver
        self._name = name
        self._complaints = complaints
        self.images = _Records(root / f"{driver}-images", "images.json", self._images_of, complaints)
        self.layers = _Records(root / f"{driver}-layers", "layers.json", self._layers_of, complaints)

    def is_there(self) -> bool:
        return os.path.isdir(self.layers.directory)

    def document(self, digest: Digest) -> bytes | None:
        for image_id, key in self.images.now().documents.get(digest, ()):
            try:
                with self._files_of(image_id) as files:
                    raw = files.read(file_name(key).encode(), MAX_DOCUMENT)
            except LayerteeError as exc:
                self._complaints.say(str(exc))
                continue
            if hashes_to(raw, digest):
                return raw
            self._complaints.say(f"image {image_id[:_SHOWN]}: {key} is not what its name says")
        return None

    def blob(self, digest: Digest) -> Sendable | None:
        for layer_id, size in self.layers.now().by_diff_id.get(digest, ()):
            layer = LayerFiles(self._root, self._driver, layer_id, size)
            try:
                layer.check()
            except LayerteeError as exc:
                self._complaints.say(str(exc))
                continue
            return Sendable(digest, size, layer, self._name)
        for image_id, key in self.images.now().documents.get(digest, ()):
            try:
                with self._files_of(image_id) as files:
                    size = files.size(file_name(key).encode())
            except LayerteeError as exc:
                self._complaints.say(str(exc))
                continue
            path = self.images.directory / image_id / file_name(key)
            return Sendable(digest, size, FileContent(path), self._name)
        return None

    def _files_of(self, image_id: str) -> Tree:
        """Raises SourceUnreadable."""
        with Tree.open(self.images.directory) as images:
            return images.sub(image_id)

    # --- records ----------------------------------------------------------------

    def _images_of(self, raw: bytes | None, where: str) -> _Images:
        """Raises DocumentError."""
        entries: list[Entry] = []
        documents: dict[Digest, list[tuple[str, str]]] = {}
        for row in image_rows(raw, where) if raw is not None else ():
            own = self._own_of(row)
            kept = list(_kept(row, own))
            for digest, key in kept:
                documents.setdefault(digest, []).append((row.image_id, key))
            manifests = [d for d, key in kept if key == MANIFEST_KEY or key.startswith(MANIFEST_PREFIX)]
            if own is None and not manifests:
                self._complaints.say(f"image {row.image_id[:_SHOWN]} has no manifest that can be told apart")
                continue
            root = Descriptor("", own or manifests[0], 0)
            beside = tuple(dict.fromkeys(digest for digest in manifests if digest != root.digest))
            names = [self._name_of(name) for name in row.names]
            entries += [Entry(name, root, beside) for name in names or [None]]
        return _Images(tuple(entries), documents)

    def _own_of(self, row: ImageRow) -> Digest | None:
        """Of the manifest or list that counts. Podman changes its lists; the record keeps the old digest."""
        if MANIFEST_KEY not in row.keys:
            return None
        try:
            with self._files_of(row.image_id) as files:
                return Digest.of(files.read(MANIFEST_KEY.encode(), MAX_DOCUMENT))
        except LayerteeError as exc:
            self._complaints.say(str(exc))
            return _digest(row.digest)

    def _name_of(self, name: str) -> OfferedName | None:
        try:
            return offered_name(name)
        except InvalidReference as exc:
            self._complaints.say(f"an image is not offered by name: {exc}")
            return None

    def _layers_of(self, raw: bytes | None, where: str) -> _Layers:
        """Raises DocumentError."""
        by_diff_id: dict[str, list[tuple[str, int]]] = {}
        blobs: dict[Digest, DiffID | None] = {}
        for row in layer_rows(raw, where, self._name) if raw is not None else ():
            if row.problem is None:
                by_diff_id.setdefault(str(row.diff_id), []).append((row.layer_id, row.size))
                _note(row, blobs)
        return _Layers(by_diff_id, blobs)


class _Records(Generic[_T]):
    """What the file ``name`` in ``directory`` says, parsed once for as long as it is the same file.

    ``parse`` makes it of the file's bytes, and of None where there are none that can be read.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        parse: Callable[[bytes | None, str], _T],
        complaints: Complaints,
    ) -> None:
        self.directory = directory
        self._name = name
        self._parse = parse
        self._complaints = complaints
        self._mutex = threading.Lock()
        self._seen: tuple[Hashable, _T] | None = None

    def stamp(self) -> Hashable:
        return stamp_of(self.directory / self._name)

    def identity(self) -> Hashable:
        return identity_of(self.directory / self._name)

    def now(self) -> _T:
        stamp = self.stamp()
        with self._mutex:
            if self._seen is None or self._seen[0] != stamp:
                self._seen = stamp, self._read(is_there=stamp is not None)
            return self._seen[1]

    def forget(self) -> None:
        with self._mutex:
            self._seen = None

    def _read(self, *, is_there: bool) -> _T:
        where = f"{self.directory}/{self._name}"
        raw = None
        if is_there:
            try:
                with Tree.open(self.directory) as records:
                    raw = records.read(self._name.encode(), MAX_RECORDS)
                return self._parse(raw, where)
            except LayerteeError as exc:
                self._complaints.say(str(exc))
        return self._parse(None, where)


def _kept(row: ImageRow, own: Digest | None) -> Iterator[tuple[Digest, str]]:
    """The documents of an image that are named by their digests, each with its key."""
    for key in row.keys:
        if key == MANIFEST_KEY:
            if own is not None:
                yield own, key
        elif (digest := _digest(key.removeprefix(MANIFEST_PREFIX))) is not None:
            yield digest, key


def _digest(text: str) -> Digest | None:
    try:
        digest = Digest.parse(text)
    except DocumentError:
        return None
    return digest if digest.algorithm == "sha256" else None


def _note(row: LayerRow, blobs: dict[Digest, DiffID | None]) -> None:
    if row.blob is not None:
        digest = row.blob.digest
        said = blobs.get(digest, row.diff_id)
        blobs[digest] = row.diff_id if said == row.diff_id else None
