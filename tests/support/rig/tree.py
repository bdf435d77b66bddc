"""The self-contained tree of this checkout, made as a release makes it, but packed in haste."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import wheels
from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled, RigError

ROOT = Path(__file__).resolve().parents[3]
WHEN = 1_767_225_600  # 2026-01-01: what is made twice, however far apart, is the same
_MADE_OF = ("release/**/*", "CHANGELOG.md", "LICENSE")


class NoTree(NotInstalled):
    """The tree can't be made on this machine."""


def archive() -> Path:
    """The ``.tar.zst`` for this machine, made once for the same sources and then kept. Raises RigError."""
    if shutil.which("apt-get") is None or platform.machine() not in ("x86_64", "aarch64"):
        raise NoTree("making the self-contained tree takes Debian, on x86_64 or aarch64")
    packed = wheels.built()

    def make() -> Path:
        with tempfile.TemporaryDirectory(prefix="layertee-tree-") as scratch:
            made = build(packed, platform.machine(), Path(scratch))
            part = kept.root() / "layertee-tree.part"
            shutil.copy(made, part)
        return part

    return kept.kept("layertee-tree.tar.zst", [packed.read_bytes(), *_made_of()], make)


def build(packed: Path, arch: str, out: Path) -> Path:
    """Make the tree for ``arch`` with the wheels in the zip ``packed``; ``out`` has the archive then.

    Raises RigError.
    """
    wheels.unpack(packed, out)
    done = subprocess.run(
        [sys.executable, "-m", "release", "tree", "--out", str(out), "--arch", arch, "--level", "3"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(WHEN)},
    )
    if done.returncode != 0:
        raise RigError(f"python -m release tree:\n{done.stderr[-3000:]}")
    return Path(done.stdout.strip())


def _made_of() -> Iterator[bytes]:
    for pattern in _MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                yield os.fsencode(path.relative_to(ROOT))
                yield path.read_bytes()
