"""A layer as a tar again: the same with each core, whatever the records say and the tree has."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertee.errors import LayerteeError, SourceUnreadable
from layertee.places.podman.layer import LayerFiles
from tests.support.cores import c_core_missing

FILES = {
    "etc/a": b"first",
    "etc/deep/er/b": b"second" * 9000,
    "etc/deep/c": b"third",
    "usr/d": b"x",
    "e": random.Random(5).randbytes(300_000),
}


def segment(data: bytes) -> bytes:
    return b'{"type":2,"payload":"%s","position":0}' % base64.b64encode(data)


def file(name: str, size: int) -> bytes:
    text = f',"size":{size}' if size else ""
    shown = json.dumps(name, ensure_ascii=False)
    return f'{{"type":1,"name":{shown}{text},"payload":null,"position":7}}'.encode()


def layer(root: Path, lines: Iterable[bytes], size: int) -> LayerFiles:
    """A layer in a store of its own, with ``FILES`` in its tree."""
    tree = root / "vfs" / "dir" / "id"
    for name, content in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "vfs-layers").mkdir()
    files = LayerFiles(root, "vfs", "id", size)
    (files.records / files.tarsplit_name).write_bytes(gzip.compress(b"\n".join(lines), 1))
    return files


def tree_of(files: LayerFiles) -> Path:
    return files.root / "vfs" / "dir" / "id"


def usual() -> tuple[list[bytes], bytes]:
    """The lines of a layer that has all files, and its tar."""
    lines, tar = [], b""
    for number, (name, content) in enumerate(FILES.items()):
        header = bytes([number]) * 512
        lines += [segment(header), file(name, len(content)), segment(b""), file(f"{name}.d/", 0)]
        tar += header + content
    return [*lines, segment(bytes(1024))], tar + bytes(1024)


def read(files: LayerFiles, at_once: int, skip: int = 0) -> bytes:
    reader = files.open()
    try:
        reader.skip(skip)
        room = memoryview(bytearray(at_once))
        got = b""
        while n := reader.readinto(room):
            got += room[:n]
        return got
    finally:
        reader.close()
        reader.close()


pytestmark = pytest.mark.usefixtures("default_core")


@pytest.mark.parametrize("at_once", [1 << 20, 4096, 511, 60_001])
def test_a_layer_is_its_tar_in_pieces_of_any_size(tmp_path: Path, at_once: int) -> None:
    lines, tar = usual()
    files = layer(tmp_path, lines, len(tar))
    assert read(files, at_once) == tar


def test_what_is_passed_over_is_not_opened(tmp_path: Path) -> None:
    lines, tar = usual()
    files = layer(tmp_path, lines, len(tar))
    (tree_of(files) / "etc/a").unlink()
    with pytest.raises(SourceUnreadable, match="etc/a"):
        read(files, 4096)
    for skip in (517, 518, 1000, 1029, 1030, 40_000, len(tar) - 1024 - 5, len(tar) - 1, len(tar)):
        assert read(files, 4096, skip) == tar[skip:]
    with pytest.raises(SourceUnreadable, match="too early"):
        read(files, 4096, len(tar) + 1)


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("./etc/a", "etc/a"),
        ("/etc/a", "etc/a"),
        (".//./etc/a", "etc/a"),
        ("etc//deep/./c", "etc/deep/c"),
        ("link/deep/c", "etc/deep/c"),
        ("etc/up/usr/d", "usr/d"),
        ("café", "usr/d"),
        ('q"uo\\te', "usr/d"),
    ],
)
def test_names_lead_to_files_in_the_tree_as_the_tool_that_wrote_them_went(
    tmp_path: Path, name: str, real: str
) -> None:
    content = FILES[real]
    lines = [file("etc/deep/er/b", 54_000), file(name, len(content)), file("usr/d", 1)]
    files = layer(tmp_path, lines, 54_001 + len(content))
    tree = tree_of(files)
    (tree / "link").symlink_to("etc")
    (tree / "etc" / "up").symlink_to("..")
    for other in ("café", 'q"uo\\te'):
        (tree / other).write_bytes(FILES["usr/d"])
    assert read(files, 50_000) == FILES["etc/deep/er/b"] + content + b"x"


def test_a_layer_of_odd_lines_is_read_all_the_same(tmp_path: Path) -> None:
    long = random.Random(1).randbytes(200_000)
    lines = [
        segment(long),
        b' {"position": 1, "type": 1, "size": 5, "name": "etc/a"} ',
        b'{"type":1,"name":"","name_raw":"%s","size":1,"payload":"AAAA","position":3}'
        % base64.b64encode(b"usr/d"),
        b'{"type":1,"name":"us\\u0072/d","size":1,"payload":"AAAA","position":4}',
        b'{"type":2,"payload":"YWI=","position":05}'.replace(b"05", b"5"),
    ]
    files = layer(tmp_path, lines, 200_009)
    assert read(files, 1 << 20) == long + b"firstxxab"


@pytest.mark.parametrize(
    "how", ["gone", "longer", "shorter", "a link", "a pipe", "a directory", "linked out", "above"]
)
def test_a_file_that_is_not_what_it_was_is_refused_by_its_name(tmp_path: Path, how: str) -> None:
    name = {"linked out": "out/deep/c", "above": "../dir/id/etc/deep/c"}.get(how, "etc/deep/c")
    files = layer(tmp_path, [segment(b"head"), file(name, 5)], 9)
    path = tree_of(files) / "etc/deep/c"
    (tree_of(files) / "out").symlink_to(tmp_path / "vfs" / "dir" / "id" / "etc")
    if how in ("longer", "shorter"):
        path.write_bytes(b"third!" if how == "longer" else b"thir")
    elif how not in ("linked out", "above"):
        path.unlink()
    if how == "a link":
        path.symlink_to("er/b")
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    with pytest.raises(SourceUnreadable, match="deep"):
        read(files, 4096)


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: Path) -> None:
    files = layer(tmp_path, [file("e", 300_000)], 300_000)
    reader = files.open()
    room = memoryview(bytearray(100_000))
    assert reader.readinto(room) == 100_000
    os.truncate(tree_of(files) / "e", 150_000)
    with pytest.raises(SourceUnreadable, match=r"has 150000 bytes, the layer 300000|cut short"):
        while reader.readinto(room):
            pass
    reader.close()


@pytest.mark.parametrize("size", [0, 4, 516, 520, 521, 530])
def test_a_layer_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    lines = [segment(bytes(512)), file("etc/a", 5)]
    files = layer(tmp_path, lines, size)
    with pytest.raises(SourceUnreadable, match=r"describes more than|bytes before the layer"):
        read(files, 4096)


def test_lines_that_stand_for_nothing_are_bounded(tmp_path: Path) -> None:
    files = layer(tmp_path, [file("d/", 0)] * 1100, 5)
    with pytest.raises(SourceUnreadable, match="describes more than"):
        read(files, 4096)


# --- the cores agree ---------------------------------------------------------------------------

LINES = st.sampled_from([segment(b"head"), segment(b"a"), segment(b""), file("etc/a", 5), file("d/", 0)])
ODD = st.sampled_from(
    [
        *(b'{"type":2,"payload":"YQ==","position":01}', b'{"type":2,"payload":"YQ=","position":1}'),
        *(b'{"type":2,"payload":"YR==","position":1}', b'{"type":2,"payload":"=YQ=","position":1}'),
        *(b'{"type":2,"payload":"YQ==","position":1} ', b'{"type":2,"payload":"Y\\u0051==","position":1}'),
        *(b'{"type":1,"name":"usr/d","size":01,"payload":null,"position":1}', b"", b"{}"),
        *(b'{"type":1,"name":"usr/d","size":1,"payload":"!","position":1}', file("usr/../usr/d", 1)),
        *(file("usr/d", 10**18), file("usr/d", 10**19), file("x" * 5000, 1), file("a/" * 70 + "b", 1)),
        *(b'{"type":1,"name":"usr/d","size":1,"payload":null}', b'{"type":1,"name":"usr/d","size":1e0}'),
    ]
)


def mended(line: bytes, at: int, byte: int) -> bytes:
    at %= len(line) + 1
    return line[:at] + bytes([byte]) + line[at + 1 :]


CHANGED = st.builds(mended, LINES, st.integers(0, 80), st.integers(0, 255))


@settings(max_examples=300)
@given(lines=st.lists(LINES | ODD | CHANGED, max_size=6), size=st.integers(0, 40), skip=st.integers(0, 12))
def test_what_one_core_makes_of_any_lines_the_other_makes(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, skip: int
) -> None:
    if c_core_missing():
        pytest.skip("there is one core")
    files = layer(tmp_path_factory.mktemp("l"), lines, size)

    def outcome(core: str) -> bytes | str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LAYERTEE_CORE", core)
            try:
                return read(files, 7, skip)
            except LayerteeError as exc:
                return str(exc)

    assert outcome("c") == outcome("python")
