"""Layers that a place puts together out of many files, read into a pool like those from the network."""

from __future__ import annotations

from collections.abc import Callable

from ..aio import in_thread
from ..core.pool import Pool, PoolLayer
from ..image.readback import ReadBack


async def read_tar(
    holding: ReadBack, pool: Pool, layer: PoolLayer, *, progress: Callable[[int], None] | None = None
) -> None:
    """Submit the tar of ``holding`` to ``layer`` and end it. Raises SourceUnreadable.

    When the layer itself fails, reading stops and returns: the layer's result tells why.
    """
    reader = holding.open()  # on this thread: a cancelled thread would leak it
    try:
        while True:
            buf = await pool.take_soon(layer=layer)
            try:
                n = await in_thread(reader.readinto, buf.view)
            except BaseException:
                pool.give_back(buf)
                raise
            if n == 0:
                pool.give_back(buf)
                break
            if not layer.submit(buf, n):
                return
            if progress is not None:
                progress(n)
    finally:
        reader.close()
    layer.end()
