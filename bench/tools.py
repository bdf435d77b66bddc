"""The programs that are measured: found on this machine, or built from source with Go into a cache directory.

What can't be had is left out, and said so. Nothing is installed anywhere else. containerd's ctr is not among
them: a daemon does its work, which the run of one command does not account for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Tool", "find_tools"]

PEERS = ("skopeo", "skopeo-latest", "imagecopy", "crane", "oras", "curl", "aria2c")
GO_NEEDED = (1, 24)
_GO_TIMEOUT_S = 900
_IMAGECOPY = Path(__file__).parent / "peers" / "imagecopy"
# Without what needs libraries of C that are not for copying: signatures by gpgme, and storage drivers.
_TAGS = (
    "containers_image_openpgp,containers_image_docker_daemon_stub,containers_image_storage_stub,"
    "exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"
)
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
        except (OSError, subprocess.SubprocessError, ValueError) as error:
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
    """Its path, built now or by an earlier run. Raises ValueError without Go, CalledProcessError, OSError."""
    program = cache.absolute() / ("skopeo" if name == "skopeo-latest" else name)
    if program.exists() and (name != "imagecopy" or program.stat().st_mtime > _changed(_IMAGECOPY)):
        return str(program)
    go = shutil.which("go")
    if go is None or _go_version(go) < GO_NEEDED:
        raise ValueError(f"building it takes Go {'.'.join(map(str, GO_NEEDED))} or newer")
    print(f"{name}: building", flush=True)
    environment = os.environ | {"GOBIN": str(cache.absolute()), "GOFLAGS": "-buildvcs=false"}
    package, directory = (".", _IMAGECOPY) if name == "imagecopy" else (_GO_PACKAGES[name], cache)
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [go, "install", "-tags", _TAGS, package],
        cwd=directory,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_GO_TIMEOUT_S,
    )
    return str(program)


def _changed(directory: Path) -> float:
    return max(path.stat().st_mtime for path in directory.iterdir())


def _go_version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[-1].strip() if lines else str(error)
    return str(error)
