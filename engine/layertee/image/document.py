"""The words of the OCI specifications as Python values, and the parsers that make them.

Rules of this file: no I/O; a value exists only if it was valid; each document keeps
the raw bytes its digest is of. Everything here is what an image *claims*. What was
*measured* is a ``TeeResult``, a different type (tee.py).

image-spec v1.1: manifest.md, image-index.md, descriptor.md, config.md. Docker's
schema 2 differs in media types only. Bounds: schema 2 or OCI, 4 MiB.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace

from ..errors import DocumentError, IntegrityError, NotFound, SizeMismatch, UnsupportedImage
from ..record import dataclass
from .digest import EMPTY_DIFF_ID, DiffID, Digest
from .media import (
    CONFIG_TYPES,
    DOCKER_MANIFEST,
    GENERIC_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    Compression,
    compression_of,
    is_layer_type,
    media_type_of,
)
from .platform import Platform
from .strictjson import as_list, as_object, as_text, as_text_map, check_fields, load_object, printable

__all__ = [
    "EMPTY_DIFF_ID",
    "MAX_DOCUMENT",
    "Descriptor",
    "DiffID",
    "Digest",
    "ImageConfig",
    "Index",
    "Layer",
    "Manifest",
    "Pairing",
    "Platform",
    "Unreadable",
    "choose_platform",
    "image_layers",
    "layers_as_far_as_known",
    "parse_config",
    "parse_document",
]

SCHEMA_VERSION = 2  # Docker's numbering, kept by OCI
MAX_DOCUMENT = 4 << 20
MAX_DATA = 64 << 10
MAX_SIZE = (1 << 53) - 1  # the largest integer JavaScript, and so the image-proxy protocol, carries

_ZSTD_INSTANCE = "io.github.containers.compression.zstd"  # set by podman push --add-compression

_DESCRIPTOR_FIELDS = {"mediaType", "digest", "size", "urls", "annotations", "data", "platform"}
_DOCUMENT_FIELDS = {"schemaVersion", "mediaType", "artifactType", "subject", "annotations"} | {
    *("config", "layers"),
    *("manifests",),
    *("fsLayers", "signatures"),  # schema 1
}
_CONFIG_FIELDS = ("created", "architecture", "os", "variant", "config", "rootfs", "history")

_WORDS = {Compression.NONE: "a plain tar", Compression.GZIP: "gzip", Compression.ZSTD: "zstd"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says about a blob. ``data`` is its content, embedded and already verified."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    data: bytes | None = field(default=None, repr=False)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """Manifest layer ``index`` paired with the DiffID that the config claims for it.

    ``compression`` is NONE where the blob has to be the tar itself, since its digest is the DiffID, whatever
    its media type says. Otherwise it is compressed: as the media type says, or, where that calls it a plain
    tar, with gzip as most are; what it is is seen when its bytes come.

    ``is_opaque``: the image does not say what is in this blob, so it is bytes with a digest and no more. It
    is not inflated, and only its digest can be checked. Its ``diff_id`` stands for those bytes: it is the
    digest, and not to be told to anybody as a DiffID.
    """

    index: int
    descriptor: Descriptor
    diff_id: DiffID
    compression: Compression
    is_opaque: bool = False

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    @property
    def size(self) -> int:
        return self.descriptor.size

    @property
    def media_type(self) -> str:
        return self.descriptor.media_type

    @property
    def said(self) -> Compression:
        """What the media type says."""
        return compression_of(self.media_type)

    def mislabelled(self, found: Compression | None = None) -> str | None:
        """What is wrong with the media type, for a person; None where it is right as far as is known.

        ``found`` is what the blob turned out to be.
        """
        wrapped = found or self.compression
        if self.is_opaque or wrapped is self.said:
            return None
        is_ = f"it is {_WORDS[wrapped]}"
        if found is None and wrapped is not Compression.NONE:
            is_ = "its DiffID says that it is compressed"
        where = f"layer {self.index} ({self.digest})"
        return f"{where} is called {printable(self.media_type)}, but {is_}; it is taken for what it is"

    @property
    def known_diff_id(self) -> DiffID | None:
        """What others may be told: None for an opaque layer."""
        return None if self.is_opaque else self.diff_id

    @property
    def tar_digest(self) -> Digest:
        """What the uncompressed tar is called as a blob of its own: its digest is the DiffID."""
        return Digest(str(self.diff_id))

    def as_tar(self, size: int) -> Layer:
        """The same content as an uncompressed blob of ``size`` bytes."""
        tar = Descriptor(media_type_of(Compression.NONE), self.tar_digest, size)
        return replace(self, descriptor=tar, compression=Compression.NONE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform. ``digest`` is the SHA-256 of ``raw``."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_image(self) -> bool:
        """Whether its media types are those of an image. An attestation has the config of one, no more."""
        is_config = self.config.media_type in CONFIG_TYPES or self.media_type == DOCKER_MANIFEST
        return is_config and all(is_layer_type(layer.media_type) for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry of an index, why it makes no sense, and its platform, where that much can be read."""

    reason: str
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, by platform or by form. ``digest`` is the SHA-256 of ``raw``.

    ``unreadable`` are the entries that make no sense, and so cannot be chosen.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image runs on, and what it says are the DiffIDs of its layers, in order.

    ``diff_ids`` are any text: the functions that pair them with layers judge it.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    diff_ids: tuple[str, ...]
    platform: Platform
    created: str | None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_document(
    raw: bytes, content_type: str | None, *, named_as: str = "", artifacts: bool = False
) -> Manifest | Index:
    """A manifest or index from its bytes and the Content-Type (or descriptor media type) it came with.

    ``named_as`` is the type by which an index names it; it decides where nothing else says one.
    ``artifacts``: a manifest of something else than an image will do as well.

    Raises DocumentError (malformed, ambiguous, or its kinds disagree) and UnsupportedImage (schema 1,
    artifacts). Neither the caller's digest nor size is checked here: ``Digest.check`` first.
    """
    document = load_object(raw, "manifest", limit=MAX_DOCUMENT, maps=None)
    check_fields(document, _DOCUMENT_FIELDS, "manifest")
    media_type = _kind(document, content_type, named_as.lower())
    digest = Digest.of(raw)
    if media_type in INDEX_TYPES:
        entries = as_list(document.get("manifests"), "index manifests")
        manifests, unreadable = _entries(entries)
        return Index(raw, digest, media_type, manifests, unreadable)
    config = _descriptor(document.get("config"), "config", typed=media_type != DOCKER_MANIFEST)
    listed = as_list(document.get("layers"), "manifest layers")
    layers = tuple(_descriptor(entry, f"layers[{i}]") for i, entry in enumerate(listed))
    annotations = as_text_map(document.get("annotations"), "annotations")
    # Docker's registries and builders have given the config several types, and its manifests are of images.
    is_image = config.media_type in CONFIG_TYPES or media_type == DOCKER_MANIFEST
    if not is_image and not artifacts:
        raise _artifact(str(document.get("artifactType") or config.media_type))
    return Manifest(raw, digest, media_type, config, layers, annotations)


def parse_config(raw: bytes, descriptor: Descriptor) -> ImageConfig:
    """The image config, its bytes hashed before a field is believed.

    Raises SizeMismatch, DigestMismatch, DocumentError, UnsupportedImage (named by SHA-512).
    """
    _require_sha256(descriptor.digest, "the image config")
    if len(raw) != descriptor.size:
        message = f"image config {descriptor.digest} is {len(raw)} bytes, the manifest says {descriptor.size}"
        raise SizeMismatch(message, want=descriptor.size, got=len(raw))
    descriptor.digest.check(raw, "image config")
    document = load_object(raw, "image config", limit=MAX_DOCUMENT, maps=None)
    if descriptor.media_type not in CONFIG_TYPES and "rootfs" not in document:
        raise _artifact(descriptor.media_type)
    check_fields(document, _CONFIG_FIELDS, "image config")
    found = document.get("rootfs")
    rootfs = {} if found is None else as_object(found, "image config rootfs")
    check_fields(rootfs, ("type", "diff_ids"), "image config rootfs")
    if rootfs.get("type") not in (None, "", "layers"):
        raise DocumentError("image config rootfs.type is not 'layers'")
    diff_ids = tuple(
        as_text(item, f"diff_ids[{i}]")
        for i, item in enumerate(as_list(rootfs.get("diff_ids"), "image config diff_ids"))
    )
    created = document.get("created")
    inner = document.get("config")
    labels = _labels(as_object(inner, "image config config")) if inner is not None else None
    return ImageConfig(
        raw=raw,
        digest=descriptor.digest,
        diff_ids=diff_ids,
        platform=_platform(document, "image config"),
        created=None if created is None else as_text(created, "image config created"),
        labels=as_text_map(labels, "image config labels"),
    )


def _labels(inner: Mapping[str, object]) -> object:
    if sum(key.casefold() == "labels" for key in inner) > 1:
        raise DocumentError("image config is ambiguous: it has Labels twice, in different case")
    return inner.get("Labels")


def _artifact(kind: str) -> UnsupportedImage:
    shown = printable(kind)
    return UnsupportedImage(f"this is an artifact of type {shown}, not an image; name an image instead")


Pairing = Callable[[Manifest, ImageConfig], tuple[Layer, ...]]
"""What makes layers of an image's documents: ``image_layers``, or ``layers_as_far_as_known``."""


def image_layers(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """The layers of an image, bottom first.

    Raises DocumentError (counts differ, a DiffID that is none, one blob with two DiffIDs), UnsupportedImage
    (foreign, encrypted or unknown layers, SHA-512).
    """
    n_layers, n_ids = len(manifest.layers), len(config.diff_ids)
    if n_layers != n_ids:
        raise DocumentError(
            f"the manifest has {n_layers} layers, the image config {n_ids} DiffIDs, so nothing says what must"
            " be in which layer"
        )
    diff_ids = []
    for index, text in enumerate(config.diff_ids):
        diff_id = DiffID.parse(text, f"diff_ids[{index}]")
        _require_sha256(diff_id, f"the DiffID of layer {index}")
        diff_ids.append(diff_id)
    return _paired(manifest, diff_ids)


def layers_as_far_as_known(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """The layers of an image that need not say what is in all of them: some may be opaque.

    As ``image_layers``, but where a DiffID is none that can be checked, the layer has none; where the config
    has more or fewer DiffIDs than there are layers, no layer has, since nothing tells which is whose. A plain
    tar needs none. What contradicts itself is refused all the same.
    """
    if len(manifest.layers) != len(config.diff_ids):
        return _paired(manifest, [None] * len(manifest.layers))
    return _paired(manifest, [_checkable(text) for text in config.diff_ids])


def _checkable(text: str) -> DiffID | None:
    try:
        diff_id = DiffID.parse(text)
    except DocumentError:
        return None
    return diff_id if diff_id.algorithm == "sha256" else None


def _paired(manifest: Manifest, diff_ids: Sequence[DiffID | None]) -> tuple[Layer, ...]:
    claimed: dict[Digest, DiffID] = {}
    for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
        if diff_id is not None and claimed.setdefault(descriptor.digest, diff_id) != diff_id:
            raise DocumentError(f"the image config gives blob {descriptor.digest} two different DiffIDs")
    layers = []
    for index, descriptor in enumerate(manifest.layers):
        said = compression_of(descriptor.media_type)
        if descriptor.urls:
            raise UnsupportedImage(
                f"layer {index} ({descriptor.digest}) points at foreign URLs; not supported"
            )
        _require_sha256(descriptor.digest, f"layer {index}")
        known = claimed.get(descriptor.digest)
        compression = said if known is None else _wrapping(descriptor.digest, known, said)
        is_opaque = known is None and said is not Compression.NONE
        layers.append(
            Layer(index, descriptor, known or DiffID(str(descriptor.digest)), compression, is_opaque)
        )
    return tuple(layers)


def _wrapping(digest: Digest, diff_id: DiffID, said: Compression) -> Compression:
    if str(digest) == diff_id:
        return Compression.NONE
    return Compression.GZIP if said is Compression.NONE else said


def choose_platform(index: Index, platform: Platform, warnings: list[str] | None = None) -> Descriptor:
    """The entry that skopeo would pull: best variant, then zstd before gzip, then first.

    An entry that makes no sense is not it; if it may have been meant, that is added to ``warnings``. An OCI
    entry without a platform serves when nothing else does. Raises NotFound, which names the
    platforms there are. containers/image: ``oci_index.go`` chooseInstance, ``docker_schema2_list.go``.
    """
    candidates: list[tuple[int, bool, int]] = []
    last = len(platform.variants())
    for position, entry in enumerate(index.manifests):
        if entry.platform is not None:
            rank = platform.rank(entry.platform)
        else:
            rank = last if index.media_type == OCI_INDEX else None
        if rank is not None:
            candidates.append((rank, entry.annotations.get(_ZSTD_INSTANCE) != "true", position))
    if candidates:
        best = min(candidates)
        for bad in index.unreadable if warnings is not None else ():
            rank = last if bad.platform is None else platform.rank(bad.platform)
            if warnings is not None and rank is not None and rank <= best[0]:
                warnings.append(f"index {index.digest}: {bad.reason}; that entry was passed over")
        return index.manifests[best[2]]
    offered = sorted({str(entry.platform) for entry in index.manifests if entry.platform})
    shown = printable(", ".join(p for p in offered if p != "unknown/unknown"), 400) or "none"
    broken = f"; not readable: {index.unreadable[0].reason}" if index.unreadable else ""
    raise NotFound(f"no image for platform {platform} in index {index.digest}; there is: {shown}{broken}")


def _entries(entries: Sequence[object]) -> tuple[tuple[Descriptor, ...], tuple[Unreadable, ...]]:
    """An index serves many platforms: one bad entry is no matter for who wants another."""
    good: list[Descriptor] = []
    bad: list[Unreadable] = []
    for position, entry in enumerate(entries):
        what = f"manifests[{position}]"
        try:
            good.append(_descriptor(entry, what, typed=False))
        except IntegrityError as exc:
            platform = None
            with suppress(DocumentError):
                shown = as_object(entry, what).get("platform")
                platform = None if shown is None else _platform(as_object(shown, what), what)
            bad.append(Unreadable(str(exc), platform))
    return tuple(good), tuple(bad)


def _kind(document: Mapping[str, object], content_type: str | None, named_as: str) -> str:
    """The media type of a manifest or index, on which all evidence must agree."""
    carried = (content_type or "").partition(";")[0].strip().lower()
    own = document.get("mediaType")
    body = as_text(own, "manifest mediaType").lower() if own is not None else ""
    version = document.get("schemaVersion")
    if (type(version) is int and version == 1) or (version is None and {carried, body} & SCHEMA1_TYPES):
        raise UnsupportedImage("a Docker schema 1 manifest; push the image again with a tool made since 2017")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise DocumentError("manifest schemaVersion is not 2")
    if body and carried not in GENERIC_TYPES and body != carried:
        shown = f"{printable(body)!r}, the Content-Type {printable(carried)!r}"
        raise DocumentError(f"manifest mediaType is {shown}; they must agree")
    is_index = "manifests" in document
    is_manifest = not document.keys().isdisjoint({"layers", "config", "fsLayers"})
    if is_index and is_manifest:
        raise DocumentError("one document is both an index (manifests) and a manifest (layers, config)")
    kind = body or (carried if carried not in GENERIC_TYPES else named_as)
    if kind in GENERIC_TYPES:
        kind = OCI_INDEX if is_index else OCI_MANIFEST
    if is_index and kind in INDEX_TYPES:
        return kind
    if kind in MANIFEST_TYPES and {"layers", "config"} <= document.keys():
        return kind
    if kind in INDEX_TYPES | MANIFEST_TYPES:
        raise DocumentError(f"manifest of type {kind} lacks what that type must have")
    raise UnsupportedImage(f"{printable(kind)!r} is not the type of an image or an image index")


def _descriptor(value: object, what: str, *, typed: bool = True) -> Descriptor:
    """``typed``: there has to be a media type; else none is the empty text, as Go's programs read it."""
    found = as_object(value, what)
    check_fields(found, _DESCRIPTOR_FIELDS, what)
    said = found.get("mediaType")
    media_type = "" if said is None and not typed else as_text(said, f"{what} mediaType")
    digest = Digest.parse(found.get("digest"), f"{what} digest")
    size = found.get("size")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:  # bool is an int, and 1.0 is not a size
        raise DocumentError(f"{what} size is not an integer from 0 to 2^53-1")
    platform = None
    if found.get("platform") is not None:
        platform = _platform(as_object(found["platform"], f"{what} platform"), f"{what} platform")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        annotations=as_text_map(found.get("annotations"), f"{what} annotations"),
        data=_data(found.get("data"), digest, size, what),
        platform=platform,
        urls=tuple(as_text(url, f"{what} urls") for url in as_list(found.get("urls"), f"{what} urls")),
    )


def _data(value: object, digest: Digest, size: int, what: str) -> bytes | None:
    """Embedded content: valid or an error; used only while small (descriptor.md, "Embedded Content")."""
    if value is None:
        return None
    try:
        data = base64.b64decode(as_text(value, f"{what} data").encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as exc:
        raise DocumentError(f"{what} data is not base64") from exc
    if len(data) != size:
        message = f"{what} data is {len(data)} bytes, its size says {size}"
        raise SizeMismatch(message, want=size, got=len(data))
    digest.check(data, f"{what} data")
    return data if size <= MAX_DATA else None


def _platform(found: Mapping[str, object], what: str) -> Platform:
    check_fields(found, ("os", "architecture", "variant"), what)
    os, architecture, variant = (
        "" if found.get(key) is None else as_text(found[key], f"{what} {key}")
        for key in ("os", "architecture", "variant")
    )
    return Platform(os or "unknown", architecture or "unknown", variant or None)


def _require_sha256(name: Digest | DiffID, what: str) -> None:
    if name.algorithm != "sha256":
        raise UnsupportedImage(f"{what} is named by {name.algorithm}; only sha256 is supported")
