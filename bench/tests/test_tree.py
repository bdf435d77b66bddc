"""The bench of the self-contained tree: what takes room is counted once, and every command is a row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.tree import ENVIRONMENT, TREE, Room, main, room, shown
from tests.support.rig import prebuild


def test_a_file_with_two_names_takes_its_room_once_and_a_link_none(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 1500)
    os.link(tmp_path / "below" / "file", tmp_path / "again")
    (tmp_path / "link").symlink_to("again")
    (tmp_path / "other").write_bytes(b"y" * 500)
    assert room(tmp_path) == Room(2000, 2)


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    def rounds(*walls: float) -> list[dict[str, float]]:
        return [{"wall_s": wall, "cpu_s": wall / 2} for wall in walls]

    taken = {("go", TREE): rounds(0.01, 0.04, 0.09), ("go", ENVIRONMENT): rounds(0.02, 0.01, 0.1)}
    assert shown(taken)[2:] == [
        f"| go | {TREE} | 40 | 20 | 0.90 / 0.90 |",
        f"| go | {ENVIRONMENT} | 20 | 10 |  |",
    ]


@pytest.mark.slow
@pytest.mark.builds("tree")
@pytest.mark.needs("tar", "zstd")
def test_the_tree_is_measured_beside_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "1", "--tree", str(prebuild.program("tree"))]) == 0
    said = capsys.readouterr().out
    assert said.startswith("tree: ")
    for command in ("--version", "pull, nothing to do"):
        assert f"| {command} | {TREE} | " in said and f"| {command} | {ENVIRONMENT} | " in said
