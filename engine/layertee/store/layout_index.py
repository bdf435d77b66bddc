"""``index.json`` of an OCI image layout as a value: parsed strictly, changed one entry at a time.

No I/O. Whatever is not the entry being changed stays as it was found, unknown fields included: the
file is shared with other tools, and with versions of them that do not exist yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..errors import DocumentError, StoreCorrupt
from ..image.document import OCI_INDEX, Descriptor, Index, parse_document

REF_NAME: Final = "org.opencontainers.image.ref.name"
EMPTY: Final = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()

Entry = dict[str, Any]


def parse(path: Path, raw: bytes) -> Index:
    """The index in ``raw``; ``path`` is for messages. Raises StoreCorrupt."""
    try:
        document = parse_document(raw, OCI_INDEX)
    except DocumentError as exc:
        raise StoreCorrupt(f"{path}: {exc}", path=str(path)) from exc
    if not isinstance(document, Index):
        raise StoreCorrupt(f"{path} is not an image index", path=str(path))
    return document


def changed(path: Path, raw: bytes, change: Callable[[list[Entry]], list[Entry]]) -> bytes:
    """``raw`` with its entries changed. Raises StoreCorrupt, also when the result would be no index."""
    parse(path, raw)  # so that what follows may rely on its shape
    document = json.loads(raw)
    document["manifests"] = change(document["manifests"])
    new = json.dumps(document, separators=(",", ":")).encode()
    parse(path, new)
    return new


def with_entry(entries: list[Entry], ref: str | None, descriptor: Descriptor) -> list[Entry]:
    """``entries`` with ``descriptor`` under the name ``ref``, in the place of what had that name."""
    new = _entry(ref, descriptor)
    same = [e for e in entries if _ref_of(e) == ref and (ref or e["digest"] == descriptor.digest)]
    if not same:
        return [*entries, new]
    return [new if e is same[0] else e for e in entries if e is same[0] or e not in same]


def without_entry(entries: list[Entry], ref: str) -> list[Entry]:
    """``entries`` without those named ``ref``."""
    return [entry for entry in entries if _ref_of(entry) != ref]


def _entry(ref: str | None, descriptor: Descriptor) -> Entry:
    entry: Entry = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    annotations = {**descriptor.annotations, **({REF_NAME: ref} if ref is not None else {})}
    if annotations:
        entry["annotations"] = annotations
    if descriptor.platform is not None:
        platform = descriptor.platform
        entry["platform"] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant is not None:
            entry["platform"]["variant"] = platform.variant
    return entry


def _ref_of(entry: Entry) -> str | None:
    found = (entry.get("annotations") or {}).get(REF_NAME)
    return found if isinstance(found, str) else None
