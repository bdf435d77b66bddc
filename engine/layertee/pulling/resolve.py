"""Where images come from: the documents of a reference, read and hashed, wherever the image is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..errors import InvalidReference, LayerteeError, NotInRegistry
from ..image.document import Pairing, Platform, image_layers
from ..image.placename import PlaceKind, PlaceName, Where
from ..image.reference import ArchiveReference, ImageReference, LayoutReference, Reference, ShortName
from ..image.reference_archive import DockerArchiveReference
from ..image.reference_storage import StorageReference
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.resolved import ResolvedImage
    from ..image.whole import Known
    from ..places.podman.place import StorageImage
    from .network import Network
    from .report import Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An image and where it was found: at a ``registry``, or in the place ``origin`` of this machine.

    ``name`` is what it is called there. ``stored``: what podman's store knows beyond its documents, for an
    image of it. ``asked`` are the endpoints of its registry, and ``warnings`` what was wrong with them.
    ``kept`` is what has to be held until its layers have been found: a file that was unpacked.
    """

    name: str | None
    image: ResolvedImage
    registry: Reference | None = None
    origin: Where | None = None
    stored: StorageImage | None = None
    asked: tuple[Asked, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: object = None


async def resolve(
    reference: ImageReference,
    platform: Platform,
    network: Network,
    *,
    pair: Pairing = image_layers,
    blobs: bool = False,
    whole: Known | None = None,
) -> Resolved:
    """Find the image and read its documents. ``network`` is used only for an image in a registry.

    ``pair`` makes the layers of the documents, but for podman's store, which has them by DiffID. ``blobs``:
    nothing will do in place of the blobs that a registry's manifest names. ``whole``: an index is meant with
    all that it names, where it is one of a registry, a layout or an archive of that; and this has documents
    that a registry need not be asked for.

    Raises InvalidReference, NotFound, Unauthorized, TransportError, IntegrityError, UnsupportedImage,
    RegistryBlocked, RegistriesConfError.
    """
    if isinstance(reference, StorageReference):
        return await in_thread(_in_storage, reference, platform)
    if isinstance(reference, LayoutReference):
        return await in_thread(_in_layout, reference, platform, pair, whole is not None)
    if isinstance(reference, ArchiveReference):
        return await in_thread(_in_archive, reference, platform, pair, whole is not None)
    if isinstance(reference, DockerArchiveReference):
        return await in_thread(_in_docker_archive, reference, pair)
    site = await network.site(reference)
    found = await site.resolve(platform, pair=pair, blobs=blobs, whole=whole)
    return Resolved(
        name=str(reference),
        image=found,
        registry=reference,
        asked=site.asked,
        warnings=tuple(site.warnings),
    )


async def resolve_short(
    name: ShortName,
    platform: Platform,
    network: Network,
    *,
    pair: Pairing = image_layers,
    blobs: bool = False,
    whole: Known | None = None,
) -> Resolved:
    """The first of the images that ``name`` may stand for on this machine which can be had. Asks nobody.

    Raises UnresolvedName, and as ``resolve``: where there are several, for one, with notes of the others.
    """
    from ..config.shortnames import candidates, recorded_at

    configured = await network.registries()
    found = await in_thread(lambda: candidates(name, configured, recorded_at()))
    failed: dict[Reference, LayerteeError] = {}
    for reference in found.unasked():
        try:
            resolved = await resolve(reference, platform, network, pair=pair, blobs=blobs, whole=whole)
        except LayerteeError as exc:
            failed[reference] = exc
            continue
        said = tuple(f"{name} was not to be had as {other}: {error}" for other, error in failed.items())
        return replace(resolved, warnings=(*said, *resolved.warnings))
    raise _why_none(failed)


def _why_none(failed: dict[Reference, LayerteeError]) -> LayerteeError:
    """What may pass, else what is more than an image that is not there, else the last."""
    errors = list(failed.values())
    stands = next((error for error in errors if error.retryable), None)
    if stands is None:
        others = (error for error in errors if not isinstance(error, NotInRegistry))
        stands = next(others, errors[-1])
    for reference, error in failed.items():
        if error is not stands:
            stands.add_note(f"{reference}: {error}")
    return stands


def _in_storage(reference: StorageReference, platform: Platform) -> Resolved:
    if reference.image is None:
        raise InvalidReference(f"{reference} names a store and no image in it")
    from ..places.find import storage

    found = storage(reference).resolve(reference.image, platform)
    name = next(iter(found.names), reference.image)
    return Resolved(name=name, image=found.image, origin=reference, stored=found)


def _in_layout(reference: LayoutReference, platform: Platform, pair: Pairing, whole: bool) -> Resolved:
    from ..store.layout import Layout

    found = Layout.open(reference.path).resolve(reference.ref, platform, pair=pair, whole=whole)
    return Resolved(name=reference.ref, image=found, origin=reference.path)


def _in_archive(reference: ArchiveReference, platform: Platform, pair: Pairing, whole: bool) -> Resolved:
    from ..places.oci_archive import Archive

    archive = Archive.open(reference.path)
    found = archive.resolve(reference.ref, platform, pair=pair, whole=whole)
    origin = PlaceName(PlaceKind.OCI_ARCHIVE, reference.path)
    return Resolved(name=reference.ref, image=found, origin=origin, kept=archive)


def _in_docker_archive(reference: DockerArchiveReference, pair: Pairing) -> Resolved:
    from ..places.docker_archive import DockerArchive

    archive = DockerArchive(reference.path)
    found = archive.resolve(reference, pair)
    origin = PlaceName(PlaceKind.DOCKER_ARCHIVE, reference.path)
    return Resolved(name=archive.name_of(reference), image=found, origin=origin, kept=archive)
