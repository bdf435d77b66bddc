"""The project that is released: where it is, its version, its date; and how commands are run for it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# What is fetched and made on the way; may be removed at any time.
BUILD = ROOT / "build" / "release"
# By the names that `uname -m` and wheels have for them, with Debian's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ReleaseError(Exception):
    """A piece of the release could not be made. The text says which, and what to do."""


def version() -> str:
    """The package's version."""
    text = (ROOT / "engine" / "layertee" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise ReleaseError("engine/layertee/version.py has no version")
    return found[1]


def maintainer() -> str:
    """Who answers for the packages, as their fields have it: ``NAME <ADDRESS>``, pyproject.toml's author."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (author,) = project["authors"]
    return f"{author['name']} <{author['email']}>"


def source_date() -> int:
    """``SOURCE_DATE_EPOCH``: as the environment has it, else the last commit's time, in seconds.

    All times inside what is released are this one. Raises ReleaseError where there is neither.
    """
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is None:
        said = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    try:
        return int(said)
    except ValueError:
        raise ReleaseError(f"SOURCE_DATE_EPOCH is not a number of seconds: {said!r}") from None


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command; ``env`` is added to ours.

    Raises ReleaseError, with what the command said, if it fails or is not installed.
    """
    words = [str(word) for word in command]
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', os.defpath)}"  # tools that pip installed
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "PATH": path, **(env or {})},
        )
    except FileNotFoundError as exc:
        raise ReleaseError(f"{exc.filename} is not there; 'make dist' installs what is needed") from exc
    if done.returncode != 0:
        said = (done.stdout[-4000:] + done.stderr[-4000:]).rstrip()
        raise ReleaseError(f"this failed: {shlex.join(words)}\n{said}")
    return done.stdout
