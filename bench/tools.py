"""The programs that are measured: found on this machine, or built from source with Go into a cache directory.

What can't be had is left out, and said so. Nothing is installed anywhere else. containerd's ctr is not among
them: a daemon does its work, which the run of one command does not account for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.rig import goprograms
from tests.support.rig.registry import RigError

__all__ = ["PEERS", "Tool", "find_tools"]

PEERS = ("skopeo", "skopeo-latest", "imagecopy", "crane", "oras", "curl", "aria2c")
_GO_PACKAGES = {
    "skopeo-latest": "github.com/containers/skopeo/cmd/skopeo@latest",
    "crane": "github.com/google/go-containerregistry/cmd/crane@latest",
    "oras": "oras.land/oras/cmd/oras@latest",
}
_VERSION = {"crane": "version", "oras": "version"}  # the others take --version


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and what it says its version is."""

    name: str
    program: str
    version: str


def find_tools(cache: Path, wanted: Sequence[str] = PEERS) -> tuple[dict[str, Tool], list[str]]:
    """layertee and every tool of ``wanted`` that can be had, by name, and a line for each that can't.

    Go programs are built into ``cache``.
    """
    found = {"layertee": _tool("layertee", str(Path(sys.executable).with_name("layertee")))}
    left_out = []
    for name in wanted:
        if name == "imagecopy" and "skopeo-latest" in found:
            continue  # it stands in for that
        try:
            program = _go_program(name, cache) if name in (*_GO_PACKAGES, "imagecopy") else shutil.which(name)
            if program is None:
                raise FileNotFoundError("not installed")
            found[name] = _tool(name, program)
        except (OSError, subprocess.SubprocessError, RigError) as error:
            left_out.append(f"{name}: left out, {_reason(error)}")
    return found, left_out


def _tool(name: str, program: str) -> Tool:
    asked = [program, _VERSION.get(name, "--version")]
    done = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=30)
    match = re.search(r"\d+(\.\d+)+\S*", done.stdout)
    version = match[0] if match else done.stdout.strip()
    if name == "imagecopy":
        version = f"containers/image {version} copy (the library of skopeo)"
    return Tool(name, program, version)


def _go_program(name: str, cache: Path) -> str:
    """Its path, built now or by an earlier run. Raises RigError, OSError, TimeoutExpired."""
    if name == "imagecopy":
        return str(goprograms.imagecopy())
    program = cache.absolute() / ("skopeo" if name == "skopeo-latest" else name)
    if not program.exists():
        print(f"{name}: building", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        goprograms.install(program.name, _GO_PACKAGES[name], cache, cache)
    return str(program)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[-1].strip() if lines else str(error)
    return str(error)
