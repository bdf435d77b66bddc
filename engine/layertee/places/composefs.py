"""A repository of composefs-rs, as bootc keeps it in /sysroot/composefs: what it has, and no bytes of it.

The repository names a layer's stream by the DiffID, ``streams/oci-layer-<DiffID>``, a link to the object
with its content. It takes that DiffID from the image's config without hashing the tar, so having it is
a claim.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from ..image.document import DiffID, Digest
from ..image.holding import Basis, Found, Holding, Place
from ..image.media import Compression

_OBJECT: Final = re.compile(r"\.\./objects/[a-f0-9]{2}/[a-f0-9]+")


class ComposefsPlace(Place):
    """The repository in ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"composefs:{self._path}"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Layers whose stream is there with its object; sizes are not known, and said to be 0."""
        found: dict[DiffID, Holding] = {}
        try:
            if not stat.S_ISDIR(os.stat(self._path / "streams").st_mode):
                raise NotADirectoryError("streams is not a directory")
            for diff_id in diff_ids:
                if self._has(diff_id):
                    found[diff_id] = self._holding(diff_id)
        except OSError as exc:
            return Found(found, [f"{self.name}: {exc.strerror or exc}"])
        return Found(found)

    def _has(self, diff_id: DiffID) -> bool:
        stream = self._path / "streams" / f"oci-layer-{diff_id}"
        try:
            target = os.readlink(stream)
            found = os.stat(stream)
        except OSError:
            return False
        return bool(_OBJECT.fullmatch(target)) and stat.S_ISREG(found.st_mode) and found.st_size > 0

    def _holding(self, diff_id: DiffID) -> Holding:
        digest = Digest(str(diff_id))
        return Holding(
            diff_id=diff_id,
            digest=digest,
            size=0,
            uncompressed_size=None,
            compression=Compression.NONE,
            place=self.name,
            basis=Basis.CLAIMED,
        )
