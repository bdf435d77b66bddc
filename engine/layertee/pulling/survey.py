"""What this machine has of one image, and what it knows about the image's blobs: the places, asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from ..errors import CatalogError, LayerteeError
from ..image.blobname import BlobName
from ..image.document import DiffID, Digest, Layer, Manifest, image_layers
from ..image.holding import Basis, Holding, Place
from ..image.media import Compression
from ..image.pairs import contradicts
from ..places.find import place, spelled_out
from ..places.names import Attested
from ..places.oci_layout import OCILayoutPlace
from ..places.own import OwnStore
from .plan import SourceKind, Survey, Want, own_sources

if TYPE_CHECKING:
    from ..image.placename import Where
    from ..store.store import Store
    from .resolve import Resolved


def look(
    store: Store,
    found: Resolved,
    places: Sequence[Where | Place],
    want: Want,
    *,
    keep_parts: bool = True,
) -> tuple[Survey, Attested]:
    """Ask the store, the place that the image is in, and ``places`` for the layers of ``found``.

    Without ``keep_parts``, what has begun to arrive is not used. Places are asked only for what the store
    does not have as ``want`` has it. Raises InvalidReference and LocalError for a place whose configuration
    cannot be used. Blocks.
    """
    layers = found.image.layers
    warnings: list[str] = []
    own = OwnStore(store, layers=layers)
    forms = own.forms()
    warnings += forms.warnings
    missing = {
        layer.diff_id
        for layer in layers
        if not any(
            source.kind is SourceKind.HAVE
            for source in own_sources(layer, forms.holdings.get(layer.diff_id, ()), want)
        )
    }
    wheres = spelled_out([*([found.origin] if found.origin else []), *places], warnings)
    asked, attested = _places(store, layers, wheres)
    origin: dict[DiffID, list[Holding]] = {}
    refused: dict[DiffID, LayerteeError] = {}
    elsewhere: dict[DiffID, list[Holding]] = {}
    for at, one in enumerate(asked):
        if not missing:
            break
        is_origin = at == 0 and found.origin is not None
        into = origin if is_origin else elsewhere
        if is_origin and isinstance(one, OCILayoutPlace):
            # Of its own image a layout has exactly the blobs, whatever else it has of their content.
            blobs = one.blobs_of([layer for layer in layers if layer.diff_id in missing])
            _add(into, blobs.holdings)
            warnings += blobs.warnings
            refused |= blobs.refused
        answer = one.find(missing)
        _add(into, answer.items())
        warnings += answer.warnings
        if is_origin:
            refused = {**answer.refused, **refused}
    known, sizes = _computed(store, layers, warnings)
    arrived = store.parts.arrived(layers) if keep_parts and found.registry is not None else {}
    warnings += attested.warnings
    said = tuple(dict.fromkeys(warnings))
    return (
        Survey(forms.holdings, origin, elsewhere, known, sizes, found.registry, said, refused, arrived),
        attested,
    )


class Keepers:
    """Places that keep layers for others, asked again when that counts.

    Each place is asked once for all of ``layers``: one look may mean reading a whole repository. Any thread
    may call; blocks.
    """

    def __init__(self, store: Store, places: Sequence[Where | Place], layers: Sequence[Layer]) -> None:
        self._store = store
        self._wheres = places
        self._layers = layers
        self._places: dict[str, Place] | None = None
        self._found: dict[str, Collection[DiffID]] = {}
        self._mutex = Lock()

    def still_held(self, holding: Holding) -> bool:
        """Whether the place of ``holding`` has the layer now. False for a place that is not one of these."""
        with self._mutex:
            if self._places is None:
                warnings: list[str] = []  # the survey that found the holding has given them
                wheres = spelled_out(self._wheres, warnings)
                asked, _ = _places(self._store, self._layers, wheres)
                self._places = {one.name: one for one in asked}
            if holding.place not in self._found:
                place = self._places.get(holding.place)
                wanted = {layer.diff_id for layer in self._layers}
                self._found[holding.place] = place.find(wanted) if place is not None else ()
            return holding.diff_id in self._found[holding.place]


def blob_names(store: Store, found: Resolved, attested: Attested) -> dict[DiffID, tuple[BlobName, ...]]:
    """Every compressed blob that is known to hold a layer of the image: the best known first. Blocks.

    Claims are those of the image's own manifest, and of others that podman's store kept for it.
    """
    named: dict[DiffID, tuple[BlobName, ...]] = {}
    claims = _claims(found)
    for diff_id in dict.fromkeys(layer.diff_id for layer in found.image.layers):
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
                computed = store.catalog.diff_id(blob.digest)
                if not contradicts(blob.digest, diff_id, computed, blob.compression):
                    names.setdefault(blob.digest, blob)
        named[diff_id] = tuple(names.values())
    return named


def registry_layers(found: Resolved) -> tuple[Digest, tuple[Layer, ...]] | None:
    """The manifest under which a registry had the image, and its layers, as far as this machine knows.

    Podman's store keeps the manifest of what it pulled. Where all it has names plain tars, the image was
    built or copied here (or had uncompressed layers at the registry, too, which looks the same).
    """
    if found.registry is not None:
        return found.image.manifest.digest, found.image.layers
    if found.stored is None:
        return None
    for manifest, layers in _manifests(found):
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
    for where in spelled_out(places, []):
        one = place(where, known=store.blobs.content_of, attested=lambda _: None, prefer=prefer)
        found |= one.find(diff_ids).keys()
    return found


def _add(found: dict[DiffID, list[Holding]], new: Collection[tuple[DiffID, Holding]]) -> None:
    for diff_id, holding in new:
        known = found.setdefault(diff_id, [])
        if holding not in known:
            known.append(holding)


def _places(
    store: Store, layers: Sequence[Layer], wheres: Sequence[Where | Place]
) -> tuple[list[Place], Attested]:
    """The places that ``wheres`` name, and what the owners of all of them know about blobs."""
    made: list[Place] = []
    attested = Attested({layer.diff_id for layer in layers}, made, known=store.blobs.content_of)
    prefer = {layer.diff_id: layer.digest for layer in layers}
    # Each may ask what the others know, once they are all there.
    made += [
        place(where, known=store.blobs.content_of, attested=attested.diff_id, prefer=prefer)
        for where in wheres
    ]
    return made, attested


def _manifests(found: Resolved) -> list[tuple[Manifest, tuple[Layer, ...]]]:
    """The image's manifest, and others that name the same config."""
    image = found.image
    manifests = [(image.manifest, image.layers)]
    for document in found.stored.documents if found.stored is not None else ():
        if not isinstance(document, Manifest) or document.digest == image.manifest.digest:
            continue
        if document.config.digest == image.config.digest:
            with suppress(LayerteeError):  # it does not fit the config, whoever wrote it
                manifests.append((document, image_layers(document, image.config)))
    return manifests


def _claims(found: Resolved) -> dict[DiffID, list[BlobName]]:
    claims: dict[DiffID, list[BlobName]] = {}
    for manifest, layers in _manifests(found):
        for layer in layers:
            if layer.compression is not Compression.NONE:
                source = f"manifest {manifest.digest}"
                claims.setdefault(layer.diff_id, []).append(
                    BlobName(layer.digest, layer.size, layer.compression, Basis.CLAIMED, source)
                )
    return claims


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
