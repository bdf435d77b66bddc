"""One layer's uncompressed bytes, handed to a caller while they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..errors import IntegrityError

if TYPE_CHECKING:
    from ..core.pool import PoolLayer
    from ..core.result import TeeResult


class LayerStream:
    """An async iterator over the tar of one layer, in pieces of at most 256 KiB.

    Each piece is a read-only memoryview that is valid until the next one is asked for. A caller
    that does not ask slows the source down. What has been read is *not yet verified*: only
    leaving the ``async with`` block that made this stream without an exception says that both
    digests matched, so act on the content after that, or be able to undo it.
    """

    def __init__(self, layer: PoolLayer) -> None:
        self._layer = layer
        self._ended = False
        self.result: TeeResult | None = None
        """Both digests and sizes, once the block has been left."""

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self

    async def __anext__(self) -> memoryview:
        piece = await self._layer.read()
        if piece is None:
            self._ended = True
            raise StopAsyncIteration
        return piece

    async def finish(self) -> TeeResult:
        """The measured result of a stream that was read to its end; called on leaving the block."""
        if not self._ended and await self._layer.read() is not None:
            self._layer.cancel()
            raise IntegrityError("the layer was not read to its end, so nothing is known about its content")
        self.result = await self._layer.result()
        return self.result
