"""What may be made, replaced or written to under a name that the user gave for a result."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.disk.outputs import output_at, output_directory_at, refuse_inside
from layertee.errors import LocalError, UnsafePath

MALLORY = 54321


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    path = tmp_path / "sticky"
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.fixture
def writer() -> Iterator[int]:
    """The end of a pipe that is written to."""
    reader, end = os.pipe()
    yield end
    os.close(reader)
    os.close(end)


def test_links_of_ones_own_are_followed_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "directory").symlink_to("real")
    (tmp_path / "real/last").symlink_to("../real/./file")
    found = output_at(tmp_path / "directory/last")
    assert (found.target, found.old, found.is_stream) == (tmp_path / "real/file", None, False)
    (tmp_path / "real/file").write_text("x")
    again = output_at(tmp_path / "directory/last")
    assert again.target == found.target and again.old is not None and again.old.st_size == 1
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(LocalError):
        output_at(tmp_path / "round")


@pytest.mark.needs_root("only root can make what belongs to another user")
def test_a_link_of_another_user_is_not_followed(tmp_path: Path, sticky: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "etc").mkdir()
    for name, leads_to in (("a.tar", "victim"), ("directory", "etc"), ("gone", "etc/new")):
        (sticky / name).symlink_to(tmp_path / leads_to)
        os.chown(sticky / name, MALLORY, MALLORY, follow_symlinks=False)
    (sticky / "mine").symlink_to(sticky / "a.tar")  # one's own leads to it
    for name in ("a.tar", "directory/x", "gone", "mine"):
        with pytest.raises(UnsafePath, match="belongs to user 54321"):
            output_at(sticky / name)
    with pytest.raises(UnsafePath):
        output_directory_at(sticky / "directory")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "link").symlink_to(tmp_path / "victim")  # another user may put it there, by a second name
    os.chown(theirs, MALLORY, MALLORY)
    with pytest.raises(UnsafePath):
        output_at(theirs / "link")
    assert output_at(theirs / "file").target == theirs / "file", "what is no link is theirs to give"


@pytest.mark.needs_root("only root can make what belongs to another user")
def test_a_file_that_another_user_laid_where_all_can_is_not_replaced(tmp_path: Path, sticky: Path) -> None:
    for directory in (sticky, tmp_path):
        (directory / "file").write_text("")
        os.chown(directory / "file", MALLORY, MALLORY)
    with pytest.raises(UnsafePath, match="belongs to user"):
        output_at(sticky / "file")
    assert output_at(tmp_path / "file").old is not None


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            for streams in (False, True):  # a pipe without a reader would block
                with pytest.raises(LocalError, match="is no plain file"):
                    output_at(tmp_path / name, streams=streams)
    with pytest.raises(LocalError, match="is a directory"):
        output_at(tmp_path)
    with pytest.raises(LocalError, match="there is no directory"):
        output_at(tmp_path / "none/at/all")


def test_a_terminal_is_for_those_that_write_streams() -> None:
    master, slave = os.openpty()
    try:
        path = Path(os.ttyname(slave))
        assert output_at(path, streams=True).is_stream
        with pytest.raises(LocalError, match="is no plain file"):
            output_at(path)
    finally:
        os.close(master)
        os.close(slave)


def test_a_descriptor_is_known_by_its_number(tmp_path: Path, writer: int) -> None:
    (tmp_path / "link").symlink_to(f"/dev/fd/{writer}")
    for path in (Path(f"/dev/fd/{writer}"), Path(f"/proc/self/fd/{writer}"), tmp_path / "link"):
        found = output_at(path, streams=True)
        assert (found.descriptor, found.is_stream) == (writer, True)
        with pytest.raises(LocalError, match="only such a file"):
            output_at(path)
    (tmp_path / "read").touch()
    with (tmp_path / "read").open() as file, pytest.raises(LocalError, match="for reading only"):
        output_at(Path(f"/dev/fd/{file.fileno()}"), streams=True)


def test_a_store_is_left_to_itself(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "blobs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("store/index.json")
    (tmp_path / "other").symlink_to("store")
    for name in ("store/index.json", "store/blobs/x", "link", "other/blobs/../x"):
        with pytest.raises(LocalError, match="is in the store"):
            output_at(tmp_path / name, outside=[tmp_path / "none", store])
    for name in ("store", "store/new/directory", "other"):
        with pytest.raises(LocalError, match="is in the store"):
            output_directory_at(tmp_path / name, outside=[store])
        with pytest.raises(LocalError, match="is in the store"):
            refuse_inside(tmp_path / name, [store])
    assert output_at(tmp_path / "store.tar", outside=[store]).target == tmp_path / "store.tar"
    assert output_directory_at(tmp_path / "a/b", outside=[store]) == tmp_path / "a/b"


def test_the_mode_and_the_owner_are_those_of_the_old_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("")
    old.chmod(0o4750)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(old, MALLORY, MALLORY + 1)
        old.chmod(0o4750)
    with new.open("w") as file:
        output_at(old).keep_mode(file.fileno())
    found = new.stat()
    assert stat.S_IMODE(found.st_mode) == 0o750, "and no rights of a program"
    assert not is_root or (found.st_uid, found.st_gid) == (MALLORY, MALLORY + 1)
