"""Files of Debian's packages, without installing any: fetched by apt in a directory of its own, and unpacked.

Debian's Python is what the tree has inside: it is maintained, there for every architecture, and needs nothing
but its libraries. apt checks the archive's signature, and the digest of each package.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from release.project import ReleaseError, run

SUITE = "bookworm"
PYTHON = "python3.11"
MIRROR = os.environ.get("LAYERTEE_DEBIAN_MIRROR", "http://deb.debian.org").rstrip("/")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

PACKAGES = (
    *(f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib"),
    "gcc-12-base",  # has the licence of the two libraries of gcc
    *("libbz2-1.0", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libsqlite3-0", "libssl3"),
    *("libstdc++6", "libuuid1", "zlib1g"),
)


@dataclass(frozen=True, slots=True)
class Package:
    """A binary package of Debian, as it is inside the tree."""

    name: str
    version: str
    source: str
    """The source package, with its version where that is another one."""


def fetch(names: Sequence[str], architecture: str, cache: Path) -> list[Path]:
    """The newest of each package for one of Debian's architectures; files below ``cache``.

    Raises ReleaseError.
    """
    if not KEYRING.exists() or shutil.which("apt-get") is None:
        raise ReleaseError(f"the tree is made on Debian: it wants apt-get and {KEYRING}")
    apt = cache / f"apt-{SUITE}-{architecture}"
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    signed = f"[signed-by={KEYRING}]"
    (apt / "sources.list").write_text(
        f"deb {signed} {MIRROR}/debian {SUITE} main\n"
        f"deb {signed} {MIRROR}/debian {SUITE}-updates main\n"
        f"deb {signed} {MIRROR}/debian-security {SUITE}-security main\n"
    )
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::Cache": str(apt / "cache"),
        "Dir::Etc::SourceList": str(apt / "sources.list"),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": str(apt),
        "Dir::State::Lists": str(apt / "lists"),
        "Dir::State::Status": str(apt / "status"),
    }
    words = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    run(*words, "update")
    debs = apt / "debs"
    wanted = re.findall(r"^'[^']*' (\S+) ", run(*words, "download", "--print-uris", *names), re.MULTILINE)
    if len(wanted) != len(names):
        raise ReleaseError(f"Debian {SUITE} does not have all of {', '.join(names)} for {architecture}")
    run(*words, "download", *names, cwd=debs)  # what is there already is only checked
    return [debs / name for name in wanted]


def unpack(packages: Sequence[Path], root: Path) -> list[Package]:
    """Their files, below ``root``; what they are. Raises ReleaseError."""
    found = []
    for path in packages:
        run("dpkg-deb", "-x", path, root)
        shown = run("dpkg-deb", "--show", "--showformat=${Package}\t${Version}\t${source:Package}", path)
        name, version, source = shown.split("\t")
        found.append(Package(name, version, source))
    return sorted(found, key=lambda package: package.name)
