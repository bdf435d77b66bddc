"""The files that a layer is written to while it arrives, and what stays of them when it does not arrive.

A blob that is fetched leaves a *part*: its first bytes, as far as they were hashed. Kept as it is, the blob
is written nowhere else, and the part becomes the layer. Where the tar is kept, the part is a copy for the
case that the transfer breaks off (a *spool*): no decoder can be asked to go on in the middle of a zstd frame,
in another process. It is removed once the layer is there, mostly before the disk has seen it.

What was written is brought to the disk while more arrives. So the flush of a commit is short, and a power cut
costs what came since the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..aio import in_thread
from ..core.pool import Pool, PoolLayer, Spent
from ..errors import LocalError, SourceUnreadable
from .budget import CHECK_S

if TYPE_CHECKING:
    from ..disk.part import BlobWriter

log = logging.getLogger(__name__)

# Bytes of one file after which it is brought to the disk. Twice as many may be waiting for that, then the
# network waits: so a power cut costs 64 MiB of a layer at most.
FLUSH_NBYTES: Final = 32 << 20
_BEHIND_S: Final = 0.05


class _Flushed:
    """A file, and how many bytes of its stream are on the disk."""

    def __init__(self, file: BlobWriter, nbytes: int) -> None:
        self.file = file
        self.nbytes = nbytes


class Arrival:
    """Where one layer goes. ``writer`` gets what the store will keep; ``part`` gets the blob: it is
    ``writer``, or a spool beside it, or None where nothing is worth keeping. Whoever made it commits
    ``writer``, and calls ``drop`` or ``retain`` at the end, whatever happens.
    """

    def __init__(self, writer: BlobWriter, part: BlobWriter | None) -> None:
        self.writer = writer
        self._part = part
        self.n_kept = part.n_kept if part is not None else 0
        self._in = _Flushed(part, self.n_kept) if part is not None else None
        self._out = _Flushed(writer, 0) if writer is not part else None
        self.spent = Spent()  # what it had cost when it ended
        self._arrived = self.n_kept
        self._is_doubtful = False  # what the part has in memory may not be what the disk has

    @property
    def spool(self) -> BlobWriter | None:
        """The part, if it is another file than the one that is committed."""
        return self._part if self._part is not self.writer else None

    def spool_is_in_the_way(self, left: int) -> bool:
        """Whether a tar that found no room may have it without the spool: it was these two that filled most
        of the ``left`` bytes that could be written when they were begun. If not, the spool is worth keeping.
        """
        written = self.spent.in_nbytes - self.n_kept + self.spent.out_nbytes
        return self.spool is not None and written >= left * 3 // 4

    async def feed_kept(self, pool: Pool, layer: PoolLayer, progress: Callable[[int], None]) -> bool:
        """Submit what is here already to ``layer``, read from the disk. False: the layer takes no more.

        Raises SourceUnreadable when the part cannot be read, or ends before ``n_kept``.
        """
        part = self._part
        if part is None or not self.n_kept:
            return True
        at = 0
        try:
            await in_thread(part.forget_cached)
            while at < self.n_kept:
                buf = await pool.take_soon(layer=layer)
                try:
                    n = await in_thread(part.read_kept, buf.view[: self.n_kept - at], at)
                    if n == 0:
                        raise SourceUnreadable(f"{part.path} ends at byte {at}, and had {self.n_kept}")
                except BaseException:
                    pool.give_back(buf)
                    raise
                at += n
                if not layer.submit(buf, n):
                    return False
                progress(n)
        except LocalError as exc:
            raise SourceUnreadable(str(exc)) from exc
        return True

    def advance(self, nbytes: int) -> None:
        """So many more bytes of the blob have come."""
        self._arrived += nbytes

    def behind_s(self) -> float:
        """How long to wait for the disk before more of the blob is read, 0 to go on."""
        part = self._in
        return _BEHIND_S if part is not None and self._arrived - part.nbytes >= 2 * FLUSH_NBYTES else 0.0

    async def keep_pace(self, layer: PoolLayer) -> None:
        """Runs beside ``layer`` until cancelled: brings to the disk what was written.

        Raises LocalError, NoSpace: nothing of that file is to be believed then.
        """
        while True:
            await asyncio.sleep(CHECK_S)
            spent = layer.spent()
            if self._in is not None and spent.in_nbytes - self._in.nbytes >= FLUSH_NBYTES:
                await self._flush(self._in, spent.in_nbytes, layer)
            if self._out is not None and spent.out_nbytes - self._out.nbytes >= FLUSH_NBYTES:
                await self._flush(self._out, spent.out_nbytes, layer)

    def drop(self) -> None:
        """Leave nothing behind, but what was committed. Never raises; may be called again."""
        self.writer.abort()
        if self._part is not None:
            self._part.abort()

    def retain(self) -> None:
        """Leave the part for the next run, if there is one that can be believed. Never raises; may be called
        again, and after ``drop``.
        """
        part = self._part
        if part is None or self._is_doubtful:
            self.drop()
            return
        part.retain()
        self.writer.abort()

    async def _flush(self, one: _Flushed, nbytes: int, layer: PoolLayer) -> None:
        try:
            await in_thread(one.file.to_disk)
        except LocalError as exc:
            self._is_doubtful |= one.file is self._part
            if one.file is self.writer:
                raise
            log.info("%s is given up: %s", one.file.path, exc)
            layer.end_spool()
            self._in = None
        else:
            one.nbytes = nbytes
