"""Worker threads that hash, inflate and write many layers at once, over either core."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import os
import random
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertee import sync
from layertee.core.pool import InBuffer, LayerJob, Pool, PoolLayer
from layertee.core.result import BlobResult, TeeResult
from layertee.core.workers import open_pool
from layertee.errors import DecodeError, LocalError, NoSpace, OutputBudgetExceeded, WindowTooLarge
from layertee.image.media import Compression
from layertee.pulling.measure import run_layer
from tests.support.compress import digest_of, pack
from tests.support.cores import c_core_missing
from tests.support.process import until

T = TypeVar("T")
MIB = 1 << 20
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(100):
            return await main

    return sync.run(bounded())


@asynccontextmanager
async def opened(core: str, *, workers: int = 2, n_in: int = 8, n_out: int = 8) -> AsyncIterator[Pool]:
    """A pool that must have every buffer back at the end."""
    pool = open_pool(workers=workers, n_in=n_in, n_out=n_out, core=core)
    try:
        yield pool
        assert (pool.stats().in_used, pool.stats().in_queued) == (0, 0)
    finally:
        pool.close()


async def feed(pool: Pool, layer: PoolLayer, data: bytes, sizes: Iterator[int] | None = None) -> None:
    """All of ``data``, in buffers filled to ``sizes`` (or to the brim)."""
    pos = 0
    while pos < len(data):
        buf = await pool.take_soon(layer=layer)
        room = len(buf.view) if sizes is None else min(next(sizes), len(buf.view))
        part = data[pos : pos + room]
        buf.view[: len(part)] = part
        pos += len(part)
        if not layer.submit(buf, len(part)):
            return
        await asyncio.sleep(0)
    layer.end()


async def bring(pool: Pool, data: bytes, job: LayerJob, sizes: Iterator[int] | None = None) -> TeeResult:
    return await run_layer(pool.open_layer(job), lambda layer: feed(pool, layer, data, sizes))


def job_for(data: bytes, compression: Compression, **more: Any) -> LayerJob:
    return LayerJob(compression, len(data), **more)


def words(nbytes: int, seed: int) -> bytes:
    """Text that compresses about threefold."""
    rng = random.Random(seed)
    lines = [rng.randbytes(12).hex().encode() for _ in range(400)]
    return b"".join(rng.choices(lines, k=nbytes // 24 + 1))[:nbytes]


@dataclass(frozen=True, slots=True)
class Blob:
    tar: bytes
    data: bytes
    compression: Compression


def make(nbytes: int, compression: Compression, seed: int = 1) -> Blob:
    tar = words(nbytes, seed)
    return Blob(tar, pack(tar, compression), compression)


BLOBS = [
    make(nbytes, compression, seed)
    for seed, nbytes in enumerate((1024, 900_001, 3 * MIB, 5 * MIB + 1))
    for compression in Compression
]


def is_right(result: TeeResult, blob: Blob) -> bool:
    return (result.digest, result.size, result.diff_id, result.uncompressed_size) == (
        digest_of(blob.data),
        len(blob.data),
        digest_of(blob.tar),
        len(blob.tar),
    )


# --- what comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("write", ["in", None])
def test_a_blob_that_is_only_hashed_is_not_inflated(core: str, write: str | None, tmp_path: Path) -> None:
    """What is no gzip at all passes, and nobody can take the outcome for one that was inflated."""
    data = random.Random(1).randbytes(3 * MIB + 7)

    async def main() -> None:
        fd = os.open(tmp_path / "blob", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            async with opened(core) as pool:
                job = job_for(data, Compression.GZIP, fd=fd, write=write, digest_only=True)
                layer = pool.open_layer(job)
                await feed(pool, layer, data, None)
                found = await layer.measured()
                assert type(found) is BlobResult
                assert (found.digest, found.size) == (digest_of(data), len(data))
                with pytest.raises(TypeError, match="not inflated"):
                    await layer.result()
        finally:
            os.close(fd)

    run(main())
    assert (tmp_path / "blob").read_bytes() == (data if write else b"")


@pytest.mark.parametrize("more", [{"stream": True}, {"write": "out"}])
def test_a_job_that_inflates_nothing_has_no_output(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no output"):
        job_for(b"", Compression.GZIP, digest_only=True, **more)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("write", ["in", "out", None])
def test_many_layers_at_once_give_what_independent_codecs_say(
    core: str, workers: int, write: str | None, tmp_path: Path
) -> None:
    async def main() -> list[TeeResult]:
        async def one(index: int, blob: Blob) -> TeeResult:
            fd = os.open(tmp_path / str(index), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                rng = random.Random(index)
                sizes = iter(lambda: rng.randint(1, MIB), None)
                return await bring(
                    pool, blob.data, job_for(blob.data, blob.compression, fd=fd, write=write), sizes
                )
            finally:
                os.close(fd)

        async with opened(core, workers=workers, n_in=5, n_out=4) as pool:
            return list(await asyncio.gather(*(one(i, blob) for i, blob in enumerate(BLOBS))))

    for index, (result, blob) in enumerate(zip(run(main()), BLOBS, strict=True)):
        assert is_right(result, blob)
        written = (tmp_path / str(index)).read_bytes()
        assert written == {"in": blob.data, "out": blob.tar, None: b""}[write]


@pytest.mark.parametrize("compression", list(Compression))
def test_a_streamed_layer_is_its_tar_in_small_pieces(core: str, compression: Compression) -> None:
    blob = make(3 * MIB + 17, compression)

    async def main() -> tuple[bytes, TeeResult]:
        async with opened(core) as pool:
            layer = pool.open_layer(job_for(blob.data, compression, stream=True))
            got = bytearray()
            async with asyncio.TaskGroup() as group:
                group.create_task(feed(pool, layer, blob.data))
                while (piece := await layer.read()) is not None:
                    assert piece.readonly
                    assert 0 < len(piece) <= 256 << 10
                    got += piece
            return bytes(got), await layer.result()

    got, result = run(main())
    assert got == blob.tar
    assert is_right(result, blob)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", list(Compression))
def test_members_are_counted(core: str, compression: Compression, stream: bool) -> None:
    async def count(n: int) -> int:
        data = b"".join(pack(words(1000, seed), compression) for seed in range(n))
        async with opened(core) as pool:
            layer = pool.open_layer(job_for(data, compression, stream=stream))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(feed(pool, layer, data, itertools.cycle([300, 7])))
                while stream and await layer.read() is not None:
                    pass
            return (await layer.result()).n_members

    counted = [run(count(n)) for n in range(4)]
    assert counted == ([0, 1, 1, 1] if compression is Compression.NONE else [0, 1, 2, 3])


@pytest.mark.parametrize("actual", list(Compression)[1:])
@pytest.mark.parametrize("said", list(Compression)[1:])
@pytest.mark.parametrize("write", ["in", "out"])
def test_a_blob_is_taken_for_what_it_is_and_not_for_what_it_is_called(
    core: str, actual: Compression, said: Compression, write: str, tmp_path: Path
) -> None:
    blob = make(2 * MIB + 5, actual)
    data = blob.data

    async def main() -> None:
        async with opened(core) as pool:
            for sizes in (itertools.repeat(MIB), itertools.chain([1, 1, 1], itertools.repeat(MIB // 3))):
                fd = os.open(tmp_path / "layer", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                try:
                    result = await bring(pool, data, job_for(data, said, fd=fd, write=write), sizes)
                finally:
                    os.close(fd)
                assert is_right(result, blob) and result.compression is actual
                assert (tmp_path / "layer").read_bytes() == (data if write == "in" else blob.tar)

    run(main())


def test_an_empty_blob_is_an_empty_layer(core: str) -> None:
    async def main() -> None:
        async with opened(core) as pool:
            for compression in Compression:
                assert is_right(await bring(pool, b"", LayerJob(compression, 0)), Blob(b"", b"", compression))

    run(main())


def test_two_layers_are_hashed_in_two_lanes() -> None:
    if why := c_core_missing():
        pytest.skip(why)

    async def main() -> tuple[int, int]:
        blobs = [make(6 * MIB, Compression.GZIP, seed) for seed in (1, 2)]
        async with opened("c", workers=1, n_in=16, n_out=16) as pool:
            await asyncio.gather(*(bring(pool, b.data, job_for(b.data, b.compression)) for b in blobs))
            stats = pool.stats()
            assert stats.pair_nbytes + stats.single_nbytes == sum(len(b.data) + len(b.tar) for b in blobs)
            assert min(stats.inflate_ns, stats.hash_ns) > 0
            return stats.pair_nbytes, stats.single_nbytes

    # On a busy machine one layer can be through before the other is fed: then there was nothing to pair.
    assert any(paired > single for paired, single in (run(main()) for _ in range(5)))


def many_frames(tar: bytes, checksum: bool) -> bytes:
    """A zstd frame for every 100,000 bytes."""
    packer = zstandard.ZstdCompressor(level=1, write_checksum=checksum)
    return b"".join(packer.compress(tar[at : at + 100_000]) for at in range(0, len(tar), 100_000))


def flushed(tar: bytes) -> bytes:
    """One gzip member with a flush marker after every MiB, as compressors on many cores write it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts = [
        packer.compress(tar[at : at + MIB]) + packer.flush(zlib.Z_SYNC_FLUSH)
        for at in range(0, len(tar), MIB)
    ]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("check_crc", [True, False])
@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_an_idle_worker_decodes_pieces_of_a_lone_layer_ahead(
    compression: Compression, check_crc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := c_core_missing():
        pytest.skip(why)
    monkeypatch.setenv("LAYERTEE_INFLATE", "own")
    tar = words(9 * MIB, 3)
    packed = flushed(tar) if compression is Compression.GZIP else many_frames(tar, check_crc)
    blob = Blob(tar, packed, compression)

    async def main() -> bool:
        async with opened("c", workers=3, n_in=16, n_out=16) as pool:
            # Which worker finds what to do first is not ours to say: once in many is enough.
            for _ in range(500):
                job = job_for(blob.data, blob.compression, check_crc=check_crc)
                result = await bring(pool, blob.data, job)
                assert is_right(result, blob)
                assert result.n_members == (95 if compression is Compression.ZSTD else 1)
                if pool.stats().ahead_nbytes > 0:
                    return True
        return False

    assert run(main())


# --- what goes wrong, goes wrong for one layer ---------------------------------------------------


def test_a_corrupt_layer_fails_alone_and_says_where_and_why(core: str) -> None:
    good = make(2 * MIB, Compression.GZIP)
    first, second = (
        gzip.compress(words(300_000, 1), mtime=0),
        bytearray(gzip.compress(words(MIB, 2), mtime=0)),
    )
    second[-8] ^= 1
    cases = [
        (first + bytes(second), Compression.GZIP, "checksum", len(first)),
        (first + first[:-9], Compression.GZIP, "truncated", 2 * len(first) - 9),
        (first + b"surplus", Compression.GZIP, "trailing", len(first)),
        (b"not a gzip file at all", Compression.GZIP, "header", 0),
        (pack(b"x", Compression.ZSTD)[:-1], Compression.ZSTD, "truncated", None),
    ]

    async def main() -> None:
        async with opened(core) as pool:
            bad = [bring(pool, data, job_for(data, kind)) for data, kind, *_ in cases]
            healthy = bring(pool, good.data, job_for(good.data, good.compression))
            *failed, result = await asyncio.gather(*bad, healthy, return_exceptions=True)
            assert isinstance(result, TeeResult)
            assert is_right(result, good)
            for error, (_, _, reason, offset) in zip(failed, cases, strict=True):
                assert isinstance(error, DecodeError)
                assert error.reason == reason
                assert offset in (None, error.offset)

    run(main())


@pytest.mark.parametrize("write", ["in", "out"])
def test_a_full_disk_fails_the_layer_that_is_written_there(core: str, write: str) -> None:
    blob = make(2 * MIB, Compression.ZSTD)

    async def main() -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            async with opened(core) as pool:
                failed, result = await asyncio.gather(
                    bring(
                        pool, blob.data, job_for(blob.data, blob.compression, fd=full, write=write, path="/x")
                    ),
                    bring(pool, blob.data, job_for(blob.data, blob.compression)),
                    return_exceptions=True,
                )
        finally:
            os.close(full)
        assert isinstance(failed, NoSpace)
        assert failed.path == "/x"
        assert isinstance(result, TeeResult)
        assert is_right(result, blob)

    run(main())


def test_a_descriptor_that_cannot_be_written_is_a_sink_error(core: str) -> None:
    blob = make(MIB, Compression.GZIP)

    async def main() -> None:
        fd = os.open("/dev/null", os.O_RDONLY)
        try:
            async with opened(core) as pool:
                with pytest.raises(LocalError, match=r"/x: Bad file descriptor") as caught:
                    await bring(
                        pool, blob.data, job_for(blob.data, blob.compression, fd=fd, write="out", path="/x")
                    )
                assert not isinstance(caught.value, NoSpace)
        finally:
            os.close(fd)

    run(main())


def test_after_a_failure_input_is_declined_and_its_buffer_comes_back(core: str) -> None:
    async def main() -> None:
        async with opened(core, n_in=2) as pool:
            layer = pool.open_layer(LayerJob(Compression.GZIP, 100))
            buf = await pool.take_soon()
            buf.view[:4] = b"junk"
            assert layer.submit(buf, 4)
            with pytest.raises(DecodeError):
                await layer.result()
            for _ in range(5):
                assert not layer.submit(await pool.take_soon(), 4)
            layer.end()
            layer.cancel()
            with pytest.raises(DecodeError):
                await layer.result()

    run(main())


# --- bombs and windows ---------------------------------------------------------------------------


def zstd_frame(window_log: int, blocks: list[tuple[int, bytes, int]]) -> bytes:
    """A frame without content size or checksum: ``(type, body, size)`` blocks (RFC 8878 §3.1.1)."""
    out = bytearray(ZSTD_MAGIC + bytes([0, (window_log - 10) << 3]))
    for index, (kind, body, size) in enumerate(blocks):
        header = (index == len(blocks) - 1) | kind << 1 | size << 3
        out += header.to_bytes(3, "little") + body
    return bytes(out)


def new_peak_rss_kib() -> int:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_rss_kib()


def peak_rss_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD])
def test_a_bomb_is_refused_at_its_budget_while_memory_stays_flat(core: str, kind: Compression) -> None:
    if kind is Compression.ZSTD:
        bomb = zstd_frame(17, [(1, b"\0", 128 << 10)] * 8192)  # 1 GiB
    else:
        bomb = gzip.compress(bytes(64 * MIB), 9, mtime=0) * 16
    honest = make(MIB, kind)

    async def main() -> None:
        async with opened(core) as pool:
            before = new_peak_rss_kib()
            job = job_for(bomb, kind, out_budget=48 * MIB, media_type="application/x")
            failed, result = await asyncio.gather(
                bring(pool, bomb, job),
                bring(pool, honest.data, job_for(honest.data, kind)),
                return_exceptions=True,
            )
            assert isinstance(failed, OutputBudgetExceeded)
            assert isinstance(result, TeeResult)
            assert peak_rss_kib() - before < 40 << 10

    run(main())


def test_a_layer_of_exactly_its_budget_is_taken(core: str) -> None:
    blob = make(MIB, Compression.GZIP)

    async def main() -> None:
        async with opened(core) as pool:
            job = job_for(blob.data, blob.compression, out_budget=MIB)
            assert is_right(await bring(pool, blob.data, job), blob)
            job = job_for(blob.data, blob.compression, out_budget=MIB - 1)
            with pytest.raises(OutputBudgetExceeded):
                await bring(pool, blob.data, job)

    run(main())


def long_frame(tar: bytes) -> Blob:
    """As ``zstd --long=26`` writes it to a pipe."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=26)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return Blob(tar, encoder.compress(tar) + encoder.flush(), Compression.ZSTD)


@pytest.mark.parametrize("n_in", [4, 32])
def test_layers_with_large_windows_all_succeed_in_the_end(core: str, n_in: int) -> None:
    noise = random.Random(1).randbytes(6 * MIB)
    blobs = [long_frame(noise + bytes([seed]) + noise) for seed in range(3)]
    assert all(zstandard.get_frame_parameters(blob.data).window_size == 64 * MIB for blob in blobs)

    async def main() -> None:
        async with opened(core, n_in=n_in) as pool:
            jobs = [bring(pool, blob.data, job_for(blob.data, blob.compression)) for blob in blobs]
            for result, blob in zip(await asyncio.gather(*jobs), blobs, strict=True):
                assert is_right(result, blob)

    run(main())


def test_a_layer_that_waits_for_a_window_can_be_abandoned(core: str) -> None:
    blob = long_frame(words(MIB, 1))

    async def main() -> None:
        async with opened(core) as pool:
            owner = pool.open_layer(job_for(blob.data, blob.compression))
            waiting = pool.open_layer(job_for(blob.data, blob.compression))
            for layer in (owner, waiting):
                buf = await pool.take_soon()
                buf.view[:1000] = blob.data[:1000]
                layer.submit(buf, 1000)
                await asyncio.sleep(0.01)
            await waiting.abandon()
            await owner.abandon()
            assert is_right(await bring(pool, blob.data, job_for(blob.data, blob.compression)), blob)

    run(main())


def test_a_window_beyond_the_limit_is_refused(core: str) -> None:
    allowed, refused = (zstd_frame(log, [(0, b"abc", 3)]) for log in (27, 28))

    async def main() -> None:
        async with opened(core) as pool:
            result = await bring(pool, allowed, job_for(allowed, Compression.ZSTD))
            assert result.diff_id == "sha256:" + hashlib.sha256(b"abc").hexdigest()
            with pytest.raises(WindowTooLarge, match="a window of 256 MiB, and may have 128 MiB") as caught:
                await bring(pool, refused, job_for(refused, Compression.ZSTD))
            error = caught.value
            assert (error.reason, error.offset, error.hint) == ("window", 0, "zstd-window")
            assert (error.window, error.window_max) == (256 * MIB, 128 * MIB)
            job = job_for(refused, Compression.ZSTD, window_max=256 * MIB)
            assert (await bring(pool, refused, job)).diff_id == result.diff_id

    run(main())


# --- buffers ---------------------------------------------------------------------------------


def test_buffers_run_out_and_a_waiter_hears_of_the_next(core: str) -> None:
    async def main() -> None:
        heard: list[str] = []
        async with opened(core, n_in=3) as pool:
            pool.on_free(lambda: heard.append("free"))
            taken = [pool.take(), pool.take(keep=1)]
            assert pool.take(keep=1) is None
            assert pool.stats().in_used == 2
            taken.append(pool.take())
            assert pool.take() is None
            assert all(buf is not None and len(buf.view) == pool.in_nbytes for buf in taken)
            soon = asyncio.create_task(pool.take_soon(keep=1))
            await asyncio.sleep(0)
            first, second, third = (buf for buf in taken if buf is not None)
            pool.give_back(first)
            await until(lambda: heard, "nothing is heard")
            assert not soon.done()  # one is free, and one was to be kept
            pool.give_back(second)
            pool.give_back(await soon)
            pool.give_back(third)

    run(main())


def test_nobody_is_called_who_said_goodbye(core: str) -> None:
    async def main() -> None:
        heard: list[str] = []
        others: list[str] = []

        def listener() -> None:
            heard.append("free")

        async with opened(core, n_in=1) as pool:
            pool.on_free(listener)
            pool.on_free(lambda: others.append("free"))
            pool.off_free(listener)
            buf = pool.take()
            assert buf is not None
            assert pool.take() is None
            pool.give_back(buf)
            await until(lambda: others, "the other listener hears nothing")
        assert heard == []

    run(main())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_in=st.integers(1, 5),
    waiters=st.lists(
        st.tuples(
            st.integers(0, 4),  # keep
            st.integers(0, 3),  # steps before it asks
            st.integers(0, 3),  # steps it holds on
            st.sampled_from(["give back", "submit", "cancel"]),
        ),
        min_size=1,
        max_size=14,
    ),
)
def test_whoever_waits_for_a_buffer_is_woken(
    core: str, n_in: int, waiters: list[tuple[int, int, int, str]]
) -> None:
    async def main() -> None:
        async with opened(core, n_in=n_in, n_out=2) as pool:
            layer = pool.open_layer(LayerJob(Compression.NONE, 0))

            async def one(keep: int, before: int, during: int, end: str) -> None:
                for _ in range(before):
                    await asyncio.sleep(0)
                asking: asyncio.Task[InBuffer] = asyncio.create_task(pool.take_soon(min(keep, n_in - 1)))
                if end == "cancel":
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    asking.cancel()
                try:
                    buf = await asking
                except asyncio.CancelledError:
                    return
                for _ in range(during):
                    await asyncio.sleep(0)
                if end == "submit":
                    layer.submit(buf, 1)
                else:
                    pool.give_back(buf)

            await asyncio.gather(*(one(*waiter) for waiter in waiters))
            layer.end()
            result = await layer.result()
            assert result.size <= len(waiters)

    run(main())


# --- giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("write", ["in", "out"])
@pytest.mark.parametrize("way", ["abandon", "cancel result"])
def test_after_giving_up_the_descriptor_is_nobodys_any_more(
    core: str, write: str, way: str, tmp_path: Path
) -> None:
    blob = make(6 * MIB, Compression.GZIP)

    async def give_up(pool: Pool, after: int) -> None:
        fd = os.memfd_create("layer")
        watch = os.dup(fd)
        layer = pool.open_layer(job_for(blob.data, blob.compression, fd=fd, write=write))
        feeding = asyncio.create_task(feed(pool, layer, blob.data, itertools.repeat(50_000)))
        for _ in range(after):
            await asyncio.sleep(0)
        if way == "abandon":
            await layer.abandon()
        else:
            waiting = asyncio.create_task(layer.result())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        os.close(fd)
        nbytes = os.fstat(watch).st_size
        other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT, 0o600)
        assert other == fd  # the next to get this number must not get the layer's bytes
        await feeding
        await until(lambda: pool.stats().in_used == 0, "a worker is at it")
        assert os.fstat(other).st_size == 0
        assert os.fstat(watch).st_size == nbytes
        os.close(other)
        os.close(watch)

    async def main() -> None:
        async with opened(core) as pool:
            for after in (0, 1, 3, 7, 15):
                await give_up(pool, after)

    run(main())


def test_abandoning_twice_or_after_the_end_does_no_harm(core: str) -> None:
    blob = make(MIB, Compression.ZSTD)

    async def main() -> None:
        async with opened(core) as pool:
            layer = pool.open_layer(job_for(blob.data, blob.compression))
            await feed(pool, layer, blob.data)
            assert is_right(await layer.result(), blob)
            await layer.abandon()
            assert is_right(await layer.result(), blob)
            layer = pool.open_layer(job_for(blob.data, blob.compression))
            await layer.abandon()
            await layer.abandon()
            with pytest.raises(asyncio.CancelledError):
                await layer.result()

    run(main())


def test_an_abandoned_stream_gives_back_what_nobody_read(core: str) -> None:
    blob = make(4 * MIB, Compression.GZIP)

    async def main() -> None:
        async with opened(core, n_out=2) as pool:
            for _ in range(3):
                layer = pool.open_layer(job_for(blob.data, blob.compression, stream=True))
                feeding = asyncio.create_task(feed(pool, layer, blob.data))
                assert await layer.read() is not None
                await asyncio.sleep(0.01)
                await layer.abandon()
                await feeding
            result = await bring(pool, blob.data, job_for(blob.data, blob.compression))
            assert is_right(result, blob)

    run(main())


def test_a_reader_who_stops_stops_the_input(core: str) -> None:
    blob = make(24 * MIB, Compression.NONE)

    async def main() -> None:
        async with opened(core, n_in=4, n_out=4) as pool:
            layer = pool.open_layer(job_for(blob.data, blob.compression, stream=True))
            feeding = asyncio.create_task(feed(pool, layer, blob.data))
            first = await layer.read()
            assert first is not None
            seen = bytes(first)
            await until(lambda: pool.stats().in_used == 4, "the input does not wait for the reader")
            assert not feeding.done()
            assert bytes(first) == seen  # valid until the next read, whatever the workers do
            while (piece := await layer.read()) is not None:
                seen += piece
            await feeding
            await layer.result()
            assert seen == blob.tar

    run(main())


def test_more_layers_than_a_pool_takes_wait_for_nothing_they_need(core: str) -> None:
    blob = make(200_000, Compression.GZIP)

    async def main() -> None:
        async with opened(core, n_in=2, n_out=2) as pool:
            jobs = [bring(pool, blob.data, job_for(blob.data, blob.compression)) for _ in range(40)]
            assert all(is_right(result, blob) for result in await asyncio.gather(*jobs))

    run(main())


def test_a_machine_of_many_cores_has_no_more_workers_than_are_of_use(
    core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)))

    async def main() -> int:
        pool = open_pool(core=core)
        pool.close()
        return pool.workers

    assert run(main()) == 16
