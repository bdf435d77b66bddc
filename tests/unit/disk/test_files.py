"""Directories and descriptors, and what a failing disk is called."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layertee.disk.files import disk_error, is_directory, make_directory, real_path
from layertee.disk.trusted import refuse_reachable
from layertee.errors import LocalError, NoSpace
from tests.support.disk import Disk
from tests.support.users import closed


def test_a_directory_is_made_with_its_parents_and_each_name_is_synced(tmp_path: Path) -> None:
    disk = Disk()
    with disk.watched():
        make_directory(tmp_path / "a" / "b" / "c", 0o700)
    assert disk.names().count("mkdir") == 3
    assert disk.names().count("fsync") == 3
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_directory_must_be_one(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    else:
        (tmp_path / "x").symlink_to(tmp_path)
    with pytest.raises(LocalError, match="not a directory"):
        make_directory(tmp_path / "x", 0o700)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, NoSpace, "disk is full"),
        (errno.EDQUOT, NoSpace, "quota"),
        (errno.EROFS, LocalError, "read-only"),
        (errno.EIO, LocalError, os.strerror(errno.EIO)),
    ],
)
def test_a_disk_error_says_what_where_and_why(code: int, kind: type[LocalError], says: str) -> None:
    error = disk_error(OSError(code, os.strerror(code)), "writing", Path("/x/y"))
    assert type(error) is kind
    assert error.path == "/x/y"
    assert "writing /x/y" in str(error)
    assert says in str(error)


def test_a_directory_is_told_from_what_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path)
    assert is_directory(tmp_path) and is_directory(tmp_path / "link")
    assert not any(is_directory(tmp_path / name) for name in ("file", "none", "file/x", "none/x"))
    for name in ("loop", "x" * 300):
        with pytest.raises(LocalError, match=f"looking at {tmp_path / name}"):
            is_directory(tmp_path / name)
    (tmp_path / "closed/dir").mkdir(parents=True)
    with closed(tmp_path / "closed"), pytest.raises(LocalError, match="Permission denied"):
        is_directory(tmp_path / "closed/dir")


def test_a_relative_path_without_a_current_directory_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert real_path(tmp_path / "link") == real_path(Path(".")) == tmp_path / "gone"
    (tmp_path / "gone").rmdir()
    assert real_path(tmp_path) == tmp_path
    refuse_reachable(tmp_path)
    with pytest.raises(LocalError, match="looking at x: No such file"):
        real_path(Path("x"))
    with pytest.raises(LocalError, match="current directory, for x: No such file"):
        refuse_reachable(Path("x"), absent=True)
