"""What one image may cost: output, work, time and rate, over all of its layers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from layertee import sync
from layertee.core.pool import LayerJob, Spent
from layertee.core.workers import open_pool
from layertee.disk.blob_file import FileContent
from layertee.errors import DecodeError, OutputBudgetExceeded, Timeout, WorkBudgetExceeded
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.media import Compression, media_type_of
from layertee.options import Budget
from layertee.pulling.budget import CHECK_S, RATE_WINDOW_S, Pace, Spending
from layertee.pulling.measure import run_layer
from layertee.pulling.source import read_blob
from tests.support.compress import digest_number

GIB = 1 << 30


def layer(size: int) -> Layer:
    descriptor = Descriptor(media_type_of(Compression.ZSTD), digest_number(size), size)
    return Layer(0, descriptor, DiffID(str(Digest.of(b"%d" % size))), Compression.ZSTD)


class Running:
    """A layer in a pool, as far as a budget looks at it."""

    def __init__(self, spent: Spent) -> None:
        self.now = spent

    def spent(self) -> Spent:
        return self.now


async def beside(spending: Spending, *costs: Spent) -> None:
    """Let layers of these costs run beside each other for one look."""
    watches = [asyncio.create_task(spending.watch(Running(cost))) for cost in costs]  # type: ignore[arg-type]
    try:
        done, _ = await asyncio.wait(watches, timeout=2 * CHECK_S, return_when=asyncio.FIRST_EXCEPTION)
        for watch in done:
            watch.result()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


@pytest.mark.parametrize(
    ("sizes", "nbytes", "is_too_much"),
    [
        ([2 << 20], 4 * GIB, False),
        ([2 << 20], 4 * GIB + 100 * (2 << 20), False),
        ([2 << 20], 4 * GIB + 100 * (2 << 20) + 1, True),
        ([GIB], 64 * GIB, False),  # the absolute bound is the smaller one
        ([GIB], 64 * GIB + 1, True),
        ([2 << 20] * 100, 20 * GIB, False),
        ([2 << 20] * 100, 24 * GIB, True),
    ],
)
def test_what_an_image_may_inflate_to_grows_with_its_blobs(
    sizes: list[int], nbytes: int, is_too_much: bool
) -> None:
    spending = Spending(Budget(), [layer(size) for size in sizes])
    cost = Spent(1, nbytes, 0)
    if is_too_much:
        with pytest.raises(OutputBudgetExceeded):
            asyncio.run(beside(spending, cost))
    else:
        asyncio.run(beside(spending, cost))
        assert spending.output_left >= 1


def test_layers_that_have_ended_and_layers_beside_each_other_are_added_up() -> None:
    spending = Spending(Budget(free_output=100, max_growth=1, max_output=1000), [layer(1)])
    asyncio.run(beside(spending, Spent(0, 40, 0)))
    assert spending.output_left == 61
    asyncio.run(beside(spending, Spent(0, 30, 0), Spent(0, 30, 0)))
    with pytest.raises(OutputBudgetExceeded):
        asyncio.run(beside(spending, Spent(0, 2, 0)))
    with pytest.raises(OutputBudgetExceeded):  # and so does every one after it
        asyncio.run(beside(spending, Spent()))


@pytest.mark.parametrize(
    ("cost", "is_too_much"),
    [
        (Spent(0, 0, 30 * 10**9), False),
        (Spent(0, 0, 30 * 10**9 + 1), True),
        (Spent(10**9, 2 * 10**9, 330 * 10**9), False),  # a slow machine: 100 ns for each byte hashed
        (Spent(10**8, 0, 45 * 10**9), True),  # empty blocks: 450 ns a byte, and no output
    ],
)
def test_work_is_held_against_the_bytes_that_it_was_for(cost: Spent, is_too_much: bool) -> None:
    spending = Spending(Budget(), [layer(GIB)])
    if is_too_much:
        with pytest.raises(WorkBudgetExceeded, match="far more than layers do"):
            asyncio.run(beside(spending, cost))
    else:
        asyncio.run(beside(spending, cost))


def rle_bomb(n_blocks: int) -> bytes:
    """A zstd frame of blocks of four bytes, each of which gives 128 KiB of zeros (RFC 8878 3.1.1.2)."""
    block = (131072 << 3) | (1 << 1)
    head = bytes.fromhex("28b52ffd") + bytes([0, (17 - 10) << 3])
    body = (block.to_bytes(3, "little") + bytes(1)) * (n_blocks - 1)
    return head + body + (block | 1).to_bytes(3, "little") + bytes(1)


def test_a_bomb_is_given_up_long_before_its_end(core: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    bomb = tmp_path_factory.mktemp("bomb") / "blob"
    bomb.write_bytes(rle_bomb(400_000))  # 1.6 MB; 52 GB inflated

    async def main() -> Spent:
        spending = Spending(Budget(free_output=64 << 20, max_growth=100), [layer(bomb.stat().st_size)])
        pool = open_pool(workers=1, core=core)
        try:
            running = pool.open_layer(
                LayerJob(Compression.ZSTD, bomb.stat().st_size, out_budget=spending.output_left)
            )
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(spending.watch(running))
                try:
                    await run_layer(running, lambda one: read_blob(FileContent(bomb), pool, one))
                except DecodeError:
                    watch.cancel()
                    return running.spent()
            raise AssertionError("it was read to its end")
        finally:
            pool.close()

    spent = sync.run(main())
    assert spent.out_nbytes < 1 << 30
    assert spent.work_ns > 0


def test_without_a_least_rate_nothing_is_too_slow() -> None:
    pace = Pace(None)
    for now in range(0, 10_000, 10):
        pace.check(float(now), 0, is_fetching=True)


def at(pace: Pace, rate: int, *, seconds: float, is_fetching: Callable[[int], bool] = lambda _: True) -> None:
    for now in range(int(seconds) + 1):
        pace.check(float(now), now * rate, is_fetching=is_fetching(now))


def test_a_pull_that_is_slower_than_it_may_be_is_given_up_after_a_minute() -> None:
    at(Pace(1000), 1000, seconds=600)
    at(Pace(1000), 10, seconds=RATE_WINDOW_S - 1)
    with pytest.raises(Timeout, match="10 bytes a second came over the last 60 s; at least 1000"):
        at(Pace(1000), 10, seconds=RATE_WINDOW_S)


def test_time_in_which_nothing_comes_over_the_network_does_not_count() -> None:
    at(Pace(1000), 0, seconds=600, is_fetching=lambda now: now % 30 != 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_output": 0},
        {"max_growth": 0},
        {"free_output": -1},
        {"work_s": -1.0},
        {"work_ns_per_byte": 0.0},
        {"deadline_s": 0.0},
        {"min_rate": -1},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not a budget"):
        Budget(**wrong)  # type: ignore[arg-type]
