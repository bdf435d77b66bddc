"""What was seen under a name is remembered, and a file that makes no sense is none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from layertee.errors import LocalError
from layertee.image.document import Digest
from layertee.store.seen import LIMIT, Seen, SeenImages

NAME, PLATFORM = "quay.test/os:1", "linux/amd64"
SEEN = Seen(Digest.of(b"1"), 1_700_000_000, "42.1", 1_700_000_100, 7, 1_700_000_200, 1_700_000_300)


def test_what_is_remembered_is_found_under_its_name_and_platform(tmp_path: Path) -> None:
    seen = SeenImages(tmp_path / "seen")
    assert seen.newest(NAME, PLATFORM) == (None, None)
    seen.remember(NAME, PLATFORM, SEEN)
    assert seen.newest(NAME, PLATFORM) == (SEEN, None)
    assert seen.newest(NAME, "linux/arm64") == (None, None)
    assert seen.newest("quay.test/os:2", PLATFORM) == (None, None)
    empty = replace(SEEN, created=None, version=None, log_time=None, log_index=None)
    seen.remember(NAME, PLATFORM, empty)
    assert SeenImages(tmp_path / "seen").newest(NAME, PLATFORM) == (empty, None)
    (file,) = (tmp_path / "seen").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_makes_no_sense_is_none_and_that_is_said(tmp_path: Path) -> None:
    seen = SeenImages(tmp_path)
    seen.remember(NAME, PLATFORM, SEEN)
    (file,) = tmp_path.iterdir()
    good = json.loads(file.read_bytes())
    for change in (
        {"version": 2},
        {"name": "another"},
        {"platform": "another"},
        {"newest": None},
        {"newest": good["newest"] | {"digest": "sha256:1"}},
        {"newest": good["newest"] | {"created": "1"}},
        {"newest": good["newest"] | {"created": True}},
        {"newest": good["newest"] | {"first": None}},
        {"newest": good["newest"] | {"version": 1}},
    ):
        file.write_text(json.dumps(good | change))
        found, damaged = seen.newest(NAME, PLATFORM)
        assert found is None
        assert damaged is not None and "never seen" in damaged
    for raw in (b"", b"\xff", b"[]", b"{" * 1000, b" " * (LIMIT + 1)):
        file.write_bytes(raw)
        assert seen.newest(NAME, PLATFORM)[0] is None
    file.unlink()
    file.mkdir()
    assert "Is a directory" in (seen.newest(NAME, PLATFORM)[1] or "")


def test_what_a_writer_that_died_left_is_removed(tmp_path: Path) -> None:
    seen = SeenImages(tmp_path / "seen")
    assert seen.remove_leftovers() == 0
    seen.remember(NAME, PLATFORM, SEEN)
    old, new = (tmp_path / "seen" / f".{name}.json-1-2.part" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    assert seen.remove_leftovers() == 1
    assert not old.exists() and new.exists()
    assert seen.newest(NAME, PLATFORM) == (SEEN, None)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError):
        SeenImages(tmp_path / "file" / "seen").remember(NAME, PLATFORM, SEEN)
