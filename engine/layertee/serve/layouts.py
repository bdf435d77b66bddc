"""OCI image layouts on offer: directories, and archives that are one tar file.

What an entry of ``index.json`` is called, names.py says. An entry without a name is ``latest``, unless it
says of itself that it belongs to another (it has a ``subject``): then it is one of that one's referrers.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import InvalidReference, LayerteeError, NotFound
from ..image.document import MAX_DOCUMENT, Descriptor, DiffID, Digest
from ..places.oci_archive import Archive
from ..record import dataclass
from ..store import beside
from ..store.layout import Layout
from ..store.layout_index import INDEX, REF_NAME
from ..store.layout_reader import blob_name, is_document
from .facts import facts_of
from .names import OfferedName, is_repository, offered_ref
from .offer import Sendable
from .shelf import EMPTY, Complaints, Entry, Shelf, hashes_to, identity_of, stamp_of

if TYPE_CHECKING:
    from ..store.layout_reader import LayoutReader

MAX_ENTRIES: Final = 20_000  # of one layout; an index.json of 4 MiB has about as many
MAX_READ: Final = 64 << 20  # bytes of documents that say how entries are called
_SUFFIX: Final = re.compile(r"(?:\.(?:tar|tgz|oci|ociarchive|gz|xz|zst|bz2))+$")
_UNNAMED: Final = "image"


@dataclass(frozen=True, slots=True)
class _State:
    layout: LayoutReader | None
    entries: tuple[Entry, ...]


class LayoutShelf(Shelf):
    """The layout that ``open_it`` opens, whose entries are in the file ``index``."""

    def __init__(
        self, name: str, index: Path, open_it: Callable[[], LayoutReader], *, repository: str | None
    ) -> None:
        """``repository`` is what those entries belong to that have a tag only; None: to none."""
        self._name = name
        self._index = index
        self._open = open_it
        self._repository = repository
        self._mutex = threading.Lock()
        self._seen: tuple[Hashable, _State] | None = None
        self.complaints = Complaints(name)

    @property
    def name(self) -> str:
        return self._name

    def generation(self) -> Hashable:
        return stamp_of(self._index)

    def holdings(self) -> Hashable:
        return identity_of(self._index), identity_of(self._index.parent / "blobs" / "sha256")

    def entries(self) -> Sequence[Entry]:
        return self._now().entries

    def size(self, digest: Digest) -> int | None:
        layout = self._now().layout
        return None if layout is None else self._size(layout, digest)

    def document(self, digest: Digest) -> bytes | None:
        layout = self._now().layout
        size = None if layout is None else self._size(layout, digest)
        if layout is None or size is None or size > MAX_DOCUMENT:
            return None
        try:
            raw = layout.read(blob_name(digest), size)
        except LayerteeError as exc:
            self.complaints.say(str(exc))
            return None
        if raw is not None and not hashes_to(raw, digest):
            self.complaints.say(f"{layout.shown(blob_name(digest))} is not what its name says")
            return None
        return raw

    def blob(self, digest: Digest) -> Sendable | None:
        layout = self._now().layout
        size = None if layout is None else self._size(layout, digest)
        if layout is None or size is None:
            return None
        try:
            content = layout.content(digest)
        except LayerteeError as exc:
            self.complaints.say(str(exc))
            return None
        return Sendable(digest, size, content, self._name, self.is_checked(digest, size))

    def is_checked(self, digest: Digest, size: int) -> bool:
        """Whether this machine's own store vouches for that file."""
        return False

    def attested(self, digest: Digest) -> DiffID | None:
        return None

    def close(self) -> None:
        with self._mutex:
            self._seen = None

    # --- inside ---------------------------------------------------------------

    def _size(self, layout: LayoutReader, digest: Digest) -> int | None:
        if digest.algorithm != "sha256":
            return None
        try:
            found = layout.blob_size(digest)
        except LayerteeError as exc:
            self.complaints.say(str(exc))
            return None
        # An empty file under the name of something is what tools leave when the power fails.
        return None if found == 0 and digest != EMPTY else found

    def _now(self) -> _State:
        """The layout as it is now; nothing where there is none that can be read."""
        generation = self.generation()
        with self._mutex:
            if self._seen is not None and self._seen[0] == generation is not None:
                return self._seen[1]
            try:
                layout = self._open()
                state = _State(layout, self._read(layout))
            except LayerteeError as exc:
                again = (
                    "; looked for again whenever something is asked for" if isinstance(exc, NotFound) else ""
                )
                self.complaints.say(f"{exc}{again}")
                state = _State(None, ())
            self._seen = generation, state
            return state

    def _read(self, layout: LayoutReader) -> tuple[Entry, ...]:
        """Raises StoreCorrupt, LocalError, SourceUnreadable."""
        index = layout.index()
        for one in index.broken:
            self.complaints.say(f"{index.where}: {one.problem}")
        found: list[Entry] = []
        documents = _FewDocuments(layout)
        for descriptor in filter(is_document, index.entries):
            if len(found) >= MAX_ENTRIES or documents.is_enough():
                self.complaints.say(f"{index.where} lists more than is looked at; the rest is not offered")
                break
            found += self._entries_of(documents, descriptor)
        return tuple(found)

    def _entries_of(self, documents: _FewDocuments, root: Descriptor) -> list[Entry]:
        """An entry of the index, and those of what belongs to it and has a tag."""
        name = self._name_of(documents, root)
        try:
            listed, digests = documents.beside(root)
        except LayerteeError as exc:
            self.complaints.say(f"what belongs to {name or root.digest} is not offered: {exc}")
            return [Entry(name, root)]
        found = [Entry(name, root, digests)]
        for descriptor in listed:
            tag = descriptor.annotations.get(REF_NAME)
            if tag is not None and name is not None:
                try:
                    found.append(Entry(name.tagged(tag), descriptor))
                except InvalidReference as exc:
                    self.complaints.say(f"what belongs to {name} is not offered by name: {exc}")
        return found

    def _name_of(self, documents: _FewDocuments, root: Descriptor) -> OfferedName | None:
        ref = root.annotations.get(REF_NAME)
        if ref is None and (self._repository is None or documents.has_subject(root)):
            return None
        try:
            return offered_ref(ref, self._repository)
        except InvalidReference as exc:
            self.complaints.say(f"an image is not offered by name: {exc}")
            return None


class _FewDocuments:
    """Documents of ``layout`` that say how its entries are called: each read once, and not too many."""

    def __init__(self, layout: LayoutReader) -> None:
        self._layout = layout
        self._left = MAX_READ
        self._subjects: dict[Digest, bool] = {}
        self._beside: dict[Digest, tuple[tuple[Descriptor, ...], tuple[Digest, ...]]] = {}

    def is_enough(self) -> bool:
        return self._left < 0

    def has_subject(self, root: Descriptor) -> bool:
        if root.digest not in self._subjects:
            self._left -= min(root.size, MAX_DOCUMENT)
            try:
                facts = facts_of(self._layout.read_blob(root), root.digest)
                self._subjects[root.digest] = facts.subject is not None
            except LayerteeError:
                self._subjects[root.digest] = False
        return self._subjects[root.digest]

    def beside(self, root: Descriptor) -> tuple[tuple[Descriptor, ...], tuple[Digest, ...]]:
        """What belongs to an entry, and the digests of that. Raises as ``beside.listed``."""
        index = beside.root(self._layout, root)
        if index is None:
            return (), ()
        if index.digest not in self._beside:
            self._left -= min(index.size, MAX_DOCUMENT)
            listed = beside.listed(self._layout, root)
            self._beside[index.digest] = listed, tuple(one.digest for one in listed)
        return self._beside[index.digest]


class ArchiveShelf(LayoutShelf):
    """The archive in the file ``path``: its entries may change with any byte of it."""

    def __init__(self, path: Path) -> None:
        repository = repository_of(_SUFFIX.sub("", path.name))
        super().__init__(f"oci-archive:{path}", path, lambda: Archive.open(path), repository=repository)


def directory_shelf(path: Path) -> LayoutShelf:
    """The layout in the directory ``path``."""
    repository = repository_of(os.path.basename(os.path.realpath(path)))
    return LayoutShelf(f"oci:{path}", path / INDEX, lambda: Layout.open(path), repository=repository)


def repository_of(name: str) -> str:
    """What images are called of which only a tag is known, in a place whose own name is ``name``."""
    lower = name.lower()
    return lower if is_repository(lower) else _UNNAMED
