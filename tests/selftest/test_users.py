"""That what is closed is closed, for root too, and open again afterwards."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.support.users import bound_by_modes, closed


def test_a_closed_directory_cannot_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"x")
    with closed(tmp_path / "dir"):
        for look in (os.listdir, lambda path: os.stat(path / "file")):
            with pytest.raises(PermissionError):
                look(tmp_path / "dir")
    assert os.listdir(tmp_path / "dir") == ["file"]


def test_a_thread_that_is_begun_is_bound_as_well(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed: list[OSError] = []

    def read() -> None:
        try:
            (tmp_path / "file").read_bytes()
        except OSError as exc:
            failed.append(exc)

    with closed(tmp_path / "file"):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert [type(exc) for exc in failed] == [PermissionError]
    read()
    assert len(failed) == 1


def test_what_modes_allow_is_still_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with bound_by_modes():
        assert (tmp_path / "file").read_bytes() == b"x"
