"""One blob through the pool, and what was measured held against what is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..aio import unwrapped_group
from ..core.pool import PoolLayer, inflated
from ..core.result import BlobResult, TeeResult
from ..errors import DiffIDMismatch, DigestMismatch, SizeMismatch

if TYPE_CHECKING:
    from ..image.document import Digest, Layer

Feed = Callable[[PoolLayer], Awaitable[None]]


async def measure_layer(pool_layer: PoolLayer, feed: Feed) -> BlobResult:
    """Feed a layer and wait for what it measured; whatever is raised, no worker touches it any more."""
    async with unwrapped_group() as group:
        group.create_task(_feed(feed, pool_layer))
        return await pool_layer.measured()


async def run_layer(pool_layer: PoolLayer, feed: Feed) -> TeeResult:
    """``measure_layer`` for a job that inflates."""
    return inflated(await measure_layer(pool_layer, feed))


async def _feed(feed: Feed, pool_layer: PoolLayer) -> None:
    await feed(pool_layer)


def check(result: BlobResult, layer: Layer, digest: Digest, size: int) -> None:
    """Raise unless what was measured is what is named: ``digest`` and ``size`` of the blob read, and
    the DiffID of ``layer`` if it was inflated and the image names one.
    """
    where = f"layer {layer.index}"
    if result.digest != digest:
        if result.size != size:
            raise SizeMismatch(
                f"{where}: {result.size} bytes arrived, {digest} has {size}", want=size, got=result.size
            )
        raise DigestMismatch(
            f"{where}: the {result.size} bytes that arrived hash to {result.digest}, {digest} is named",
            want=digest,
            got=result.digest,
            nbytes=result.size,
        )
    if result.size != size:
        raise SizeMismatch(
            f"{where}: {digest} has {result.size} bytes, its descriptor says {size}",
            want=size,
            got=result.size,
        )
    if isinstance(result, TeeResult) and not layer.is_opaque and result.diff_id != layer.diff_id:
        raise DiffIDMismatch(
            f"{where}: {digest} inflates to {result.diff_id}, the image config says {layer.diff_id}",
            want=layer.diff_id,
            got=result.diff_id,
        )
