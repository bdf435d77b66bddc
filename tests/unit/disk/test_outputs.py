"""What may be made, replaced or written to under a name that the user gave for a result."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.disk.outputs import open_output, output_at, output_directory_at
from layertee.disk.part import replace_elsewhere
from layertee.errors import LocalError, UnsafePath
from tests.support.process import start_child

MALLORY = 54321
N_RACES = 1000


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
        found_old = output_at(old)
        found_old.keep_owner(file.fileno())
    found = new.stat()
    assert found_old.mode == 0o750, "and no rights of a program"
    assert not is_root or (found.st_uid, found.st_gid) == (MALLORY, MALLORY + 1)


def test_what_was_judged_is_what_is_written_to(tmp_path: Path) -> None:
    for name in ("way/in", "way/out", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "way/in/old").write_text("old")
    (tmp_path / "other/old").write_text("not to be touched")
    with open_output(tmp_path / "way/in/old") as old, open_output(tmp_path / "way/out/../in/new") as new:
        (tmp_path / "way/in").rename(tmp_path / "moved")
        (tmp_path / "way/in").symlink_to("../other")
        for found in (old, new):
            assert found.output.target.parent == tmp_path / "way/in"
            replace_elsewhere(found.directory, found.output.target, b"ours", mode=0o640)
        (tmp_path / "moved/old").unlink()
        (tmp_path / "moved/old").write_text("another file")
        with pytest.raises(UnsafePath, match="became another file"):
            old.open_file(os.O_RDONLY)
    assert (tmp_path / "other/old").read_text() == "not to be touched"
    assert os.listdir(tmp_path / "other") == ["old"]
    assert sorted(os.listdir(tmp_path / "moved")) == ["new", "old"]
    assert (tmp_path / "moved/new").read_bytes() == b"ours"
    assert (tmp_path / "moved/new").stat().st_mode & 0o7777 == 0o640


def test_a_directory_above_is_the_one_that_was_come_from(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    assert output_at(tmp_path / "link/../x").target == tmp_path / "a/x"
    assert output_at(Path("/../..") / tmp_path.relative_to("/") / "x").target == tmp_path / "x"
    (tmp_path / "file").touch()
    for name in ("file/x", "file/../x", "none/../x"):
        with pytest.raises(LocalError):
            output_at(tmp_path / name)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "round").symlink_to("round")
    before = os.listdir("/proc/self/fd")
    output_at(tmp_path / "link/./link/file")
    output_directory_at(tmp_path / "link")
    output_at(Path("/dev/null"), streams=True)
    for name in ("round", "none/x", "none/../x", "link"):
        with pytest.raises(LocalError):
            output_at(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.needs_root("only root can make what belongs to another user")
def test_who_swaps_a_directory_for_a_link_at_every_moment_gets_nothing_written_elsewhere(
    tmp_path: Path,
) -> None:
    victim, theirs = tmp_path / "victim", tmp_path / "theirs"
    for path in (victim, theirs, theirs / "x"):
        path.mkdir()
        (path / "file").write_bytes(b"before")
    (theirs / "y").symlink_to(victim)
    for path in (theirs, theirs / "x", theirs / "x/file", theirs / "y"):
        os.chown(path, MALLORY, MALLORY, follow_symlinks=False)
    swap = ctypes.CDLL(None).renameat2

    def swap_on() -> None:
        os.chdir(theirs)  # the way to it is root's
        os.setresuid(MALLORY, MALLORY, MALLORY)
        while True:
            assert swap(-100, b"x", -100, b"y", 2) == 0  # AT_FDCWD, RENAME_EXCHANGE

    mallory = start_child(swap_on)
    try:
        came_to_be: dict[bool, int] = {True: 0, False: 0}
        while min(came_to_be.values()) == 0 or sum(came_to_be.values()) < N_RACES:
            written = True
            try:
                with open_output(theirs / "x/file") as found:
                    replace_elsewhere(found.directory, found.output.target, b"ours", mode=0o600)
            except UnsafePath:
                written = False  # it was the link
            came_to_be[written] += 1
        assert os.waitpid(mallory, os.WNOHANG) == (0, 0), "it swaps to the end"
    finally:
        os.kill(mallory, signal.SIGKILL)
        os.waitpid(mallory, 0)
    assert (os.listdir(victim), (victim / "file").read_bytes()) == (["file"], b"before")
    assert victim.stat().st_uid == (victim / "file").stat().st_uid == 0
