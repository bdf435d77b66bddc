"""Which places are on offer, as ``--place`` names them, and the stock that they make together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..config.storage import find_roots
from ..errors import InvalidReference, NoHome
from ..image.document import Platform
from ..image.placename import PlaceKind, PlaceName, parse_place
from ..image.reference import ARCHIVE
from ..image.reference_storage import TRANSPORT, StorageReference
from ..places.blobinfocache import BlobInfoCache, default_path
from ..record import dataclass
from .layouts import ArchiveShelf, directory_shelf
from .ownstore import ReadLedger, StoreShelf
from .shelf import Complaints, Shelf
from .stock import OpenStock
from .storage import StorageShelf

if TYPE_CHECKING:
    from .stock import Attesting

STORE: Final = "store"
_FORMS: Final = f"{STORE}, oci:DIR, {ARCHIVE}:FILE or {TRANSPORT}:"


@dataclass(frozen=True, slots=True)
class OwnStorePlace:
    """The store of this program, wherever that is."""

    def __str__(self) -> str:
        return STORE


# An image layout is named by its directory.
Offered = OwnStorePlace | Path | PlaceName | StorageReference


def parse_offered(texts: Sequence[str]) -> tuple[Offered, ...]:
    """``store``, ``oci:DIR``, ``oci-archive:FILE``, ``containers-storage:[…]``; each place once, in order.

    Raises InvalidReference.
    """
    return tuple(dict.fromkeys(map(_parsed, texts)))


def open_stock(
    places: Sequence[Offered],
    store_root: Path | None,
    *,
    platform: Platform | None = None,
    blob_info_cache: Path | None = None,
) -> OpenStock:
    """What is in ``places``, none of which need be there yet; close it.

    ``store_root`` is where this program's own store is, or would be. What its catalog knows of blobs is used
    even if it is not one of ``places``. ``platform`` is that of the clients, this machine's if None.
    ``blob_info_cache``: in place of podman's usual one, which is asked if podman's usual store is on offer.
    Raises InvalidReference and LocalError where the configuration of podman's store cannot be used.
    """
    shelves: list[Shelf] = []
    ledger: ReadLedger | None = None
    attesting: list[Attesting] = []
    for place in sorted(places, key=lambda place: not isinstance(place, OwnStorePlace)):
        if isinstance(place, OwnStorePlace):
            if store_root is None:
                raise InvalidReference("this machine's own store is not known")
            shelves.append(store := StoreShelf(store_root))
            ledger = store.ledger
        elif isinstance(place, Path):
            shelves.append(directory_shelf(place))
        elif isinstance(place, StorageReference):
            shelves.append(StorageShelf(place))
            if place.graphroot is None:  # the store that podman's own records of blobs are about
                attesting += _cache(blob_info_cache)
        elif place.path is not None and place.kind is PlaceKind.OCI_ARCHIVE:
            shelves.append(ArchiveShelf(place.path))
        else:
            raise InvalidReference(f"{place} is no place to offer images from; write {_FORMS}")
    if ledger is None and store_root is not None:
        ledger = ReadLedger(store_root, Complaints(STORE))
    return OpenStock(shelves, ledger=ledger, attesting=attesting, platform=platform)


def directories_of(places: Sequence[Offered], store_root: Path | None) -> tuple[Path, ...]:
    """Where ``places`` and this program's own store are on this machine; an archive is in its file.

    Raises InvalidReference and LocalError where the configuration of podman's store cannot be used.
    """
    found = [] if store_root is None else [store_root]
    for place in places:
        if isinstance(place, Path):
            found.append(place)
        elif isinstance(place, StorageReference):
            found += find_roots(place).roots
        elif isinstance(place, PlaceName) and place.path is not None:
            found.append(place.path)
    return tuple(found)


def _cache(path: Path | None) -> list[Attesting]:
    try:
        return [BlobInfoCache(path or default_path()).content_of]
    except NoHome:
        return []


def _parsed(text: str) -> Offered:
    if text == STORE:
        return OwnStorePlace()
    word, colon, rest = text.partition(":")
    if not colon or word not in ("oci", ARCHIVE, TRANSPORT):
        raise InvalidReference(f"{text!r:.200} is no place to offer images from; write {_FORMS}")
    try:
        found = parse_place(text)
    except InvalidReference as exc:
        raise InvalidReference(f"{text!r:.200} is no place to offer images from; write {_FORMS}") from exc
    if isinstance(found, Path):
        _refuse_name(found, text, rest)
        return Path(os.path.abspath(found))
    if isinstance(found, PlaceName) and found.kind is PlaceKind.OCI_ARCHIVE and found.path is not None:
        _refuse_name(found.path, text, rest)
        return PlaceName(found.kind, Path(os.path.abspath(found.path)))
    if isinstance(found, StorageReference):
        return found
    raise InvalidReference(f"{text!r:.200} is no place to offer images from; write {_FORMS}")


def _refuse_name(path: Path, text: str, rest: str) -> None:
    """All images of a place are offered; one that is named would be a misunderstanding."""
    if ":" in rest:
        raise InvalidReference(
            f"{text!r:.200} names an image; all that is in {path} is offered: leave it out"
        )
