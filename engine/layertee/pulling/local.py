"""Blobs that are already on this machine, read into a pool like those from the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..aio import in_thread
from ..core.pool import Pool, PoolLayer
from ..disk.files import open_regular
from ..errors import SourceUnreadable


async def read_file(
    path: Path, pool: Pool, layer: PoolLayer, *, progress: Callable[[int], None] | None = None
) -> None:
    """Submit all bytes of ``path`` to ``layer`` and end it. Raises SourceUnreadable.

    When the layer itself fails, reading stops and returns: the layer's result tells why.
    """
    fd = open_regular(path)  # on this thread: a cancelled thread would leak it
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        pos = 0
        while True:
            buf = await pool.take_soon(layer=layer)
            try:
                n = await in_thread(os.preadv, fd, [buf.view], pos)
            except OSError as exc:
                pool.give_back(buf)
                raise SourceUnreadable(f"{path}: {exc.strerror}") from exc
            except BaseException:
                pool.give_back(buf)
                raise
            if n == 0:
                pool.give_back(buf)
                break
            pos += n
            if not layer.submit(buf, n):
                return
            if progress is not None:
                progress(n)
    finally:
        os.close(fd)
    layer.end()
