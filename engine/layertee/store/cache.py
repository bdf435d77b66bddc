"""How much of the disk the layers may keep that no image of the store needs: it is a cache of them.

They stay, so that an upgrade which was interrupted goes on without a download, until there is need of the
room: then those go first that were not used for longest. Layers of images that the store has by name are not
counted and never go.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from ..disk.keeping import KeepPartials
from ..disk.space import KeepFree, Space, free_space, human
from ..errors import InvalidReference, LayerteeError, LocalError, StoreBusy
from ..record import dataclass
from .gc import trim

if TYPE_CHECKING:
    from ..image.document import Digest
    from .store import Store

log = logging.getLogger(__name__)

_LIMIT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(%)|([kKmMgGtT]?)(i?)[bB]?)")


@dataclass(frozen=True, slots=True)
class CacheLimit:
    """So many bytes, or a share of what would be free without the cache."""

    nbytes: int | None = None
    share: float = 0.1

    @classmethod
    def parse(cls, text: str) -> Self:
        """``10%``, ``5G`` (10^9), ``5Gi`` or plain bytes. Raises InvalidReference."""
        match = _LIMIT.fullmatch(text.strip())
        if match is None or (match[2] and float(match[1]) > 100):
            raise InvalidReference(
                f"{text!r:.50} is not a size like 5G, or a share of the free space like 10%"
            )
        if match[2]:
            return cls(None, float(match[1]) / 100)
        base = 1024 if match[4] else 1000
        return cls(int(float(match[1]) * base ** " kmgt".index(match[3].lower() or " ")))

    def of(self, store: Store, cached: int) -> int:
        """The bytes that may stay of ``cached``. Raises LocalError."""
        if self.nbytes is not None:
            return self.nbytes
        free, _ = free_space(store.root, KeepFree(0))
        return int((free + cached) * self.share)


def keep_within(store: Store, limit: CacheLimit) -> None:
    """Remove what is over the limit. Never raises: another process may do it later."""
    _trim(store, lambda cached: limit.of(store, cached))


def make_room(store: Store, space: Space, need: int, keep: Collection[Digest]) -> None:
    """If ``need`` bytes do not fit, give up what has begun to arrive of other layers, then as much of the
    cache as they take, ``keep`` excepted.
    """
    missing = need - space.left()
    if missing > 0:
        with suppress(LocalError):
            missing -= store.parts.trim(KeepPartials(0.0), spare=keep)[1]
    if missing > 0:
        _trim(store, lambda cached: max(0, cached - missing), keep)


def _trim(store: Store, limit_of: Callable[[int], int], keep: Collection[Digest] = ()) -> None:
    try:
        report = trim(store, limit_of, keep=keep)
    except StoreBusy:
        log.debug("the cache is in use, and stays as it is")
    except LayerteeError as exc:
        log.warning("the cache could not be trimmed: %s", exc)
    else:
        if report.blobs_removed:
            log.info("removed %d cached layers, %s", report.blobs_removed, human(report.bytes_freed))
