"""An OCI image layout: a directory of blobs named by digest, and an index that names images.

image-spec v1.1 image-layout.md. Other tools read and write the same directory, so: documents are
hashed whenever they are read; files are opened without following a symlink, and only plain ones;
paths are built from ``Digest`` values only; ``index.json`` is replaced in one step, under a lock on
the directory, with everything kept that is not ours, unknown fields included.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..disk.files import close, disk_error, make_directory
from ..disk.locks import lock_directory
from ..disk.part import PART_SUFFIX, write_file
from ..errors import DocumentError, InvalidReference, NotFound, SizeMismatch, StoreCorrupt
from ..image.document import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    OCI_INDEX,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
    choose_platform,
    image_layers,
    parse_config,
    parse_document,
)
from . import layout_index as layoutindex
from .layout_index import REF_NAME

ORIGINAL_MANIFEST: Final = "dev.layertee.original-manifest"  # digest of the manifest as pulled
INDEX_DEPTH: Final = 2  # an index may name indexes, as registries allow; those may name manifests only

_MARKER = "oci-layout"
_INDEX = "index.json"
_VERSION = "1.0.0"
_LOCK_S = 10.0  # an index is rewritten in milliseconds
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class LayoutImage:
    """One image of a layout, every document of it hashed. ``index_digest``: the index it was chosen from."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    index_digest: Digest | None


class Layout:
    """The layout in ``path``. Holds nothing open; every call reads what is there at that moment."""

    def __init__(self, path: Path, *, private: bool) -> None:
        """Use ``open`` or ``create``."""
        self.path = path
        self.blob_mode: int | None = 0o400 if private else None
        self._index_mode: int | None = 0o600 if private else None
        self._directory_mode = 0o700 if private else 0o777

    @classmethod
    def open(cls, path: Path, *, private: bool = False) -> Layout:
        """The layout that is in ``path``.

        Raises NotFound (nothing there), StoreCorrupt (something else, or damaged), LocalError.
        """
        layout = cls(Path(os.path.realpath(path)), private=private)
        try:
            found = os.stat(layout.path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} is not there") from None
        except OSError as exc:
            raise disk_error(exc, "looking at", path) from exc
        if not stat.S_ISDIR(found.st_mode):
            raise StoreCorrupt(f"{path} is not a directory", path=str(path))
        layout._check_marker()
        layout.index()
        return layout

    @classmethod
    def create(cls, path: Path, *, private: bool) -> Layout:
        """The layout in ``path``, made if there is nothing yet.

        ``private``: 0700 and 0600, blobs 0400; else as the umask has it. Raises StoreCorrupt for a
        directory that holds something else, LocalError, NoSpace.
        """
        layout = cls(Path(os.path.realpath(path)), private=private)
        make_directory(layout.path, layout._directory_mode)
        with lock_directory(layout.path, timeout=_LOCK_S):
            layout._complete()
        return cls.open(path, private=private)

    # --- blobs --------------------------------------------------------------

    def blob_directory(self, algorithm: str = "sha256") -> Path:
        """Where the blobs named by ``algorithm`` are."""
        return self.path / "blobs" / algorithm

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob is, if it is here."""
        if not isinstance(digest, Digest):
            raise TypeError(f"a path is made from a Digest, not from {type(digest).__name__}")
        return self.blob_directory(digest.algorithm) / digest.hex

    def blob_size(self, digest: Digest) -> int | None:
        """The size of the plain file under that name, or None. Raises LocalError when nobody can tell."""
        path = self.blob_path(digest)
        try:
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise disk_error(exc, "looking at", path) from exc
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def blobs(self) -> Iterator[Digest]:
        """Every blob name that is here, in order. Raises LocalError."""
        top = self.path / "blobs"
        try:
            for algorithm in sorted(os.listdir(top)):
                with suppress(NotADirectoryError):
                    for name in sorted(os.listdir(top / algorithm)):
                        with suppress(ValueError):  # not a blob's name: not ours to touch
                            yield Digest(f"{algorithm}:{name}")
        except OSError as exc:
            raise disk_error(exc, "listing", top) from exc

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A document (at most 4 MiB), whose bytes were just hashed.

        Raises NotFound, SizeMismatch, DigestMismatch, DocumentError (too large), LocalError.
        """
        path = self.blob_path(descriptor.digest)
        if descriptor.size > MAX_DOCUMENT:
            raise DocumentError(f"{path}: a document of {descriptor.size} bytes is too large")
        raw = _read(path, descriptor.size)
        if raw is None:
            raise NotFound(f"{path} is missing")
        if len(raw) != descriptor.size:
            message = f"{path} is not the {descriptor.size} bytes that the image names"
            raise SizeMismatch(message, want=descriptor.size, got=len(raw))
        descriptor.digest.check(raw, str(path))
        return raw

    # --- images -------------------------------------------------------------

    def index(self) -> Index:
        """``index.json`` as it is now. Raises StoreCorrupt, LocalError."""
        return layoutindex.parse(self.path / _INDEX, self._read_index())

    def entries(self) -> tuple[Descriptor, ...]:
        """What the index names."""
        return self.index().manifests

    def find(self, ref: str | None) -> Descriptor:
        """The entry called ``ref``, or the only one.

        Raises NotFound and InvalidReference (several, and none named); both list the refs.
        """
        return self._named(ref)[0]

    def resolve(self, ref: str | None, platform: Platform) -> LayoutImage:
        """The image called ``ref`` for ``platform``, through indexes where there are any.

        Raises as ``find``, ``read_blob`` and the parsers of ``oci`` do.
        """
        named = self._named(ref)
        entry = named[0]
        if len(named) > 1:
            entry = choose_platform(Index(b"", Digest.of(b""), OCI_INDEX, named), platform)
        index_digest: Digest | None = None
        for _ in range(INDEX_DEPTH + 1):
            document = self.document(entry)
            if isinstance(document, Manifest):
                return self.image(entry, document, index_digest)
            index_digest = index_digest or document.digest
            entry = choose_platform(document, platform)
        raise DocumentError(f"{self.path}: indexes are nested more than {INDEX_DEPTH} deep")

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index that ``descriptor`` names; raises as ``read_blob`` and the parser do."""
        return parse_document(self.read_blob(descriptor), descriptor.media_type)

    def image(self, entry: Descriptor, manifest: Manifest, index_digest: Digest | None = None) -> LayoutImage:
        """``manifest`` with its config and layers; raises as ``read_blob`` and the parsers do."""
        config = parse_config(self.read_blob(manifest.config), manifest.config)
        return LayoutImage(entry, manifest, config, image_layers(manifest, config), index_digest)

    def set_entry(self, ref: str | None, descriptor: Descriptor) -> None:
        """Name ``descriptor``: ``ref`` now means it. All other entries stay as they are.

        Raises StoreBusy, StoreCorrupt, LocalError, NoSpace.
        """
        if ref is not None and (not ref or not ref.isprintable() or " " in ref):
            raise ValueError(f"not a reference name: {ref!r}")
        self._rewrite(lambda entries: layoutindex.with_entry(entries, ref, descriptor))

    def remove_entry(self, ref: str) -> None:
        """Forget the name ``ref``; the blobs stay. Raises NotFound and as ``set_entry``."""
        self.find(ref)
        self._rewrite(lambda entries: layoutindex.without_entry(entries, ref))

    def refs(self) -> list[str]:
        """The names of images, in the index's order."""
        return [name for entry in self.entries() if (name := entry.annotations.get(REF_NAME)) is not None]

    def remove_leftovers(self) -> int:
        """Remove temporary files of writers that died; return how many. Raises StoreBusy, LocalError."""
        count = 0
        with lock_directory(self.path, timeout=_LOCK_S):
            try:
                for name in os.listdir(self.path):
                    if _is_leftover(name):
                        os.unlink(self.path / name)
                        count += 1
            except OSError as exc:
                raise disk_error(exc, "cleaning up in", self.path) from exc
        return count

    # --- the two files ------------------------------------------------------

    def _named(self, ref: str | None) -> tuple[Descriptor, ...]:
        entries = self.entries()
        if ref is not None:
            found = tuple(entry for entry in entries if entry.annotations.get(REF_NAME) == ref)
            if not found:
                raise NotFound(f"{self.path} has no image called {ref!r}; it has: {_listed(self.refs())}")
            return found
        if not entries:
            raise NotFound(f"{self.path} has no images")
        if len(entries) > 1:
            raise InvalidReference(f"{self.path} has several images; name one of: {_listed(self.refs())}")
        return entries

    def _rewrite(self, change: Callable[[list[layoutindex.Entry]], list[layoutindex.Entry]]) -> None:
        with lock_directory(self.path, timeout=_LOCK_S):
            path = self.path / _INDEX
            new = layoutindex.changed(path, self._read_index(), change)
            try:
                mode = stat.S_IMODE(os.stat(path).st_mode)
            except OSError as exc:
                raise disk_error(exc, "looking at", path) from exc
            write_file(self.path, _INDEX, new, mode=mode)

    def _read_index(self) -> bytes:
        path = self.path / _INDEX
        raw = _read(path, MAX_DOCUMENT)
        if raw is None:
            raise StoreCorrupt(f"{path} is missing", path=str(path))
        return raw

    def _check_marker(self) -> None:
        path = self.path / _MARKER
        raw = _read(path, 1 << 16)
        if raw is None:
            message = f"{self.path} is not an OCI image layout: it has no file {_MARKER}"
            raise StoreCorrupt(message, path=str(self.path))
        try:
            version = json.loads(raw).get("imageLayoutVersion")
        except (ValueError, AttributeError, RecursionError):
            raise StoreCorrupt(f"{path} is not what an OCI image layout has there", path=str(path)) from None
        if version != _VERSION:
            message = f"{path}: layout version {version!r:.40} is not known; this program knows {_VERSION}"
            raise StoreCorrupt(message, path=str(path))

    def _complete(self) -> None:
        """Make what a layout must have. The marker comes first: it tells our beginning from other things."""
        try:
            names = set(os.listdir(self.path))
        except OSError as exc:
            raise disk_error(exc, "listing", self.path) from exc
        if _MARKER not in names:
            others = sorted(name for name in names if name != "lost+found" and not _is_leftover(name))
            if others:
                message = f"{self.path} is neither empty nor an OCI image layout (it holds {_listed(others)})"
                raise StoreCorrupt(f"{message}; name another directory", path=str(self.path))
            content = json.dumps({"imageLayoutVersion": _VERSION}).encode()
            write_file(self.path, _MARKER, content, mode=self._index_mode)
        make_directory(self.path / "blobs", self._directory_mode)
        make_directory(self.blob_directory(), self._directory_mode)
        if _INDEX not in names:
            if next(self.blobs(), None) is not None:
                message = f"{self.path / _INDEX} is missing, though there are blobs; restore it"
                raise StoreCorrupt(message, path=str(self.path))
            write_file(self.path, _INDEX, layoutindex.EMPTY, mode=self._index_mode)


def is_document(descriptor: Descriptor) -> bool:
    """Whether ``descriptor`` names a manifest or an index."""
    return descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES


def _read(path: Path, limit: int) -> bytes | None:
    """At most ``limit`` + 1 bytes of a plain file; None if there is none. Raises LocalError, StoreCorrupt."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise disk_error(exc, "opening", path) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreCorrupt(f"{path} is not a plain file", path=str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)


def _is_leftover(name: str) -> bool:
    return name.startswith((f".{_MARKER}-", f".{_INDEX}-")) and name.endswith(PART_SUFFIX)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20]) or "none"
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
