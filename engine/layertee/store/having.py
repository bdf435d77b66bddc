"""What a store has, as a list that another machine reads.

The list is a claim, and costs nothing but room where it is wrong: what it makes another machine leave out is
looked for, and verified, where the image is taken in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ..errors import DocumentError
from ..image.document import DiffID
from ..image.strictjson import as_list, as_object, load_object

if TYPE_CHECKING:
    from .catalog import HeldBlob
    from .store import Store

MAX_LIST: Final = 16 << 20  # bytes: some 60,000 layers


def layers_of(store: Store) -> list[HeldBlob]:
    """The layers that the store has checked and still has, in order. Raises CatalogError, LocalError."""
    rows = sorted(store.catalog.holdings(), key=lambda row: row.digest)
    return [row for row in rows if store.layout.blob_size(row.digest) == row.size]


def have_list(rows: Iterable[HeldBlob]) -> dict[str, Any]:
    """The list as an object of JSON."""
    return {"layers": [{"digest": row.digest, "diff_id": row.diff_id, "size": row.size} for row in rows]}


def read_have_list(raw: bytes, what: str) -> frozenset[DiffID]:
    """The contents that the other store has. Raises DocumentError, which begins with ``what``."""
    document = load_object(raw, what, limit=MAX_LIST)
    if "layers" not in document:
        raise DocumentError(f"{what} is no list of layers")
    layers = as_list(document["layers"], f"{what}: layers")
    return frozenset(DiffID.parse(as_object(one, f"{what}: a layer").get("diff_id"), what) for one in layers)
