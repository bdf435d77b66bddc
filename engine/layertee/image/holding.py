"""What this machine already holds: the words in which every place answers.

A place is asked for DiffIDs and says which of them it has, in which form, and how that is known.
It never says what an image consists of: identity comes from the image's own config. One module per
place; this one holds the interface, no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ..errors import LayerteeError, SourceUnreadable
from ..record import dataclass
from .basis import Basis
from .blobname import KnownNames
from .document import DiffID, Digest
from .media import Compression

__all__ = ["Basis", "BlobContent", "BlobReader", "Form", "Found", "Holding", "Place"]


class Form(enum.Enum):
    """The form in which layers are kept."""

    AS_IS = "as-is"  # the blob, byte for byte as transferred
    UNCOMPRESSED = "uncompressed"  # the tar, under its DiffID


class BlobReader(Protocol):
    """The bytes of one blob, in order. One thread at a time; ``close`` is the caller's."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` as far as the blob goes; less than all of it only at the end, then 0.

        Blocks. Raises SourceUnreadable.
        """

    def close(self) -> None:
        """Give up what is open; harmless when repeated."""


class BlobContent(Protocol):
    """Where the bytes of a blob are, as data: kept, compared and pickled, and opened when they are needed."""

    @property
    def path(self) -> Path | None:
        """The plain file that holds these bytes and nothing else; None where there is no such file."""

    def open(self) -> BlobReader:
        """Begin to read. Opens a few files, no more. Raises SourceUnreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One layer in one place. Sizes are in bytes.

    ``digest`` names the ``size`` bytes in the form ``compression`` that are there, which may be another form
    than an image's blob. ``content`` is how to read them back, and hashing what is read is what turns a claim
    into a fact. It is None in a place that can show that it has the layer and cannot give it back.
    """

    diff_id: DiffID
    digest: Digest
    size: int
    uncompressed_size: int | None
    compression: Compression
    place: str
    basis: Basis
    content: BlobContent | None = None

    @property
    def readable(self) -> bool:
        """Whether the bytes can be read back."""
        return self.content is not None

    @property
    def path(self) -> Path | None:
        """The plain file with these bytes, where they have one of their own."""
        return self.content.path if self.content is not None else None

    def open(self) -> BlobReader:
        """Begin to read the bytes, whatever kind of place they are in. Raises SourceUnreadable."""
        if self.content is None:
            raise SourceUnreadable(f"{self.place}: cannot be read back")
        return self.content.open()


class Found(Mapping[DiffID, Holding]):
    """What a place answered: the best holding for each content that it has.

    ``warnings``: what it could not make sense of, one line each. ``refused``: why a content that it should
    have cannot be had from it; each is a warning as well.
    """

    __slots__ = ("_holdings", "refused", "warnings")

    def __init__(
        self,
        holdings: Mapping[DiffID, Holding] | None = None,
        warnings: Iterable[str] = (),
        refused: Mapping[DiffID, LayerteeError] | None = None,
    ) -> None:
        self._holdings = dict(holdings or {})
        self.warnings: tuple[str, ...] = tuple(warnings)
        self.refused: dict[DiffID, LayerteeError] = dict(refused or {})

    def __getitem__(self, diff_id: DiffID) -> Holding:
        return self._holdings[diff_id]

    def __iter__(self) -> Iterator[DiffID]:
        return iter(self._holdings)

    def __len__(self) -> int:
        return len(self._holdings)

    def __repr__(self) -> str:
        return f"Found({self._holdings!r}, {self.warnings!r})"


class Place(Protocol):
    """Somewhere on this machine where layers may be. Has no state: each question is answered for itself."""

    @property
    def name(self) -> str:
        """What to call it in reports, like ``store`` or ``oci:/mnt/images``."""

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """The best holding for each of ``diff_ids`` that is here; presence is looked at now.

        Blocks: call it in a thread. Never raises for what is there: a place that is damaged or gone holds
        nothing and warns.
        """

    def blob_names(self, diff_ids: Collection[DiffID]) -> KnownNames:
        """The blobs that the place's owner saw to hold each of ``diff_ids``. Most keep no such record.

        Blocks, as ``find`` does.
        """
        return KnownNames()
