"""Directories and descriptors, and what a failing disk is called."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layertee.disk.files import disk_error, make_directory
from layertee.errors import LocalError, NoSpace
from tests.support.disk import Disk


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
