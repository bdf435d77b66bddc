"""Where images come from, and places to take their layers from. A new kind of place is wired here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..aio import in_thread
from ..config.certs import find_cert_dir
from ..config.logins import Credentials
from ..errors import InvalidReference, LayerteeError, NoHome
from ..image.document import Descriptor, DiffID, Digest, ImageConfig, Layer, Manifest, Platform
from ..image.holding import Place
from ..image.placename import PlaceKind, PlaceName, Where
from ..image.reference import ArchiveReference, ImageReference, LayoutReference, Reference
from ..image.reference_storage import TRANSPORT, StorageReference, parse_storage
from ..options import Options
from ..places.blobinfocache import default_path
from ..places.composefs import ComposefsPlace
from ..places.oci_archive import Archive, OCIArchivePlace
from ..places.oci_layout import OCILayoutPlace
from ..registry.client import Registry
from ..registry.http import Body, TLSPolicy, Transport
from ..store.layout import Layout
from ..store.layout_reader import LayoutImage
from ..transfer.fetcher import OpenBlob

if TYPE_CHECKING:
    from ..places.podman.place import ContainersStoragePlace, StorageImage

# bootc's, on a booted system and from an installer's point of view.
OSTREE_REPOS: Final = (Path("/ostree/repo"), Path("/sysroot/ostree/repo"))
COMPOSEFS_REPO: Final = Path("/sysroot/composefs")


@dataclass(frozen=True, slots=True)
class Resolved:
    """An image whose documents were read and hashed, wherever it is.

    ``open_blob`` is None for an image of this machine; its layers are then in ``origin``. ``stored``:
    what podman's store knows beyond that, for an image of it.
    """

    name: str | None
    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    index_digest: Digest | None
    open_blob: OpenBlob | None
    host: str
    origin: Where | None
    stored: StorageImage | None = None


async def resolve(
    reference: ImageReference,
    options: Options,
    network: Callable[[], Transport],
) -> Resolved:
    """Find the image and read its documents. ``network`` is called only for an image in a registry.

    Raises InvalidReference, NotFound, Unauthorized, TransportError, IntegrityError, UnsupportedImage.
    """
    if isinstance(reference, StorageReference):
        return await in_thread(_in_storage, reference)
    if isinstance(reference, LayoutReference):
        return await in_thread(_in_layout, reference, options.platform)
    if isinstance(reference, ArchiveReference):
        return await in_thread(_in_archive, reference, options.platform)
    return await _in_registry(reference, options, network())


def place(
    where: Where | Place,
    *,
    known: Callable[[Digest], DiffID | None],
    attested: Callable[[Digest], DiffID | None],
    prefer: Mapping[DiffID, Digest],
) -> Place | None:
    """The place that ``where`` names; None for a record of blobs that holds no layers itself.

    ``known`` answers what a blob was computed to inflate to, ``attested`` what other tools of this
    machine computed; ``prefer`` the blob of a content that the image names. Raises InvalidReference and
    LocalError where the configuration of podman's store cannot be used. Blocks.
    """
    if isinstance(where, Path):
        return OCILayoutPlace(where, known=known, attested=attested, prefer=prefer)
    if isinstance(where, StorageReference):
        return storage(where)
    if not isinstance(where, PlaceName):
        return where
    if where.kind is PlaceKind.OCI_ARCHIVE and where.path is not None:
        return OCIArchivePlace(where.path, known=known, attested=attested, prefer=prefer)
    if where.kind is PlaceKind.OSTREE and where.path is not None:
        from ..places.ostree.place import OSTreePlace

        return OSTreePlace(where.path, known=known, attested=attested)
    if where.kind is PlaceKind.COMPOSEFS and where.path is not None:
        return ComposefsPlace(where.path)
    return None


def storage(where: StorageReference) -> ContainersStoragePlace:
    """Podman's store that ``where`` means; raises as ``place``."""
    from ..places.podman.place import ContainersStoragePlace  # 20 ms

    return ContainersStoragePlace.of(where)


def spelled_out(places: Sequence[Where | Place], warnings: list[str]) -> list[Where | Place]:
    """``places`` with ``auto`` replaced by what is on this machine, each once. Blocks.

    The store that podman's configuration names brings podman's own cache along.
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
    found += [PlaceName(PlaceKind.OSTREE, repo) for repo in OSTREE_REPOS if os.path.isdir(repo / "objects")][
        :1
    ]
    if os.path.isdir(COMPOSEFS_REPO / "streams"):
        found.append(PlaceName(PlaceKind.COMPOSEFS, COMPOSEFS_REPO))
    return found


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
    try:
        path = default_path()
    except NoHome:
        return []
    return [PlaceName(PlaceKind.BLOB_INFO_CACHE, path)] if os.path.exists(path) else []


# --- images ---------------------------------------------------------------------------------------


def _in_storage(reference: StorageReference) -> Resolved:
    if reference.image is None:
        raise InvalidReference(f"{reference} names a store and no image in it")
    found = storage(reference).resolve(reference.image)
    name = next(iter(found.names), reference.image)
    return Resolved(
        name, found.manifest, found.config, found.layers, found.index_digest, None, "", reference, found
    )


def _in_layout(reference: LayoutReference, platform: Platform) -> Resolved:
    found = Layout.open(reference.path).resolve(reference.ref, platform)
    return _of_layout(found, reference.ref, reference.path)


def _in_archive(reference: ArchiveReference, platform: Platform) -> Resolved:
    found = Archive.open(reference.path).resolve(reference.ref, platform)
    return _of_layout(found, reference.ref, PlaceName(PlaceKind.OCI_ARCHIVE, reference.path))


def _of_layout(found: LayoutImage, name: str | None, origin: Where) -> Resolved:
    return Resolved(name, found.manifest, found.config, found.layers, found.index_digest, None, "", origin)


async def _in_registry(reference: Reference, options: Options, transport: Transport) -> Resolved:
    registry: Registry[Body] = Registry(
        transport,
        reference,
        Credentials.no_credentials() if options.anonymous else Credentials(options.authfile),
        tls=TLSPolicy(
            verify=options.tls_verify, cert_dir=options.cert_dir or find_cert_dir(reference.registry)
        ),
        allow_http=not options.tls_verify,
    )
    found = await registry.resolve(options.platform)

    async def open_blob(blob: Descriptor, start: int, stop: int | None) -> Body:
        return await registry.open_blob(blob, start, stop)

    return Resolved(
        str(reference),
        found.manifest,
        found.config,
        found.layers,
        found.index_digest,
        open_blob,
        reference.api_host,
        None,
    )
