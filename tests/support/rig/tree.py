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

from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled, RigError

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(sys.executable).parent
WHEN = 1_767_225_600  # 2026-01-01: what is made twice, however far apart, is the same
_MADE_OF = ("engine/layertee/**/*.py", "csrc/**/*.[ch]", "release/**/*", "*.py", "pyproject.toml", "LICENSE")
_NOT_SOURCE = (
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "*.so",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)


class NoTree(NotInstalled):
    """The tree can't be made on this machine."""


def archive() -> Path:
    """The ``.tar.zst``, made once for the same sources and then kept. Raises RigError."""
    if shutil.which("apt-get") is None or platform.machine() not in ("x86_64", "aarch64"):
        raise NoTree("the self-contained tree is made on Debian, for x86_64 and aarch64")
    return kept.kept("layertee-tree.tar.zst", _made_of(), _build)


def _made_of() -> Iterator[bytes]:
    for pattern in _MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                yield os.fsencode(path.relative_to(ROOT))
                yield path.read_bytes()


def _build() -> Path:
    with tempfile.TemporaryDirectory(prefix="layertee-tree-") as name:
        scratch = Path(name)
        # A build of its own: whatever lies in build/ of the checkout would go into the wheel.
        source = scratch / "source"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
        python = (sys.executable, "-m")
        _run(*python, "pip", "wheel", "-q", "--no-deps", "-w", scratch, source, LAYERTEE_BUILD="require")
        (wheel,) = scratch.glob("*.whl")
        _run(SCRIPTS / "auditwheel", "repair", "-w", scratch / "repaired", wheel)
        (repaired,) = (scratch / "repaired").glob("*.whl")
        _run(*python, "release", "tree", "--out", scratch, "--wheel", repaired, "--level", "3")
        (made,) = scratch.glob("layertee-*.tar.zst")
        part = kept.root() / "layertee-tree.part"
        shutil.copy(made, part)
    return part


def _run(*command: str | Path, **more: str) -> None:
    environment = os.environ | {
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": str(WHEN),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT, env=environment | more
    )
    if done.returncode != 0:
        raise RigError(f"{' '.join(map(str, command))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
