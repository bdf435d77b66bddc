"""How bytes get from bodies into the buffers of a layer. Real buffers and workers, no connection."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from layertee.core.pool import LayerJob, Pool, PoolLayer, Spent
from layertee.core.workers import open_pool
from layertee.errors import IntegrityError, LayerteeError, Timeout
from layertee.image.media import Compression
from layertee.transfer.limits import FetchLimits
from layertee.transfer.schedule import Part
from layertee.transfer.segment import MOST_AHEAD, MOST_QUEUED, Buffers, FetchReport, Intake, Segment
from tests.support.process import until

MIB = 1 << 20
LIMITS = FetchLimits(stall_s=10.0, stall_rate=1000)


@dataclass
class Script:
    """A body that has all its bytes at once, and what was asked of it."""

    data: bytes
    status: int = 206
    url: str = "https://registry.example/blob"
    content_length: int | None = None
    calls: list[str] = field(default_factory=list)
    aborted: LayerteeError | None = None
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def fields(self, name: str, /) -> list[str]:
        return []

    async def receive(self, receiver: Segment, nbytes: int, *, exact: bool = False) -> None:
        left = memoryview(self.data)[:nbytes]
        while left and "stop" not in self.calls and self.aborted is None:
            view = receiver.get_buffer()
            if view is None:
                self._go.clear()
                await self._go.wait()
                continue
            n = min(len(view), len(left), 100_000)
            view[:n], left = left[:n], left[n:]
            receiver.landed(n)
        if self.aborted is not None:
            raise self.aborted

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")
        self._go.set()

    def stop(self) -> None:
        self.calls.append("stop")

    def abort(self, exc: LayerteeError) -> None:
        self.aborted = exc
        self._go.set()

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class Rig:
    """A blob of ``content`` on its way into a pool of ``n_in`` buffers."""

    content: bytes
    pool: Pool
    layer: PoolLayer
    intake: Intake
    seen: list[int]

    def segment(self, start: int, stop: int) -> Segment:
        segment = Segment(Part(start, stop), self.intake, advance)
        segment.open()
        return segment

    async def bring(self, segment: Segment, *, skip: int = 0) -> None:
        """The rest of the segment's part, preceded by ``skip`` bytes that are here."""
        part = segment.part
        await segment.receive(self.body(part, skip), part.stop - part.pos + skip, skip=skip, exact=False)
        segment.close()

    def body(self, part: Part, skip: int = 0) -> Script:
        return Script(self.content[part.pos - skip : part.stop])


def advance(part: Part, nbytes: int) -> None:
    part.pos += nbytes


@asynccontextmanager
async def rig(
    content: bytes,
    *,
    n_in: int = 8,
    compression: Compression = Compression.NONE,
    limits: FetchLimits = LIMITS,
    pace: Callable[[], float] | None = None,
    behind: Callable[[], float] | None = None,
) -> AsyncIterator[Rig]:
    pool = open_pool(workers=1, n_in=n_in, n_out=6)
    try:
        buffers = Buffers(pool, limits)
        buffers.n_blobs = 1
        pool.on_free(buffers.on_free)
        layer = pool.open_layer(LayerJob(compression, len(content)))
        seen: list[int] = []
        intake = Intake("the blob", buffers, layer, FetchReport(), seen.append, pace, behind)
        try:
            yield Rig(content, pool, layer, intake, seen)
        finally:
            for segment in list(intake.segments):
                segment.close()
            intake.drop_ahead()
            await layer.abandon()
        assert pool.stats().in_used == 0, "a buffer was lost"
    finally:
        pool.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


def noise(nbytes: int) -> bytes:
    return hashlib.shake_256(b"segment").digest(nbytes)


def test_parts_come_in_any_order_and_leave_in_blob_order() -> None:
    async def main() -> None:
        content = noise(4 * MIB + 12_345)
        async with rig(content) as it:
            cuts = [0, MIB + 5, 3 * MIB, len(content)]
            parts = [it.segment(a, b) for a, b in itertools.pairwise(cuts)]
            for segment in (parts[2], parts[1], parts[0]):
                await it.bring(segment)
            it.layer.end()
            result = await it.layer.result()
            assert result.digest == "sha256:" + hashlib.sha256(content).hexdigest()
            assert sum(it.seen) == it.intake.report.nbytes == len(content)

    run(main())


def test_what_is_here_already_is_dropped_and_counted() -> None:
    async def main() -> None:
        content = noise(2 * MIB)
        async with rig(content) as it:
            await it.bring(it.segment(0, MIB))
            await it.bring(it.segment(MIB, 2 * MIB), skip=MIB)
            it.layer.end()
            assert (await it.layer.result()).size == len(content)
            assert sum(it.seen) == len(content)
            assert it.intake.report.nbytes == it.intake.buffers.nbytes == 3 * MIB

    run(main())


def test_a_part_that_is_shortened_meanwhile_ends_there() -> None:
    async def main() -> None:
        async with rig(noise(4 * MIB)) as it:
            segment = it.segment(0, 4 * MIB)
            body = it.body(segment.part)
            segment.part.stop = 2 * MIB
            await segment.receive(body, 4 * MIB, skip=0, exact=False)
            assert (segment.part.pos, sum(it.seen)) == (2 * MIB, 2 * MIB)
            assert body.calls == ["stop"]

    run(main())


def test_what_broke_off_within_a_buffer_is_filled_up_by_the_next_body() -> None:
    async def main() -> None:
        content = noise(2 * MIB)
        async with rig(content) as it:
            segment = it.segment(0, len(content))
            await segment.receive(Script(content[:300_000]), 300_000, skip=0, exact=False)
            assert it.seen == []
            await it.bring(segment)
            it.layer.end()
            assert (await it.layer.result()).digest == "sha256:" + hashlib.sha256(content).hexdigest()
            assert it.seen == [MIB, MIB]

    run(main())


def test_the_last_buffer_is_for_the_segment_that_the_layer_needs_next() -> None:
    async def main() -> None:
        content = noise(4 * MIB)
        async with rig(content, n_in=2) as it:
            ahead, further, first = (it.segment(i * MIB, (i + 1) * MIB) for i in (1, 2, 0))
            assert ahead.get_buffer() is not None
            assert further.get_buffer() is None
            assert further.waiting and further.held and it.intake.buffers.n_held == 1
            assert first.get_buffer() is not None and not first.waiting

    run(main())


def test_who_waits_is_woken_when_buffers_are_free_again() -> None:
    async def main() -> None:
        content = noise(8 * MIB)
        async with rig(content, n_in=2) as it:
            cuts = [i * MIB for i in range(9)]
            segments = [it.segment(a, b) for a, b in itertools.pairwise(cuts)]
            await asyncio.gather(*(it.bring(segment) for segment in reversed(segments)))
            it.layer.end()
            assert (await it.layer.result()).digest == "sha256:" + hashlib.sha256(content).hexdigest()

    run(main())


def test_a_layer_that_refuses_stops_every_segment() -> None:
    async def main() -> None:
        content = noise(64 * MIB)  # no gzip at all
        async with rig(content, compression=Compression.GZIP) as it:
            segment = it.segment(0, len(content))
            body = it.body(segment.part)
            await segment.receive(body, len(content), skip=0, exact=False)
            assert it.intake.refused and "stop" in body.calls
            assert segment.part.pos < len(content)
            segment.close()
            it.layer.end()
            with pytest.raises(IntegrityError):
                await it.layer.result()

    run(main())


@dataclass
class Slow(Script):
    """Brings ``data`` when it may begin, then nothing more."""

    begin: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, receiver: Segment, nbytes: int, *, exact: bool = False) -> None:
        await self.begin.wait()
        await super().receive(receiver, len(self.data), exact=exact)
        self._go.clear()
        await self._go.wait()
        if self.aborted is not None:
            raise self.aborted


@pytest.mark.parametrize(("nbytes", "is_slow"), [(9_999, True), (10_000, False)])
def test_a_connection_that_brings_too_little_is_given_up(nbytes: int, is_slow: bool) -> None:
    """Ten seconds at 1,000 bytes a second."""

    async def main() -> None:
        async with rig(noise(MIB)) as it:
            segment = it.segment(0, MIB)
            segment.check_stall(0.0, LIMITS)  # without a body nobody is late
            body = Slow(b"x" * nbytes)
            receiving = asyncio.create_task(segment.receive(body, MIB, skip=0, exact=False))
            await asyncio.sleep(0)
            segment.check_stall(100.0, LIMITS)
            body.begin.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert segment.part.pos == nbytes
            segment.check_stall(109.9, LIMITS)
            assert body.aborted is None
            segment.check_stall(110.0, LIMITS)
            assert (body.aborted is not None) is is_slow
            segment.check_stall(120.0, LIMITS)  # nothing came since
            with pytest.raises(Timeout, match=r"the blob: \d+ bytes in 10 s, the connection is too slow"):
                await receiving

    run(main())


def test_what_was_before_this_process_stood_still_does_not_count() -> None:
    async def main() -> None:
        async with rig(noise(MIB)) as it:
            segment = it.segment(0, MIB)
            body = Slow(b"")
            receiving = asyncio.create_task(segment.receive(body, MIB, skip=0, exact=False))
            await asyncio.sleep(0)
            segment.check_stall(100.0, LIMITS)
            segment.check_stall(400.0, LIMITS, anew=True)
            segment.check_stall(400.1, LIMITS)
            segment.check_stall(409.0, LIMITS)
            assert body.aborted is None
            segment.check_stall(410.1, LIMITS)
            assert body.aborted is not None
            body.begin.set()
            with pytest.raises(Timeout):
                await receiving

    run(main())


def test_waiting_for_this_machine_is_no_stall() -> None:
    async def main() -> None:
        async with rig(noise(4 * MIB), n_in=2) as it:
            ahead, waiting = it.segment(MIB, 2 * MIB), it.segment(2 * MIB, 3 * MIB)
            assert ahead.get_buffer() is not None
            body = it.body(waiting.part)
            receiving = asyncio.create_task(waiting.receive(body, MIB, skip=0, exact=False))
            await asyncio.sleep(0)
            assert waiting.waiting and not waiting.streaming
            for now in (0.0, 100.0, 200.0):
                waiting.check_stall(now, LIMITS)
            assert body.aborted is None
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            assert not waiting.waiting

    run(main())


def test_a_pace_pauses_after_each_read_and_is_not_the_machine_waiting() -> None:
    async def main() -> None:
        waits = [0.005, 0.0, 0.005, 0.0]

        def pace() -> float:
            return waits.pop(0) if waits else 0.0

        content = noise(MIB)
        async with rig(content, pace=pace) as it:
            segment = it.segment(0, MIB)
            await it.bring(segment)
            assert waits == [] and segment.part.is_complete
            assert it.intake.buffers.n_held == 0

    run(main())


def test_the_rate_limit_is_the_machine_waiting() -> None:
    async def main() -> None:
        content = noise(MIB)
        async with rig(content, limits=dataclasses.replace(LIMITS, max_rate=50_000_000)) as it:
            await it.bring(it.segment(0, MIB))
            assert it.intake.buffers.n_held > 0

    run(main())


# --- what a killed process would lose ------------------------------------------------------------------


def test_what_a_blob_has_ahead_of_its_turn_is_bounded_whatever_buffers_are_free() -> None:
    async def main() -> None:
        content = noise((MOST_AHEAD + 8) * MIB)
        async with rig(content, n_in=MOST_AHEAD + 16) as it:
            head, rest = it.segment(0, MIB), it.segment(MIB, len(content))
            ahead = asyncio.create_task(it.bring(rest))
            await until(lambda: rest.waiting, "it never waits")
            assert rest.part.pos == (1 + MOST_AHEAD) * MIB
            assert it.pool.stats().in_used == MOST_AHEAD
            await it.bring(head)
            await ahead
            it.layer.end()
            assert (await it.layer.result()).size == len(content)

    run(main())


def test_nothing_is_read_while_a_layer_has_much_that_is_not_hashed() -> None:
    async def main() -> None:
        content = noise(MOST_QUEUED + 4 * MIB)
        async with rig(content, n_in=16, behind=lambda: 0.0) as it:
            hashed = it.layer.spent
            it.layer.spent = Spent  # type: ignore[method-assign]
            segment = it.segment(0, len(content))
            bringing = asyncio.create_task(it.bring(segment))
            await until(lambda: segment.held, "it never waits")
            assert MOST_QUEUED < segment.part.pos <= MOST_QUEUED + 2 * MIB
            it.layer.spent = hashed  # type: ignore[method-assign]
            await bringing
            it.layer.end()
            assert (await it.layer.result()).size == len(content)

    run(main())
