"""The program of the self-contained tree, which finds the tree's Python: on this machine, and on ARMv8."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from release import tree_content
from release.project import ReleaseError
from tests.support.ccore import ARM_MACHINE, arm_missing

pytestmark = pytest.mark.slow

# In Python's place, for a shell of this machine: what it is started with, a line each.
SHOWS = '#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n'


@pytest.mark.parametrize("machine", sorted({os.uname().machine, "aarch64"}))
def test_it_starts_the_python_beside_it_through_links_and_hands_all_words_on(
    machine: str, tmp_path: Path
) -> None:
    emulated: list[str] = []
    if machine != os.uname().machine:
        if why := arm_missing():
            pytest.skip(why)
        emulated = [ARM_MACHINE, "-L", "/usr/aarch64-linux-gnu"]
    tree = tmp_path / "a tree"
    (tree / "bin").mkdir(parents=True)
    try:
        tree_content.launcher(tree, machine)
    except ReleaseError as exc:
        pytest.skip(str(exc))
    link = tmp_path / "command"
    link.symlink_to(tree / "bin" / "layertee")
    python = tree / "bin" / tree_content.PYTHON

    def started(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*emulated, str(link), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"})

    missing = started("pull")
    assert (missing.returncode, missing.stderr) == (127, f"layertee: {python}: No such file or directory\n")
    python.write_text(SHOWS)
    python.chmod(0o755)
    shown = started("pull", "", "two words")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[:3] == [str(python), "-I", "-c"] and "layertee.cli.main" in lines[3]
    assert lines[4:] == ["pull", "", "two words"]
