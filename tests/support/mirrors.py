"""An image at an origin and at its mirrors, and the registries.conf that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class At:
    """One endpoint in a registries.conf: where it is, and what is said of it."""

    location: str
    insecure: bool = True
    only: str | None = None  # pull-from-mirror

    def lines(self) -> list[str]:
        """Its keys."""
        lines = [f'location = "{self.location}"', f"insecure = {str(self.insecure).lower()}"]
        return [*lines, f'pull-from-mirror = "{self.only}"'] if self.only else lines


def write_conf(
    directory: Path, prefix: str, mirrors: Sequence[At], origin: At | None = None, *, blocked: bool = False
) -> Path:
    """A registries.conf for images that begin with ``prefix``: ``origin``, where that is elsewhere."""
    lines = ["[[registry]]", f'prefix = "{prefix}"', *(origin or At(prefix)).lines()]
    if blocked:
        lines.append("blocked = true")
    for mirror in mirrors:
        lines += ["[[registry.mirror]]", *mirror.lines()]
    path = directory / "registries.conf"
    path.write_text("\n".join(lines) + "\n")
    return path
