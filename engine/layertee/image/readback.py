"""Layers that are here, but not as files of their own: what can give their bytes all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .holding import Holding


class TarReader(Protocol):
    """The bytes of one layer, tar or blob, in order. One thread at a time; ``close`` is the caller's."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` as far as the layer goes; less than all of it only at the end, then 0.

        Blocks. Raises SourceUnreadable.
        """

    def close(self) -> None:
        """Give up what is open; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class ReadBack(Holding):
    """A readable holding without a ``path``.

    ``open`` begins to read it and raises SourceUnreadable; it opens a few files, no more. What comes
    out are the ``size`` bytes that ``digest`` names, in the form ``compression``, to be hashed as
    everything else is.
    """

    open: Callable[[], TarReader] = field(compare=False, repr=False)
