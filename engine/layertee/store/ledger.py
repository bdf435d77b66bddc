"""The catalog as the store uses it: one that fails costs time, and never a pull.

When the file cannot be used, one in memory serves for this run. Errors met later are kept, each once, for
whoever reports on the store; the answer is then that nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CatalogError
from .catalog import Catalog, HeldBlob

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest


class Ledger:
    """``catalog``, and what went wrong with it.

    ``vouches``: what it says of the store's files counts. ``error`` is None, or why the catalog is one in
    memory. ``rebuilt`` is None, or why the file was begun anew. Any thread may call.
    """

    def __init__(self, path: Path, *, vouches: bool = True) -> None:
        self._vouches = vouches
        self._met: dict[str, None] = {}  # one failing disk is one warning, not one for each layer
        self.error: CatalogError | None = None
        try:
            self.catalog = Catalog(path)
        except CatalogError as exc:
            self.error = exc
            self.catalog = Catalog(None)
            self._met[f"{exc}; going on without it"] = None
        self.rebuilt = self.catalog.rebuilt
        if self.rebuilt is not None:
            self._met[self.rebuilt] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far, one line each."""
        return tuple(self._met)

    @contextmanager
    def tolerant(self) -> Iterator[None]:
        """What is done inside may fail: the error becomes a warning."""
        try:
            yield
        except CatalogError as exc:
            self._met[str(exc)] = None

    def row(self, digest: Digest) -> HeldBlob | None:
        """What vouches for the file of that name; None also where nobody can tell."""
        with self.tolerant():
            return self.catalog.holds(digest) if self._vouches else None
        return None

    def rows(self, diff_id: DiffID) -> list[HeldBlob]:
        """What vouches for files with that content."""
        with self.tolerant():
            return self.catalog.holdings(diff_id) if self._vouches else []
        return []
