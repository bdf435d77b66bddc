"""The private room of a store, beside the layout that others read."""

from __future__ import annotations

from pathlib import Path

from ..disk.files import make_directory
from ..disk.trusted import refuse_foreign
from ..record import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """The directory ``path`` and what is in it."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Room:
        """The room in ``path``, for this user alone. Raises LocalError, UnsafePath."""
        room = cls(path)
        for directory in (room.path, room.ingest, room.parts, room.locks, room.quarantine):
            make_directory(directory, 0o700)
        refuse_foreign(room.path)
        return room

    @property
    def catalog(self) -> Path:
        """The map: the database and what SQLite puts beside it."""
        return self.path / "catalog.sqlite"

    @property
    def lock(self) -> Path:
        """Shared by those who bring something in; exclusive for those who take something away."""
        return self.path / "lock"

    @property
    def ingest(self) -> Path:
        """Bytes on their way in, as ``<hex>.part``."""
        return self.path / "ingest"

    @property
    def parts(self) -> Path:
        """The first bytes of blobs that are not all here, as ``<hex>.part``."""
        return self.path / "parts"

    @property
    def seen(self) -> Path:
        """The newest image seen under each name, as ``<hex>.json``. Made when it is first needed."""
        return self.path / "seen"

    @property
    def locks(self) -> Path:
        """Who is bringing what, as ``<hex>``."""
        return self.path / "locks"

    @property
    def quarantine(self) -> Path:
        """Blobs whose bytes turned out wrong."""
        return self.path / "quarantine"
