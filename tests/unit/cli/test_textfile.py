"""Small files for other programs: the old one, or the whole new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.cli.textfile import see_that_it_can_be_written, write_whole
from layertee.errors import LocalError


def test_a_file_is_made_or_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old_mask = os.umask(0o077)
    try:
        write_whole(path, b"one")
        before = path.stat().st_ino
        with path.open("rb") as reader:
            write_whole(path, b"two, which is longer")
            assert reader.read() == b"one", "who reads the old one reads all of it"
    finally:
        os.umask(old_mask)
    assert path.read_bytes() == b"two, which is longer" and path.stat().st_ino != before
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one_and_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"x"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        see_that_it_can_be_written(tmp_path / "pipe")
        write_whole(tmp_path / "pipe", b"y")
        assert os.read(reader, 9) == b"y"
    finally:
        os.close(reader)


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "directory", tmp_path / "none/file", tmp_path / "directory/../none/file"):
        with pytest.raises(LocalError) as caught:
            see_that_it_can_be_written(path)
        assert caught.value.path == str(path)
    with pytest.raises(LocalError, match="writing"):
        write_whole(tmp_path / "none/file", b"")
    with pytest.raises(LocalError):
        write_whole(tmp_path / "directory/x" / ("n" * 300), b"")
    assert os.listdir(tmp_path) == ["directory"] and os.listdir(tmp_path / "directory") == []
