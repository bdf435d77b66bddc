"""One place whose images are on offer, in the words that all kinds of places share.

A shelf only reads. What it has is looked at when it is asked for. What it has parsed is kept as long as the
file that it comes from is the same file with the same stamps. What is wrong with a place is logged, once for
each thing that is wrong, and never raised.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from ..image.document import DiffID, Digest
from ..record import dataclass
from .outgoing import FileIdentity

if TYPE_CHECKING:
    from ..image.document import Descriptor
    from .names import OfferedName
    from .offer import Sendable

log = logging.getLogger(__name__)

EMPTY: Final = Digest.of(b"")
_REMEMBERED: Final = 1000  # messages
# Two writes within one tick of the clock that stamps files look like one.
_TICK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or another document, that a place lists.

    ``name`` is None for what has none. ``root`` is what the name means; where several entries of one place
    have one name, each is of a platform. ``beside`` are documents that belong to it: the manifest or list at
    its registry, signatures.
    """

    name: OfferedName | None
    root: Descriptor
    beside: tuple[Digest, ...] = ()


class Shelf(Protocol):
    """A place. Any thread may call; every method blocks, and raises nothing for what is there."""

    @property
    def name(self) -> str:
        """What to call it: ``store``, ``oci:/mnt/stick``."""

    def generation(self) -> Hashable:
        """Another one as soon as ``entries`` may answer something else. A few system calls."""

    def entries(self) -> Sequence[Entry]:
        """What it lists now."""

    def holdings(self) -> Hashable:
        """Another one when layers came or went in the usual ways. One of two quick changes may be missed."""

    def size(self, digest: Digest) -> int | None:
        """Of the blob or document under that digest; None where there is none to be read."""

    def document(self, digest: Digest) -> bytes | None:
        """What hashes to ``digest``, at most 4 MiB."""

    def blob(self, digest: Digest) -> Sendable | None:
        """A blob, or a layer's tar under its DiffID."""

    def attested(self, digest: Digest) -> DiffID | None:
        """What the place's owner saw that blob inflate to."""

    def close(self) -> None:
        """Give up what is open; harmless when repeated."""


class Complaints:
    """What is wrong with the place ``name``, each thing logged once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[str] = set()
        self._mutex = threading.Lock()

    def say(self, text: str, level: int = logging.WARNING) -> None:
        with self._mutex:
            if text in self._said:
                return
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said.add(text)
        log.log(level, "%s: %s", self._name, text.removeprefix(f"{self._name}: "))


def identity_of(path: Path) -> FileIdentity | None:
    """Of what ``path`` leads to; None where nobody can tell."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileIdentity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def stamp_of(path: Path) -> Hashable:
    """What stays equal as long as nobody writes to what ``path`` leads to, or replaces it.

    None where nobody can tell. Of a file that was written to just now, it is another one each time.
    """
    found = identity_of(path)
    if found is not None and 0 <= time.time() - found.ctime_ns / 1e9 < _TICK_S:
        return found, time.monotonic_ns()
    return found


def hashes_to(raw: bytes, digest: Digest) -> bool:
    return hashlib.new(digest.algorithm, raw).hexdigest() == digest.hex
