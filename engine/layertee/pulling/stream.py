"""One layer's uncompressed bytes, handed to a caller while they arrive.

Rule of this file: the end of a stream is given to nobody before both digests were compared. Whoever reads
until there is no more, in whatever way, has read what the image names.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from ..aio import in_thread, refuse_event_loop, until_done, unwrapped_group
from ..core.pool import LayerJob
from ..core.workers import open_pool
from ..errors import IntegrityError, SourceUnreadable
from ..transfer.fetcher import Fetcher
from ..transfer.servers import Sought
from .measure import check
from .source import Opened, first_to_read, read_blob

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from ..core.pool import Pool, PoolLayer
    from ..core.result import TeeResult
    from ..image.document import Layer
    from ..image.holding import BlobReader
    from ..options import Options
    from ..store.store import Store
    from .network import Network
    from .plan import LayerPlan, Source

# A stream has a pool of its own, so that a caller who stops reading holds up nobody else.
STREAM_IN, STREAM_OUT = 4, 8
_FILE_NBYTES = 256 << 10  # as a piece
_LEFT = "the layer cannot be read: the block that opened it was left"


class LayerStream:
    """The tar of one layer, in pieces of at most 256 KiB. Read it in one of three ways:

    ``async for``, on the event loop that it was opened on: each piece is a read-only memoryview that is valid
    until the next one is asked for. ``for``, in any other thread: each piece is bytes. ``file()``, for other
    threads as well. A caller that does not ask slows the source down.

    The end comes only when both digests matched; else IntegrityError is raised in its place. Until then
    nothing that was read is verified: act on the content after the end, or be able to undo it. Leaving the
    block that made the stream raises IntegrityError unless it was read to its end, or given up.
    """

    def __init__(self, layer: PoolLayer, judge: Callable[[TeeResult], None]) -> None:
        self._layer = layer
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._turn = asyncio.Lock()
        self._reader: asyncio.Task[bytes | None] | None = None  # for another thread
        self._gone: BaseException | None = None
        self._given_up = False
        self._is_left = False
        self._file: _File | None = None
        self._result: TeeResult | None = None

    @property
    def result(self) -> TeeResult | None:
        """Both digests and sizes, once they are known to match."""
        return self._result

    # --- on the event loop ---

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self

    async def __anext__(self) -> memoryview:
        self._refuse_pieces()
        piece = await self._next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> memoryview | None:
        """The next piece, None at the end, which is given once both digests were compared."""
        piece = await self._layer.read()
        if piece is None:
            await self._verified()
        return piece

    def _refuse_pieces(self) -> None:
        if self._file is not None:
            raise RuntimeError("the layer is read as a file, and has no pieces besides: file() was called")

    async def _verified(self) -> TeeResult:
        if self._result is None:
            measured = await self._layer.result()
            self._judge(measured)
            self._result = measured
        return self._result

    # --- in other threads ---

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = self.read_piece()
        if piece is None:
            raise StopIteration
        return piece

    def read_piece(self) -> bytes | None:
        """The next piece, None at the end. Blocks, so it is for other threads than the event loop's.

        Raises what kept the bytes from coming, IntegrityError in place of the end of a layer that is not what
        the image names, ValueError after the block was left, RuntimeError on an event loop, in a process that
        was forked meanwhile, and once ``file`` was called.
        """
        self._refuse_pieces()
        return self._read_piece()

    def _read_piece(self) -> bytes | None:
        if self._pid != os.getpid():
            raise RuntimeError("the layer was opened by the parent of this process, which alone can read it")
        refuse_event_loop("there, read a layer with 'async for'")
        if self._gone is not None:
            raise self._gone
        return asyncio.run_coroutine_threadsafe(self._copied(), self._loop).result()

    def file(self) -> io.BufferedReader:
        """The rest of the stream as a file for another thread, ``tarfile.open(fileobj=…, mode="r|")`` say:
        without the pieces that were read before. From now on there are none (RuntimeError).

        Its end is that of the stream: the last read raises where the layer is not what the image names. A
        reader of tars stops before, at the end of the archive. What it left is read, and compared, when the
        block of the stream is left; closing the file changes nothing. A stream has one file, which is closed
        from then on: reading it raises ValueError.
        """
        if self._file is None:
            self._file = _File(self)
        return self._file

    def give_up(self) -> None:
        """No more is wanted: the block may be left, and nothing is said about the content."""
        self._given_up = True

    async def _copied(self) -> bytes | None:
        """Copied here, as the memory of a piece may be gone when the other thread comes to it."""
        async with self._turn:
            if self._gone is not None:
                raise self._gone
            self._reader = asyncio.current_task()
            try:
                piece = await self._next()
                return None if piece is None else bytes(piece)
            except asyncio.CancelledError:
                if self._gone is None:
                    raise
                raise self._gone from None  # the cancellation was ours
            finally:
                self._reader = None

    # --- for who opened it ---

    def _fail(self, why: BaseException) -> None:
        """Whoever reads in another thread, now or later, gets ``why``."""
        if self._gone is None:
            self._gone = why
        if self._reader is not None:
            self._reader.cancel()

    async def _leave(self) -> None:
        """Nobody reads any more when this returns."""
        self._is_left = True
        self._fail(ValueError(_LEFT))
        while (reader := self._reader) is not None:
            reader.cancel()
            await until_done(reader)

    async def _finish(self) -> None:
        """See to it that the content is verified, as far as it was not given up. Raises IntegrityError."""
        if self._given_up:
            return
        if self._file is not None:
            while await self._next() is not None:
                pass
        elif self.result is None and await self._layer.read() is not None:
            self._layer.cancel()
            raise IntegrityError("the layer was not read to its end, so nothing is known about its content")
        await self._verified()


class _LayerFile(io.RawIOBase):
    """A stream as the standard library has files."""

    def __init__(self, stream: LayerStream) -> None:
        self._stream = stream
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.closed:
            raise ValueError("I/O operation on a closed file")
        if self._stream._is_left:
            raise ValueError(_LEFT)
        if not self._left:
            self._left = memoryview(self._stream._read_piece() or b"")
        view = memoryview(buffer).cast("B")
        n = min(len(view), len(self._left))
        view[:n] = self._left[:n]
        self._left = self._left[n:]
        return n


class _File(io.BufferedReader):
    """A stream's one file. Once the block of the stream was left, not even what was read ahead is given."""

    def __init__(self, stream: LayerStream) -> None:
        super().__init__(_LayerFile(stream), _FILE_NBYTES)
        self._stream = stream

    @property
    def closed(self) -> bool:
        return super().closed or self._stream._is_left

    def _check(self) -> None:
        if super().closed:
            raise ValueError("I/O operation on a closed file")
        if self._stream._is_left:
            raise ValueError(_LEFT)

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        self._check()
        return super().read1(size)

    def peek(self, size: int = 0, /) -> bytes:
        self._check()
        return super().peek(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._check()
        return super().readinto(buffer)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        self._check()
        return super().readinto1(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:  # for loops over lines as well
        self._check()
        return super().readline(size)


@asynccontextmanager
async def open_stream(
    step: LayerPlan, store: Store, options: Options, network: Callable[[], Network]
) -> AsyncIterator[LayerStream]:
    """The layer of ``step``, from the first of its sources that can be opened; as Engine.open_layer says."""
    layer = step.layer
    source, reader = await in_thread(first_to_read, step)
    fetched = layer if source.tar is None else layer.as_tar(source.tar.size)
    blob = fetched if source.holding is None else source.holding
    pool = open_pool(workers=1, n_in=STREAM_IN, n_out=STREAM_OUT, core=options.core)
    try:
        pool_layer = pool.open_layer(
            LayerJob(
                blob.compression,
                blob.size,
                stream=True,
                check_crc=False,  # the DiffID judges what comes out, and the blob is not kept
                window_max=options.zstd_window,
                media_type=layer.media_type,
            )
        )
        stream = LayerStream(pool_layer, lambda result: check(result, layer, blob.digest, blob.size))

        async def feed() -> None:
            try:
                await _feed(fetched, source, reader, pool, pool_layer, options, network)
            except Exception as exc:
                stream._fail(exc)
                raise

        async with unwrapped_group() as group:
            feeding = group.create_task(feed())
            try:
                yield stream
                await stream._finish()
            finally:
                feeding.cancel()
                try:
                    await stream._leave()
                finally:
                    await pool_layer.abandon()
        if stream.result is not None:
            await in_thread(store.blobs.record, stream.result)
    finally:
        if reader is not None:
            reader.close()
        pool.close()


async def _feed(
    layer: Layer,
    source: Source,
    reader: BlobReader | None,
    pool: Pool,
    pool_layer: PoolLayer,
    options: Options,
    network: Callable[[], Network],
) -> None:
    if reader is not None:
        await read_blob(Opened(reader), pool, pool_layer)
        return
    if source.registry is None:
        raise ValueError(f"layer {layer.digest} cannot be read from anywhere")
    # Connections of its own: a stream that nobody reads keeps one open for as long as it likes.
    fetcher = Fetcher(pool, options.limits)
    servers = await network().servers(source.registry)
    if source.tar is not None:
        tar = Sought(layer.diff_id, source.tar.size)
        if (there := servers.with_tar(tar, source.tar.size)) is None:
            raise SourceUnreadable(f"{source.tar.endpoint} is no endpoint of the image")
        servers = there
    async with unwrapped_group() as group:
        watch = group.create_task(fetcher.watch())
        await fetcher.fetch(layer.descriptor, servers, pool_layer)
        watch.cancel()
