"""What containers-storage writes down about its layers and images.

``layers.json`` and ``images.json`` are arrays of objects (containers/storage, ``layers.go`` and
``images.go``), replaced by rename: read in one go, without a lock, each is whole. They may be of
different moments, so one may name what the other has no more.

They are records of a tool on this machine, and not documents that are hashed or signed: plain JSON is
read, and a record that makes no sense is passed over. Names of files are made from layer and image ids
only once those look like ids.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Final

from ...errors import DocumentError
from ...image.blobname import BlobName
from ...image.document import DiffID, Digest
from ...image.holding import Basis
from ...image.media import Compression
from ...record import dataclass

# Some 500 bytes a layer: 10,000 are 5 MB, in 0.1 s.
MAX_RECORDS: Final = 64 << 20

_OF_NOTHING: Final = DiffID(Digest.of(b""))  # a tar of no bytes, which some builders write
_HALF: Final = re.compile("[\ud800-\udfff]")
_ID: Final = re.compile(r"[a-f0-9]{64}")
_PLAIN_KEY: Final = re.compile(r"[a-z0-9.]+")
# archive.Compression of containers/storage; others are nothing that an image would name today.
_COMPRESSIONS: Final = {0: Compression.NONE, 2: Compression.GZIP, 4: Compression.ZSTD}
MANIFEST_KEY: Final = "manifest"
MANIFEST_PREFIX: Final = "manifest-"


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A layer. ``problem`` says why its bytes cannot be had from it; sizes are in bytes.

    ``diff_id`` was computed by the tool that wrote the layer; where there is a ``problem`` it may be
    only what an image said. ``blob`` is what it was made from, None when that was the plain tar.
    """

    layer_id: str
    diff_id: DiffID
    size: int
    blob: BlobName | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image: its documents are found under ``keys``. ``digest`` is that of its manifest."""

    image_id: str
    names: tuple[str, ...]
    digest: str
    keys: tuple[str, ...]
    signature_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    """Of the signatures kept of each manifest, by its digest; "" for the image's own. In bytes, in order."""

    @property
    def manifest_keys(self) -> tuple[str, ...]:
        """Where its manifests and indexes are, the one that counts first."""
        return tuple(sorted(k for k in self.keys if k == MANIFEST_KEY or k.startswith(MANIFEST_PREFIX)))


def layer_rows(raw: bytes, what: str, source: str) -> Iterator[LayerRow]:
    """The layers in ``raw`` that have a DiffID, in its order. Raises DocumentError when it is no list.

    ``source`` is what to call the store that says so. What it says of blobs is another tool's record: a hint
    where content may be known under another name, never a computed pair.
    """
    for record in _records(raw, what):
        layer_id = record.get("id")
        if not isinstance(layer_id, str) or not _ID.fullmatch(layer_id):
            continue
        flags = record.get("flags")
        flags = flags if isinstance(flags, dict) else {}
        problem = _problem(record, flags)
        try:
            diff_id = DiffID.parse(record.get("diff-digest") or flags.get("expected-layer-diffid"))
        except DocumentError:
            continue
        size = record.get("diff-size")
        if diff_id == _OF_NOTHING and not size:
            size = 0  # of which Go writes nothing
        elif type(size) is not int or size <= 0:
            size, problem = 0, problem or "its size is not recorded"
        yield LayerRow(layer_id, diff_id, size, _blob(record, diff_id, source), problem)


def image_rows(raw: bytes, what: str) -> Iterator[ImageRow]:
    """The images in ``raw``, in its order. Raises DocumentError when it is no list."""
    for record in _records(raw, what):
        image_id = record.get("id")
        if isinstance(image_id, str) and _ID.fullmatch(image_id):
            digest = record.get("digest")
            yield ImageRow(
                image_id,
                _texts(record.get("names")),
                digest if isinstance(digest, str) else "",
                _texts(record.get("big-data-names")),
                _signature_sizes(record.get("metadata")),
            )


def signatures_key(digest: str) -> str:
    """Under which key the signatures of the manifest ``digest`` are; of "" those of the image's own."""
    return f"signature-{digest.partition(':')[2]}" if digest else "signatures"


def _signature_sizes(metadata: object) -> dict[str, tuple[int, ...]]:
    """containers/image, ``storageImageMetadata``: JSON in a string. What makes no sense has no signatures."""
    try:
        found = json.loads(metadata) if isinstance(metadata, str) and metadata else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    several = found.get("signatures-sizes")
    sizes = {**(several if isinstance(several, dict) else {}), "": found.get("signature-sizes")}
    return {
        digest: tuple(listed)
        for digest, listed in sizes.items()
        if isinstance(listed, list) and listed and all(type(one) is int and one > 0 for one in listed)
    }


def file_name(key: str) -> str:
    """The file that an image's document ``key`` is in (containers/storage, ``makeBigDataBaseName``)."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return "=" + base64.b64encode(key.encode()).decode()


def _records(raw: bytes, what: str) -> Iterator[Mapping[str, object]]:
    try:
        found: object = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise DocumentError(f"{what} is not JSON: {exc}") from exc
    if found is None:  # Go's spelling of an empty list
        return
    if not isinstance(found, list):
        raise DocumentError(f"{what} is not a list")
    for record in found:
        if isinstance(record, dict):
            yield record


def _problem(record: Mapping[str, object], flags: Mapping[str, object]) -> str | None:
    if flags.get("incomplete"):
        return "it is not complete"
    if record.get("toc-digest") or not record.get("diff-digest"):
        return "it was pulled in part, and its tar was never seen"
    return None


def _blob(record: Mapping[str, object], diff_id: DiffID, source: str) -> BlobName | None:
    size = record.get("compressed-size")
    number = record.get("compression", 0)
    try:
        digest = Digest.parse(record.get("compressed-diff-digest"))
    except DocumentError:
        return None
    if str(digest) == diff_id or type(size) is not int or size <= 0 or type(number) is not int:
        return None
    compression = _COMPRESSIONS.get(number)
    if compression is None:
        return None
    return BlobName(digest, size, compression, Basis.ATTESTED, source)


def _texts(value: object) -> tuple[str, ...]:
    """The texts in a list; half characters (lone surrogates), which no file is named by, are none."""
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str) and not _HALF.search(item))
