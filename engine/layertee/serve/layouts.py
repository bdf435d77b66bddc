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

from ..errors import InvalidReference, LayerteeError
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

MAX_ENTRIES: Final = 10_000  # of one index.json, whose 4 MiB have room for more
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
                self.complaints.say(str(exc))
                state = _State(None, ())
            self._seen = generation, state
            return state

    def _read(self, layout: LayoutReader) -> tuple[Entry, ...]:
        """Raises StoreCorrupt, LocalError, SourceUnreadable."""
        index = layout.index()
        for one in index.broken:
            self.complaints.say(f"{index.where}: {one.problem}")
        if len(index.entries) > MAX_ENTRIES:
            self.complaints.say(f"{index.where}: of more than {MAX_ENTRIES} entries, the rest is not offered")
        found: list[Entry] = []
        for descriptor in index.entries[:MAX_ENTRIES]:
            if is_document(descriptor):
                name = self._name_of(layout, descriptor)
                found += self._with_what_is_beside(layout, Entry(name, descriptor))
        return tuple(found)

    def _name_of(self, layout: LayoutReader, descriptor: Descriptor) -> OfferedName | None:
        ref = descriptor.annotations.get(REF_NAME)
        if ref is None and (self._repository is None or _has_subject(layout, descriptor)):
            return None
        try:
            return offered_ref(ref, self._repository)
        except InvalidReference as exc:
            self.complaints.say(f"an image is not offered by name: {exc}")
            return None

    def _with_what_is_beside(self, layout: LayoutReader, entry: Entry) -> list[Entry]:
        try:
            listed = beside.listed(layout, entry.root)
        except LayerteeError as exc:
            self.complaints.say(f"what belongs to {entry.name or entry.root.digest} is not offered: {exc}")
            return [entry]
        entries = []
        for descriptor in listed:
            tag = descriptor.annotations.get(REF_NAME)
            if tag is not None and entry.name is not None:
                try:
                    entries.append(Entry(entry.name.tagged(tag), descriptor))
                except InvalidReference as exc:
                    self.complaints.say(f"what belongs to {entry.name} is not offered by name: {exc}")
        return [Entry(entry.name, entry.root, tuple(one.digest for one in listed)), *entries]


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


def _has_subject(layout: LayoutReader, descriptor: Descriptor) -> bool:
    try:
        raw = layout.read_blob(descriptor)
        return facts_of(raw, descriptor.digest).subject is not None
    except LayerteeError:
        return False
