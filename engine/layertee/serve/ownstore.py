"""This machine's own store on offer, and what its catalog says of blobs.

It is looked at like any layout. Nothing is opened to be written, so it may belong to another user, lie on a
medium that cannot be written to, or not be there yet. What the catalog says counts only where nobody but root
and this user can change it and the blobs.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..disk.trusted import others_may_write, trusted_users
from ..errors import CatalogError, LayerteeError
from ..image.media import Compression
from ..store.blobs import PLACE
from ..store.catalog import Catalog
from ..store.catalog_file import journal_of
from ..store.layout import Layout
from ..store.layout_index import INDEX
from ..store.room import Room
from .layouts import LayoutShelf
from .shelf import Complaints, stamp_of

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest
    from ..store.catalog import Pair

_T = TypeVar("_T")
_PRIVATE: Final = "layertee"
_TRANSACTION_S: Final = 0.2
_LOOK_EVERY_S: Final = 0.002
_RETRY_S: Final = 1.0  # before a catalog that could not be opened is tried again as it is
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class StoreShelf(LayoutShelf):
    """The store in ``root``."""

    def __init__(self, root: Path) -> None:
        # A name without a repository is no name in a store.
        super().__init__(PLACE, root / INDEX, lambda: Layout.open(root, private=True), repository=None)
        self._root = root
        self.ledger = ReadLedger(root, self.complaints)

    def is_checked(self, digest: Digest, size: int) -> bool:
        return self._is_ours(digest) and self.ledger.holds(digest) == size

    def close(self) -> None:
        super().close()
        self.ledger.close()

    def _is_ours(self, digest: Digest) -> bool:
        path = self._root / "blobs" / digest.algorithm / digest.hex
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        return found.st_uid in trusted_users() and not found.st_mode & _OTHERS


class ReadLedger:
    """The catalog of the store in ``root``, as it is at each moment; one that cannot be read knows nothing.

    ``vouches``: nobody else could have written it, nor any file of the store.
    """

    def __init__(self, root: Path, complaints: Complaints) -> None:
        self._root = root
        self._path = Room(root / _PRIVATE).catalog
        self._complaints = complaints
        self._mutex = threading.Lock()  # of all that is done with the file (Catalog.to_read)
        self._seen: Hashable = None
        self._retry_at = 0.0
        self._left_behind: Hashable = None  # a journal of a writer that died
        self._catalog: Catalog | None = None
        self._judged: Hashable = None
        self._vouches = False

    def holds(self, digest: Digest) -> int | None:
        """The size of a blob that the store hashed when it took it in; None where nothing vouches for one."""
        if not self.vouches():
            return None
        row = self._ask(lambda catalog: catalog.holds(digest), None)
        return None if row is None else row.size

    def lookup(self, either: Digest | DiffID) -> Sequence[Pair]:
        """The pairs in which ``either`` is the blob or the content, as somebody's catalog has them."""
        return self._ask(lambda catalog: catalog.lookup(either), [])

    def vouches(self) -> bool:
        """Whether what the catalog says was computed by this machine's own programs."""
        blobs = self._root / "blobs" / "sha256"
        now = tuple(map(stamp_of, (self._root, blobs.parent, blobs, self._path.parent, self._path)))
        with self._mutex:
            if None in now or now != self._judged:
                self._judged = now
                try:
                    self._vouches = None not in now and not any(map(others_may_write, (blobs, self._path)))
                except LayerteeError as exc:
                    self._complaints.say(str(exc))
                    self._vouches = False
            return self._vouches

    def close(self) -> None:
        with self._mutex:
            self._forget()

    def _ask(self, question: Callable[[Catalog], _T], nothing: _T) -> _T:
        with self._mutex:
            try:
                catalog = self._now()
                return nothing if catalog is None else question(catalog)
            except CatalogError as exc:
                self._complaints.say(f"goes on without its catalog: {exc}")
                return nothing

    def _now(self) -> Catalog | None:
        """Raises CatalogError."""
        self._let_writer_end()
        stamp = stamp_of(self._path)
        seen = stamp, self._left_behind
        if seen != self._seen or (self._catalog is None and time.monotonic() > self._retry_at):
            self._forget()
            self._seen = seen
            self._retry_at = time.monotonic() + _RETRY_S
            if stamp is not None:
                self._catalog = Catalog.to_read(self._path)
        return self._catalog

    def _let_writer_end(self) -> None:
        """Wait for a transaction, which takes milliseconds, but once only for one that nobody ends."""
        deadline = time.monotonic() + _TRANSACTION_S
        while (journal := journal_of(self._path)) is not None and journal != self._left_behind:
            if time.monotonic() > deadline:
                self._left_behind = journal
            time.sleep(_LOOK_EVERY_S)
        if journal is None:
            self._left_behind = None

    def _forget(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
        self._seen = self._catalog = None


def is_tautology(pair: Pair) -> bool:
    """Whether ``pair`` only says that bytes read as they are are themselves."""
    return pair.compression is Compression.NONE
