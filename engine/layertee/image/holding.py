"""What this machine already holds: the words in which every place answers.

A place is asked for DiffIDs and says which of them it has, in which form, and how that is known.
It never says what an image consists of: identity comes from the image's own config. One module per
place; this one holds the interface, no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import SourceUnreadable
from .document import DiffID, Digest
from .media import Compression

__all__ = ["Basis", "BlobContent", "BlobReader", "Form", "Holding", "Place"]


class Basis(enum.Enum):
    """How it is known that a holding's content has its DiffID, strongest first."""

    COMPUTED = "computed"  # these bytes were hashed here, or the blob's digest is the DiffID
    ATTESTED = "attested"  # the tool that owns the place computed it on this machine
    CLAIMED = "claimed"  # some manifest and config say so

    @property
    def rank(self) -> int:
        """0 for the strongest, so that sorting by it puts the best known first."""
        return _RANKS[self]

    def at_least(self, other: Basis) -> bool:
        """Whether this basis is as strong as ``other``, or stronger."""
        return self.rank <= other.rank


_RANKS = {basis: rank for rank, basis in enumerate(Basis)}


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


class Place(Protocol):
    """Somewhere on this machine where layers may be."""

    @property
    def name(self) -> str:
        """What to call it in reports, like ``store`` or ``oci:/mnt/images``."""

    @property
    def warnings(self) -> list[str]:
        """What the last ``find`` could not make sense of, one line each."""

    def find(self, diff_ids: Collection[DiffID]) -> dict[DiffID, Holding]:
        """The best holding for each of ``diff_ids`` that is here; presence is looked at now.

        Blocks: call it in a thread. A place that is damaged or gone holds nothing and warns.
        """
