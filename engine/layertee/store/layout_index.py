"""``index.json`` of an OCI image layout as a value, and changed one entry at a time.

No I/O. Whatever is not the entry being changed stays as it was found, unknown fields included: the
file is shared with other tools, and with versions of them that do not exist yet.

The document as a whole is read strictly. An entry that makes no sense spoils only itself: other entries can
be read and changed. What it stands for cannot be known, though, so nothing is removed beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from ..errors import DocumentError, LayerteeError, StoreCorrupt
from ..image.document import Descriptor, Index, parse_document
from ..image.media import OCI_INDEX
from ..image.strictjson import as_list, load_object
from ..record import dataclass

INDEX: Final = "index.json"
REF_NAME: Final = "org.opencontainers.image.ref.name"
EMPTY: Final = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()

Entry = Any  # usually an object; whatever another tool put there


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that is no descriptor, and why. ``ref`` is its name, if it has one."""

    ref: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class LayoutIndex:
    """What ``where``, an index.json, names."""

    where: str
    entries: tuple[Descriptor, ...]
    broken: tuple[Broken, ...]

    def refuse_broken(self, ref: str | None) -> None:
        """Raise StoreCorrupt if an entry called ``ref`` (None: any) makes no sense."""
        for one in self.broken:
            if ref is None or one.ref == ref:
                raise StoreCorrupt(f"{self.where}: {one.problem}", path=self.where)


def parse(where: str, raw: bytes) -> LayoutIndex:
    """The index in ``raw``; ``where`` is for messages. Raises StoreCorrupt."""
    try:
        return LayoutIndex(where, _manifests(raw), ())
    except LayerteeError:  # which of the entries is it, if it is one of them?
        return _one_by_one(where, raw)


def _one_by_one(where: str, raw: bytes) -> LayoutIndex:
    head, items = _split(where, raw)
    entries: list[Descriptor] = []
    broken: list[Broken] = []
    for position, item in enumerate(items):
        try:
            entries += _manifests(_joined(head, [item]))
        except LayerteeError as exc:
            problem = str(exc).replace("manifests[0]", f"manifests[{position}]")
            broken.append(Broken(_ref_of(item), problem))
    return LayoutIndex(where, tuple(entries), tuple(broken))


def _split(where: str, raw: bytes) -> tuple[dict[str, object], list[Entry]]:
    """The document without its entries, which is an index, and the entries. Raises StoreCorrupt."""
    try:
        head = load_object(raw, INDEX, maps=frozenset({"annotations"}))
        items = as_list(head.get("manifests"), f"{INDEX} manifests")  # None is Go's empty list
        _manifests(_joined(head, []))
    except LayerteeError as exc:
        raise StoreCorrupt(f"{where}: {exc}", path=where) from exc
    return head, items


def _joined(head: dict[str, object], items: list[Entry]) -> bytes:
    there = {"manifests": items} if "manifests" in head else {}
    return json.dumps({**head, **there}, separators=(",", ":")).encode()


def _manifests(raw: bytes) -> tuple[Descriptor, ...]:
    """The entries of an index. Raises IntegrityError, UnsupportedImage."""
    document = parse_document(raw, OCI_INDEX)
    if not isinstance(document, Index):
        raise DocumentError("it is not an image index")
    if document.unreadable:
        raise DocumentError(document.unreadable[0].reason)
    for position, entry in enumerate(document.manifests):
        if not entry.media_type:  # what is removed from a layout depends on it
            raise DocumentError(f"manifests[{position}] mediaType is missing")
    return document.manifests


def changed(where: str, raw: bytes, change: Callable[[list[Entry]], list[Entry]]) -> bytes:
    """``raw`` with its entries changed. Raises StoreCorrupt, also when the result would be no index."""
    before = parse(where, raw)
    head, items = _split(where, raw)
    new = _joined(head, change(items))
    if len(parse(where, new).broken) > len(before.broken):
        raise ValueError("a new entry is no descriptor")
    return new


def with_entry(entries: list[Entry], ref: str | None, descriptor: Descriptor) -> list[Entry]:
    """``entries`` with ``descriptor`` under the name ``ref``, in the place of what had that name."""
    new = _entry(ref, descriptor)
    same = [e for e in entries if _ref_of(e) == ref and (ref or _digest_of(e) == descriptor.digest)]
    if not same:
        return [*entries, new]
    return [new if e is same[0] else e for e in entries if e is same[0] or e not in same]


def without_entry(entries: list[Entry], ref: str) -> list[Entry]:
    """``entries`` without those named ``ref``."""
    return [entry for entry in entries if _ref_of(entry) != ref]


def _entry(ref: str | None, descriptor: Descriptor) -> Entry:
    entry: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
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
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    found = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else None


def _digest_of(entry: Entry) -> object:
    return entry.get("digest") if isinstance(entry, dict) else None
