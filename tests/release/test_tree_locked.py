"""What is installed into the self-contained tree is what the lock names, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from release import lock, tree_content, tree_elf
from release.project import ARCHITECTURES, ReleaseError

pytestmark = pytest.mark.slow
# Of the lock, one with a file for each machine, and one with a file for all.
NAMES = ("multidict", "idna")


def lines_of(*names: str) -> str:
    """The lines of the tree's lock for these packages."""
    lines = re.split(r"\n(?=\S)", (lock.LOCKS / "extras.txt").read_text(encoding="utf-8"))
    found = [line for line in lines if line.partition("==")[0] in names]
    assert len(found) == len(names)
    return "\n".join(found) + "\n"


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_package_whose_hash_is_another_is_refused_and_nothing_is_installed(
    machine: str, tmp_path: Path
) -> None:
    tree_content.install_locked(tmp_path / "good", lines_of(*NAMES), machine)
    assert {elf.machine for elf in tree_elf.files(tmp_path / "good").values()} == {
        {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[machine]
    }
    wrong = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lines_of("idna"))
    with pytest.raises(ReleaseError, match="DO NOT MATCH THE HASHES"):
        tree_content.install_locked(tmp_path / "bad", lines_of("multidict") + wrong, machine)
    assert not (tmp_path / "bad").exists()


def test_a_package_without_a_hash_is_refused(tmp_path: Path) -> None:
    line = lines_of("idna").partition(" ")[0] + "\n"
    with pytest.raises(ReleaseError, match="Hashes are required"):
        tree_content.install_locked(tmp_path / "place", line, "x86_64")
