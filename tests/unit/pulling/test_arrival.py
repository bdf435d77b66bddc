"""The files of a layer under way: what is flushed, when the network waits, and what stays."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from layertee import sync
from layertee.core.pool import LayerJob, Pool, Spent
from layertee.core.workers import open_pool
from layertee.disk.part import BlobWriter
from layertee.errors import LocalError, SourceUnreadable
from layertee.image.media import Compression
from layertee.pulling.arrival import FLUSH_NBYTES, Arrival
from layertee.store.store import Store
from tests.support.compress import digest_number
from tests.support.disk import Disk
from tests.support.process import until
from tests.support.store import layer_of


class Progress:
    """As much of a pool's layer as an arrival looks at."""

    number = -1

    def __init__(self) -> None:
        self.now = Spent()
        self.spool_ended = False

    def spent(self) -> Spent:
        return self.now

    def end_spool(self) -> None:
        self.spool_ended = True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as store:
        yield store


def part_of(store: Store, data: bytes = b"") -> BlobWriter:
    part = store.parts.writer(layer_of(1))
    assert part is not None
    if data:
        part.write(data)
        part.retain()
        return part_of(store)
    return part


def tar_of(store: Store) -> BlobWriter:
    return store.blobs.writer(digest_number(7))


def kept(store: Store) -> list[int]:
    return [part.nbytes for part in store.parts.all()]


async def pace(arrival: Arrival, layer: Progress, condition: Callable[[], object]) -> None:
    """``keep_pace`` until something has happened."""
    task = asyncio.create_task(arrival.keep_pace(layer))  # type: ignore[arg-type]
    try:
        await until(lambda: task.done() or condition(), "it does not happen")
        if task.done():
            await task
    finally:
        task.cancel()


@pytest.mark.parametrize("spooled", [False, True])
def test_what_was_written_is_brought_to_the_disk(store: Store, spooled: bool) -> None:
    part = part_of(store)
    writer = tar_of(store) if spooled else part
    arrival, layer, disk = Arrival(writer, part), Progress(), Disk()
    layer.now = Spent(FLUSH_NBYTES - 1, FLUSH_NBYTES - 1)
    flushed = [part.fileno(), *([writer.fileno()] if spooled else [])]

    def synced() -> list[object]:
        return [args[0] for name, args in disk.calls if name == "fdatasync"]

    async def main() -> None:
        with disk.watched():
            await pace(arrival, layer, lambda: len(disk.calls) >= 0)
            assert synced() == []
            layer.now = Spent(FLUSH_NBYTES, FLUSH_NBYTES)
            await pace(arrival, layer, lambda: len(synced()) == len(flushed))
            assert synced() == flushed

    sync.run(main())
    arrival.drop()


def test_the_network_waits_for_a_disk_that_is_slower(store: Store) -> None:
    part = part_of(store)
    arrival, layer = Arrival(part, part), Progress()
    arrival.advance(2 * FLUSH_NBYTES - 1)
    assert arrival.behind_s() == 0
    arrival.advance(1)
    assert arrival.behind_s() > 0
    layer.now = Spent(FLUSH_NBYTES)
    sync.run(pace(arrival, layer, lambda: arrival.behind_s() == 0))
    arrival.drop()


def test_a_part_that_cannot_be_flushed_is_not_kept(store: Store) -> None:
    part = part_of(store)
    part.write(b"some")
    arrival, layer = Arrival(part, part), Progress()
    layer.now = Spent(FLUSH_NBYTES)

    async def main() -> None:
        with Disk().watched(1, errno.EIO), pytest.raises(LocalError, match="syncing"):
            await pace(arrival, layer, lambda: False)

    sync.run(main())
    arrival.retain()
    assert kept(store) == []


def test_a_spool_that_cannot_be_flushed_ends_alone(store: Store) -> None:
    part, tar = part_of(store), tar_of(store)
    part.write(b"some")
    arrival, layer = Arrival(tar, part), Progress()
    layer.now = Spent(FLUSH_NBYTES)

    async def main() -> None:
        with Disk().watched(1, errno.EIO):
            await pace(arrival, layer, lambda: layer.spool_ended)

    sync.run(main())
    arrival.advance(10 * FLUSH_NBYTES)
    assert arrival.behind_s() == 0
    assert tar.path.exists()
    arrival.retain()
    assert kept(store) == [] and not tar.path.exists()


@pytest.mark.parametrize("spooled", [False, True])
def test_what_has_arrived_is_retained_and_its_tar_is_not(store: Store, spooled: bool) -> None:
    part = part_of(store, b"begun")
    tar = tar_of(store)
    arrival = Arrival(tar if spooled else part, part)
    assert arrival.n_kept == 5
    assert (arrival.spool is part) is spooled
    if not spooled:
        tar.abort()
    arrival.retain()
    assert kept(store) == [5] and not tar.path.exists()
    arrival.drop()
    assert kept(store) == [5], "what was let go of may be another's by now"


def test_a_layer_without_a_part_leaves_nothing(store: Store) -> None:
    tar = tar_of(store)
    tar.write(b"some")
    Arrival(tar, None).retain()
    assert not tar.path.exists()


def test_what_is_here_is_hashed_like_what_comes(store: Store) -> None:
    part = part_of(store, b"begun")
    arrival = Arrival(part, part)
    seen: list[int] = []

    async def main(pool: Pool) -> None:
        layer = pool.open_layer(LayerJob(Compression.NONE, 5))
        assert await arrival.feed_kept(pool, layer, seen.append)
        layer.end()
        result = await layer.result()
        assert (result.size, seen) == (5, [5])

    run_in_pool(main)
    arrival.drop()


def test_a_part_that_got_shorter_or_cannot_be_read_is_no_source(store: Store) -> None:
    part = part_of(store, b"begun")
    arrival = Arrival(part, part)
    part.path.write_bytes(b"beg")

    async def main(pool: Pool) -> None:
        layer = pool.open_layer(LayerJob(Compression.NONE, 5))
        with pytest.raises(SourceUnreadable, match="ends at byte 3, and had 5"):
            await arrival.feed_kept(pool, layer, lambda _: None)
        with Disk().watched(1), pytest.raises(SourceUnreadable, match="syncing"):
            await arrival.feed_kept(pool, layer, lambda _: None)
        await layer.abandon()

    run_in_pool(main)
    arrival.drop()


def run_in_pool(main: Callable[[Pool], Awaitable[None]]) -> None:
    async def inside() -> None:
        pool = open_pool(workers=1)
        try:
            await main(pool)
        finally:
            pool.close()

    sync.run(inside())
