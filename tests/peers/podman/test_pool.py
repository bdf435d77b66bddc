"""A layer put together out of many files, through the pool: what is measured, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from layertee import sync
from layertee.core.pool import LayerJob, Pool
from layertee.core.result import TeeResult
from layertee.core.workers import open_pool
from layertee.errors import SourceUnreadable
from layertee.image.document import DiffID
from layertee.image.holding import Holding
from layertee.image.media import Compression
from layertee.image.reference_storage import parse_storage
from layertee.places.podman.place import ContainersStoragePlace
from layertee.pulling.measure import run_layer
from layertee.pulling.source import read_blob
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import Entry, LayerSpec
from tests.support.rig.storage import StorageRig

pytestmark = pytest.mark.needs_root("these tools unpack layers as root")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 300 small files and one of 7 MiB."""
    files = [Entry(f"d{n // 40}/f{n}", seed=n + 1, size=n * 37) for n in range(300)]
    layer = LayerSpec((*files, Entry("big", seed=1, size=7 << 20)))
    return build_image(tmp_path_factory.mktemp("image"), [layer], compression="gzip-fast")


@pytest.fixture(scope="module")
def filled(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> StorageRig:
    store = StorageRig(tmp_path_factory.mktemp("filled") / "store", "overlay")
    store.take(image.skopeo_name, "localhost/os:1")
    return store


@pytest.fixture
def store(filled: StorageRig, tmp_path: Path) -> StorageRig:
    """A copy that a test may spoil."""
    return filled.copy(tmp_path / "store")


@pytest.fixture
def holding(store: StorageRig, image: BuiltImage) -> Holding:
    place = ContainersStoragePlace.of(parse_storage(store.name))
    diff_id = DiffID(image.layers[0].diff_id)
    holding = place.find([diff_id])[diff_id]
    assert holding.readable
    return holding


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def opened(core: str, n_in: int = 4) -> AsyncIterator[Pool]:
    pool = open_pool(workers=2, n_in=n_in, n_out=4, core=core)
    before = fds()
    try:
        yield pool
        assert fds() <= before
        assert (pool.stats().in_used, pool.stats().in_queued) == (0, 0)
    finally:
        pool.close()


def read(holding: Holding, core: str) -> tuple[TeeResult, list[int]]:
    """What the pool measured, and the progress that was told."""
    told: list[int] = []

    async def main() -> TeeResult:
        async with opened(core) as pool:
            layer = pool.open_layer(LayerJob(Compression.NONE, holding.size))
            return await run_layer(layer, lambda layer: read_blob(holding, pool, layer, progress=told.append))

    return sync.run(main()), told


def test_the_pool_measures_the_diff_id(holding: Holding, core: str) -> None:
    result, told = read(holding, core)
    assert result.diff_id == holding.diff_id
    assert result.digest == holding.digest
    assert result.size == holding.size == sum(told)


def test_a_file_that_is_gone_ends_it(holding: Holding, store: StorageRig, core: str) -> None:
    (store.tree(holding.diff_id) / "d3/f150").unlink()
    with pytest.raises(SourceUnreadable, match="d3/f150"):
        read(holding, core)


def test_a_layer_that_is_gone_ends_it_before_it_begins(
    holding: Holding, store: StorageRig, core: str
) -> None:
    store.tarsplit(holding.diff_id).unlink()
    with pytest.raises(SourceUnreadable, match="No such file"):
        read(holding, core)


def test_reading_stops_when_the_layer_has_failed(holding: Holding, core: str) -> None:
    """A tar is no gzip: the pool says so at its first bytes."""

    async def main() -> int:
        told: list[int] = []
        async with opened(core, n_in=2) as pool:
            layer = pool.open_layer(LayerJob(Compression.GZIP, 0))
            await read_blob(holding, pool, layer, progress=told.append)
            await layer.abandon()
        return sum(told)

    assert sync.run(main()) < holding.size


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_cancelled_read_leaves_no_buffer_and_no_descriptor(holding: Holding, core: str, steps: int) -> None:
    async def main() -> None:
        async with opened(core, n_in=2) as pool:
            layer = pool.open_layer(LayerJob(Compression.NONE, 0))
            reading = asyncio.create_task(read_blob(holding, pool, layer))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await layer.abandon()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    sync.run(main())


def test_a_holding_is_equal_by_what_it_says(holding: Holding) -> None:
    assert replace(holding) == holding
    assert pickle.loads(pickle.dumps(holding)) == holding
