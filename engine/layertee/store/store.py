"""The store: an OCI image layout that other tools can read, and a private room beside it.

    ROOT/oci-layout, index.json, blobs/sha256/<hex>     image-spec v1.1 image-layout.md
    ROOT/layertee/catalog.sqlite                        the map (catalog.py)
    ROOT/layertee/ingest/<hex>.part                     bytes on their way in, by the name they will have
    ROOT/layertee/parts/<hex>.part                      the first bytes of blobs, by their digests (parts.py)
    ROOT/layertee/seen/<hex>.json                       the newest image seen under a name (seen.py)
    ROOT/layertee/locks/<hex>                           who is bringing what will have that name
    ROOT/layertee/lock                                  shared: a pull; exclusive: gc, verify
    ROOT/layertee/quarantine/                           blobs whose bytes turned out wrong

This module opens it, locks it and knows its space. Its layers are in blobs.py, its images in images.py, what
is removed in gc.py. When the catalog fails, the store goes on without it (ledger.py): only time is lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..config.home import User
from ..disk.locks import HeldLock, Lock, try_lock, wait_for, when_free
from ..disk.trusted import others_may_write, refuse_foreign, refuse_reachable
from ..errors import CatalogError, NoHome
from .blobs import Blobs
from .images import Images
from .layout import Layout
from .ledger import Ledger
from .parts import Parts
from .room import Room
from .seen import SeenImages

if TYPE_CHECKING:
    from .catalog import Catalog

SHARED_WAIT_S: Final = 60.0  # gc and verify hold the store for seconds
EXCLUSIVE_WAIT_S: Final = 10.0  # a pull may take long: say so soon

_PRIVATE = "layertee"


def default_root(user: User | None = None) -> Path:
    """``/var/lib/layertee`` for root, else ``layertee`` in the user's XDG_DATA_HOME. Raises NoHome."""
    user = user or User.of()
    if user.uid == 0:
        return Path("/var/lib/layertee")
    try:
        return user.data_for("the store") / "layertee"
    except NoHome as exc:
        raise exc.with_hint("store-place") from None


class Store:
    """The store in ``root``: its ``layout``, ``blobs``, ``images`` and ``catalog``.

    Calls block: from a coroutine, use ``asyncio.to_thread``. ``rebuild_reason`` is None, or why the catalog
    does not know what the store holds; the caller then hashes what ``images.layers`` names and hands each
    result to ``blobs.adopt``.
    """

    def __init__(self, layout: Layout, *, private: bool) -> None:
        """Use ``open``."""
        self.layout = layout
        self.root: Path = layout.path
        if private:
            refuse_reachable(self.root, own=True)
            for directory in (layout.blob_directory().parent, layout.blob_directory()):
                if os.path.lexists(directory):
                    refuse_foreign(directory)
        self.room = Room.make(self.root / _PRIVATE)
        has_images = bool(layout.entries())
        # Others may be meant to write to a layout that is not private. What the catalog says of its files is
        # then not believed: each is hashed again before it counts.
        is_shared = not private and others_may_write(self.root)
        self._ledger = Ledger(self.room.catalog, vouches=not is_shared)
        self.blobs = Blobs(layout, self._ledger, self.room)
        self.parts = Parts(layout, self.room)
        self.seen = SeenImages(self.room.seen)
        self.images = Images(layout, self._ledger, self.room)
        self.rebuild_reason: str | None = self._ledger.rebuilt
        if has_images and self.rebuild_reason is None and self._knows_no_layer():
            self.rebuild_reason = "the catalog knows none of the layers that are here"

    @classmethod
    def open(cls, root: Path, *, create: bool = True, private: bool = True) -> Self:
        """The store in ``root``, made there if ``create`` and there is nothing yet.

        ``private`` False is for a layout that others are to read, and may be meant to write to: modes as the
        umask has them. A private store is refused where another user could change it or the way to it.
        Raises NotFound, StoreCorrupt (something else is there), UnsafePath, LocalError, NoSpace.
        """
        if private:
            refuse_reachable(root, absent=True)  # before anything is made there
        layout = Layout.create(root, private=private) if create else Layout.open(root, private=private)
        return cls(layout, private=private)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is open. What was written is there already."""
        self.catalog.close()

    @property
    def catalog(self) -> Catalog:
        """The map; one in memory when its file cannot be used."""
        return self._ledger.catalog

    @property
    def catalog_error(self) -> CatalogError | None:
        """None, or why the catalog is one in memory."""
        return self._ledger.error

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is or went wrong with the catalog so far, one line each."""
        return self._ledger.warnings

    # --- locks (their order: locks.py) ---------------------------------------

    def shared(self, timeout: float = SHARED_WAIT_S) -> HeldLock:
        """The store as a pull uses it: nothing that is there is removed meanwhile. Raises StoreBusy."""
        return wait_for(lambda: try_lock(self.room.lock, Lock.SHARED), self.room.lock, timeout)

    def exclusive(self, timeout: float = EXCLUSIVE_WAIT_S) -> HeldLock:
        """The store for oneself: nobody pulls meanwhile. Raises StoreBusy, which names the lock."""
        return wait_for(lambda: try_lock(self.room.lock), self.room.lock, timeout)

    async def when_shared(self, wait_s: float = SHARED_WAIT_S) -> HeldLock:
        """``shared`` for a coroutine; one that is cancelled while it waits holds nothing."""
        return await when_free(lambda: try_lock(self.room.lock, Lock.SHARED), self.room.lock, wait_s)

    async def when_exclusive(self, wait_s: float = EXCLUSIVE_WAIT_S) -> HeldLock:
        """``exclusive`` for a coroutine; one that is cancelled while it waits holds nothing."""
        return await when_free(lambda: try_lock(self.room.lock), self.room.lock, wait_s)

    # --- inside ---------------------------------------------------------------

    def _knows_no_layer(self) -> bool:
        with self._ledger.tolerant():
            return not self.catalog.holdings()
        return True
