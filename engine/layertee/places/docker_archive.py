"""What ``docker save`` and ``podman save`` write: one tar with images, their configs and layers.

``manifest.json`` names for each image its config, its tags and its layers (moby, ``image/tarexport``). Layers
are plain tars as a rule; a layer that another image has as well may be a symlink to it. Docker since version
25 puts an OCI layout into the same tar, and names its blobs; the image is the same, and ``manifest.json`` is
what is read.

Such an image has no manifest. It gets one here, which names each layer as it is in the archive: a plain tar
by its DiffID, a compressed one by its digest. What an archive says is a claim, and everything is hashed as it
is read.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..disk.files import close, disk_error
from ..errors import (
    DocumentError,
    InvalidReference,
    LayerteeError,
    NotFound,
    SourceUnreadable,
    StoreCorrupt,
    UnsupportedImage,
)
from ..image.document import (
    MAX_DOCUMENT,
    Descriptor,
    DiffID,
    Digest,
    ImageConfig,
    Manifest,
    Pairing,
    image_layers,
    parse_config,
    parse_document,
)
from ..image.holding import Basis, Found, Holding, Place
from ..image.media import OCI_CONFIG, OCI_MANIFEST, Compression, media_type_of
from ..image.reference_archive import DockerArchiveReference, tag_name
from ..image.resolved import ResolvedImage
from ..image.strictjson import printable
from ..record import dataclass
from .archive_file import ArchiveFile, ArchiveMember, open_archive
from .decompressed import MAGIC_NBYTES, packing_of
from .tarindex import DamagedTar, Member, members

_LIST: Final = "manifest.json"
_MAX_IMAGES: Final = 1000
_MAX_LAYERS: Final = 1000
_BLOBS: Final = "blobs/sha256/"
_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Saved:
    """One image, as ``manifest.json`` has it. ``tags`` are whole names, ``layers`` names of members."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchive:
    """The archive in ``path``. The members are those that were there when it was opened."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound (nothing there), StoreCorrupt (something else, or damaged), LocalError,
        SourceUnreadable. Blocks.
        """
        self.path = path
        self._file = open_archive(path)
        self._members = _read_members(self._file)
        self._images = self._read_list()

    def resolve(self, reference: DockerArchiveReference, pair: Pairing = image_layers) -> ResolvedImage:
        """The image that ``reference`` names, or the only one. Raises as ``Layout.resolve`` does."""
        saved = self._named(reference)
        config = self._config(saved)
        layers = [
            self._described(name, diff_id)
            for name, diff_id in zip(saved.layers, config.diff_ids, strict=True)
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": len(config.raw)},
            "layers": [
                {"mediaType": media_type_of(how), "digest": digest, "size": size}
                for digest, size, how in layers
            ],
        }
        manifest = parse_document(
            json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), OCI_MANIFEST
        )
        assert isinstance(manifest, Manifest)
        return ResolvedImage(manifest, config, pair(manifest, config), None)

    def name_of(self, reference: DockerArchiveReference) -> str | None:
        """What the image is called in the archive: as ``reference`` has it, else by its first tag.

        Raises NotFound, InvalidReference.
        """
        return reference.ref or next(iter(self._named(reference).tags), None)

    def holdings(self, wanted: Collection[DiffID], place: str, warnings: list[str]) -> Iterator[Holding]:
        """The layers of all images that hold one of ``wanted``; a warning for what cannot be used."""
        seen: set[tuple[str, str]] = set()
        for saved in self._images:
            try:
                config = self._config(saved)
            except LayerteeError as exc:
                warnings.append(f"{place}: {exc}")
                continue
            for name, text in zip(saved.layers, config.diff_ids, strict=True):
                with suppress(ValueError):
                    diff_id = DiffID(text)
                    if diff_id not in wanted or (name, diff_id) in seen:
                        continue
                    seen.add((name, diff_id))
                    try:
                        yield self._holding(name, diff_id, place)
                    except LayerteeError as exc:
                        warnings.append(f"{place}: {exc}")

    def _holding(self, name: str, diff_id: DiffID, place: str) -> Holding:
        digest, size, compression = self._described(name, diff_id)
        return Holding(
            diff_id=diff_id,
            digest=digest,
            size=size,
            uncompressed_size=size if compression is Compression.NONE else None,
            compression=compression,
            place=place,
            basis=Basis.CLAIMED,
            content=self._member(name),
        )

    def _named(self, reference: DockerArchiveReference) -> _Saved:
        """Raises NotFound, and InvalidReference (several, and none named)."""
        if reference.index is not None:
            if reference.index >= len(self._images):
                raise NotFound(f"{self.path} has {len(self._images)} images, counted from @0")
            return self._images[reference.index]
        if reference.ref is not None:
            for saved in self._images:
                if reference.ref in saved.tags:
                    return saved
            listed = printable(", ".join(tag for saved in self._images for tag in saved.tags) or "none", 400)
            raise NotFound(f"{self.path} has no image called {reference.ref!r:.200}; it has: {listed}")
        if not self._images:
            raise NotFound(f"{self.path} has no images")
        if len(self._images) > 1:
            tags = ", ".join(
                saved.tags[0] if saved.tags else f"@{at}" for at, saved in enumerate(self._images)
            )
            raise InvalidReference(f"{self.path} has several images; name one of: {printable(tags, 400)}")
        return self._images[0]

    # --- what is in it --------------------------------------------------------

    def _read_list(self) -> tuple[_Saved, ...]:
        raw = self._member(_LIST).read(MAX_DOCUMENT) if _LIST in self._members else None
        if raw is None:
            raise StoreCorrupt(
                f"{self.path} is not what 'docker save' writes: it has no {_LIST}", path=str(self.path)
            )
        try:
            found = json.loads(raw) if len(raw) <= MAX_DOCUMENT else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or len(found) > _MAX_IMAGES:
            raise StoreCorrupt(f"{self.path}: {_LIST} in it is no list of images", path=str(self.path))
        return tuple(self._saved(item) for item in found)

    def _saved(self, item: Any) -> _Saved:
        fields: Mapping[str, Any] = item if isinstance(item, dict) else {}
        config, tags, layers = fields.get("Config"), fields.get("RepoTags") or [], fields.get("Layers") or []
        is_list = isinstance(tags, list) and isinstance(layers, list) and len(layers) <= _MAX_LAYERS
        if not is_list or not all(isinstance(text, str) for text in (config, *tags, *layers)):
            raise StoreCorrupt(f"{self.path}: {_LIST} in it has no sense", path=str(self.path))
        names = []
        for tag in tags:
            with suppress(InvalidReference):
                names.append(tag_name(tag))
        return _Saved(str(config), tuple(names), tuple(layers))

    def _config(self, saved: _Saved) -> ImageConfig:
        raw = self._member(saved.config).read(MAX_DOCUMENT)
        config = parse_config(raw, Descriptor(OCI_CONFIG, Digest.of(raw), len(raw)))
        if len(config.diff_ids) != len(saved.layers):
            raise DocumentError(
                f"{self.path}: the image has {len(saved.layers)} layers, its config {len(config.diff_ids)}"
                " DiffIDs, so nothing says what must be in which layer"
            )
        return config

    def _described(self, name: str, diff_id: str) -> tuple[Digest, int, Compression]:
        """The digest, size and form of a layer. Raises SourceUnreadable, UnsupportedImage, DocumentError."""
        content = self._member(name)
        first = content.read(MAGIC_NBYTES - 1)
        packing = packing_of(first)
        if packing is None:
            return Digest.parse(diff_id, "a DiffID"), content.member.size, Compression.NONE
        try:
            compression = Compression(packing.value)
        except ValueError:
            message = f"{self.path}: layer {printable(name, 100)} is compressed with {packing.value}"
            raise UnsupportedImage(f"{message}; gzip and zstd can be read") from None
        if name.startswith(_BLOBS):
            with suppress(ValueError):
                return Digest(f"sha256:{name.removeprefix(_BLOBS)}"), content.member.size, compression
        return _digest_of(content), content.member.size, compression

    def _member(self, name: str) -> ArchiveMember:
        """The plain file of that name, or the one that a symlink of that name leads to, one step far."""
        shown = printable(name, 200)
        found = self._members.get(_normal(name))
        if found is not None and found.link is not None:
            target = posixpath.join(posixpath.dirname(_normal(name)), found.link.decode("utf-8", "replace"))
            found = self._members.get(_normal(target))
        if found is None:
            raise SourceUnreadable(f"{self.path}: {shown} is not in it, or is there twice")
        if not found.is_plain:
            raise SourceUnreadable(f"{self.path}: {shown} in it is not a plain file")
        return ArchiveMember(self._file, found)


class DockerArchivePlace(Place):
    """The archive in ``path``: layers of all its images."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"docker-archive:{self._path}"

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        """Layers whose file is there; what is wrong with the others is a warning."""
        warnings: list[str] = []
        found: dict[DiffID, Holding] = {}
        try:
            archive = DockerArchive(self._path)
            for holding in archive.holdings(set(diff_ids), self.name, warnings):
                found.setdefault(holding.diff_id, holding)
        except LayerteeError as exc:
            warnings.append(str(exc))
        return Found(found, warnings)


def _normal(name: str) -> str:
    """``name`` without ``.`` and ``..``; the archive is all there is, so nothing is above it."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _digest_of(content: ArchiveMember) -> Digest:
    """Of all its bytes. Blocks."""
    hashed = hashlib.sha256()
    room = bytearray(_AT_ONCE)
    reader = content.open()
    try:
        while n := reader.readinto(memoryview(room)):
            hashed.update(memoryview(room)[:n])
    finally:
        reader.close()
    return Digest(f"sha256:{hashed.hexdigest()}")


def _read_members(file: ArchiveFile) -> dict[str, Member]:
    """All members by name; a name that is there twice is nobody's. Raises StoreCorrupt, LocalError,
    SourceUnreadable.
    """
    path = file.path
    found: dict[str, Member] = {}
    twice: set[str] = set()
    fd = file.open()
    try:
        for member in members(fd):
            name = _normal(member.name.decode("utf-8", "surrogateescape"))
            if name in found and (member.is_plain or member.link is not None):
                twice.add(name)
            found[name] = member
    except DamagedTar as exc:
        raise StoreCorrupt(f"{path} is not an archive that can be read: {exc}", path=str(path)) from exc
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)
    return {name: member for name, member in found.items() if name not in twice}
