"""The first bytes of blobs that could not be fetched to their end: kept, so that the rest is enough.

A part is named by its blob's digest, and that is all that is known of it. Nothing believes it: whoever goes
on with one hashes it from its first byte, and what comes out at the end is held against what the image names.
So a part can be cut short by a crash, or wrong, and costs no more than a new start.

A part that a process writes is locked by it (disk/part.py). The others are kept for a while, and are the
first to go when space is short.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..disk.files import close, disk_error
from ..disk.part import PART_SUFFIX, BlobWriter
from ..image.document import Digest, Layer
from ..record import dataclass

if TYPE_CHECKING:
    from ..disk.keeping import KeepPartials
    from .layout import Layout
    from .room import Room

_HEX: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")
_ALGORITHMS: Final = {64: "sha256", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Part:
    """``nbytes`` of the blob ``digest``, the last of which came ``age_s`` seconds ago."""

    digest: Digest
    nbytes: int
    age_s: float


class Parts:
    """The parts of the store in ``layout``. Every method blocks; any thread may call."""

    def __init__(self, layout: Layout, room: Room) -> None:
        self._layout = layout
        self._room = room

    def writer(self, layer: Layer, *, make: bool = True) -> BlobWriter | None:
        """Where to write the blob of ``layer``: after what is here of it, which is locked meanwhile.

        None while another process or task writes it, and, without ``make``, where nothing is here. More
        than the blob has cannot be the beginning of it, and is dropped. Raises LocalError, NoSpace.
        """
        if not make and not os.path.lexists(self._room.parts / f"{layer.digest.hex}{PART_SUFFIX}"):
            return None
        blobs, mode = self._layout.blob_directory(), self._layout.blob_mode
        while True:
            try:
                part = BlobWriter(self._room.parts, blobs, layer.digest.hex, mode=mode, go_on=True)
            except BlockingIOError:
                return None
            if part.n_kept <= layer.size:
                return part
            part.abort()

    def arrived(self, layers: Iterable[Layer]) -> dict[Digest, int]:
        """How many bytes of the blobs and the tars of ``layers`` are here, of those that have begun.

        Raises LocalError.
        """
        sizes = {part.digest: part.nbytes for part in self.all()}
        names = dict.fromkeys(name for layer in layers for name in (layer.digest, layer.tar_digest))
        return {name: nbytes for name in names if (nbytes := sizes.get(name, 0))}

    def all(self) -> list[Part]:
        """All of them, those first that have waited longest. Raises LocalError."""
        now = time.time()
        try:
            names = os.listdir(self._room.parts)
        except FileNotFoundError:  # a store that an older version made, which is only looked at
            return []
        except OSError as exc:
            raise disk_error(exc, "listing", self._room.parts) from exc
        found = []
        for name in names:
            stem = name.removesuffix(PART_SUFFIX)
            if stem == name or not _HEX.fullmatch(stem):
                continue
            with suppress(OSError):
                there = os.stat(self._room.parts / name, follow_symlinks=False)
                if stat.S_ISREG(there.st_mode):
                    digest = Digest(f"{_ALGORITHMS[len(stem)]}:{stem}")
                    # Also of one that a clock which has been put back shows in the future.
                    found.append(Part(digest, there.st_size, abs(now - there.st_mtime)))
        return sorted(found, key=lambda part: (-part.age_s, part.digest))

    def trim(self, keep: KeepPartials, *, spare: Collection[Digest] = ()) -> tuple[int, int]:
        """Remove what is older than ``keep`` has it, then the oldest until the rest fits, but no part of
        ``spare``, and none that is being written. How many that were, and of how many bytes. Raises
        LocalError.
        """
        n_removed = freed = 0
        parts = self.all()
        left = sum(part.nbytes for part in parts)
        for part in parts:
            too_old = keep.age_s is not None and part.age_s >= keep.age_s
            too_much = keep.nbytes is not None and left > keep.nbytes
            if (
                part.digest not in spare
                and (too_old or too_much)
                and self._remove(f"{part.digest.hex}{PART_SUFFIX}")
            ):
                n_removed += 1
                freed += part.nbytes
                left -= part.nbytes
        return n_removed, freed

    def drop(self, digests: Iterable[Digest]) -> None:
        """Remove what is here of ``digests``, unless it is being written. Raises LocalError."""
        for digest in digests:
            name = f"{digest.hex}{PART_SUFFIX}"
            if os.path.lexists(self._room.parts / name):
                self._remove(name)

    def remove_strange(self) -> int:
        """What is among the parts and is none of them; how many files that were. Raises LocalError."""
        try:
            names = os.listdir(self._room.parts)
        except OSError as exc:
            raise disk_error(exc, "listing", self._room.parts) from exc
        known = {f"{part.digest.hex}{PART_SUFFIX}" for part in self.all()}
        return sum(self._remove(name) for name in names if name not in known)

    def _remove(self, name: str) -> bool:
        """Whether the file was removed, which it is not while another process has its lock."""
        path = self._room.parts / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            fd = -1  # gone, or nothing that could be locked
        try:
            if fd >= 0:
                with suppress(OSError):  # NFS without a lock daemon
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return False
                there = os.stat(path, follow_symlinks=False)
                if not os.path.samestat(there, os.fstat(fd)):
                    return False  # a new one, which a process has made since
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise disk_error(exc, "removing", path) from exc
        finally:
            if fd >= 0:
                close(fd)
        return True
