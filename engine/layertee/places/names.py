"""Which blobs hold which content, as other tools of this machine computed it.

They saw both digests of one stream, on this machine, as we do; but it was not us. So what they say counts
as ``attested``, stays in the memory of one plan, and gives way to what was computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..image.pairs import contradicts

if TYPE_CHECKING:
    from ..image.blobname import BlobName
    from ..image.document import DiffID, Digest
    from ..image.holding import Place


class Attested:
    """What the owners of ``places`` know about the blobs of ``diff_ids``; asked when it is first needed.

    ``known`` answers what a blob was computed here to inflate to. Of statements about one blob that differ
    none is used, nor one that differs from what is known; that is a warning. One thread at a time; blocks.
    """

    def __init__(
        self,
        diff_ids: Collection[DiffID],
        places: Sequence[Place],
        *,
        known: Callable[[Digest], DiffID | None],
    ) -> None:
        self._diff_ids = diff_ids
        self._places = places
        self._known = known
        self._blobs: dict[Digest, tuple[DiffID, BlobName]] | None = None
        self._warnings: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be used, one line each; more may come with the first question."""
        return tuple(self._warnings)

    def diff_id(self, digest: Digest) -> DiffID | None:
        """Which of the contents the blob holds; None also when that is not known. Raises CatalogError."""
        found = self._asked().get(digest)
        return None if found is None else found[0]

    def names(self, diff_id: DiffID) -> tuple[BlobName, ...]:
        """The blobs that hold ``diff_id``. Raises CatalogError."""
        return tuple(blob for content, blob in self._asked().values() if content == diff_id)

    def _asked(self) -> dict[Digest, tuple[DiffID, BlobName]]:
        if self._blobs is None:
            said: dict[Digest, dict[DiffID, BlobName]] = {}
            for place in self._places:
                found = place.blob_names(self._diff_ids)
                self._warnings += found.warnings
                for diff_id, blobs in found.names.items():
                    for blob in blobs:
                        said.setdefault(blob.digest, {}).setdefault(diff_id, blob)
            self._blobs = {
                digest: next(iter(contents.items()))
                for digest, contents in said.items()
                if self._is_one(digest, contents)
            }
        return self._blobs

    def _is_one(self, digest: Digest, contents: Mapping[DiffID, BlobName]) -> bool:
        """Whether all that is known agrees on the content of the blob."""
        computed = self._known(digest)
        wrong = any(contradicts(digest, said, computed, blob.compression) for said, blob in contents.items())
        if wrong or len(contents) > 1:
            who = ", ".join(sorted({blob.source for blob in contents.values()}))
            said = " and ".join(sorted(contents))
            against = f"; it was computed here to be {computed}" if wrong else ""
            self._warnings.append(f"{who}: {digest} is said to inflate to {said}{against}; not used")
            return False
        return True
