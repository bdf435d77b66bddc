"""The fallback core: what ``csrc/`` does, in Python, for machines where that could not be built.

Rules of this file: the same states, verdicts and offsets as lt_gzip.c and lt_zstd.c in csrc/codec, whose
comments say why; only raw deflate bodies and single zstd blocks go to a library. Every verdict is
taken in byte order, so that it cannot depend on how the input was cut. One difference is left: of a
corrupt deflate stream, ``isal`` drops what it decoded in the failing call, so fewer bytes may come out
before the error.

A decoder is a generator: it yields when it needs input or output room, and returns never; the format's
end is wherever no member or frame is open.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Iterator
from typing import Any

from ..image.media import Compression
from .result import Measured
from .status import Status

INFLATERS = ("isal", "zlib")  # fastest first
_IN_STEP = 64 << 10  # isal copies what it did not use: not a megabyte for each 256 KiB of output
_NAME_MAX = 64 << 10

_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _FRESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIP_MAGIC = b"\x50\x2a\x4d\x18"
_RAW, _RLE = 0, 1
_BLOCK_MAX = 128 << 10
_HAS_CHECKSUM = 0x04  # in the descriptor of a frame's header

Steps = Generator[None, None, None]


class _Verdict(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class _Cursor:
    """What a decoder reads from and writes to; the driver refills it."""

    def __init__(self) -> None:
        self.data = memoryview(b"")
        self.pos = 0  # offset of ``data`` in the stream
        self.room = 0
        self.out: list[bytes] = []
        self.open: int | None = None  # where the member or frame at work begins
        self.out_open: int | None = None  # where the one that made the last output begins
        self.maybe_surplus = False  # what is open is not yet more than a beginning of a magic
        self.n_members = 0  # members or frames that are complete
        self.window = 0  # that the frame at work asks for
        self.found: Compression | None = None  # of a stream whose format is to be found

    def skip(self, n: int) -> memoryview:
        taken = self.data[:n]
        self.data = self.data[n:]
        self.pos += len(taken)
        return taken

    def read(self, n: int) -> Generator[None, None, bytes]:
        """The next ``n`` bytes, however they arrive."""
        got = bytearray()
        while True:
            got += self.skip(n - len(got))
            if len(got) == n:
                return bytes(got)
            yield

    def pieces(self, n: int) -> Iterator[memoryview | None]:
        """The next ``n`` bytes piece by piece; None where the input has to be refilled."""
        while n:
            piece = self.skip(n) if self.data else None
            n -= len(piece) if piece is not None else 0
            yield piece

    def write(self, data: bytes) -> Steps:
        """Hand out ``data``, waiting for room."""
        rest = memoryview(data)
        while len(rest):
            while not self.room:
                yield
            piece = bytes(rest[: self.room])
            self.put(piece)
            rest = rest[len(piece) :]

    def put(self, piece: bytes) -> None:
        """Hand out ``piece``, for which there is room."""
        if piece:
            self.out.append(piece)
            self.room -= len(piece)
            self.out_open = self.open

    def close(self) -> None:
        self.open = None
        self.n_members += 1

    def not_a_beginning(self) -> _Verdict:
        return _Verdict(Status.TRAILING if self.n_members else Status.HEADER)


# --- stored ----------------------------------------------------------------------------


def _stored(c: _Cursor) -> Steps:
    while True:
        while not (c.data and c.room):
            yield
        c.put(bytes(c.skip(c.room)))
        c.n_members = 1


# --- gzip: RFC 1952 ----------------------------------------------------------------------


def _gzip(c: _Cursor, check_crc: bool, inflater: str) -> Steps:
    from isal import isal_zlib

    library: Any = isal_zlib if inflater == "isal" else zlib
    while True:
        while not c.data:
            yield
        yield from _gzip_header(c)
        inflate = library.decompressobj(wbits=-15)
        crc, size = 0, 0
        while not inflate.eof:
            while not c.room:
                yield
            piece = c.data[:_IN_STEP]
            try:
                out = inflate.decompress(piece, c.room)
            except library.error:
                raise _Verdict(Status.DATA) from None
            left = len(inflate.unused_data if inflate.eof else inflate.unconsumed_tail)
            c.skip(max(len(piece) - left, 0))
            c.put(out)
            size += len(out)
            if check_crc:
                crc = isal_zlib.crc32(out, crc)
            if not out and not inflate.eof and not c.data:
                yield
        # isal reads up to 8 bytes too much; those that came with an earlier piece are the trailer's.
        tail = inflate.unused_data[: max(left - len(piece), 0)]
        tail += yield from c.read(8 - len(tail))
        if check_crc and int.from_bytes(tail[:4], "little") != crc:
            raise _Verdict(Status.CHECKSUM)
        if int.from_bytes(tail[4:], "little") != size & 0xFFFFFFFF:
            raise _Verdict(Status.LENGTH)
        c.close()


def _gzip_header(c: _Cursor) -> Steps:
    c.open, c.maybe_surplus = c.pos, c.n_members > 0
    head = yield from c.read(1)
    if head != b"\x1f":
        raise c.not_a_beginning()
    head += yield from c.read(1)
    if head != b"\x1f\x8b":
        raise c.not_a_beginning()
    c.maybe_surplus = False
    head += yield from c.read(1)
    if head[2] != 8:
        raise _Verdict(Status.HEADER)
    head += yield from c.read(1)
    flags = head[3]
    if flags & _FRESERVED:
        raise _Verdict(Status.HEADER)
    head += yield from c.read(6)
    crc = zlib.crc32(head)
    if flags & _FEXTRA:
        field = yield from c.read(2)
        crc = zlib.crc32(field, crc)
        for piece in c.pieces(int.from_bytes(field, "little")):
            if piece is None:
                yield
            else:
                crc = zlib.crc32(piece, crc)
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            crc = yield from _gzip_name(c, crc)
    if flags & _FHCRC:
        field = yield from c.read(2)
        if int.from_bytes(field, "little") != crc & 0xFFFF:
            raise _Verdict(Status.CHECKSUM)


def _gzip_name(c: _Cursor, crc: int) -> Generator[None, None, int]:
    size = 0
    while True:
        while not c.data:
            yield
        # Enough to see that it is too long, and no more.
        piece = bytes(c.data[: _NAME_MAX + 1 - size])
        end = piece.find(b"\0")
        size += end if end >= 0 else len(piece)
        if size > _NAME_MAX:
            raise _Verdict(Status.HEADER_TOO_LONG)
        crc = zlib.crc32(c.skip(end + 1 if end >= 0 else len(piece)), crc)
        if end >= 0:
            return crc


# --- zstd: RFC 8878 ------------------------------------------------------------------------


def _zstd(c: _Cursor, check_crc: bool, window_max: int) -> Steps:
    while True:
        while not c.data:
            yield
        c.open, c.maybe_surplus = c.pos, c.n_members > 0
        magic = b""
        while len(magic) < 4:
            magic += yield from c.read(1)
            skip = bytes([magic[0] & 0xF0]) + magic[1:]
            if magic != _FRAME_MAGIC[: len(magic)] and skip != _SKIP_MAGIC[: len(magic)]:
                raise c.not_a_beginning()
        c.maybe_surplus = False
        if magic == _FRAME_MAGIC:
            yield from _zstd_frame(c, check_crc, window_max)
        else:
            length = yield from c.read(4)
            for piece in c.pieces(int.from_bytes(length, "little")):
                if piece is None:
                    yield
        c.close()


def _zstd_frame(c: _Cursor, check_crc: bool, window_max: int) -> Steps:
    header, content_size, has_checksum = yield from _zstd_header(c, window_max)
    frame = _ZstdBlocks(window_max)
    if has_checksum and not check_crc:
        # libzstd is shown a header that promises none, and computes none.
        header = header[:4] + bytes([header[4] & ~_HAS_CHECKSUM]) + header[5:]
    frame.run(header)
    size, last = 0, False
    while not last:
        field = yield from c.read(3)
        bits = int.from_bytes(field, "little")
        last, kind, nbytes = bool(bits & 1), bits >> 1 & 3, bits >> 3
        # The last bit is withheld, so that a wrong content size is told from corrupt data.
        frame.run(bytes([field[0] & 0xFE]) + field[1:])
        if content_size is not None and kind in (_RAW, _RLE) and nbytes > content_size - size:
            raise _Verdict(Status.DATA)
        block_from = size
        for piece in c.pieces(1 if kind == _RLE else nbytes):
            if piece is None:
                yield
                continue
            out = frame.run(piece)  # at most a block: 128 KiB
            size += len(out)
            yield from c.write(out)
            if size - block_from > min(c.window, _BLOCK_MAX):
                raise _Verdict(Status.DATA)
        # More than the frame promises is as bad as a block that libzstd has no room for.
        if content_size is not None and size != content_size and (last or size > content_size):
            raise _Verdict(Status.DATA if size > content_size else Status.LENGTH)
    frame.run(b"\x01\x00\x00")
    if has_checksum:
        checksum = yield from c.read(4)
        if check_crc:
            frame.run(checksum, Status.CHECKSUM)


def _zstd_header(c: _Cursor, window_max: int) -> Generator[None, None, tuple[bytes, int | None, bool]]:
    """The header as it is, the content size if there is one, whether a checksum follows."""
    header = _FRAME_MAGIC + (yield from c.read(1))
    descriptor = header[4]
    if descriptor & 0x08:
        raise _Verdict(Status.HEADER)
    segment = bool(descriptor & 0x20)
    id_nbytes = (0, 1, 2, 4)[descriptor & 3]
    size_nbytes = (int(segment), 2, 4, 8)[descriptor >> 6]
    rest = yield from c.read((not segment) + id_nbytes + size_nbytes)
    window = 0
    fields = rest
    if not segment:
        base = 1 << (10 + (rest[0] >> 3))
        window = base + base // 8 * (rest[0] & 7)
        fields = rest[1:]
    if any(fields[:id_nbytes]):
        raise _Verdict(Status.DICTIONARY)
    content_size = None
    if size_nbytes:
        content_size = int.from_bytes(fields[id_nbytes:], "little") + (256 if size_nbytes == 2 else 0)
    if segment:
        window = content_size or 0
    c.window = window
    if window > window_max:
        raise _Verdict(Status.WINDOW)
    return header + rest, content_size, bool(descriptor & _HAS_CHECKSUM)


class _ZstdBlocks:
    """libzstd for one frame, fed with single blocks."""

    def __init__(self, window_max: int) -> None:
        import zstandard

        # The library's own limit is a safety net, within what it accepts.
        limit = min(max(window_max, 1 << 10), 1 << 31)
        self._error = zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor(max_window_size=limit).decompressobj()

    def run(self, data: bytes | memoryview, status: Status = Status.DATA) -> bytes:
        try:
            return self._frame.decompress(data)
        except self._error:
            raise _Verdict(status) from None


# --- gzip or zstd ----------------------------------------------------------------------------


def _detect(c: _Cursor, check_crc: bool, inflater: str, window_max: int) -> Steps:
    """Decode as what a stream with that first byte can be; its decoder judges the byte again."""
    while not c.data:
        yield
    first = c.data[0]
    if first == 0x1F:
        c.found = Compression.GZIP
        yield from _gzip(c, check_crc, inflater)
    elif first == _FRAME_MAGIC[0] or first & 0xF0 == _SKIP_MAGIC[0]:
        c.found = Compression.ZSTD
        yield from _zstd(c, check_crc, window_max)
    c.open = c.pos
    raise _Verdict(Status.HEADER)


# --- the core --------------------------------------------------------------------------------


class PythonCore:
    """Same contract as ``lt_tee`` in csrc/lt_api.h.

    ``compression`` as :class:`~layertee.core.tee.Tee` takes it; ``inflater`` is one of ``INFLATERS``.
    """

    def __init__(
        self,
        compression: Compression,
        *,
        check_crc: bool,
        out_budget: int,
        window_max: int,
        inflater: str = INFLATERS[0],
    ) -> None:
        self._c = _Cursor()
        self._said = compression
        self._stored = compression is Compression.NONE
        if self._stored:
            self._steps = _stored(self._c)
        else:
            self._steps = _detect(self._c, check_crc, inflater, window_max)
        self._budget = out_budget
        self._status = Status.OK
        self._in_hash, self._out_hash = hashlib.sha256(), hashlib.sha256()
        self._out_total = 0
        self.error_offset = 0

    @property
    def error_window(self) -> int:
        """The bytes that a frame asked for whose window was refused, else 0."""
        return self._c.window if self._status == Status.WINDOW else 0

    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int, int]:
        """Decode ``data`` into ``out``: (status, bytes taken, bytes made)."""
        if self._status < 0:
            return self._status, 0, 0
        c = self._c
        before = c.pos
        made = self._step(data, out[: min(len(out), self._budget)]) if self._budget else 0
        self._budget -= made
        if self._status == Status.OK and not self._budget:
            # Whether there is one byte more than the budget shows when there is room for it.
            rest = data[c.pos - before :]
            if self._step(rest, memoryview(bytearray(1))):
                self._fail(Status.OUT_BUDGET, c.out_open)
        taken = c.pos - before
        self._in_hash.update(data[:taken])
        if not self._stored:
            self._out_hash.update(out[:made])
        self._out_total += made
        return self._status, taken, made

    def _step(self, data: memoryview, out: memoryview) -> int:
        c = self._c
        c.data, c.room, c.out = data, len(out), []
        try:
            next(self._steps)
        except _Verdict as exc:
            self._fail(exc.status, c.open)
        made = 0
        for piece in c.out:
            out[made : made + len(piece)] = piece
            made += len(piece)
        c.data, c.out = memoryview(b""), []
        return made

    def _fail(self, status: Status, offset: int | None) -> None:
        self._status = status
        self.error_offset = offset or 0

    def finish(self) -> Measured:
        """The input has ended."""
        c = self._c
        _, _, made = self.feed(memoryview(b""), memoryview(bytearray(1)))
        status = self._status
        if status == Status.OK and made:
            status = Status.MISUSE
        elif status == Status.OK and c.open is not None:
            status = Status.TRAILING if c.maybe_surplus else Status.TRUNCATED
            self._fail(status, c.open if c.maybe_surplus else c.pos)
        if status == Status.OK:
            self._status = Status.MISUSE  # a tee is finished once
        in_digest = self._in_hash.digest()
        out_digest = in_digest if self._stored else self._out_hash.digest()
        return Measured(
            status=status,
            size=c.pos,
            uncompressed_size=self._out_total,
            n_members=c.n_members,
            compression=c.found or self._said,
            digest=in_digest,
            diff_id=out_digest,
        )


def versions() -> str:
    """The libraries this core runs on, for a person."""
    import importlib.metadata

    names = ("isal", "zstandard")
    return (
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        + f", zlib {zlib.ZLIB_VERSION}"
    )
