"""How much of a filesystem may be filled.

A floor stays free: 3 % as ostree keeps it, but at least 1 GiB, or 5 % where that is less, and at most 10 GiB.
A machine whose root is full to the last byte does not boot into its next image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from .files import disk_error

GIB: Final = 1 << 30


def floor_of(total: int) -> int:
    """Bytes that stay free of a filesystem of ``total`` bytes.

    It grows with ``total`` and has no steps: 5 % up to 20 GiB, 1 GiB up to 33, 3 % up to 333, then 10 GiB.
    """
    least = min(total * 5 // 100, GIB)
    return min(max(total * 3 // 100, least), 10 * GIB)


def free_space(path: Path) -> tuple[int, int]:
    """Bytes free to an ordinary user on the filesystem of ``path``, and its floor. Raises LocalError."""
    try:
        found = os.statvfs(path)
    except OSError as exc:
        raise disk_error(exc, "looking at the free space of", path) from exc
    return found.f_bavail * found.f_frsize, floor_of(found.f_blocks * found.f_frsize)


def human(nbytes: int) -> str:
    """``nbytes`` for a person: ``1.5 GiB``."""
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
