"""How much of a filesystem may be filled, and sizes as people write them.

A floor stays free, which a person can set: so many bytes, or a share of the filesystem. Without that it is
3 % as ostree keeps it, but at least 1 GiB, or 5 % where that is less, and at most 10 GiB. A machine whose
root is full to the last byte does not boot into its next image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

from ..errors import InvalidReference, NoSpace
from ..record import dataclass
from .files import disk_error

T = TypeVar("T")

GIB: Final = 1 << 30
SIZE_MAX: Final = 1 << 62  # what every disk and every offset of a file is below

ENVIRONMENT: Final = "LAYERTEE_KEEP_FREE"
"""What stays free where nothing else says so: a size, or a share of the filesystem."""

_WHOLE: Final = 100_000  # a share is a whole number of thousandths of a percent
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kKmMgGtT])(i?))?[bB]?")
_SHARE: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))? ?%")
_NUMBER_MAX: Final = 20  # characters


@dataclass(frozen=True, slots=True)
class KeepFree:
    """What stays free of a filesystem: ``nbytes``, or ``share`` hundred-thousandths of it, or the usual."""

    nbytes: int | None = None
    share: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.nbytes, self.share) if value is not None]
        if len(given) > 1 or any(value < 0 for value in given) or (self.share or 0) > _WHOLE:
            raise ValueError(f"not what can stay free: {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """``5Gi``, ``5G`` (10^9), plain bytes, or ``0%`` to ``100%`` with up to three decimals.

        Raises ValueError, whose text says what was expected.
        """
        text = text.strip()
        if (match := _SHARE.fullmatch(text)) is not None:
            share = int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))
            if share <= _WHOLE:
                return cls(share=share)
        elif (nbytes := parse_size(text)) is not None:
            return cls(nbytes)
        raise ValueError(f"{text!r:.50} is not a size like 5Gi, or a share of the disk like 3%")

    @classmethod
    def usual(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """What ``LAYERTEE_KEEP_FREE`` says, or the usual floor. Raises InvalidReference."""
        return setting(ENVIRONMENT, cls.parse, environ) or cls()

    def of(self, total: int) -> int:
        """Bytes that stay free of a filesystem of ``total`` bytes; a share is rounded down."""
        if self.nbytes is not None:
            return self.nbytes
        if self.share is not None:
            return total * self.share // _WHOLE
        return floor_of(total)


@dataclass(frozen=True, slots=True)
class Space:
    """The room in the filesystem of ``root``, of which ``keep_free`` is left; looked at anew each time.

    Blocks. Raises LocalError where that cannot be told.
    """

    root: Path
    keep_free: KeepFree

    def left(self) -> int:
        """Bytes that may still be written before the floor; negative below it."""
        free, floor = free_space(self.root, self.keep_free)
        return free - floor

    def check(self, need: int, what: str = "this pull") -> None:
        """Raise NoSpace unless ``need`` bytes fit above the floor."""
        free, floor = free_space(self.root, self.keep_free)
        if free - need < floor:
            raise NoSpace(
                f"{what} needs {human(need)} in {self.root}, where {human(free)} are free and"
                f" {human(floor)} must stay free; free {human(need + floor - free)}",
                path=str(self.root),
                need=need,
                free=free,
                floor=floor,
            ).with_hint("keep-free")

    def check_floor(self) -> None:
        """Raise NoSpace once less than the floor is free."""
        free, floor = free_space(self.root, self.keep_free)
        if free < floor:
            raise NoSpace(
                f"{self.root}: {human(free)} are free by now, and {human(floor)} must stay free; the pull is"
                " stopped, what has arrived is kept",
                path=str(self.root),
                free=free,
                floor=floor,
            ).with_hint("keep-free")


def floor_of(total: int) -> int:
    """Bytes that usually stay free of a filesystem of ``total`` bytes.

    It grows with ``total`` and has no steps: 5 % up to 20 GiB, 1 GiB up to 33, 3 % up to 333, then 10 GiB.
    """
    least = min(total * 5 // 100, GIB)
    return min(max(total * 3 // 100, least), 10 * GIB)


def free_space(path: Path, keep_free: KeepFree) -> tuple[int, int]:
    """Bytes free to an ordinary user on the filesystem of ``path``, and its floor. Raises LocalError.

    One that does not say how large it is, like a tmpfs without a limit, has all the space there can be, and
    no floor.
    """
    try:
        found = os.statvfs(path)
    except OSError as exc:
        raise disk_error(exc, "looking at the free space of", path) from exc
    if found.f_blocks == 0:
        return SIZE_MAX, 0
    return found.f_bavail * found.f_frsize, keep_free.of(found.f_blocks * found.f_frsize)


def setting(name: str, parse: Callable[[str], T], environ: Mapping[str, str]) -> T | None:
    """What the variable ``name`` says; None where it is not set. Raises InvalidReference, which names it."""
    text = environ.get(name, "")
    try:
        return parse(text) if text else None
    except ValueError as exc:
        raise InvalidReference(f"{name}: {exc}") from None


def parse_size(text: str) -> int | None:
    """The bytes in ``32Mi``, ``5G`` (10^9), ``1.5Gi`` or a whole number; None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(match[1]) > _NUMBER_MAX or (not match[2] and "." in match[1]):
        return None
    found = scaled(match[1], match[2] or "", is_binary=bool(match[3]))
    return found if found <= SIZE_MAX else None


def scaled(number: str, unit: str, *, is_binary: bool) -> int:
    """The whole bytes of a decimal ``number`` of ``unit``: empty, or one of k, M, G and T in any case."""
    whole, _, decimals = number.partition(".")
    nbytes = int(whole + decimals)
    for _ in range(" kmgt".index(unit.lower() or " ")):
        nbytes *= 1024 if is_binary else 1000
    for _ in decimals:
        nbytes //= 10
    return nbytes


def human(nbytes: int) -> str:
    """``nbytes`` for a person: ``1.5 GiB``."""
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
