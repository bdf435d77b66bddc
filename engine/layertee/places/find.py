"""Places by their names, and those that are usual on such a machine. A new kind of place is wired here.

Each kind is imported when a place of it is named: most pulls name none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..disk.files import check_path
from ..errors import LayerteeError, NoHome
from ..image.placename import PlaceKind, PlaceName, Where
from ..image.reference_storage import TRANSPORT, StorageReference, parse_storage
from .oci_layout import OCILayoutPlace

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest
    from ..image.holding import Place
    from .podman.place import ContainersStoragePlace

# bootc's, on a booted system and from an installer's point of view.
OSTREE_REPOS: Final = (Path("/ostree/repo"), Path("/sysroot/ostree/repo"))
COMPOSEFS_REPO: Final = Path("/sysroot/composefs")


def place(
    where: Where | Place,
    *,
    known: Callable[[Digest], DiffID | None],
    attested: Callable[[Digest], DiffID | None],
    prefer: Mapping[DiffID, Digest],
) -> Place:
    """The place that ``where`` names.

    ``known`` answers what a blob was computed to inflate to, ``attested`` what other tools of this
    machine computed; ``prefer`` the blob of a content that the image names. Raises InvalidReference and
    LocalError where the configuration of podman's store cannot be used, or a path is none. Blocks.
    """
    for path in _paths_of(where):
        check_path(path)
    if isinstance(where, Path):
        return OCILayoutPlace(where, known=known, attested=attested, prefer=prefer)
    if isinstance(where, StorageReference):
        return storage(where)
    if not isinstance(where, PlaceName):
        return where
    if where.kind is PlaceKind.OCI_ARCHIVE and where.path is not None:
        from .oci_archive import OCIArchivePlace

        return OCIArchivePlace(where.path, known=known, attested=attested, prefer=prefer)
    if where.kind is PlaceKind.DOCKER_ARCHIVE and where.path is not None:
        from .docker_archive import DockerArchivePlace

        return DockerArchivePlace(where.path)
    if where.kind is PlaceKind.OSTREE and where.path is not None:
        from .ostree.place import OSTreePlace

        return OSTreePlace(where.path, known=known, attested=attested)
    if where.kind is PlaceKind.COMPOSEFS and where.path is not None:
        from .composefs import ComposefsPlace

        return ComposefsPlace(where.path)
    if where.kind is PlaceKind.BLOB_INFO_CACHE:
        from .blobinfocache import BlobInfoCache, default_path

        return BlobInfoCache(where.path or default_path())
    raise ValueError(f"{where} is no single place")


def storage(where: StorageReference) -> ContainersStoragePlace:
    """Podman's store that ``where`` means; raises as ``place``."""
    from .podman.place import ContainersStoragePlace

    return ContainersStoragePlace.of(where)


def spelled_out(places: Sequence[Where | Place], warnings: list[str]) -> list[Where | Place]:
    """``places`` with ``auto`` replaced by what is on this machine, each once. Blocks.

    The store that podman's configuration names brings podman's own cache along. ``warnings`` gets a line for
    what had to be left out.
    """
    found: list[Where | Place] = []
    for where in places:
        is_auto = isinstance(where, PlaceName) and where.kind is PlaceKind.AUTO
        found += _on_this_machine(warnings) if is_auto else [where]
    if any(isinstance(where, StorageReference) and where.graphroot is None for where in found):
        found += _usual_cache()
    return [where for at, where in enumerate(found) if where not in found[:at]]


def client_repositories() -> list[Where]:
    """Where bootc keeps its layers on this machine, if it does."""
    found: list[Where] = []
    repos = [repo for repo in OSTREE_REPOS if os.path.isdir(repo / "objects")]
    found += [PlaceName(PlaceKind.OSTREE, repo) for repo in repos[:1]]
    if os.path.isdir(COMPOSEFS_REPO / "streams"):
        found.append(PlaceName(PlaceKind.COMPOSEFS, COMPOSEFS_REPO))
    return found


def _paths_of(where: Where | Place) -> list[Path]:
    """What ``where`` says of the filesystem."""
    if isinstance(where, Path):
        return [where]
    if isinstance(where, StorageReference):
        return [path for path in (where.graphroot, where.runroot) if path is not None]
    return [where.path] if isinstance(where, PlaceName) and where.path is not None else []


def _on_this_machine(warnings: list[str]) -> list[Where | Place]:
    found: list[Where | Place] = []
    usual = parse_storage(f"{TRANSPORT}:")
    try:
        if storage(usual).exists():
            found.append(usual)
    except LayerteeError as exc:  # it was not asked for by name
        warnings.append(f"{usual.store} is left out: {exc}")
    found += client_repositories()
    return found + _usual_cache()


def _usual_cache() -> list[Where | Place]:
    from .blobinfocache import default_path

    try:
        path = default_path()
    except NoHome:
        return []
    return [PlaceName(PlaceKind.BLOB_INFO_CACHE, path)] if os.path.exists(path) else []
