"""What this machine has of one image, and what it knows about the image's blobs: the places, asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from ..errors import CatalogError, LayerteeError
from ..image.document import Compression, DiffID, Digest, Layer, Manifest, image_layers
from ..image.holding import Basis, Holding, Place
from ..image.pairs import contradicts
from ..image.placename import PlaceKind, PlaceName, Where
from ..image.reference_storage import StorageReference
from ..places.blobinfocache import BlobInfoCache, default_path
from ..places.names import Attested, BlobName, Teller
from ..places.own import OwnStore
from ..store.store import Store
from .resolve import Resolved, place, spelled_out, storage


@dataclass(frozen=True, slots=True)
class Present:
    """What ``plan`` asks for: holdings of the store, of the image's origin and elsewhere; pairs and sizes.

    ``still_held`` looks again, once for each place, whether it has what it said; ``attested`` is what other
    tools know. Both block.
    """

    own: Mapping[DiffID, Holding]
    origin: Mapping[DiffID, Holding]
    elsewhere: Sequence[Mapping[DiffID, Holding]]
    known: Mapping[Digest, DiffID]
    sizes: Mapping[DiffID, int]
    still_held: Callable[[Holding], bool]
    attested: Attested


def look(store: Store, image: Resolved, places: Sequence[Where | Place]) -> Present:
    """Ask the store and ``places`` for the layers of ``image``.

    What they warn of goes to the store's warnings. Raises InvalidReference and LocalError for a place whose
    configuration cannot be used. Blocks.
    """
    layers = image.layers
    diff_ids = {layer.diff_id for layer in layers}
    own = OwnStore(store, layers=layers)
    held = own.find(diff_ids)
    missing = diff_ids - held.keys()
    warnings = store.warnings
    warnings += own.warnings
    wheres = spelled_out([*([image.origin] if image.origin else []), *places], warnings)
    tellers = [teller for where in wheres if (teller := _teller(where, warnings)) is not None]
    attested = Attested(diff_ids, tellers, known=store.catalog.diff_id, warnings=warnings)
    prefer = {layer.diff_id: layer.digest for layer in layers}
    asked: dict[str, Place] = {}
    found: list[Mapping[DiffID, Holding]] = []
    for where in wheres:
        one = place(where, known=store.catalog.diff_id, attested=attested.diff_id, prefer=prefer)
        if one is not None:
            asked[one.name] = one
            found.append(one.find(missing) if missing else {})
            warnings += one.warnings
    n_origins = 1 if image.origin else 0
    origin = found[0] if n_origins else {}
    known, sizes = _computed(store, layers, warnings)
    again = _SecondLook(asked, missing)
    return Present(held, origin, found[n_origins:], known, sizes, again.still_held, attested)


class _SecondLook:
    """Asks each place once more for all layers: one look may mean reading a whole repository."""

    def __init__(self, places: Mapping[str, Place], diff_ids: Collection[DiffID]) -> None:
        self._places = places
        self._diff_ids = diff_ids
        self._found: dict[str, Collection[DiffID]] = {}
        self._mutex = Lock()

    def still_held(self, holding: Holding) -> bool:
        with self._mutex:
            if holding.place not in self._found:
                place = self._places.get(holding.place)
                self._found[holding.place] = place.find(self._diff_ids) if place is not None else ()
            return holding.diff_id in self._found[holding.place]


def blob_names(store: Store, image: Resolved, attested: Attested) -> dict[DiffID, tuple[BlobName, ...]]:
    """Every compressed blob that is known to hold a layer of ``image``: the best known first. Blocks.

    Claims are those of the image's own manifest, and of others that podman's store kept for it.
    """
    found: dict[DiffID, tuple[BlobName, ...]] = {}
    claims = _claims(image)
    for diff_id in dict.fromkeys(layer.diff_id for layer in image.layers):
        names: dict[Digest, BlobName] = {}
        with suppress(CatalogError):  # was a warning when the layers were looked for
            for pair in store.catalog.digests(diff_id):
                if pair.compression is not Compression.NONE:
                    names[pair.digest] = BlobName(
                        pair.digest, pair.size, pair.compression, Basis.COMPUTED, "computed here"
                    )
            for blob in attested.names(diff_id):
                names.setdefault(blob.digest, blob)
            for blob in claims.get(diff_id, ()):
                if not contradicts(
                    blob.digest, diff_id, store.catalog.diff_id(blob.digest), blob.compression
                ):
                    names.setdefault(blob.digest, blob)
        found[diff_id] = tuple(names.values())
    return found


def registry_layers(image: Resolved) -> tuple[Digest, tuple[Layer, ...]] | None:
    """The manifest under which a registry had ``image``, and its layers, as far as this machine knows.

    Podman's store keeps the manifest of what it pulled. Where all it has names plain tars, the image was
    built or copied here (or had uncompressed layers at the registry, too, which looks the same).
    """
    if image.open_blob is not None:
        return image.manifest.digest, image.layers
    if image.stored is None:
        return None
    for manifest, layers in _manifests(image):
        if any(layer.compression is not Compression.NONE for layer in layers):
            return manifest.digest, layers
    return None


def kept_by(store: Store, layers: Sequence[Layer], places: Sequence[Where | Place]) -> set[DiffID]:
    """The contents of ``layers`` that ``places`` have, on whatever basis: a guess at what their owners will
    not ask for. Raises as ``look``; blocks.
    """
    diff_ids = {layer.diff_id for layer in layers}
    prefer = {layer.diff_id: layer.digest for layer in layers}
    found: set[DiffID] = set()
    for where in spelled_out(places, store.warnings):
        one = place(where, known=store.catalog.diff_id, attested=lambda _: None, prefer=prefer)
        if one is not None:
            found |= one.find(diff_ids).keys()
    return found


def _manifests(image: Resolved) -> list[tuple[Manifest, tuple[Layer, ...]]]:
    """The image's manifest, and others that name the same config."""
    found = [(image.manifest, image.layers)]
    for document in image.stored.documents if image.stored is not None else ():
        if not isinstance(document, Manifest) or document.digest == image.manifest.digest:
            continue
        if document.config.digest == image.config.digest:
            with suppress(LayerteeError):  # it does not fit the config, whoever wrote it
                found.append((document, image_layers(document, image.config)))
    return found


def _claims(image: Resolved) -> dict[DiffID, list[BlobName]]:
    found: dict[DiffID, list[BlobName]] = {}
    for manifest, layers in _manifests(image):
        for layer in layers:
            if layer.compression is not Compression.NONE:
                source = f"manifest {manifest.digest}"
                found.setdefault(layer.diff_id, []).append(
                    BlobName(layer.digest, layer.size, layer.compression, Basis.CLAIMED, source)
                )
    return found


def _computed(
    store: Store, layers: Sequence[Layer], warnings: list[str]
) -> tuple[dict[Digest, DiffID], dict[DiffID, int]]:
    """The pairs of the layers' blobs, and the sizes of their contents, as computed here."""
    known: dict[Digest, DiffID] = {}
    try:
        for layer in layers:
            if (computed := store.catalog.diff_id(layer.digest)) is not None:
                known[layer.digest] = computed
        return known, store.catalog.uncompressed_sizes({layer.diff_id for layer in layers})
    except CatalogError as exc:
        warnings.append(str(exc))
        return known, {}


def _teller(where: Where | Place, warnings: list[str]) -> Teller | None:
    """What ``where`` knows about blobs, if it is a kind of place that knows anything."""
    if isinstance(where, StorageReference):
        store = storage(where)

        def of_storage(diff_ids: Collection[DiffID]) -> Mapping[DiffID, Sequence[BlobName]]:
            return {
                diff_id: [
                    BlobName(blob.digest, blob.size, blob.compression, Basis.ATTESTED, store.name)
                    for blob in blobs
                ]
                for diff_id, blobs in store.blobs().items()
                if diff_id in diff_ids
            }

        return of_storage
    if isinstance(where, PlaceName) and where.kind is PlaceKind.BLOB_INFO_CACHE:
        cache = BlobInfoCache(where.path or default_path())

        def of_cache(diff_ids: Collection[DiffID]) -> Mapping[DiffID, Sequence[BlobName]]:
            found = cache.blobs(diff_ids)
            warnings.extend(cache.warnings)
            return found

        return of_cache
    return None
