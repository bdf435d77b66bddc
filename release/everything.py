"""All that a release consists of, in one directory: what ``make dist`` runs.

The source archive and the wheels; for each architecture the self-contained tree, and the packages for Debian
and for rpm's distributions; what pip needs to install by hashes; the list of what is inside; SHA256SUMS.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from release.project import ARCHITECTURES, DIST
from release.sums import NAME, released


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--out", type=Path, default=DIST, help="where to (default: dist)")


def main(args: argparse.Namespace) -> int:
    """Make it, in place of a release that is there. Raises ReleaseError."""
    for path in [*released(args.out), args.out / NAME]:
        path.unlink(missing_ok=True)
    out = ("--out", str(args.out))
    _step("wheels", *out)
    _step("requirements", *out)
    for machine in ARCHITECTURES:
        for piece in ("tree", "deb", "rpm"):
            _step(piece, *out, "--arch", machine)
    _step("sbom", *out)
    _step("sums", *out)
    for path in [*released(args.out), args.out / NAME]:
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
    return 0


def _step(command: str, *words: str) -> None:
    """One piece, as its own command makes it."""
    print(f"== {command} {' '.join(words[2:])}".rstrip(), flush=True)
    module = importlib.import_module(f"release.{command}")
    parser = argparse.ArgumentParser(prog=command)
    module.add_arguments(parser)
    module.main(parser.parse_args(words))
