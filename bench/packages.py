"""Real OS content that two machines have in common: files of Debian packages, downloaded and unpacked.

apt works in a directory of its own here, as on a system where nothing is installed: no root is needed, the
system's package state is neither read nor changed, and dependencies come out complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Content", "PackageError", "debian_content"]

# Together with what they depend on: an OS with a kernel, compilers, a database and a virtual machine monitor,
# 1.8 GB of files in about 330 packages in Debian 12.
PACKAGES = (
    *("systemd", "openssh-server", "gcc", "g++", "git", "cmake", "gdb", "podman", "nodejs"),
    *("postgresql", "qemu-system-x86", "python3-scipy", "vim-runtime", "linux-image-{architecture}"),
)
_APT_TIMEOUT_S = 1800


class PackageError(RuntimeError):
    """The packages can't be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Content:
    """Files in a fixed order, each with the directory that its name in an image is relative to."""

    files: tuple[tuple[Path, Path], ...]
    description: str


def debian_content(cache: Path) -> Content:
    """The files of ``PACKAGES`` and their dependencies, from ``cache`` if they are there.

    The description has a digest of all package files' names and digests. Raises PackageError.
    """
    root = cache / "packages"
    stamp = root / "unpacked.json"
    if not stamp.exists():
        shutil.rmtree(root, ignore_errors=True)
        archives = _download(root)
        listing = _unpack(archives, root / "files")
        shutil.rmtree(root / "apt")
        stamp.write_text(json.dumps(listing, indent=1))
    listing = json.loads(stamp.read_text())
    text = "".join(f"{digest} {name}\n" for name, digest in sorted(listing.items()))
    files = [
        (root / "files" / name, path)
        for name in sorted(listing)
        for path in _regular_files(root / "files" / name)
    ]
    return Content(tuple(files), f"debian packages sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def _download(root: Path) -> list[Path]:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise PackageError(f"{program} is not installed")
    state = root.absolute() / "apt"
    for directory in ("lists/partial", "archives/partial"):
        (state / directory).mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::extended_states": state / "extended",
        "Dir::Cache": state,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    wanted = [name.format(architecture=architecture) for name in PACKAGES]
    _run([*apt, "update"])
    _run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *wanted])
    return sorted((state / "archives").glob("*.deb"))


def _unpack(archives: Sequence[Path], into: Path) -> dict[str, str]:
    """Unpack each archive into a directory of its own name; return the archives' digests by name."""
    listing = {}
    for archive in archives:
        with archive.open("rb") as file:
            listing[archive.stem] = hashlib.file_digest(file, "sha256").hexdigest()
        (into / archive.stem).mkdir(parents=True)
        _run(["dpkg-deb", "--extract", str(archive), str(into / archive.stem)])
    return listing


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_APT_TIMEOUT_S,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise PackageError(f"{' '.join(command[:2])} … failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _regular_files(top: Path) -> list[Path]:
    found = [Path(directory, name) for directory, _, names in os.walk(top) for name in names]
    return sorted(path for path in found if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size)
