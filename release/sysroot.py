"""The C libraries for an architecture: Debian's, which go into the extension where they are archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from release.debs import Apt, Deb, unpacked

# By pkg-config's name: the packages with the library and its headers; whether it is an archive.
# What is none is put beside the extension, under a name of its own.
_LIBRARIES = {
    "libcrypto": (("libssl-dev",), True),
    "libisal": (("libisal2", "libisal-dev"), False),
    "libzstd": (("libzstd-dev",), True),
    "zlib": (("zlib1g-dev",), True),
}
# What the linker would rather take than the archives beside them.
_SHARED = ("libcrypto.so*", "libssl.so*", "libzstd.so*", "libz.so*")


@dataclass(frozen=True, slots=True)
class Included:
    """A library that a wheel carries."""

    name: str  # as pkg-config has it
    deb: Deb
    is_archive: bool

    @property
    def upstream_version(self) -> str:
        """The number that its authors gave it: Debian's without epoch, revision, and what Debian left out."""
        version = self.deb.version.partition(":")[2] or self.deb.version
        return version.rpartition("-")[0].partition("+")[0].removesuffix(".dfsg")


@dataclass(frozen=True, slots=True)
class Sysroot:
    """A directory with the headers and libraries of one architecture, and what they are."""

    machine: str
    root: Path
    included: tuple[Included, ...]

    @property
    def libraries(self) -> Path:
        """Where the libraries are."""
        return self.root / "usr" / "lib" / f"{self.machine}-linux-gnu"

    def environment(self) -> dict[str, str]:
        """What makes pkg-config answer for this directory."""
        places = [self.libraries / "pkgconfig", self.root / "usr" / "share" / "pkgconfig"]
        return {
            "PKG_CONFIG_LIBDIR": ":".join(map(str, places)),
            "PKG_CONFIG_SYSROOT_DIR": str(self.root),
            # pkg-config leaves out -L/usr/lib/…, where linkers look; but not below this root.
            "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1",
        }

    @property
    def headers(self) -> Path:
        """Headers that are different on each architecture."""
        return self.root / "usr" / "include" / f"{self.machine}-linux-gnu"


def sysroot(machine: str, root: Path, *, headers_of: tuple[str, ...] = ()) -> Sysroot:
    """That of an architecture at ``root``, made anew. ``headers_of``: further packages that it gets.

    Raises ReleaseError.
    """
    names = [name for packages, _ in _LIBRARIES.values() for name in packages]
    debs = {deb.name: deb for deb in Apt(machine).fetch([*names, *headers_of])}
    unpacked(debs.values(), root)
    included = [
        Included(library, debs[packages[0]], is_archive)
        for library, (packages, is_archive) in _LIBRARIES.items()
    ]
    found = Sysroot(machine, root, tuple(included))
    for pattern in _SHARED:
        for path in found.libraries.glob(pattern):
            path.unlink()
    return found
