"""The decoder's accept table as named inputs: what is decoded, what is refused, and where.

A vector is made here, from RFC 1952 and RFC 8878, and not stored: its bytes are the text of this
file. The compressors used (``zlib``, ``zstandard``) are not what is tested. ``outcome`` is ``"ok"`` or
the ``reason`` of the ``DecodeError``; ``offset`` is where the failing member or frame begins, the length
of the input for ``truncated``, and the first surplus byte for ``trailing``.

Run as a program, it writes every vector to a directory: a seed corpus for the fuzzers.
"""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

FHCRC, FEXTRA, FNAME, FCOMMENT = 0x02, 0x04, 0x08, 0x10
FRAME_MAGIC = b"\x28\xb5\x2f\xfd"

TEXT = b"".join(b"%d green bottles hanging on the wall, " % i for i in range(200))
# Neither compressible nor empty, and longer than a deflate window and a zstd block.
NOISE = random.Random(1952).randbytes(150_000)


@dataclass(frozen=True, slots=True)
class Vector:
    """One input and its only acceptable outcome, however it is split."""

    name: str
    format: str
    data: bytes
    output: bytes | None = b""  # what comes out before the verdict; None where that is the decoder's affair
    outcome: str = "ok"
    offset: int = 0
    check_crc: bool = True
    window_max: int = 128 << 20
    members: int = 1  # of a stream that is well-formed: gzip members, zstd frames


def deflate(data: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Raw deflate (RFC 1951)."""
    c = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return c.compress(data) + c.flush()


def member(
    data: bytes,
    *,
    flags: int = 0,
    method: int = 8,
    extra: bytes = b"",
    name: bytes = b"",
    comment: bytes = b"",
    body: bytes | None = None,
    crc_xor: int = 0,
    size_add: int = 0,
    hcrc_xor: int = 0,
) -> bytes:
    """A gzip member (RFC 1952 §2.3); wrong where it is told to be."""
    head = struct.pack("<BBBBIBB", 0x1F, 0x8B, method, flags, 1_700_000_000, 0, 3)
    if flags & FEXTRA:
        head += struct.pack("<H", len(extra)) + extra
    if flags & FNAME:
        head += name + b"\0"
    if flags & FCOMMENT:
        head += comment + b"\0"
    if flags & FHCRC:
        head += struct.pack("<H", (zlib.crc32(head) ^ hcrc_xor) & 0xFFFF)
    tail = struct.pack("<II", zlib.crc32(data) ^ crc_xor, (len(data) + size_add) & 0xFFFFFFFF)
    return head + (deflate(data) if body is None else body) + tail


def skippable(payload: bytes, nibble: int = 0, length: int | None = None) -> bytes:
    """A skippable frame (RFC 8878 §3.1.2)."""
    return struct.pack("<II", 0x184D2A50 | nibble, len(payload) if length is None else length) + payload


def block(kind: int, size: int, content: bytes, last: bool = False) -> bytes:
    """A zstd block: 0 raw, 1 RLE, 2 compressed, 3 reserved."""
    return struct.pack("<I", int(last) | kind << 1 | size << 3)[:3] + content


def frame(
    *blocks: bytes,
    size: int | None = None,
    size_flag: int = 2,
    window: int | None = 0,
    checksum: bytes | None = None,
    dictionary: bytes = b"",
    reserved: bool = False,
) -> bytes:
    """A zstd frame made by hand. ``window`` is the descriptor byte, or None for a single segment."""
    flag = size_flag << 6 if size is not None else 0
    flag |= 0x20 if window is None else 0
    flag |= 0x08 if reserved else 0
    flag |= 0x04 if checksum is not None else 0
    flag |= {0: 0, 1: 1, 2: 2, 4: 3}[len(dictionary)]
    out = FRAME_MAGIC + bytes([flag]) + (b"" if window is None else bytes([window])) + dictionary
    if size is not None:
        value = size - 256 if size_flag == 1 else size
        out += value.to_bytes({0: 1, 1: 2, 2: 4, 3: 8}[size_flag], "little")
    return out + b"".join(blocks) + (checksum or b"")


def bits(text: str) -> bytes:
    """Deflate's packing: the first bit is the lowest of the first byte. Spaces are for the reader."""
    digits = text.replace(" ", "")
    return bytes(int(digits[i : i + 8][::-1], 2) for i in range(0, len(digits), 8))


def zstd(data: bytes, *, level: int = 3, checksum: bool = True, content_size: bool = True) -> bytes:
    """A zstd frame as compressors make it."""
    return zstandard.ZstdCompressor(
        level=level, write_checksum=checksum, write_content_size=content_size
    ).compress(data)


def window_byte(log: int, mantissa: int = 0) -> int:
    """Window_Descriptor (RFC 8878 §3.1.1.1.2) of 2**log * (1 + mantissa / 8)."""
    return (log - 10) << 3 | mantissa


def gzip_vectors() -> Iterator[Vector]:
    """RFC 1952: accepted as Go's decoder does, refused as it does."""

    def ok(name: str, data: bytes, output: bytes, members: int = 1, check_crc: bool = True) -> Vector:
        return Vector(f"gzip_{name}", "gzip", data, output, check_crc=check_crc, members=members)

    def bad(name: str, data: bytes, outcome: str, offset: int, output: bytes | None = b"") -> Vector:
        return Vector(f"gzip_{name}", "gzip", data, output, outcome, offset)

    one = member(TEXT)
    yield ok("empty_input", b"", b"", members=0)
    yield ok("empty_member", member(b""), b"")
    yield ok("one_member", one, TEXT)
    yield ok("noise", member(NOISE), NOISE)
    yield ok("stored_blocks", member(NOISE, body=deflate(NOISE, 0)), NOISE)
    yield ok("fixed_codes", member(TEXT, body=deflate(TEXT, 6, zlib.Z_FIXED)), TEXT)
    yield ok("huffman_only", member(TEXT, body=deflate(TEXT, 6, zlib.Z_HUFFMAN_ONLY)), TEXT)
    yield ok("run_of_zeros", member(bytes(1 << 20)), bytes(1 << 20))
    far = NOISE[:32768] * 3
    yield ok("distance_32768", member(far, body=deflate(far, 9)), far)
    yield ok("two_members", one + member(b"second"), TEXT + b"second", members=2)
    yield ok("thousand_empty_members", member(b"") * 1000 + one, TEXT, members=1001)
    tiny = b"".join(member(bytes([i])) for i in range(256))
    yield ok("tiny_members", tiny, bytes(range(256)), members=256)

    for count in (1, 512):
        yield bad(f"trailing_zeros_{count}", one + bytes(count), "trailing", len(one), TEXT)
    yield bad("trailing_garbage", one + b"garbage", "trailing", len(one), TEXT)
    yield bad("trailing_1f", one + b"\x1f", "trailing", len(one), TEXT)
    yield bad("trailing_1f_8c", one + b"\x1f\x8c", "trailing", len(one), TEXT)
    yield bad("second_magic_then_end", one + b"\x1f\x8b", "truncated", len(one) + 2, None)
    yield bad("second_member_bad_method", one + b"\x1f\x8b\x07", "header", len(one), TEXT)

    for cut in (1, 2, 3, 9, 10):
        yield bad(f"truncated_header_{cut}", one[:cut], "truncated", cut, None)
    for cut in range(1, 9):
        yield bad(f"truncated_trailer_{cut}", one[:-cut], "truncated", len(one) - cut, None)
    yield bad("truncated_body", one[:-20], "truncated", len(one) - 20, None)
    yield bad("truncated_stored", member(b"", body=b"\x01\x05\x00\xfa\xffab")[:17], "truncated", 17, None)

    yield bad("not_gzip", b"hello, world", "header", 0)
    yield bad("second_byte_wrong", b"\x1f\x9d" + bytes(30), "header", 0)
    yield bad("method_7", member(TEXT, method=7), "header", 0)
    for bit in (0x20, 0x40, 0x80):
        yield bad(f"reserved_flag_{bit:02x}", member(TEXT, flags=bit), "header", 0)

    yield ok("fhcrc", member(TEXT, flags=FHCRC), TEXT)
    yield bad("fhcrc_wrong", member(TEXT, flags=FHCRC, hcrc_xor=1), "checksum", 0)
    every = FHCRC | FEXTRA | FNAME | FCOMMENT
    full = member(TEXT, flags=every, extra=b"ab\x02\x00xy", name=b"layer.tar", comment=b"a comment")
    yield ok("every_field", full, TEXT)
    yield bad("every_field_fhcrc_wrong", full[:30] + b"!" + full[31:], "checksum", 0)
    yield ok("extra_empty", member(TEXT, flags=FEXTRA), TEXT)
    yield ok("extra_65535", member(TEXT, flags=FEXTRA | FHCRC, extra=NOISE[:65535]), TEXT)
    yield ok("name_empty", member(TEXT, flags=FNAME), TEXT)
    yield ok("name_65536", member(TEXT, flags=FNAME | FHCRC, name=b"n" * 65536), TEXT)
    yield bad("name_65537", member(TEXT, flags=FNAME, name=b"n" * 65537), "header_too_long", 0)
    yield bad("name_70000", member(TEXT, flags=FNAME, name=b"n" * 70000), "header_too_long", 0)
    yield bad("comment_70000", member(TEXT, flags=FCOMMENT, comment=b"c" * 70000), "header_too_long", 0)
    yield bad("name_never_ends", member(TEXT, flags=FNAME)[:10] + b"nnn", "truncated", 13, None)

    yield bad("crc_wrong", member(TEXT, crc_xor=1), "checksum", 0, TEXT)
    yield ok("crc_wrong_unchecked", member(TEXT, crc_xor=1), TEXT, check_crc=False)
    yield bad("isize_wrong", member(TEXT, size_add=1), "length", 0, TEXT)
    yield bad("isize_wrong_second", one + member(TEXT, size_add=-1), "length", len(one), TEXT * 2)
    yield bad("crc_wrong_second", one + member(TEXT, crc_xor=1 << 31), "checksum", len(one), TEXT * 2)

    yield bad("block_type_3", member(b"", body=b"\x07"), "data", 0, None)
    yield bad("stored_length_wrong", member(b"", body=b"\x01\x05\x00\xfb\xffabcde"), "data", 0, None)
    # Last block, fixed codes, "a", then three bytes from two back, where there is one.
    far = member(b"", body=bits("1 10 10010001 0000001 00001 0000000"))
    yield bad("distance_before_start", far, "data", 0, None)
    broken = bytearray(member(NOISE, body=deflate(NOISE, 0)))
    broken[10 + 5 + 65535 + 1] ^= 0xFF  # LEN of the second stored block
    yield bad("second_block_wrong", bytes(broken), "data", 0, None)


def zstd_vectors() -> Iterator[Vector]:
    """RFC 8878, with this project's limits on windows and dictionaries."""

    def ok(
        name: str,
        data: bytes,
        output: bytes,
        members: int = 1,
        window_max: int = 128 << 20,
        check_crc: bool = True,
    ) -> Vector:
        return Vector(
            f"zstd_{name}",
            "zstd",
            data,
            output,
            check_crc=check_crc,
            window_max=window_max,
            members=members,
        )

    def bad(
        name: str,
        data: bytes,
        outcome: str,
        offset: int,
        output: bytes | None = b"",
        window_max: int = 128 << 20,
        check_crc: bool = True,
    ) -> Vector:
        return Vector(f"zstd_{name}", "zstd", data, output, outcome, offset, check_crc, window_max)

    one = zstd(TEXT)
    hello = block(0, 5, b"hello", last=True)
    yield ok("empty_input", b"", b"", members=0)
    yield ok("empty_frame", zstd(b""), b"")
    yield ok("one_frame", one, TEXT)
    yield ok("noise", zstd(NOISE), NOISE)
    yield ok("unknown_size", zstd(NOISE * 2, content_size=False), NOISE * 2)
    yield ok("level_19", zstd(TEXT * 20, level=19), TEXT * 20)
    yield ok("two_frames", one + zstd(b"second"), TEXT + b"second", members=2)
    yield ok("thousand_frames", zstd(b"x") * 1000, b"x" * 1000, members=1000)
    yield ok("empty_last_block", frame(block(0, 5, b"hello"), block(0, 0, b"", last=True)), b"hello")
    yield ok("empty_middle_block", frame(block(0, 0, b""), hello), b"hello")
    yield ok("rle", frame(block(1, 1000, b"r", last=True)), b"r" * 1000)
    for flag, size in ((0, 5), (1, 256 + 44), (2, 5), (3, 5)):
        content = (b"hello" * 60)[:size]
        blocks = block(0, size, content, last=True)
        yield ok(f"size_flag_{flag}_segment", frame(blocks, size=size, size_flag=flag, window=None), content)
        if flag:
            yield ok(f"size_flag_{flag}_window", frame(blocks, size=size, size_flag=flag), content)
    bomb = frame(*[block(1, 131072, b"\0")] * 31, block(1, 131072, b"\0", last=True), window=window_byte(17))
    yield ok("rle_bomb", bomb, bytes(32 * 131072))

    toc = NOISE[:5000]
    yield ok("skippable_first", skippable(toc) + one, TEXT, members=2)
    yield ok("skippable_middle", one + skippable(toc) + one, TEXT * 2, members=3)
    yield ok("skippable_last", one + skippable(toc), TEXT, members=2)
    yield ok("skippable_empty", skippable(b"") + one + skippable(b""), TEXT, members=3)
    yield ok("skippable_only", skippable(toc) + skippable(toc), b"", members=2)
    yield ok("skippable_16_magics", b"".join(skippable(b"abc", n) for n in range(16)) + one, TEXT, members=17)
    yield ok("skippable_holds_a_frame", skippable(one) + one, TEXT, members=2)
    yield bad("skippable_past_end", one + skippable(toc, length=5001), "truncated", len(one) + 5008, TEXT)
    yield bad("skippable_4_gib", skippable(b"abc", length=0xFFFFFFFF), "truncated", 11)
    yield bad("skippable_cut_length", one + skippable(toc)[:6], "truncated", len(one) + 6, TEXT)

    for cut in (1, 3, 4, 5, 6, 8):
        yield bad(f"truncated_header_{cut}", one[:cut], "truncated", cut)
    yield bad("truncated_checksum", one[:-1], "truncated", len(one) - 1, TEXT)
    yield bad("truncated_no_checksum", one[:-4], "truncated", len(one) - 4, TEXT)
    yield bad("truncated_block", one[:-5], "truncated", len(one) - 5)
    yield bad("truncated_after_block", frame(block(0, 5, b"hello")), "truncated", 14, b"hello")
    yield bad("truncated_raw_block", frame(hello)[:-2], "truncated", 12, b"hel")

    for count in (1, 512):
        yield bad(f"trailing_zeros_{count}", one + bytes(count), "trailing", len(one), TEXT)
    yield bad("trailing_garbage", one + b"garbage", "trailing", len(one), TEXT)
    yield bad("trailing_half_magic", one + FRAME_MAGIC[:2], "trailing", len(one), TEXT)
    yield bad("trailing_half_skippable_magic", one + b"\x5a\x2a\x4d", "trailing", len(one), TEXT)
    yield bad("trailing_wrong_magic", one + FRAME_MAGIC[:3] + b"\xfc", "trailing", len(one), TEXT)
    yield bad("trailing_after_skippable", skippable(toc) + b"?", "trailing", 5008)
    yield bad("second_magic_then_end", one + FRAME_MAGIC, "truncated", len(one) + 4, TEXT)

    yield bad("not_zstd", b"hello, world", "header", 0)
    yield bad("legacy_magic", b"\x27\xb5\x2f\xfd" + one[4:], "header", 0)
    yield bad("reserved_bit", frame(hello, reserved=True), "header", 0)
    yield bad("reserved_bit_second", one + frame(hello, reserved=True), "header", len(one), TEXT)
    yield bad("dictionary_1", frame(hello, dictionary=b"\x07"), "dictionary", 0)
    yield bad("dictionary_2", frame(hello, dictionary=b"\x00\x07"), "dictionary", 0)
    yield bad("dictionary_4", frame(hello, dictionary=b"\x00\x00\x00\x80", size=5), "dictionary", 0)
    yield ok("dictionary_id_zero", frame(hello, dictionary=b"\x00\x00"), b"hello")

    yield ok("window_8_mib", frame(hello, window=window_byte(23)), b"hello")
    yield ok("window_above_8_mib", frame(hello, window=window_byte(23, 1)), b"hello")
    yield ok("window_128_mib", frame(hello, window=window_byte(27)), b"hello")
    yield bad("window_above_128_mib", frame(hello, window=window_byte(27, 1)), "window", 0)
    yield bad("window_2_gib", frame(hello, window=window_byte(31)), "window", 0)
    yield bad("window_largest", frame(hello, window=0xFF), "window", 0)
    yield bad("segment_above_128_mib", frame(hello, size=(128 << 20) + 1, window=None), "window", 0)
    yield bad(
        "window_above_configured", frame(hello, window=window_byte(20)), "window", 0, window_max=(1 << 20) - 1
    )
    yield ok("window_as_configured", frame(hello, window=window_byte(20)), b"hello", window_max=1 << 20)

    flipped = bytearray(frame(hello))
    flipped[-1] ^= 1
    yield ok("flip_without_checksum", bytes(flipped), b"helln")
    flipped = bytearray(zstd(NOISE))
    flipped[-100] ^= 1
    changed = bytearray(NOISE)
    changed[-96] ^= 1
    yield bad("flip_with_checksum", bytes(flipped), "checksum", 0, bytes(changed))
    yield bad("checksum_wrong", one[:-1] + bytes([one[-1] ^ 1]), "checksum", 0, TEXT)
    yield bad("checksum_wrong_second", one * 2 + one[:-1] + b"?", "checksum", 2 * len(one), TEXT * 3)
    # Not compared, the checksum is still a part of the frame: read, counted, and missed where it is cut off.
    wrong = one[:-1] + bytes([one[-1] ^ 1])
    yield ok("checksum_unchecked", one, TEXT, check_crc=False)
    yield ok("checksum_wrong_unchecked", wrong, TEXT, check_crc=False)
    yield ok("checksum_wrong_unchecked_twice", wrong + one + wrong, TEXT * 3, members=3, check_crc=False)
    yield ok("flip_with_checksum_unchecked", bytes(flipped), bytes(changed), check_crc=False)
    empty = frame(block(0, 0, b"", last=True), checksum=b"none")
    yield ok("checksum_wrong_unchecked_empty", empty + wrong, TEXT, members=2, check_crc=False)
    yield bad("checksum_unchecked_cut", one[:-1], "truncated", len(one) - 1, TEXT, check_crc=False)
    yield bad("checksum_unchecked_missing", one[:-4], "truncated", len(one) - 4, TEXT, check_crc=False)
    yield bad("checksum_unchecked_trailing", one + b"?", "trailing", len(one), TEXT, check_crc=False)
    large = frame(hello, size=6, checksum=b"????")
    yield bad("checksum_unchecked_size_too_large", large, "length", 0, b"hello", check_crc=False)
    yield bad("size_too_large", frame(hello, size=6), "length", 0, b"hello")
    yield bad("size_too_small", frame(hello, size=4), "data", 0)
    yield bad("size_too_small_rle", frame(block(1, 5, b"r", last=True), size=4), "data", 0)
    yield bad("size_too_small_second", frame(block(0, 5, b"hello"), hello, size=9), "data", 0, b"hello")
    whole = zstd(TEXT)  # its header: magic, descriptor, two bytes of size
    yield bad("size_too_small_compressed", whole[:5] + b"\x01\x00" + whole[7:], "data", 0, None)
    yield bad("size_too_large_compressed", whole[:5] + b"\xff\xff" + whole[7:], "length", 0, TEXT)
    yield bad("block_type_3", frame(block(3, 5, b"hello", last=True)), "data", 0)
    yield bad("second_block_type_3", frame(block(0, 5, b"hello"), block(3, 0, b"")), "data", 0, b"hello")
    yield bad("block_too_large", frame(block(0, 131073, b"hello" * 27000, last=True), window=0x60), "data", 0)
    yield bad("block_above_window", frame(block(0, 1025, bytes(1025), last=True)), "data", 0)
    # Of a frame that it has as a whole, libzstd takes a block that is larger than the frame's may be.
    for literals, above in ((1021, False), (1022, True)):
        content = NOISE[:literals]
        body = struct.pack("<H", 0x04 | literals << 4) + content + b"\0"
        small = frame(block(2, len(body), body, last=True), size=literals)
        name = "compressed_block_above_window" if above else "compressed_block_as_window"
        yield bad(name, small, "data", 0) if above else ok(name, small, content)
    yield bad(
        "rle_block_of_nothing_in_a_frame_of_nothing",
        frame(block(1, 0, b"r", last=True), size=0, window=None),
        "data",
        0,
    )
    # One libzstd has room for it in the buffer of an earlier frame, another has not: the verdict is the same.
    huge = frame(block(1, 328_680, b"r", last=True))
    yield bad("rle_block_above_window", huge, "data", 0)
    wide = zstd(NOISE, content_size=False)
    short = whole[:5] + b"\x01\x00" + whole[7:]
    yield bad("rle_block_above_window_second", wide + huge, "data", len(wide), NOISE)
    yield bad("compressed_size_too_small_second", wide + short, "data", len(wide), None)
    yield bad("rle_block_above_window_and_size", frame(block(1, 328_680, b"r"), size=5), "data", 0)
    yield bad("compressed_block_of_garbage", frame(block(2, 40, b"\xff" * 40, last=True)), "data", 0)


def none_vectors() -> Iterator[Vector]:
    """Layers that are stored as they are."""
    yield Vector("none_empty", "none", b"", b"", members=0)
    yield Vector("none_text", "none", TEXT, TEXT)
    yield Vector("none_noise", "none", NOISE, NOISE)
    yield Vector("none_gzip_inside", "none", member(TEXT), member(TEXT))


VECTORS: tuple[Vector, ...] = (*none_vectors(), *gzip_vectors(), *zstd_vectors())


def main(directory: str) -> None:
    """Write all vectors to ``directory``, one file each."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    for vector in VECTORS:
        (root / vector.name).write_bytes(vector.data)


if __name__ == "__main__":
    main(sys.argv[1])
