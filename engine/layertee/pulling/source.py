"""Blobs that are already on this machine, read into a pool like those from the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..aio import in_thread
from ..errors import LayerteeError, SourceUnreadable
from ..record import dataclass
from .plan import LayerPlan, Source, SourceKind

if TYPE_CHECKING:
    from ..core.pool import Pool, PoolLayer
    from ..image.holding import BlobReader


class Openable(Protocol):
    """A Holding, or the content of one."""

    def open(self) -> BlobReader: ...


async def read_blob(
    blob: Openable,
    pool: Pool,
    layer: PoolLayer,
    *,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Submit the bytes of ``blob`` to ``layer`` and end it. ``progress`` is called with each number of bytes.

    Raises SourceUnreadable, also as soon as there are more than ``limit`` bytes. When the layer itself
    fails, reading stops and returns: the layer's result tells why.
    """
    reader = blob.open()  # on this thread: a cancelled thread would leak it
    total = 0
    try:
        while True:
            buf = await pool.take_soon(layer=layer)
            try:
                n = await in_thread(reader.readinto, buf.view)
                total += n
                if limit is not None and total > limit:
                    raise SourceUnreadable(f"there are more than the {limit} bytes that it should have")
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


@dataclass(frozen=True, slots=True)
class Opened:
    """A reader that is open already, as something that can be opened."""

    reader: BlobReader

    def open(self) -> BlobReader:
        return self.reader


def first_to_read(step: LayerPlan) -> tuple[Source, BlobReader | None]:
    """The first source of ``step`` whose bytes can be had, opened; no reader for the network's. Blocks."""
    failed: LayerteeError | None = None
    for source in step.sources:
        if source.kind in (SourceKind.TAR, SourceKind.NETWORK):
            return source, None
        if source.holding is None or not source.holding.readable:
            continue
        try:
            return source, source.holding.open()
        except SourceUnreadable as exc:
            failed = exc
    if failed is not None:
        raise failed
    raise ValueError(f"layer {step.layer.digest} is only in places that cannot give it back")
