"""What is in a compressed file, read once from its beginning, in the forms that archives of images come in.

gzip and zstd are what layers come in, so the core has them; bzip2 and xz are the standard library's. All may
consist of several streams, one after the other. Memory is bounded; how much comes out is for the caller to
bound.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from ..core.tee import Tee
from ..errors import DecodeError
from ..image.media import Compression

MAGIC_NBYTES: Final = 6
_AT_ONCE: Final = 1 << 20
_XZ_MEMORY: Final = 256 << 20  # xz -9 needs 65 MiB to be read
_MAX_OUTPUT: Final = 1 << 50


class Packing(enum.Enum):
    """What a whole file is compressed with."""

    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def packing_of(first: bytes) -> Packing | None:
    """By the first bytes of a file; None for what is compressed with nothing that is known."""
    if first.startswith(b"\x1f\x8b"):
        return Packing.GZIP
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50):
        return Packing.ZSTD
    if first.startswith(b"BZh"):
        return Packing.BZIP2
    if first.startswith(b"\xfd7zXZ\0"):
        return Packing.XZ
    return None


def decompressed(blocks: Iterable[bytes], packing: Packing) -> Iterator[bytes | memoryview]:
    """What ``blocks`` inflate to; each piece is valid until the next is asked for.

    Raises DecodeError, and what the blocks raise.
    """
    if packing in (Packing.GZIP, Packing.ZSTD):
        return _through_the_core(blocks, Compression(packing.value))
    return _through_the_library(blocks, packing)


def _through_the_core(blocks: Iterable[bytes], compression: Compression) -> Iterator[memoryview]:
    tee = Tee(compression, out_budget=_MAX_OUTPUT)
    try:
        for block in blocks:
            yield tee.feed(block)
            while tee.pending:
                yield tee.feed(b"")
        tee.finish()
    except DecodeError as exc:  # which speaks of layers
        said = str(exc).partition(": ")[2] or str(exc)
        raise DecodeError(f"{compression.value}: {said}", offset=exc.offset, reason=exc.reason) from exc


def _through_the_library(blocks: Iterable[bytes], packing: Packing) -> Iterator[bytes]:
    make = _maker(packing)
    decoder = make()
    is_begun = False
    for block in blocks:
        data = block
        while data or not (decoder.eof or decoder.needs_input):
            if decoder.eof:
                # Between two streams, xz files may have zeros.
                data = data.lstrip(b"\0") if packing is Packing.XZ else data
                if not data:
                    break
                decoder, is_begun = make(), False
            try:
                made = decoder.decompress(data, _AT_ONCE)
            except (OSError, EOFError, ValueError) as exc:  # lzma.LZMAError among them
                raise DecodeError(f"{packing.value}: {exc}", reason="data") from exc
            is_begun = True
            data = decoder.unused_data if decoder.eof else b""
            yield made
    if is_begun and not decoder.eof:
        raise DecodeError(f"{packing.value}: it ends too early", reason="truncated")


def _maker(packing: Packing) -> Callable[[], _Decoder]:
    """What makes a decoder for one stream. Raises DecodeError where Python was built without it."""
    try:
        if packing is Packing.BZIP2:
            from bz2 import BZ2Decompressor

            return BZ2Decompressor
        from lzma import FORMAT_XZ, LZMADecompressor, LZMAError
    except ImportError:
        raise DecodeError(f"this Python cannot read {packing.value}; unpack the file first") from None

    class XZ:
        """``LZMADecompressor``, whose error is of the standard library's usual kind."""

        def __init__(self) -> None:
            self._decoder = LZMADecompressor(FORMAT_XZ, memlimit=_XZ_MEMORY)

        @property
        def eof(self) -> bool:
            return self._decoder.eof

        @property
        def needs_input(self) -> bool:
            return self._decoder.needs_input

        @property
        def unused_data(self) -> bytes:
            return self._decoder.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            try:
                return self._decoder.decompress(data, max_length)
            except LZMAError as exc:
                raise OSError(str(exc)) from exc

    return XZ
