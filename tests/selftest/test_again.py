"""Which tests may be run once more: those that pytest says have failed, if they are few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.again import MOST, failed

pytestmark = pytest.mark.slow


def test_what_failed_is_what_pytest_has_on_record_with_workers_and_without(tmp_path: Path) -> None:
    record = tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed"
    assert failed(record) == []
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    bad = "".join(f"def test_{n}(): assert {n} > {MOST}\n" for n in range(MOST + 3))
    (tmp_path / "test_a.py").write_text(bad)
    for words in (("-n", "2"), ("-n", "0")):
        command = (sys.executable, "-m", "pytest", "-q", *words, "test_a.py")
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout
        assert failed(record) == [f"test_a.py::test_{n}" for n in range(MOST + 1)]
        record.unlink()
