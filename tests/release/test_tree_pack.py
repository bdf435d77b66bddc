"""Archives whose bytes depend on what is in them, and on nothing else."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from release import tree_pack

WHEN = 1_767_225_600


def make(root: Path, names: list[str], umask: int) -> Path:
    """Files with these names, made in this order."""
    before = os.umask(umask)
    try:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}\n")
        (root / names[0]).chmod(0o700)
        (root / "link").symlink_to(names[0])
    finally:
        os.umask(before)
    return root


def test_the_same_content_gives_the_same_bytes_whoever_makes_it_and_when(tmp_path: Path) -> None:
    names = ["bin/run", "lib/b.so", "lib/a.so", "share/long" + "-name" * 30]
    archives = []
    for umask, when in ((0o022, 1), (0o077, 2)):
        order = names if umask == 0o022 else [names[0], *reversed(names[1:])]
        root = make(tmp_path / f"{umask}", order, umask)
        os.utime(root / names[1], (when, when))
        tree_pack.normalise(root, WHEN)
        archive = tmp_path / f"{umask}.tar.zst"
        tree_pack.pack(root, archive, "top", WHEN, 3)
        archives.append(archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert not list(tmp_path.glob("*.part"))
    with (
        archives[0].open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as packed,
    ):
        modes = {entry.name: entry.mode for entry in packed}
    assert list(modes) == sorted(modes)
    assert modes["top/bin/run"] == modes["top/lib"] == 0o755 and modes["top/lib/a.so"] == 0o644


def test_what_is_neither_file_nor_directory_nor_symlink_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(TypeError, match="pipe"):
        tree_pack.pack(root, tmp_path / "archive", "top", WHEN, 3)
