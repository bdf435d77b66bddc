"""Operating system, architecture and variant, and which one serves which machine.

The order of preference is the one of containers/image (``internal/pkg/platform``):
whoever pulls with skopeo and with this program gets the same manifest digest.
"""

from __future__ import annotations

import os
import re
import struct
import sys

from ..errors import InvalidReference
from ..record import dataclass

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# uname -m → (GOARCH, variant)
_MACHINES: dict[str, tuple[str, str | None]] = {
    "x86_64": ("amd64", None),
    "amd64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armv5tejl": ("arm", "v5"),
    "i386": ("386", None),
    "i486": ("386", None),
    "i586": ("386", None),
    "i686": ("386", None),
    "ppc64": ("ppc64", None),
    "ppc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "riscv64": ("riscv64", None),
    "loongarch64": ("loong64", None),
    "mips64": ("mips64", None),
}
# ELF: e_machine → GOARCH of little-endian and of big-endian programs, 32-bit ones first. x32 is amd64's.
_ELF: dict[int, dict[tuple[int, int], str]] = {
    3: {(32, 1): "386"},
    8: {(32, 1): "mipsle", (32, 2): "mips", (64, 1): "mips64le", (64, 2): "mips64"},
    21: {(64, 1): "ppc64le", (64, 2): "ppc64"},
    22: {(64, 2): "s390x"},
    40: {(32, 1): "arm"},
    62: {(32, 1): "amd64", (64, 1): "amd64"},
    183: {(64, 1): "arm64"},
    243: {(64, 1): "riscv64"},
    258: {(64, 1): "loong64"},
}
_ELF_HEADER = struct.Struct("<4sBB10xHH")
# Of a 32-bit userland, what it is on a kernel that says what follows.
_NARROW = {"amd64": ("386", None), "arm64": ("arm", "v8"), "mips64": ("mips", None), "ppc64": ("ppc", None)}
# The program that runs: of the userland that images are for, whatever the kernel can run besides.
PROGRAM = "/proc/self/exe"
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}

# A machine runs its own variant and those after it.
_VARIANTS: dict[str, tuple[str, ...]] = {"arm": ("v8", "v7", "v6", "v5"), "arm64": ("v8",)}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in Go's names: ``linux``/``arm64``/``v8``."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``os/architecture[/variant]``. Raises InvalidReference."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidReference(f"platform {text!r} is not os/architecture[/variant], like linux/arm64")
        system, machine, *variant = (part.lower() for part in parts)
        return cls(system, _ALIASES.get(machine, machine), variant[0] if variant else None)

    @classmethod
    def host(cls) -> Platform:
        """The platform that programs of this machine's userland have.

        The kernel may be another one's: a 32-bit system on a 64-bit kernel, or a shell under ``setarch``. So
        what counts is the program that runs, this interpreter; of ARM's variants, ``uname`` has the word.
        """
        said = os.uname().machine
        architecture, variant = _MACHINES.get(said, (said, None))
        if sys.platform == "darwin":
            return cls("darwin", architecture, variant)
        own = _own_architecture()
        if own is None and sys.maxsize < 1 << 32:
            own, variant = _NARROW.get(architecture, (architecture, variant))
        elif own is not None and own != architecture:
            # Go's programs ask the processor, which a 32-bit system on arm64 shares with its kernel.
            variant = "v8" if own in ("arm", "arm64") else None
        return cls("linux", own or architecture, variant)

    def variants(self) -> tuple[str | None, ...]:
        """The variants that serve this platform, best first; ``None`` is an entry that names none.

        As ``WantedPlatforms`` of containers/image.
        """
        known = _VARIANTS.get(self.architecture, ())
        if self.variant is None:
            return (None, *known)
        if self.variant in known:
            return (*known[known.index(self.variant) :], None)
        return (self.variant, None)

    def rank(self, offered: Platform) -> int | None:
        """How well ``offered`` serves this platform (0 is best), or None."""
        if (offered.os, offered.architecture) != (self.os, self.architecture):
            return None
        variants = self.variants()
        return variants.index(offered.variant) if offered.variant in variants else None

    def contradicts(self, config: Platform) -> bool:
        """Whether an image whose config says ``config`` is for another platform; what it leaves out is none.

        A variant that this one does not run is another platform; one that is less, or not said, is not.
        """
        said = (config.os, self.os), (config.architecture, self.architecture)
        if any(its not in ("unknown", own) for its, own in said):
            return True
        return config.variant is not None and config.variant not in self.variants()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _own_architecture() -> str | None:
    """Of the program that runs, from the head of its file; None where that cannot be read."""
    try:
        fd = os.open(PROGRAM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = os.read(fd, _ELF_HEADER.size)
    except OSError:
        return None
    finally:
        os.close(fd)
    return elf_architecture(head)


def elf_architecture(head: bytes) -> str | None:
    """GOARCH of an ELF file that begins with ``head`` (20 bytes); None for others. gABI, ELF header."""
    if len(head) < _ELF_HEADER.size:
        return None
    magic, width, order, _, machine = _ELF_HEADER.unpack_from(head)
    if magic != b"\x7fELF" or width not in (1, 2) or order not in (1, 2):
        return None
    if order == 2:
        machine = int.from_bytes(machine.to_bytes(2, "little"), "big")
    return _ELF.get(machine, {}).get((32 * width, order))
