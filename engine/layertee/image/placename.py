"""Where layers are looked for besides the store, as ``--from`` names it. Reads the text; no I/O."""

from __future__ import annotations

import enum
from pathlib import Path

from ..errors import InvalidReference
from ..record import dataclass
from .reference import ARCHIVE, ArchiveReference, LayoutReference, parse_reference
from .reference_archive import DOCKER_ARCHIVE, DockerArchiveReference
from .reference_storage import TRANSPORT, StorageReference


class PlaceKind(enum.Enum):
    """What ``--from`` knows besides image layouts and podman's store, by the word before the colon."""

    OCI_ARCHIVE = ARCHIVE  # an image layout that is one tar file
    DOCKER_ARCHIVE = DOCKER_ARCHIVE  # a tar of docker save
    OSTREE = "ostree"  # a repository with bootc's layers
    COMPOSEFS = "composefs"  # a repository of composefs-rs
    BLOB_INFO_CACHE = "blob-info-cache"  # what podman and skopeo computed about blobs
    AUTO = "auto"  # whatever of all this is on the machine


@dataclass(frozen=True, slots=True)
class PlaceName:
    """A place of ``kind`` in ``path``; None is the usual path, which only the last two kinds have."""

    kind: PlaceKind
    path: Path | None = None

    def __str__(self) -> str:
        if self.kind is PlaceKind.AUTO:
            return str(self.kind.value)
        return f"{self.kind.value}:{self.path or ''}"


# An image layout, a store of podman's, or another kind of place.
Where = Path | StorageReference | PlaceName

_USUAL_PATH = frozenset({PlaceKind.BLOB_INFO_CACHE, PlaceKind.AUTO})
_FORMS = (
    f"oci:DIR, {ARCHIVE}:FILE, {DOCKER_ARCHIVE}:FILE, {TRANSPORT}:, ostree:REPO, composefs:REPO,"
    " blob-info-cache:[FILE] or auto"
)
_IMAGES_TOO = ("oci", ARCHIVE, DOCKER_ARCHIVE, TRANSPORT)  # places that are named as the images in them are


def parse_place(text: str) -> Where:
    """``oci:DIR``, ``containers-storage:…``, ``ostree:REPO`` and so on. Raises InvalidReference."""
    word, colon, rest = text.partition(":")
    kinds = {kind.value: kind for kind in PlaceKind}
    if word in kinds and word not in _IMAGES_TOO:
        return _other(kinds[word], rest if colon else None, text)
    if word not in _IMAGES_TOO:
        raise InvalidReference(f"{text!r:.200} is no place to take layers from; write {_FORMS}")
    found = parse_reference(text)
    if isinstance(found, StorageReference) and found.image is None:
        return found
    if isinstance(found, LayoutReference):
        return found.path
    if isinstance(found, ArchiveReference):
        return PlaceName(PlaceKind.OCI_ARCHIVE, found.path)
    if isinstance(found, DockerArchiveReference):
        return PlaceName(PlaceKind.DOCKER_ARCHIVE, found.path)
    raise InvalidReference(f"{text!r:.200} is an image and no place to take layers from; write {_FORMS}")


def _other(kind: PlaceKind, path: str | None, text: str) -> PlaceName:
    if not text.isprintable() or text != text.strip():
        raise InvalidReference(f"{text!r:.200} has stray characters")
    if (kind is PlaceKind.AUTO) != (path is None):
        raise InvalidReference(f"{text!r:.200} is not a place; write {_FORMS}")
    if not path and kind not in _USUAL_PATH:
        raise InvalidReference(f"{text!r:.200}: {kind.value}: is followed by no path")
    return PlaceName(kind, Path(path) if path else None)
