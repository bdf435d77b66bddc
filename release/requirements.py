"""What pip needs to install the wheel that fits, and all else, by hashes: a file that goes with the release.

It is the lock of what layertee runs with, and the hashes of the wheels that lie beside it.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from release.lock import LOCKS
from release.project import DIST, ReleaseError, version

_HEAD = "# In this directory: pip install --require-hashes --find-links . -r {name}\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--out", type=Path, default=DIST, help="the directory of the release (default: dist)")


def main(args: argparse.Namespace) -> int:
    """Raises ReleaseError if the wheels are not there."""
    wheels = sorted(args.out.glob(f"layertee-{version()}-*.whl"))
    if not wheels:
        raise ReleaseError(f"{args.out} has no wheels: run 'python -m release wheels' first")
    hashes = [f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" for wheel in wheels]
    ours = " \\\n    ".join([f"layertee=={version()}", *hashes])
    path = args.out / f"layertee-{version()}-requirements.txt"
    locked = (LOCKS / "run.txt").read_text(encoding="utf-8")
    path.write_text(f"{_HEAD.format(name=path.name)}{ours}\n{locked}", encoding="utf-8")
    print(path)
    return 0
