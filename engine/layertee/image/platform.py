"""Operating system, architecture and variant, and which one serves which machine.

The order of preference is the one of containers/image (``internal/pkg/platform``):
whoever pulls with skopeo and with this program gets the same manifest digest.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from ..errors import InvalidReference

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
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}

# A machine runs its own variant and those after it.
_VARIANTS: dict[str, tuple[str, ...]] = {"arm": ("v7", "v6", "v5"), "arm64": ("v8",)}
# What every machine of the architecture is.
_BASE: dict[str, tuple[str, ...]] = {"arm64": ("v8",)}


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
        """The platform of this machine, from ``uname``."""
        machine = os.uname().machine
        architecture, variant = _MACHINES.get(machine, (machine, None))
        return cls("darwin" if sys.platform == "darwin" else "linux", architecture, variant)

    def variants(self) -> tuple[str | None, ...]:
        """The variants that serve this platform, best first; ``None`` is an entry that names none.

        As ``WantedPlatforms`` of containers/image, plus one case where that gives up: a 32-bit ARM
        variant it has no order for (v8) also runs v7 and older, after what skopeo would take.
        """
        known = _VARIANTS.get(self.architecture, ())
        if self.variant is None:
            return (None, *_BASE.get(self.architecture, ()))
        if self.variant in known:
            return (*known[known.index(self.variant) :], None)
        return (self.variant, None, *(known if (self.architecture, self.variant) == ("arm", "v8") else ()))

    def rank(self, offered: Platform) -> int | None:
        """How well ``offered`` serves this platform (0 is best), or None."""
        if (offered.os, offered.architecture) != (self.os, self.architecture):
            return None
        variants = self.variants()
        return variants.index(offered.variant) if offered.variant in variants else None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
