"""Packages of the self-contained tree, made as a release makes them, but packed in haste."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.rig.tree import ROOT, WHEN

# A systemctl that does nothing but note what it is asked for, in /tmp/heard.
RECORDER = """\
#!/bin/sh
echo "$*" >>/tmp/heard
"""


@dataclass(frozen=True, slots=True)
class Packages:
    """Two of one kind: the second is an upgrade of the first."""

    first: Path
    second: Path


def build_package(kind: str, out: Path, tree: Path, revision: str, arch: str | None = None) -> Path:
    """A ``deb`` or ``rpm`` of the archive ``tree``, for ``arch`` (None: this machine), in ``out``."""
    words = [sys.executable, "-m", "release", kind, "--tree", tree, "--out", out]
    words += ["--arch", arch] if arch else []
    done = subprocess.run(
        [*map(str, words), "--level", "1", "--revision", revision],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(WHEN)},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def build_packages(kind: str, out: Path, tree: Path) -> Packages:
    """Both."""
    return Packages(build_package(kind, out, tree, "1"), build_package(kind, out, tree, "2"))
