"""The store commands: ``layertee ls``, ``map``, ``rm`` and ``gc``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..disk.keeping import KeepPartials
from ..disk.space import human
from ..errors import InvalidReference
from ..image.document import DiffID, Digest
from ..store.gc import gc
from ..store.sweep import GCReport
from .exits import EXIT_OK
from .output import counted, print_json, print_table, say, warn
from .shared import open_store, store_or_nothing

if TYPE_CHECKING:
    from ..store.catalog import Pair
    from ..store.images import StoredImage
    from ..store.parts import Part


def ls(args: argparse.Namespace) -> int:
    """Raises StoreCorrupt, LocalError; so do the others."""
    if args.partial:
        return _ls_parts(args)
    with store_or_nothing(args) as store:
        images = store.images.all() if store else []
        warn(store.warnings if store else ())
    if args.json:
        print_json({"images": [_image_json(image) for image in images]})
    else:
        head = ("image", "manifest", "platform", "size", "pulled", "")
        print_table(head, [_image_row(image) for image in images], whole=args.no_trunc)
    return EXIT_OK


def _ls_parts(args: argparse.Namespace) -> int:
    """Of a blob that is being fetched by another process just now, too."""
    with store_or_nothing(args) as store:
        parts = store.parts.all() if store else []
        warn(store.warnings if store else ())
    if args.json:
        told = [
            {"digest": part.digest, "bytes": part.nbytes, "age_seconds": round(part.age_s)} for part in parts
        ]
        print_json({"partial": told})
    else:
        print_table(("blob", "arrived", "age"), [_part_row(part) for part in parts], whole=args.no_trunc)
    return EXIT_OK


def _part_row(part: Part) -> tuple[str, ...]:
    hours, minutes = divmod(round(part.age_s) // 60, 60)
    days, rest = divmod(hours, 24)
    units = ((days, "d"), (rest, "h"), (minutes, "min"))
    said = [f"{n} {unit}" for n, unit in units if n][:2]
    return part.digest, human(part.nbytes), " ".join(said) or "0 min"


def _image_json(image: StoredImage) -> dict[str, object]:
    return {
        "name": image.name,
        "manifest_digest": image.original,
        "local_manifest_digest": image.digest,
        "config_digest": image.config,
        "platform": image.platform,
        "platforms": [str(platform) for platform in image.platforms],
        "bytes": image.nbytes,
        "pulled_at": image.pulled_at,
        "problem": image.problem,
    }


def _image_row(image: StoredImage) -> tuple[str, ...]:
    return (
        image.name,
        image.original,
        f"{len(image.platforms)} platforms" if len(image.platforms) > 1 else image.platform,
        human(image.nbytes),
        time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(image.pulled_at)) if image.pulled_at else "-",
        image.problem or "",
    )


def show_map(args: argparse.Namespace) -> int:
    """``args.key``: only the pairs with that digest, in full. Raises InvalidReference as well."""
    key = _digest(args.key) if args.key else None
    with store_or_nothing(args) as store:
        pairs: Sequence[Pair] = ()
        if store:
            pairs = store.catalog.lookup(key) if key else store.catalog.pairs()
            warn(store.warnings)
    if args.json:
        print_json({"pairs": [_pair_json(pair) for pair in pairs]})
    else:
        head = ("blob digest", "diff id", "form", "size", "uncompressed")
        print_table(head, [_pair_row(pair) for pair in pairs], whole=args.no_trunc or key is not None)
    return EXIT_OK


def _digest(text: str) -> Digest | DiffID:
    try:
        return Digest(text if ":" in text else f"sha256:{text}")
    except ValueError:
        raise InvalidReference(f"{text!r:.100} is not sha256:<64 hex digits>") from None


def _pair_json(pair: Pair) -> dict[str, object]:
    return {
        "digest": pair.digest,
        "diff_id": pair.diff_id,
        "size": pair.size,
        "uncompressed_size": pair.uncompressed_size,
        "compression": pair.compression.value,
    }


def _pair_row(pair: Pair) -> tuple[str, ...]:
    return (
        pair.digest,
        pair.diff_id,
        pair.compression.value,
        human(pair.size),
        human(pair.uncompressed_size),
    )


def rm(args: argparse.Namespace) -> int:
    """All of ``args.names``, or, where one is not there, none. Raises NotFound as well."""
    names = list(dict.fromkeys(args.names))
    with open_store(args) as store:
        for name in names:
            store.layout.find(name)
        for name in names:
            store.images.remove(name)
    warn(store.warnings)
    if args.json:
        print_json({"removed": names})
    return EXIT_OK


def collect(args: argparse.Namespace) -> int:
    """``gc``. Raises StoreBusy as well."""
    with store_or_nothing(args) as store:
        report = gc(store, keep_parts=args.keep_partials or KeepPartials(0.0)) if store else GCReport()
    warn(report.warnings)
    if args.json:
        print_json(_gc_json(report))
    else:
        removed = f"{counted(report.blobs_removed, 'blob')} and {counted(report.parts_removed, 'leftover')}"
        say(
            f"removed {removed}, freed {human(report.bytes_freed)}, kept {counted(report.blobs_kept, 'blob')}"
        )
    return EXIT_OK


def _gc_json(report: GCReport) -> dict[str, object]:
    return {
        "blobs_removed": report.blobs_removed,
        "leftovers_removed": report.parts_removed,
        "bytes_freed": report.bytes_freed,
        "blobs_kept": report.blobs_kept,
    }
