"""Files of the user's that are changed all at once, or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from layertee.disk.locks import lock_directory
from layertee.disk.rewriting import rewrite
from layertee.errors import LocalError, NoSpace, UnsafePath
from tests.support.disk import Disk
from tests.support.process import in_child, wait_until

LIMIT = 1 << 20


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_and_its_directories_are_made_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    assert rewrite(path, lambda old: b"new" if old is None else b"", limit=LIMIT)
    assert path.read_bytes() == b"new"
    assert [mode(each) for each in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    assert os.listdir(path.parent) == ["file"]


def test_what_was_there_is_given_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * 10)
    path.chmod(0o644)
    assert rewrite(path, lambda old: (old or b"") + b"!", limit=4)
    assert path.read_bytes() == b"oldol!"  # one byte more than the limit, so that the editor can tell
    assert mode(path) == 0o600


def test_no_change_leaves_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = path.stat()
    assert not rewrite(path, lambda old: None, limit=LIMIT)
    assert path.stat() == before
    assert not rewrite(tmp_path / "none", lambda old: None, limit=LIMIT)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/file")
    assert rewrite(link, lambda old: b"1", limit=LIMIT)
    assert link.is_symlink() and (tmp_path / "real/file").read_bytes() == b"1"


def test_an_editor_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(old: bytes | None) -> bytes:
        raise KeyError(old)

    with pytest.raises(KeyError):
        rewrite(path, fail, limit=LIMIT)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_process_that_is_killed_leaves_the_old_file_and_nothing_that_stands_in_the_way(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def die(old: bytes | None) -> bytes:
        (tmp_path / "file.layertee-new").write_bytes(b"ha")  # as if it were in the middle of writing
        os.kill(os.getpid(), 9)
        raise AssertionError

    def work() -> None:
        rewrite(path, die, limit=LIMIT)

    assert in_child(work) == 9
    assert path.read_bytes() == b"old"
    assert rewrite(path, lambda old: b"new", limit=LIMIT)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")

    def add(letter: bytes) -> None:
        for _ in range(3):
            rewrite(path, lambda old: (old or b"") + letter, limit=LIMIT)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes()) == sorted(b"abc" * 3)


def test_what_another_user_could_change_is_left(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(UnsafePath):
        rewrite(shared / "file", lambda old: b"new", limit=LIMIT)
    assert os.listdir(shared) == []


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(LocalError):
        rewrite(tmp_path / "directory", lambda old: b"new", limit=LIMIT)
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(LocalError):
        rewrite(tmp_path / "plain/file", lambda old: b"new", limit=LIMIT)


def test_another_writer_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    held = lock_directory(tmp_path, timeout=1)
    thread = threading.Thread(target=rewrite, args=(path, lambda old: b"new"), kwargs={"limit": LIMIT})
    thread.start()
    wait_until(thread.is_alive, "the thread")
    assert not path.exists()
    held.release()
    thread.join()
    assert path.read_bytes() == b"new"


def test_a_full_disk_gets_no_advice_about_a_store(tmp_path: Path) -> None:
    path, disk = tmp_path / "file", Disk()
    path.write_bytes(b"old")
    with disk.watched():
        rewrite(path, lambda _: b"new", limit=LIMIT)
    with disk.watched(disk.names().index("rename") + 1, errno.ENOSPC), pytest.raises(NoSpace) as caught:
        rewrite(path, lambda _: b"newer", limit=LIMIT)
    assert caught.value.hint == "" and path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
