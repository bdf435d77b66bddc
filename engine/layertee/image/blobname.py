"""A blob as another name of some content: what a registry may call what is here already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from ..record import dataclass
from .basis import Basis
from .digest import DiffID, Digest
from .media import Compression

__all__ = ["BlobName", "KnownNames"]


@dataclass(frozen=True, slots=True)
class BlobName:
    """A blob that holds some content, and how that is known. ``size`` in bytes, None where nobody says.

    ``source`` is who says so, for a person.
    """

    digest: Digest
    size: int | None
    compression: Compression | None
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The blobs that were seen to hold each of some contents, and what could not be made sense of."""

    names: Mapping[DiffID, Sequence[BlobName]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
