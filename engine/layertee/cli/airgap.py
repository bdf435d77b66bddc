"""``layertee export`` and ``import``: from one store to another, with no line between them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk.files import disk_error
from ..disk.space import KeepFree, human
from ..errors import InvalidReference, NotFound
from ..image.document import Index
from ..image.platform import Platform
from ..image.reference import ArchiveReference, LayoutReference, parse_reference
from ..record import dataclass
from ..store.copies import KeptImage, see_that_it_can_be_an_archive, write_archive, write_layout
from ..store.having import MAX_LIST, have_list, layers_of, read_have_list
from .exits import EXIT_OK
from .output import flush, print_json, print_table, say, warn
from .reporting import Reporting
from .shared import open_store, root_of, store_or_nothing

if TYPE_CHECKING:
    from ..image.document import DiffID, Layer
    from ..store.store import Store


@dataclass(frozen=True, slots=True)
class _Exported:
    """One image on its way out, and which of its layers the other store has."""

    name: str
    image: KeptImage
    layers: tuple[Layer, ...]
    left_out: frozenset[DiffID]

    @classmethod
    def of(cls, store: Store, name: str, have: frozenset[DiffID]) -> _Exported:
        """Raises NotFound, and as ``KeptImage.of``."""
        image = KeptImage.of(store.layout, store.layout.find(name)).as_pulled()
        document = image.document
        if isinstance(document, Index):  # which is whole, or it is not that index
            return cls(name, image, store.layout.whole(document, Platform.host()).layers, frozenset())
        layers = store.layout.image(document).layers
        return cls(name, image, layers, have & {layer.diff_id for layer in layers})

    def goes(self, layer: Layer) -> bool:
        """Whether it is written."""
        return layer.diff_id not in self.left_out

    def to_json(self) -> dict[str, Any]:
        """Its element of ``images``."""
        layers = [
            {
                "digest": layer.digest,
                "diff_id": layer.known_diff_id,
                "size": layer.size,
                "exported": self.goes(layer),
            }
            for layer in self.layers
        ]
        return {"name": self.name, "manifest_digest": self.image.descriptor.digest, "layers": layers}


def export(args: argparse.Namespace) -> int:
    """Raises NotFound, InvalidReference, DocumentError, NoSpace, LocalError, IntegrityError."""
    if args.have:
        return _have(args)
    if not args.images or args.to is None:
        raise InvalidReference("name the images, as 'layertee ls' shows them, and --to; or give --have")
    with Reporting(args) as reporting:
        return _export(args, reporting)


def _export(args: argparse.Namespace, reporting: Reporting) -> int:
    target = _target(args.to)
    if isinstance(target, ArchiveReference):
        see_that_it_can_be_an_archive(target.path, [root_of(args)])
    have = _read_list(args.lacking) if args.lacking is not None else frozenset()
    with open_store(args) as store, store.shared():
        images = [_Exported.of(store, name, have) for name in dict.fromkeys(args.images)]
        left = {layer.digest: layer.size for one in images for layer in one.layers if not one.goes(layer)}
        without = left.keys() - {layer.digest for one in images for layer in one.layers if one.goes(layer)}
        named = [(one.image, one.name) for one in images]
        write = write_archive if isinstance(target, ArchiveReference) else write_layout
        with reporting.shown as shown:
            shown.begin(f"writing {target}")
            nbytes = write(
                named,
                target.path,
                args.keep_free or KeepFree.usual(),
                without=without,
                progress=reporting.exporting,
            )
    warn(store.warnings)
    left_out = sum(left[digest] for digest in without)
    result = {
        "to": str(target),
        "images": [one.to_json() for one in images],
        "bytes_written": nbytes,
        "bytes_left_out": left_out,
    }
    if args.json:
        print_json(result)
    else:
        rows = [
            (one.name, one.image.descriptor.digest, str(len(one.layers)), str(len(one.left_out)))
            for one in images
        ]
        print_table(("image", "manifest", "layers", "left out"), rows, whole=args.no_trunc)
        say("", f"wrote {human(nbytes)} to {target}; {human(left_out)} are left out")
    flush()  # what reaches nobody is no success
    reporting.done(result)
    return EXIT_OK


def _have(args: argparse.Namespace) -> int:
    if args.images or args.to or args.lacking:
        raise InvalidReference("--have prints what this store has; it goes with no image, --to or --lacking")
    with store_or_nothing(args) as store:
        rows = layers_of(store) if store else []
    print_json(have_list(rows))
    return EXIT_OK


def take_in(args: argparse.Namespace) -> int:
    """``import``. Raises NotFound, StoreCorrupt, InvalidReference; the rest is told of each image."""
    from ..pulling.plan import Keep
    from .pulls import pull_several  # export has no loop, and no network

    args.to = args.digestfile = None
    args.images = [f"{args.source}:{name}" for name in args.names]  # if that is all that becomes known
    return pull_several(args, Keep.STORE, lambda: _images_of(args), where_not_found="lacking")


def _images_of(args: argparse.Namespace) -> list[str]:
    """The images to import. Raises NotFound, StoreCorrupt, InvalidReference."""
    source = _target(args.source)
    names = _names_in(source)
    wanted = list(dict.fromkeys(args.names)) or names
    for name in wanted:
        if name not in names:
            raise NotFound(f"{source} has no image called {name!r}; it has: {', '.join(names) or 'none'}")
    if not wanted:
        raise NotFound(f"{source} has no images with names")
    return [f"{source}:{name}" for name in wanted]


def _target(text: str) -> ArchiveReference | LayoutReference:
    found = parse_reference(text) if ":" in text else None
    if isinstance(found, ArchiveReference | LayoutReference) and found.ref is None:
        return found
    raise InvalidReference(f"{text}: write oci-archive:FILE or oci:DIR; images keep the names that they have")


def _names_in(source: ArchiveReference | LayoutReference) -> list[str]:
    from ..places.oci_archive import Archive
    from ..store.layout import Layout

    is_file = isinstance(source, ArchiveReference)
    return (Archive.open(source.path) if is_file else Layout.open(source.path)).refs()


def _read_list(path: Path) -> frozenset[DiffID]:
    """Of ``-`` standard input is read. Raises LocalError, DocumentError."""
    if str(path) == "-":
        return read_have_list(sys.stdin.buffer.read(MAX_LIST + 1), "the list on standard input")
    try:
        with path.open("rb") as file:
            return read_have_list(file.read(MAX_LIST + 1), str(path))
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
