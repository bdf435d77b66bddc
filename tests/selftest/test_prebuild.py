"""What tests compile: once, outside of their limits, and not at all where the machine can't."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.rig import kept, prebuild
from tests.support.rig.goprograms import NoGo
from tests.support.rig.prebuild import PROGRAMS, NotBuilt
from tests.support.rig.registry import RigError

MONTH_S = 31 * 24 * 3600


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are kept, of this test's own."""
    monkeypatch.setenv("LAYERTEE_TEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """A compiler, in short: writes one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.n_built = 0

    def __call__(self) -> Path:
        self.n_built += 1
        output = self._directory / "output"
        output.write_text(f"#!/bin/sh\necho {self.n_built}\n")
        output.chmod(0o755)
        return output


def said_by(program: Path) -> str:
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.strip()


def test_a_program_is_built_once_for_what_it_is_made_of(cache: Path, tmp_path: Path) -> None:
    build = Builder(tmp_path)
    first = kept.kept("tool", [b"source"], build)
    assert kept.kept("tool", [b"source"], build) == first
    other = kept.kept("tool", [b"changed source"], build)
    assert [said_by(program) for program in (first, other)] == ["1", "2"]
    assert build.n_built == 2 and first.is_relative_to(cache)


def test_pieces_are_told_apart(cache: Path, tmp_path: Path) -> None:
    build = Builder(tmp_path)
    assert kept.kept("tool", [b"ab", b"c"], build) != kept.kept("tool", [b"a", b"bc"], build)


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(cache: Path, tmp_path: Path) -> None:
    def fails() -> Path:
        raise RigError("no")

    with pytest.raises(RigError, match="no"):
        kept.kept("tool", [b"source"], fails)
    assert list((cache / "bin").iterdir()) == []
    assert said_by(kept.kept("tool", [b"source"], Builder(tmp_path))) == "1"


def test_versions_that_nothing_asks_for_are_removed_after_a_month(cache: Path, tmp_path: Path) -> None:
    build = Builder(tmp_path)
    old, recent, other = (
        kept.kept(name, [source], build) for name, source in (("t", b"1"), ("t", b"2"), ("u", b""))
    )
    for program in (old, other):
        os.utime(program, (time.time() - MONTH_S,) * 2)
    new = kept.kept("t", [b"3"], build)
    assert set((cache / "bin").iterdir()) == {recent, other, new}


@pytest.mark.slow
def test_without_compilers_everything_is_left_out_with_a_line_and_that_is_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rig.prebuild"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "LAYERTEE_TEST_CACHE": str(tmp_path / "cache")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == list(PROGRAMS)
    assert all("is left out" in line and " takes " in line for line in lines)


def test_what_is_left_out_says_why_to_the_tests_that_need_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise NoGo("building it takes Go")

    monkeypatch.setitem(PROGRAMS, "a program", missing)
    said: list[str] = []
    assert prebuild.prepare(["a program"], said.append)
    assert said == ["prebuild: a program is left out: building it takes Go"]
    with pytest.raises(NotBuilt, match=r"^building it takes Go$"):
        prebuild.program("a program")


def test_what_does_not_compile_is_a_failure_and_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Path:
        raise RigError("expected `;`")

    monkeypatch.setitem(PROGRAMS, "a broken program", broken)
    said: list[str] = []
    assert not prebuild.prepare(["a broken program"], said.append)
    assert said == ["prebuild: expected `;`"]
    with pytest.raises(RigError, match="expected") as caught:
        prebuild.program("a broken program")
    assert not isinstance(caught.value, NotBuilt)


def test_nothing_is_compiled_for_a_test_that_is_not_marked() -> None:
    with pytest.raises(RuntimeError, match=r"builds\('another program'\)"):
        prebuild.program("another program")
