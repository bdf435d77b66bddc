"""What one pass over a blob measured.

Only the cores and the pools over them make results, of bytes that they have just read. So whatever asks
for a :class:`TeeResult` (the catalog, the sinks) cannot be handed a claim. Who only hashed a blob has a
:class:`BlobResult`, which says nothing about content, and which no catalog takes.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import NamedTuple

from ..image.document import DiffID, Digest
from ..image.media import Compression

_MEASURED = object()


class Measured(NamedTuple):
    """``struct lt_result`` of csrc/lt_api.h: a ``Status``, and what counts only if that is OK."""

    status: int
    size: int
    uncompressed_size: int
    n_members: int
    compression: Compression
    digest: bytes
    diff_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobResult:
    """What one pass over a blob's bytes measured: ``digest`` and ``size`` of the bytes fed.

    ``compression`` is what the blob was said to be; that of a TeeResult is what was found.
    """

    digest: Digest
    size: int
    compression: Compression
    _token: InitVar[object] = None

    def __post_init__(self, _token: object) -> None:
        if _token is not _MEASURED:
            raise TypeError(f"a {type(self).__name__} is what a tee measures; it cannot be made")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeeResult(BlobResult):
    """What one pass over a complete, well-formed blob measured.

    ``diff_id`` and ``uncompressed_size`` are of what it inflates to. ``n_members`` counts gzip members,
    or zstd frames with the skippable ones; a stored blob has one, any empty blob none. All of them were
    read, but some readers of gzip stop after the first. ``decoder`` names the core and the format.
    """

    diff_id: DiffID
    uncompressed_size: int
    n_members: int
    decoder: str


def make_result(
    *,
    digest: bytes,
    diff_id: bytes,
    size: int,
    uncompressed_size: int,
    n_members: int,
    compression: Compression,
    core: str = "c",
) -> TeeResult:
    """For the cores and the pools over them, which have just measured it. Digests are 32 raw bytes."""
    return TeeResult(
        digest=Digest("sha256:" + digest.hex()),
        diff_id=DiffID("sha256:" + diff_id.hex()),
        size=size,
        uncompressed_size=uncompressed_size,
        n_members=n_members,
        compression=compression,
        decoder=f"{core}/{compression.value}",
        _token=_MEASURED,
    )


def make_blob_result(*, digest: bytes, size: int, compression: Compression) -> BlobResult:
    """For the pools, which have just hashed it and looked no further."""
    return BlobResult(
        digest=Digest("sha256:" + digest.hex()), size=size, compression=compression, _token=_MEASURED
    )
