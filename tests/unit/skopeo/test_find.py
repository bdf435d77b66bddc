"""Which skopeo comes first, whatever else is on PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.skopeo.find import SHIM_MARKER, find_skopeo, first_on_path, is_executable, is_shim
from tests.support.users import closed


def program(path: Path, second_line: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{second_line}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return program(tmp_path / "real/skopeo")


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    return program(tmp_path / "shim/skopeo", SHIM_MARKER)


def test_the_first_one_counts_and_the_shim_only_where_it_is_asked_for(real: Path, shim: Path) -> None:
    path = f"{shim.parent}:{real.parent}"
    assert first_on_path(path, shims=True) == shim
    assert first_on_path(path, shims=False) == find_skopeo(path=path) == real
    assert first_on_path(str(shim.parent), shims=False) is None
    assert is_shim(shim) and not is_shim(real)


@pytest.mark.parametrize(
    "what", ["closed", "missing", "file", "circle", "too long", "nul", "not a program", "dir"]
)
def test_what_this_user_cannot_use_is_passed_over(real: Path, tmp_path: Path, what: str) -> None:
    first = tmp_path / "first"
    names = {"too long": tmp_path / ("x" * 300), "nul": Path(f"{tmp_path}/a\0b")}
    match what:
        case "closed":
            program(first / "skopeo")
        case "file":
            first.touch()
        case "circle":
            first.symlink_to(first)
        case "not a program":
            program(first / "skopeo").chmod(0o644)
        case "dir":
            (first / "skopeo").mkdir(parents=True)
    path = f"{names.get(what, first)}:{real.parent}"
    if what == "closed":
        with closed(first):
            assert first_on_path(path, shims=True) == real
            assert not is_executable(first / "skopeo") and not is_shim(first / "skopeo")
            assert find_skopeo(first / "skopeo") is None
    else:
        assert first_on_path(path, shims=True) == real


def test_directories_that_are_not_absolute_are_left_out(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real.parent)
    for path in (".", "", ":", "../real", f"{real.parent.parent}/none:"):
        assert first_on_path(path, shims=True) is None


def test_one_that_is_given_is_made_absolute(real: Path, shim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real.parent)
    assert find_skopeo(Path("skopeo")) == real
    assert find_skopeo(shim) is None
    assert find_skopeo(real.parent) is None
