"""Which of Debian's packages are inside the tree.

Debian's Python is what the tree has: it is maintained, there for every architecture, and needs nothing but
its libraries.
"""

from __future__ import annotations

from pathlib import Path

from release.debs import Apt, Deb, unpacked

SUITE = "bookworm"
PYTHON = "python3.11"
PACKAGES = (
    *(f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib"),
    "gcc-12-base",  # has the licence of the two libraries of gcc
    *("libbz2-1.0", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libsqlite3-0", "libssl3"),
    *("libstdc++6", "libuuid1", "zlib1g"),
)


def unpack(arch: str, root: Path) -> list[Deb]:
    """Their files for ``arch``, below ``root``; what they are, sorted by name. Raises ReleaseError."""
    debs = Apt(arch).fetch(PACKAGES)
    unpacked(debs, root)
    return sorted(debs, key=lambda deb: deb.name)
