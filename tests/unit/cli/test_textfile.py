"""Small files for other programs: the old one, or the whole new one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from layertee.cli.textfile import see_that_it_can_be_written, write_whole
from layertee.errors import LocalError, NoSpace


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


def test_a_link_stays_one_and_a_descriptor_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"x"
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()  # what has no name that could be opened
    with ours, theirs:
        for fd in (writer, ours.fileno()):
            see_that_it_can_be_written(Path(f"/dev/fd/{fd}"))
            write_whole(Path(f"/dev/fd/{fd}"), b"y")
        assert os.read(reader, 9) == theirs.recv(9) == b"y"
    os.close(reader)
    os.close(writer)


def test_a_terminal_is_written_to() -> None:
    master, slave = os.openpty()
    try:
        write_whole(Path(os.ttyname(slave)), b"y")
        assert os.read(master, 9) == b"y"
    finally:
        os.close(master)
        os.close(slave)


def test_the_mode_of_a_file_that_is_replaced_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    for mode in (0o600, 0o664):
        path.chmod(mode)
        write_whole(path, b"new")
        assert path.stat().st_mode & 0o7777 == mode


def test_a_full_disk_gets_no_advice_about_the_store() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(NoSpace) as caught:
        write_whole(Path(f"/dev/fd/{full.fileno()}"), b"x")
    assert caught.value.hint == ""


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "directory", tmp_path / "none/file", tmp_path / "directory/../none/file"):
        with pytest.raises(LocalError) as caught:
            see_that_it_can_be_written(path)
        assert caught.value.path == str(path)
    with pytest.raises(LocalError, match="there is no directory"):
        write_whole(tmp_path / "none/file", b"")
    with pytest.raises(LocalError):
        write_whole(tmp_path / "directory/x" / ("n" * 300), b"")
    assert os.listdir(tmp_path) == ["directory"] and os.listdir(tmp_path / "directory") == []
