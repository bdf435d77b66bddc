"""tar-split: what it says comes out, and what only pretends to be it costs neither memory nor time."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest

from layertee.errors import SourceUnreadable
from layertee.places.podman.tarsplit import MAX_LINE, Payload, TarSplit

HEADER = bytes(range(256)) * 2


def segment(data: bytes) -> dict[str, Any]:
    return {"type": 2, "payload": base64.b64encode(data).decode(), "position": 0}


def file(name: str, size: int, **more: object) -> dict[str, Any]:
    return {"type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA=", "position": 0, **more}


def packed(lines: Iterable[object]) -> bytes:
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def read(raw: bytes, size: int, where: str = "the.tar-split.gz") -> list[bytes | Payload]:
    split = TarSplit(io.BytesIO(raw), where, size)
    try:
        return list(iter(split.take, None))
    finally:
        split.close()


def test_segments_and_files_come_out_in_order() -> None:
    lines = [segment(HEADER), file("etc/a", 5), segment(b"\0" * 507), file("etc/b", 7), segment(b"end")]
    found = read(packed(lines), 512 + 5 + 507 + 7 + 3)
    assert found == [HEADER, Payload(b"etc/a", 5), b"\0" * 507, Payload(b"etc/b", 7), b"end"]


def test_entries_without_bytes_are_passed_over() -> None:
    lines = [
        segment(HEADER),
        {"type": 1, "name": "etc/", "payload": None, "position": 1},
        file("empty", 0),
        {"type": 2, "payload": ""},
    ]
    assert read(packed(lines), 512) == [HEADER]


def test_a_name_that_is_not_utf8_comes_from_its_own_field() -> None:
    raw = b"caf\xe9/\xff"
    entry = file("", 3, name_raw=base64.b64encode(raw).decode())
    assert read(packed([entry]), 3) == [Payload(raw, 3)]
    assert read(packed([file("café", 3)]), 3) == [Payload("café".encode(), 3)]


def test_several_gzip_members_are_one_stream() -> None:
    raw = packed([segment(HEADER)]) + packed([file("a", 1)])
    assert read(raw, 513) == [HEADER, Payload(b"a", 1)]


def test_an_empty_layer_is_empty() -> None:
    assert read(packed([]), 0) == []


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"{}",
        b'{"type": 3, "payload": "AAAA"}',
        b'{"type": [], "payload": "AAAA"}',
        b'{"type": 2}',
        b'{"type": 2, "payload": 7}',
        b'{"type": 2, "payload": "not base64!"}',
        b'{"type": 2, "payload": "QUJ"}',
        b'{"type": 2, "payload": "\xc3\xa4\xc3\xa4"}',
        b'{"type": 1, "size": 3}',
        b'{"type": 1, "size": 3, "name": null}',
        b'{"type": 1, "size": 3, "name": ["a"]}',
        b'{"type": 1, "size": 3, "name": "\\ud800"}',
        b'{"type": 1, "size": 3, "name_raw": "?"}',
        b'{"type": 1, "size": "3", "name": "a"}',
        b'{"type": 1, "size": true, "name": "a"}',
        b'{"type": 1, "size": -3, "name": "a"}',
        b'{"type": 1, "size": 3.0, "name": "a"}',
        b'{"type": 1, "size": ' + b"9" * 5000 + b', "name": "a"}',
        b"[" * 200_000,
        b"\xff\xfe",
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)
def test_what_is_not_tarsplit_is_refused(line: bytes) -> None:
    with pytest.raises(SourceUnreadable, match=r"the\.tar-split\.gz: not tar-split"):
        read(gzip.compress(line + b"\n"), 1000)


def test_more_bytes_than_the_layer_has_are_refused_before_they_come_out() -> None:
    found = TarSplit(io.BytesIO(packed([segment(HEADER), file("huge", 1 << 62)])), "x", 513)
    assert found.take() == HEADER
    with pytest.raises(SourceUnreadable, match="more than the 513 bytes"):
        found.take()


def test_fewer_bytes_than_the_layer_has_are_refused() -> None:
    with pytest.raises(SourceUnreadable, match="ends 8 bytes before"):
        read(packed([segment(HEADER)]), 520)


@pytest.mark.parametrize("cut", [0, 5, 10, 11, 40, -9, -8, -1])
def test_a_truncated_stream_is_refused(cut: int) -> None:
    raw = packed([segment(HEADER), file("a", 5)])
    with pytest.raises(SourceUnreadable, match="x: "):
        read(raw[:cut], 517, "x")


def test_no_flipped_bit_gives_other_bytes() -> None:
    lines = [segment(HEADER), file("a", 5)]
    raw, want = packed(lines), [HEADER, Payload(b"a", 5)]
    for position in range(len(raw)):
        spoilt = bytearray(raw)
        spoilt[position] ^= 0x10
        try:
            found = read(bytes(spoilt), 517)
        except SourceUnreadable:
            continue
        assert found == want, position  # a flag, the time or the name in gzip's header


def test_what_is_no_gzip_is_refused() -> None:
    for raw in (b"{}\n", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", packed([file("a", 5)]) + b"trailing"):
        with pytest.raises(SourceUnreadable):
            read(raw, 5)


@pytest.mark.slow
def test_an_endless_line_costs_no_memory() -> None:
    bomb = gzip.compress(b'{"type": 2, "payload": "' + b"A" * (20 * MAX_LINE), 1)
    tracemalloc.start()
    try:
        with pytest.raises(SourceUnreadable, match="longer than"):
            read(bomb, 1 << 40)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", [{"type": 1, "name": "a/"}, {"type": 2, "payload": ""}])
def test_endless_entries_for_nothing_come_to_an_end(line: dict[str, Any]) -> None:
    with pytest.raises(SourceUnreadable, match="more than the 1024 bytes"):
        read(packed([line] * 2000), 1024)


def test_a_tar_of_nothing_but_directories_is_within_the_bounds() -> None:
    lines = [line for _ in range(5_000) for line in (segment(HEADER), {"type": 1, "name": "d/"})]
    assert len(read(packed(lines), 5_000 * 512)) == 5_000
