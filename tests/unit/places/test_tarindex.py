"""The index of a tar: that of tarfile for what archivers write, and an error for the rest."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from layertee.places import tarindex
from layertee.places.tarindex import DamagedTar, Member, members
from tests.support.archives import as_tarfile, index

LONG = "d/" * 60 + "n" * 180
Format = Literal[0, 1, 2]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def header(
    name: str = "x",
    kind: bytes = tarfile.REGTYPE,
    *,
    size: int = 0,
    form: Format = tarfile.GNU_FORMAT,
    **pax: str,
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    info.pax_headers = {key.replace("_", "."): value for key, value in pax.items()}
    return info.tobuf(form)


def edited(block: bytes, at: int, new: bytes) -> bytes:
    """A header with a checksum that is right again."""
    raw = bytearray(block)
    raw[at : at + len(new)] = new
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * ord(" ") + sum(raw[156:]))
    return bytes(raw)


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("records", kind, size=len(body)) + body + bytes(-len(body) % 512)


def record(key: str, value: str) -> bytes:
    """One of an extended header. Its length counts the digits of its length."""
    rest = f" {key}={value}\n"
    length = next(n for n in range(1000) if n == len(str(n)) + len(rest))
    return f"{length}{rest}".encode()


def records(nbytes: int, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header full of keys that differ."""
    return extended(b"".join(b"14 k%08x=\n" % n for n in range(nbytes // 14)), kind)


def archive(form: int, names: list[str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for n, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * n
            info.mtime = n + 0.5 if form == tarfile.PAX_FORMAT else n
            tar.addfile(info, io.BytesIO(bytes([n + 1]) * info.size))
            directory = tarfile.TarInfo(f"{name}.d")
            directory.type = tarfile.DIRTYPE
            tar.addfile(directory)
    return file.getvalue()


# --- what archivers write -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_every_member_is_where_tarfile_has_it(tmp_path: Path, form: int) -> None:
    names = ["a", "./b/c", "naïve", "d" * 90 + "/" + "e" * 60]
    if form != tarfile.USTAR_FORMAT:
        names += [LONG, "ü" * 200]
    found = index(archive(form, names), tmp_path / "a.tar")
    assert found == as_tarfile(tmp_path / "a.tar")
    assert len(found) == 2 * len(names)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_more_bytes_than_octal_digits_can_say(tmp_path: Path, form: Format) -> None:
    """The content is a hole, so only the index of it is made."""
    path = tmp_path / "a.tar"
    size = (8 << 30) + 5
    raw = header(size=size, form=form)
    path.write_bytes(raw)
    os.truncate(path, len(raw) + size + 507)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert list(members(fd)) == [Member(b"x", True, len(raw), size)]
        os.truncate(path, len(raw) + size - 1)
        with pytest.raises(DamagedTar, match="ends before"):
            list(members(fd))
    finally:
        os.close(fd)


def test_an_archive_may_end_in_two_blocks_of_zeros_or_with_its_last_file(tmp_path: Path) -> None:
    for tail in (b"", bytes(100), bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"what is this"):
        assert len(index(header() + tail, tmp_path / "a.tar")) == 1
    assert index(b"", tmp_path / "a.tar") == []


def test_records_that_say_nothing_of_a_member_are_passed_over(tmp_path: Path) -> None:
    raw = extended(b"18 comment=global\n", tarfile.XGLTYPE) + extended(b"12 atime=1.\n") + header("name")
    assert [member.name for member in index(raw, tmp_path / "a.tar")] == [b"name"]


# --- what is refused --------------------------------------------------------------------------------------

X = header()
DAMAGED = {
    "text": (b"an archive\n" * 100, "no header at byte 0"),
    "part of a header": (X[:300], "no header at byte 0"),
    "part of a second header": (X + X[:300], "no header at byte 512"),
    "something after the last file": (X + b"?" * 512, "no header at byte 512"),
    "one block of zeros": (X + bytes(512) + X, "damaged at byte 512"),
    "a wrong checksum": (X[:10] + b"y" + X[11:], "header at byte 0 is damaged"),
    "no checksum": (edited(X, 0, b"y")[:148] + b" " * 8 + X[156:], "is damaged"),
    "a number that is none": (edited(X, 124, b"0000000008\0"), "number that is none"),
    "two numbers": (edited(X, 124, b"00000 00001\0"), "number that is none"),
    "a size below zero": (edited(X, 124, b"\xff" * 11 + b"\0"), "number that is none"),
    "more than there is": (header(size=1) + bytes(0), "ends before"),
    "more than there can be": (header(size=1 << 80), "ends before"),
    "a directory of some size": (header(kind=tarfile.DIRTYPE, size=5) + bytes(512), "no content can follow"),
    "a link of some size": (header(kind=tarfile.LNKTYPE, size=5) + bytes(512), "no content can follow"),
    "an old sparse file": (header(kind=tarfile.GNUTYPE_SPARSE), "is sparse"),
    "a new sparse file": (header(form=tarfile.PAX_FORMAT, GNU_sparse_major="1"), "is sparse"),
    "a size in words": (extended(record("size", "five")) + X, "no number"),
    "a size of many digits": (extended(record("size", "9" * 99)) + X, "no number"),
    "a name for all": (extended(b"10 path=y\n", tarfile.XGLTYPE) + X, "of all files"),
    "two names": (extended(b"10 path=y\n") + extended(b"10 path=z\n") + X, "say it twice"),
    "records of nothing": (extended(b"10 path=y\n"), "damaged at byte 1024"),
    "a link's long target of nothing": (header(kind=tarfile.GNUTYPE_LONGLINK), "damaged at byte 512"),
    "records of no length": (extended(b"path=y\n") + X, "extended header at byte 512 is damaged"),
    "records of length zero": (extended(b"0 path=y\n") + X, "extended header"),
    "records that are too long": (extended(b"99 path=y\n") + X, "extended header"),
    "records that are too short": (extended(b"8 path=y\n") + X, "extended header"),
    "a record without a value": (extended(b"7 path\n") + X, "extended header"),
    "a record without an end": (extended(b"10 path=yz") + X, "extended header"),
    "large records": (records(70_000) + X, "too large"),
    "a long name of a gigabyte": (header(kind=tarfile.GNUTYPE_LONGNAME, size=1 << 30), "ends before"),
    "a long name of a megabyte": (
        header(kind=tarfile.GNUTYPE_LONGNAME, size=1 << 20) + bytes(1 << 20),
        "too large",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    raw, says = DAMAGED[kind]
    with pytest.raises(DamagedTar, match=says):
        index(raw, tmp_path / "a.tar")


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut_is_noticed(tmp_path: Path, form: int) -> None:
    """Save one between two members, after which nobody can know that there was more."""
    raw = archive(form, ["a", "b", "c"]).rstrip(b"\0")
    whole = index(raw + bytes(1024), tmp_path / "a.tar")
    n_cut = 0
    for stop in range(0, len(raw), 64):
        try:
            found = index(raw[:stop], tmp_path / "a.tar")
        except DamagedTar:
            continue
        assert found == whole[: len(found)]
        assert all(member.offset + member.size <= stop for member in found)
        n_cut += 1
    assert n_cut < len(raw) // 64 / 2


def test_hostile_headers_take_little_memory_and_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarindex, "MAX_HEADERS", 3000)  # so that tracing does not take seconds
    monkeypatch.setattr(tarindex, "MAX_ALL_RECORDS", 1 << 19)
    for raw in (
        records(65_000) * 300,
        records(65_000, tarfile.XGLTYPE) * 300,
        extended(b"1" * 65_000) * 300,
        (header(kind=tarfile.GNUTYPE_LONGLINK, size=65_000) + bytes(65_024)) * 300,
        X * (tarindex.MAX_HEADERS + 1),
    ):
        (tmp_path / "a.tar").write_bytes(raw)
        fd = os.open(tmp_path / "a.tar", os.O_RDONLY)
        tracemalloc.start()
        try:
            with pytest.raises(DamagedTar):
                for _ in members(fd):
                    pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            os.close(fd)
        assert peak < 1 << 20


def test_whatever_is_in_it_the_error_is_typed_and_what_is_found_is_inside(tmp_path: Path) -> None:
    """Headers are spoilt in what says where files are, and have a right checksum. tarfile is the oracle."""
    dice = random.Random(5)
    path = tmp_path / "a.tar"
    n_read = 0
    for form in FORMATS:
        whole = archive(form, ["a", "b/c", "d" * 80])
        starts = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
        for _ in range(500):
            raw = bytearray(whole)
            for at in dice.sample(starts, 2):
                where = dice.choice([156, 156, dice.randrange(100), dice.randrange(124, 136)])
                new = dice.choice([dice.randrange(256), *b"0\x0017LKxgSZ 2"])
                raw[at : at + 512] = edited(bytes(raw[at : at + 512]), where, bytes([new]))
            try:
                found = index(bytes(raw), path)
            except DamagedTar:
                continue
            n_read += 1
            assert all(0 <= member.size <= len(raw) - member.offset for member in found)
            ours = {(member.offset, member.size) for member in found if member.is_plain}
            with suppress(tarfile.TarError):  # a global header before the end
                assert ours <= {(member.offset, member.size) for member in as_tarfile(path)}
    assert n_read > 300
