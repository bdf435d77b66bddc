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

from .document import Compression, DiffID, Digest

__all__ = ["Basis", "Form", "Holding", "Place"]


class Basis(enum.Enum):
    """How it is known that a holding's content has its DiffID, strongest first."""

    COMPUTED = "computed"  # these bytes were hashed here, or the blob's digest is the DiffID
    ATTESTED = "attested"  # the tool that owns the place computed it on this machine
    CLAIMED = "claimed"  # some manifest and config say so


class Form(enum.Enum):
    """The form in which layers are kept."""

    AS_IS = "as-is"  # the blob, byte for byte as transferred
    UNCOMPRESSED = "uncompressed"  # the tar, under its DiffID


@dataclass(frozen=True, slots=True)
class Holding:
    """One layer in one place. Sizes are in bytes.

    ``digest`` names the bytes that are there, which may be another form than an image's blob.
    ``readable``: ``path`` can be read back, and hashing it is what turns a claim into a fact; a
    place that can only prove presence says False.
    """

    diff_id: DiffID
    digest: Digest
    size: int
    uncompressed_size: int | None
    compression: Compression
    place: str
    basis: Basis
    readable: bool
    path: Path | None


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
