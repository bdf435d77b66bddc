"""The record of refs that were made: a file in a repository of another program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.errors import StoreCorrupt
from layertee.image.document import DiffID
from layertee.image.holding import Basis
from layertee.places.ostree.record import PLACE, PreparedRef, read_record, write_record
from tests.support.compress import digest_number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / PLACE).mkdir(parents=True)
    return tmp_path / PLACE / "prepared.json"


def test_what_was_written_is_read(path: Path, tmp_path: Path) -> None:
    assert read_record(tmp_path) == ()
    diff_id = DiffID(digest_number(2))
    row = PreparedRef(
        digest_number(1), "c" * 64, 7, 8, diff_id, Basis.ATTESTED, "docker://x", digest_number(3)
    )
    write_record(tmp_path, [row])
    assert read_record(tmp_path) == (row,)
    write_record(tmp_path, [])
    assert not path.exists()
    assert read_record(tmp_path) == ()


@pytest.mark.parametrize("kind", ["pipe", "directory", "symlink", "device", "enormous"])
def test_what_is_no_file_of_a_record_is_said_to_be_so_at_once(path: Path, tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(StoreCorrupt, match=r"prepared\.json"):
        read_record(tmp_path)
