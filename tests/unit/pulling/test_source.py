"""Blobs on this machine, read into a pool: what may be read, and what happens when it cannot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from layertee import sync
from layertee.core.pool import LayerJob, Pool
from layertee.core.result import TeeResult
from layertee.core.workers import open_pool
from layertee.disk.blob_file import FileContent
from layertee.disk.files import open_regular
from layertee.errors import SourceUnreadable
from layertee.image.media import Compression
from layertee.pulling.measure import run_layer
from layertee.pulling.source import read_blob
from tests.support.compress import digest_of


@asynccontextmanager
async def opened(core: str, n_in: int = 4) -> AsyncIterator[Pool]:
    pool = open_pool(workers=2, n_in=n_in, n_out=4, core=core)
    try:
        yield pool
        assert (pool.stats().in_used, pool.stats().in_queued) == (0, 0)
    finally:
        pool.close()


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def read(path: Path, core: str, compression: Compression = Compression.NONE) -> tuple[TeeResult, list[int]]:
    """What the pool measured on the file, and the progress that was told."""
    told: list[int] = []

    async def main() -> TeeResult:
        async with opened(core) as pool:
            return await run_layer(
                pool.open_layer(LayerJob(compression, 0)),
                lambda layer: read_blob(FileContent(path), pool, layer, progress=told.append),
            )

    return sync.run(main()), told


@pytest.mark.parametrize("nbytes", [0, 1, 1 << 20, (9 << 20) + 5])
def test_a_file_is_read_to_its_end(core: str, nbytes: int, tmp_path: Path) -> None:
    data = os.urandom(nbytes)
    (tmp_path / "blob").write_bytes(data)
    result, told = read(tmp_path / "blob", core)
    assert (result.digest, result.size) == (digest_of(data), nbytes)
    assert sum(told) == nbytes


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "vanished", "device", "below a file"])
def test_only_a_plain_file_is_read(core: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    path = tmp_path / "blob"
    match kind:
        case "symlink":
            path.symlink_to(tmp_path / "real")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
        case "below a file":
            path = tmp_path / "real" / "blob"
    before = fds()
    with pytest.raises(SourceUnreadable, match=str(path)):
        read(path, core)
    with pytest.raises(SourceUnreadable):
        open_regular(path)
    assert fds() == before


def test_a_read_error_names_the_file(core: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blob").write_bytes(b"x")

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(SourceUnreadable, match="blob: Input/output error"):
        read(tmp_path / "blob", core)


def test_reading_stops_when_the_layer_has_failed(core: str, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"junk" * (8 << 20))

    async def main() -> int:
        told: list[int] = []
        async with opened(core) as pool:
            layer = pool.open_layer(LayerJob(Compression.GZIP, 0))
            await read_blob(FileContent(tmp_path / "blob"), pool, layer, progress=told.append)
            await layer.abandon()
        return sum(told)

    assert sync.run(main()) < 32 << 20


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_cancelled_read_leaves_no_buffer_and_no_descriptor(core: str, steps: int, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(bytes(6 << 20))

    async def main() -> None:
        async with opened(core, n_in=2) as pool:
            before = fds()
            layer = pool.open_layer(LayerJob(Compression.NONE, 0))
            reading = asyncio.create_task(read_blob(FileContent(tmp_path / "blob"), pool, layer))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await layer.abandon()
            assert fds() <= before
            assert asyncio.all_tasks() == {asyncio.current_task()}

    sync.run(main())
