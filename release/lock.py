"""Renews the locks: every package by its version and the hashes of its files, for each Python and machine.

``tools.txt`` is what a release is made with, ``run.txt`` what layertee runs with, ``extras.txt`` the same
with the extras that users install. ``pip install --require-hashes`` takes them. What is locked already stays
at its version unless ``--upgrade`` is given.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release.project import ROOT, ReleaseError, run

LOCKS = ROOT / "release" / "locks"
EXTRAS = ("socks", "sigstore")
PYTHON = "3.11"  # the oldest; markers say what is for newer ones only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")


def main(args: argparse.Namespace) -> int:
    """Raises ReleaseError."""
    for name, wanted in requirements().items():
        _compile(wanted, LOCKS / name, upgrade=args.upgrade)
        print(f"{len(locked(name)):4} packages  {LOCKS / name}")
    return 0


def requirements() -> dict[str, list[str]]:
    """What each lock must satisfy, by the lock's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    run_with: list[str] = project["dependencies"]
    optional = project["optional-dependencies"]
    extras = [word for extra in EXTRAS for word in optional[extra]]
    lines = (LOCKS / "tools.in").read_text(encoding="utf-8").splitlines()
    tools = [line for line in lines if line and not line.startswith("#")]
    tools += [*run_with, *optional["share"]]  # manual pages are made out of the command's own parsers
    return {"run.txt": run_with, "extras.txt": [*run_with, *extras], "tools.txt": tools}


def _compile(wanted: list[str], lock: Path, *, upgrade: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="layertee-lock-") as directory:
        source = Path(directory, lock.name.replace(".txt", ".in"))
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        run(
            *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHON),
            *("--generate-hashes", "--no-annotate", "--no-header"),
            *(["--upgrade"] if upgrade else []),
            *("--output-file", lock, source),
        )


def locked(name: str) -> dict[str, Requirement]:
    """The packages of a lock, each with its one version and its marker, by their canonical names.

    Raises ReleaseError for a line without a hash, or that allows more than one version.
    """
    return parse((LOCKS / name).read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> dict[str, Requirement]:
    """``locked`` for the text of a lock; ``name`` is for messages."""
    found: dict[str, Requirement] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, _, hashes = line.partition(" --hash=")
        requirement = Requirement(words.strip())
        versions = [specifier.operator for specifier in requirement.specifier]
        if not hashes or versions != ["=="]:
            raise ReleaseError(f"{name}: {words.strip()} is not locked to the hashes of one version")
        found[canonicalize_name(requirement.name)] = requirement
    return found


def version_of(requirement: Requirement) -> str:
    """The version that a line of a lock names."""
    (specifier,) = requirement.specifier
    return specifier.version
