"""What an option's value may be. Each function reads one kind of value and refuses everything else.

All of them raise argparse.ArgumentTypeError, whose text says what was expected. Digits are ASCII.

Whatever of the library a value needs is imported when it is read: ``--version`` and ``--help`` read none.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..disk.keeping import KeepPartials
    from ..disk.space import KeepFree

DURATION_MAX_S = 30 * 86400.0

# Compiled when they are first needed, and then kept by re.
_RATE = r"([0-9]+(?:\.[0-9]+)?) ?(?:([kKmMgG])(i?))?[bB]?(?:/s)?"
_SHARE = r"([0-9]{1,3}(?:\.[0-9]+)?) ?%"
_HOST = r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
_AGE = r"([1-9][0-9]{0,4})([hdw])"
_DURATION = r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?"


class Amount(NamedTuple):
    """``nbytes``, or else a share (0 to 1) of something that is known later."""

    nbytes: int | None
    share: float = 0.0


def boolean(text: str) -> bool:
    """``true``, ``1`` or ``yes``; ``false``, ``0`` or ``no``; in any case."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r:.50} is not true or false")


def count(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r:.50} is not a number from {low} to {high}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """At least a tenth of one, at most 99,999."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", text) or float(text) < 0.1:
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not a number of seconds, of at least 0.1")
    return float(text)


def duration(text: str) -> float:
    """``90s``, ``10m``, ``2h``, ``1h30m`` in seconds: more than none, at most 30 days."""
    match = re.fullmatch(_DURATION, text)
    total = 0.0
    if match is not None and len(text) <= 30:
        total = sum(
            float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True)
        )
    if not 0 < total <= DURATION_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not a duration like 90s, 10m or 1h30m")
    return total


def age(text: str) -> float:
    """``12h``, ``30d`` or ``8w`` in seconds; more than none."""
    match = re.fullmatch(_AGE, text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not an age like 12h, 30d or 8w")
    return int(match[1]) * {"h": 3600.0, "d": 86400.0, "w": 604800.0}[match[2]]


def rate(text: str) -> int:
    """Bytes per second: ``20M`` is 20,000,000, ``20Mi`` 1024-based."""
    found = _scaled(re.fullmatch(_RATE, text.strip()))
    if found is None or not 1000 <= found < 10**15:
        raise argparse.ArgumentTypeError(
            f"{text!r:.50} is not a rate of at least 1000 bytes per second, like 20M"
        )
    return found


def size(text: str) -> int:
    """Bytes: ``32Mi``, ``5G`` (10^9), or a whole number; 0 as well."""
    from ..disk.space import parse_size

    found = parse_size(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not a size like 32Mi or 5G")
    return found


def size_of_some(text: str) -> int:
    """A :func:`size` that is not 0."""
    if not (found := size(text)):
        raise argparse.ArgumentTypeError("it has to be more than nothing")
    return found


def window(text: str) -> int:
    """A :func:`size` from 1Ki to 2Gi."""
    from ..options import ZSTD_WINDOW_LEAST, ZSTD_WINDOW_MOST

    found = size(text)
    if not ZSTD_WINDOW_LEAST <= found <= ZSTD_WINDOW_MOST:
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not a size from 1Ki to 2Gi")
    return found


def size_or_share(text: str) -> Amount:
    """A :func:`size`, or ``0%`` to ``100%``."""
    share = re.fullmatch(_SHARE, text.strip())
    if share is not None and float(share[1]) <= 100:
        return Amount(None, float(share[1]) / 100)
    try:
        return Amount(size(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r:.50} is not a size like 5G, or a share of the free space like 10%"
        ) from None


def keep_free(text: str) -> KeepFree:
    """A :func:`size`, or ``0%`` to ``100%`` of a filesystem."""
    from ..disk.space import KeepFree

    try:
        return KeepFree.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def keep_partials(text: str) -> KeepPartials:
    """An age like ``7d``, a :func:`size`, or ``never``."""
    from ..disk.keeping import KeepPartials

    try:
        return KeepPartials.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def words(text: str) -> str:
    """Any text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def path(text: str) -> Path:
    """The name of a file or directory. Empty, it would be the working directory."""
    return Path(words(text))


def path_or_none(text: str) -> Path | None:
    """As :func:`path`, for an option of skopeo's, where the empty text is as good as no option."""
    return Path(text) if text else None


def host(text: str) -> str:
    """``HOST`` or ``HOST:PORT``, as a registry or a token service is named."""
    if not re.fullmatch(_HOST, text):
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not a host, like auth.example.com")
    return text.lower()


def visible(text: str) -> str:
    """Text that can stand in a header of HTTP: no line break, no other control character."""
    if not text.isprintable() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r:.50} is not plain ASCII text")
    return text


def _scaled(match: re.Match[str] | None) -> int | None:
    """The bytes that an amount stands for; None for none, and for fractions of a byte."""
    from ..disk.space import scaled

    if match is None or len(match[1]) > 20:
        return None
    number, unit, binary = match.groups()
    if not unit and "." in number:
        return None
    return scaled(number, unit or "", is_binary=bool(binary))
