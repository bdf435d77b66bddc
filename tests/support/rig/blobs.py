"""Layer blobs: compressing and hashing a tar while it streams into ``blobs/``, and reading one back.

Independent of the package under test on purpose: digests come from :mod:`hashlib`, gzip from :mod:`zlib`,
zstd from :mod:`zstandard`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.support.rig.layers import LayerSpec, write_tar

__all__ = ["CODECS", "BuiltLayer", "blob_path", "from_blob", "from_spec", "in_parallel"]

_LAYER_TYPES = {
    ("oci", "none"): "application/vnd.oci.image.layer.v1.tar",
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    ("docker", "none"): "application/vnd.docker.image.rootfs.diff.tar",
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ("docker", "zstd"): "application/vnd.docker.image.rootfs.diff.tar.zstd",
}

# log2 of windows, which are used only as far as a layer fills them; the last as by ``zstd --long=29``, which
# also finds what is so far away.
_WINDOWS = {"zstd-long": 28, "zstd-8m": 23, "zstd-128m": 27, "zstd-512m": 29}
# Where the checksum of the content is, from the end of the blob.
_SUMS = {"gzip-wrong-sum": 8, "zstd-wrong-sum": 4}
CODECS = ("none", "gzip", "gzip-fast", "gzip-members", "zstd", "zstd-frames", *_WINDOWS, *_SUMS)
# "gzip" is what build tools write by default; "gzip-fast" (ISA-L) is for images of gigabytes.
_MEMBER = 1 << 20  # uncompressed bytes per gzip member or zstd frame in the -members and -frames forms
_READ = 1 << 20
_WORKERS = min(4, os.cpu_count() or 1)
_Key = TypeVar("_Key")
_SKIPPABLE = bytes.fromhex("502a4d18") + (12).to_bytes(4, "little") + b"not for you\n"


def blob_path(root: Path, digest: str) -> Path:
    """The file of the blob ``digest`` in the layout ``root``."""
    algorithm, _, encoded = digest.partition(":")
    return root / "blobs" / algorithm / encoded


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """One layer as built: both digests and both sizes were computed while writing it."""

    digest: str
    size: int
    diff_id: str
    uncompressed_size: int
    compression: str
    media_type: str


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Restarting:
    """Begin a new member or frame every ``_MEMBER`` input bytes, with ``between`` after the first."""

    def __init__(self, make: Callable[[], _Encoder], between: bytes = b"") -> None:
        self._make = make
        self._between = between
        self._encoder = make()
        self._room = _MEMBER

    def compress(self, data: bytes, /) -> bytes:
        out = bytearray()
        rest = memoryview(data)
        while len(rest) > self._room:
            out += self._encoder.compress(bytes(rest[: self._room])) + self._encoder.flush() + self._between
            rest = rest[self._room :]
            self._encoder, self._room, self._between = self._make(), _MEMBER, b""
        self._room -= len(rest)
        return bytes(out + self._encoder.compress(bytes(rest)))

    def flush(self) -> bytes:
        return self._encoder.flush()


class _WrongSum:
    """As ``encoder`` writes it, but for the byte that lies ``from_end`` bytes before the end."""

    def __init__(self, encoder: _Encoder, from_end: int) -> None:
        self._encoder = encoder
        self._from_end = from_end

    def compress(self, data: bytes, /) -> bytes:
        return self._encoder.compress(data)

    def flush(self) -> bytes:
        rest = bytearray(self._encoder.flush())
        rest[-self._from_end] ^= 1
        return bytes(rest)


def _encoder(codec: str) -> _Encoder:
    match codec:
        case "none":
            return _Plain()
        case "gzip":
            return zlib.compressobj(6, zlib.DEFLATED, 31)
        case "gzip-members":
            return _Restarting(lambda: zlib.compressobj(6, zlib.DEFLATED, 31))
        case "gzip-fast":
            from isal import isal_zlib

            return isal_zlib.compressobj(3, isal_zlib.DEFLATED, 31)
        case "zstd-long" | "zstd-8m" | "zstd-128m" | "zstd-512m":
            import zstandard

            far = zstandard.ZstdCompressionParameters.from_level(
                3, window_log=_WINDOWS[codec], enable_ldm=codec == "zstd-512m", write_content_size=False
            )
            return zstandard.ZstdCompressor(compression_params=far).compressobj()
        case "zstd" | "zstd-frames":
            import zstandard

            def frame() -> _Encoder:
                return zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()

            return frame() if codec == "zstd" else _Restarting(frame, _SKIPPABLE)
        case "gzip-wrong-sum" | "zstd-wrong-sum":
            return _WrongSum(_encoder(codec.partition("-")[0]), _SUMS[codec])
        case _:
            raise ValueError(f"{codec!r} is none of {', '.join(CODECS)}")


class _BlobFile:
    """Compresses what is written into a temporary file of ``blobs/`` and hashes both sides."""

    def __init__(self, root: Path, codec: str) -> None:
        directory = root / "blobs" / "sha256"
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._encoder = _encoder(codec)
        self._path = directory / f".{os.getpid()}-{id(self)}"
        self._file = self._path.open("xb")
        self._inner = hashlib.sha256()
        self._outer = hashlib.sha256()
        self._sizes = [0, 0]
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _READ:
            self._drain()

    def _drain(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        self._inner.update(data)
        self._sizes[0] += len(data)
        self._emit(self._encoder.compress(data))

    def _emit(self, data: bytes) -> None:
        self._outer.update(data)
        self._sizes[1] += len(data)
        self._file.write(data)

    def finish(self, codec: str, media: str) -> BuiltLayer:
        self._drain()
        self._emit(self._encoder.flush())
        self._file.close()
        digest = self._outer.hexdigest()
        self._path.rename(self._directory / digest)
        compression = codec.partition("-")[0]
        return BuiltLayer(
            digest="sha256:" + digest,
            size=self._sizes[1],
            diff_id="sha256:" + self._inner.hexdigest(),
            uncompressed_size=self._sizes[0],
            compression=compression,
            media_type=_LAYER_TYPES[media, compression],
        )

    def abort(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def from_spec(root: Path, spec: LayerSpec, codec: str, media: str) -> Callable[[], BuiltLayer]:
    """A job that writes ``spec`` as a blob with ``codec`` into the layout ``root``."""

    def make() -> BuiltLayer:
        out = _BlobFile(root, codec)
        try:
            write_tar(spec, out.write)
            return out.finish(codec, media)
        finally:
            out.abort()

    return make


def from_blob(
    root: Path, source: Path, layer: BuiltLayer, codec: str, media: str
) -> Callable[[], BuiltLayer]:
    """A job that writes the blob ``source`` (which is ``layer``) anew with ``codec`` into ``root``."""

    def make() -> BuiltLayer:
        out = _BlobFile(root, codec)
        try:
            for piece in _uncompressed(source, layer.compression):
                out.write(piece)
            return out.finish(codec, media)
        finally:
            out.abort()

    return make


def _uncompressed(path: Path, compression: str) -> Iterator[bytes]:
    with path.open("rb") as raw:
        source: Any = raw
        if compression == "gzip":
            source = gzip.GzipFile(fileobj=raw)
        elif compression == "zstd":
            import zstandard

            source = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        while piece := source.read(_READ):
            yield piece


def in_parallel(
    jobs: dict[_Key, Callable[[], BuiltLayer]], *, weight: Callable[[_Key], int]
) -> dict[_Key, BuiltLayer]:
    """Run all ``jobs``, heaviest first, on as many threads as there are cores."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures = {key: pool.submit(jobs[key]) for key in sorted(jobs, key=weight, reverse=True)}
        return {key: future.result() for key, future in futures.items()}
