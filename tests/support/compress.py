"""Compressing, inflating and naming bytes by code that is not ours: zlib, zstandard, hashlib."""

from __future__ import annotations

import gzip
import hashlib

import zstandard

from layertee.image.document import Digest
from layertee.image.media import Compression


def digest_of(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(data: bytes, compression: Compression) -> bytes:
    """``data`` compressed by code that is not ours."""
    if compression is Compression.GZIP:
        return gzip.compress(data, mtime=0)
    if compression is Compression.ZSTD:
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def unpack(blob: bytes, compression: Compression) -> bytes:
    """The reverse of ``pack``, also by code that is not ours."""
    if compression is Compression.GZIP:
        return gzip.decompress(blob)
    if compression is Compression.ZSTD:
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)
    return blob


def digest_number(n: int) -> Digest:
    """Some digest, the ``n``-th."""
    return Digest(digest_of(str(n).encode()))
