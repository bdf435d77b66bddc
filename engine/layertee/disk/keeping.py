"""How long what has arrived of a layer is kept when the rest does not arrive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final, Self

from ..record import dataclass
from .space import parse_size, setting

ENVIRONMENT: Final = "LAYERTEE_KEEP_PARTIALS"
"""How long, where nothing else says so: an age, a size, or ``never``."""

DAY_S: Final = 86_400.0
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
_AGE: Final = re.compile(r"([0-9]{1,6})([smhdw])")


@dataclass(frozen=True, slots=True)
class KeepPartials:
    """How long parts are kept, in seconds after their last byte, and how many bytes of them at most.

    None does not bound. Either may be 0: no part is kept then.
    """

    age_s: float | None = 7 * DAY_S
    nbytes: int | None = None

    def __post_init__(self) -> None:
        if min(self.age_s or 0, self.nbytes or 0) < 0:
            raise ValueError(f"not how long parts can be kept: {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """``7d`` (s, m, h, d, w), a size like ``2Gi``, or ``never``. An age has no bound in bytes, and the
        other way round. Raises ValueError, whose text says what was expected.
        """
        text = text.strip()
        if text == "never":
            return cls(0.0)
        if (match := _AGE.fullmatch(text)) is not None:
            return cls(int(match[1]) * _UNITS[match[2]])
        if (nbytes := parse_size(text)) is not None:
            return cls(None, nbytes)
        raise ValueError(f"{text!r:.50} is not an age like 7d, a size like 2Gi, or never")

    @classmethod
    def usual(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """What ``LAYERTEE_KEEP_PARTIALS`` says, or seven days. Raises InvalidReference."""
        return setting(ENVIRONMENT, cls.parse, environ) or cls()

    @property
    def never(self) -> bool:
        """No part is kept."""
        return self.age_s == 0 or self.nbytes == 0
