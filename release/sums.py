"""SHA256SUMS: what ``sha256sum -c`` reads, of all files of the release that are in a directory."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from release.project import DIST, ReleaseError

NAME = "SHA256SUMS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--out", type=Path, default=DIST, help="the directory of the release (default: dist)")


def main(args: argparse.Namespace) -> int:
    """Raises ReleaseError if nothing is there."""
    files = released(args.out)
    if not files:
        raise ReleaseError(f"{args.out} has no file of a release")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (args.out / NAME).write_text("".join(lines), encoding="utf-8")
    print(args.out / NAME)
    return 0


def released(directory: Path) -> list[Path]:
    """The files of a release, by name."""
    return sorted(path for path in directory.glob("layertee[-_]*") if path.is_file())
