"""The core alone, on bytes that are in memory: kernels, one tee on one thread, and the pool.

The content is 64 MiB of this machine's own /usr in a tar, the same for every row. Rates are of the
uncompressed bytes, so that the formats compare, and of both streams where two are hashed at once.
``make bench-all`` runs it; ``python -m pytest bench/bench_tee.py --benchmark-json FILE`` keeps the numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import zstandard
from pytest_benchmark.fixture import BenchmarkFixture

from layertee.core import loading
from layertee.core.pool import LayerJob, Pool, PoolLayer
from layertee.core.result import TeeResult
from layertee.core.tee import Tee
from layertee.core.workers import open_pool
from layertee.errors import LayerteeError
from layertee.image.media import Compression
from layertee.sync import run
from tests.support.rig.layers import content_layers, write_tar

NBYTES = 64 << 20
PIECE = 1 << 20  # as the pool's input buffers
STREAMS = 4  # layers in flight at once
ROUNDS = 5


def c_core() -> tuple[Any, Any] | None:
    """``(ffi, lib)``, or None where it was not built."""
    try:
        return loading.c_core()
    except LayerteeError:
        return None


CORES = ["c", "python"] if c_core() else ["python"]


def kernels() -> list[str]:
    """The SHA-256 kernels that run on this CPU."""
    if (core := c_core()) is None:
        return []
    ffi, lib = core
    names: list[str] = []
    index = 0
    while (raw := lib.lt_kernel_name(index)) != ffi.NULL:
        if lib.lt_kernel_state(index) == lib.LT_OK:
            names.append(ffi.string(raw).decode())
        index += 1
    return names


@dataclass(frozen=True)
class Content:
    """One tar in all its forms."""

    blobs: dict[Compression, bytes]
    diff_id: str

    @property
    def tar(self) -> bytes:
        return self.blobs[Compression.NONE]


@pytest.fixture(scope="module")
def content() -> Content:
    """gzip as build tools write it (zlib, level 6); zstd at its default level."""
    pieces: list[bytes] = []
    (layer,) = content_layers(NBYTES, 1)
    write_tar(layer, pieces.append)
    tar = b"".join(pieces)
    blobs = {
        Compression.NONE: tar,
        Compression.GZIP: zlib.compress(tar, 6, 31),
        Compression.ZSTD: zstandard.ZstdCompressor().compress(tar),
    }
    return Content(blobs, "sha256:" + hashlib.sha256(tar).hexdigest())


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """The named kernel while the test runs, the default one afterwards."""
    found = c_core()
    assert found is not None
    ffi, lib = found
    assert lib.lt_kernel_use(request.param.encode()) == lib.LT_OK
    yield request.param
    lib.lt_kernel_use(ffi.NULL)


def measure(benchmark: BenchmarkFixture, nbytes: int, work: Callable[[], Any]) -> Any:
    """Run ``work``, which goes through ``nbytes``, and note its rate; what it returned last."""
    pedantic: Any = benchmark.pedantic  # untyped
    result = pedantic(work, rounds=ROUNDS, warmup_rounds=1)
    assert benchmark.stats is not None
    times = benchmark.stats.stats
    benchmark.extra_info["MB/s"] = nbytes / times.min / 1e6
    benchmark.extra_info["MB/s median"] = nbytes / times.median / 1e6
    return result


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("kernel", kernels(), indirect=True)
def test_sha256(benchmark: BenchmarkFixture, content: Content, kernel: str, lanes: int) -> None:
    """One stream, or two at once; a kernel of one lane takes two one after the other."""
    ffi, lib = loading.c_core()
    digests = ffi.new("uint8_t[64]")
    half = len(content.tar) // 2
    whole = ffi.from_buffer(content.tar)
    if lanes == 1:
        measure(benchmark, len(content.tar), lambda: lib.lt_sha256(whole, len(content.tar), digests))
        assert bytes(ffi.buffer(digests, 32)).hex() == content.diff_id.removeprefix("sha256:")
    else:
        rest = len(content.tar) - half
        measure(
            benchmark,
            len(content.tar),
            lambda: lib.lt_sha256_two(whole, half, digests, whole + half, rest, digests + 32),
        )
        assert bytes(ffi.buffer(digests, 32)) == hashlib.sha256(content.tar[:half]).digest()


@pytest.mark.parametrize("compression", list(Compression), ids=lambda c: c.value)
@pytest.mark.parametrize("core", CORES)
def test_tee(benchmark: BenchmarkFixture, content: Content, core: str, compression: Compression) -> None:
    """One blob through one tee: hash, inflate, hash, on one thread."""
    blob = memoryview(content.blobs[compression])

    def work() -> TeeResult:
        one = Tee(compression, core=core)
        for start in range(0, len(blob), PIECE):
            one.feed(blob[start : start + PIECE])
            while one.pending:
                one.feed(b"")
        return one.finish()

    result: TeeResult = measure(benchmark, len(content.tar), work)
    assert result.diff_id == content.diff_id


@pytest.mark.parametrize("compression", list(Compression), ids=lambda c: c.value)
@pytest.mark.parametrize("core", CORES)
def test_pool(benchmark: BenchmarkFixture, content: Content, core: str, compression: Compression) -> None:
    """Several blobs at once from memory through the pool's workers, as a pull without network and disk."""
    blob = memoryview(content.blobs[compression])

    async def feed(pool: Pool, layer: PoolLayer) -> TeeResult:
        for start in range(0, len(blob), PIECE):
            piece = blob[start : start + PIECE]
            buf = await pool.take_soon()
            buf.view[: len(piece)] = piece
            assert layer.submit(buf, len(piece))
        layer.end()
        return await layer.result()

    async def main() -> list[TeeResult]:
        pool = open_pool(core=core)
        try:
            layers = [pool.open_layer(LayerJob(compression, len(blob))) for _ in range(STREAMS)]
            return list(await asyncio.gather(*(feed(pool, layer) for layer in layers)))
        finally:
            pool.close()

    results: list[TeeResult] = measure(benchmark, STREAMS * len(content.tar), lambda: run(main()))
    assert {result.diff_id for result in results} == {content.diff_id}
