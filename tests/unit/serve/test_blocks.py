"""Blobs that are put together while they are sent: wrong bytes are never the end of an answer."""

from __future__ import annotations

import asyncio
import random
import threading
import tracemalloc
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from layertee.core.chain import Chain, new_chain
from layertee.errors import DigestMismatch, LayerteeError, ServerBusy, SourceUnreadable
from layertee.image.document import Digest
from layertee.serve.blocks import BLOCK, BlockLists
from layertee.serve.offer import Sendable
from layertee.serve.outgoing import Outgoing
from layertee.serve.sending import Sending
from tests.support.sending import Assembled, AssembledBySkips, open_files, sent

SIZE = 3 * BLOCK + 12345
DATA = random.Random(1).randbytes(SIZE)
NAME = Digest.of(DATA)
RANGES = [
    *((0, SIZE), (0, 1), (0, BLOCK), (1, BLOCK), (BLOCK, 2 * BLOCK), (BLOCK - 1, BLOCK + 1)),
    *((5, SIZE), (3 * BLOCK, SIZE), (SIZE - 1, SIZE), (BLOCK + 7, 3 * BLOCK + 7), (9, 9)),
]
KINDS = [Assembled, AssembledBySkips]


def run(main: Coroutine[Any, Any, None]) -> None:
    """``main``, after which no file and no thread is left."""
    before = open_files()
    threads = threading.active_count()
    asyncio.run(main)
    assert open_files() == before
    assert threading.active_count() == threads


def blob_of(content: Assembled, name: Digest = NAME) -> Sendable:
    return Sendable(name, SIZE, content, "containers-storage:")


async def get(sending: Sending, blob: Sendable, start: int = 0, stop: int = SIZE) -> bytes:
    return await sent(await sending.open(blob, start, stop), stop - start)


async def cut(outgoing: Outgoing) -> tuple[bytes, LayerteeError]:
    """What arrives of an answer that does not end normally, and why."""
    got = b""
    with pytest.raises(LayerteeError) as caught:
        async for chunk in outgoing:
            got += bytes(chunk)
    await outgoing.close()
    return got, caught.value


async def rest_of(pieces: AsyncIterator[memoryview]) -> bytes:
    return b"".join([bytes(piece) async for piece in pieces])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_every_part_is_what_it_is(kind: type[Assembled], is_known: bool, start: int, stop: int) -> None:
    async def main() -> None:
        content = kind(DATA)
        sending = Sending()
        if is_known:
            assert await get(sending, blob_of(content)) == DATA
        assert await get(sending, blob_of(content), start, stop) == DATA[start:stop]
        assert content.open_now == 0
        await sending.close()

    run(main())


def test_what_a_range_does_not_need_is_not_read_once_the_blocks_are_known() -> None:
    async def main() -> None:
        content = AssembledBySkips(DATA)
        sending = Sending()
        await get(sending, blob_of(content), 0, 10)  # reads all of it once, and then the first block
        assert content.n_read == SIZE + BLOCK
        await get(sending, blob_of(content), 2 * BLOCK, 2 * BLOCK + 1)
        assert content.n_read == SIZE + 2 * BLOCK
        await sending.close()

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 5, SIZE - 1])
@pytest.mark.parametrize("how", ["changed", "cut off", "grown", "unreadable"])
def test_what_is_wrong_at_any_byte_is_never_sent_to_its_end(is_known: bool, at: int, how: str) -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending()
        if is_known:
            await get(sending, blob_of(content))
        if how == "changed":
            content.data[at] ^= 1
        elif how == "cut off":
            del content.data[at:]
        elif how == "grown":
            content.data[at:at] = b"x"
        else:
            content.fails_at = at
        wanted = (SourceUnreadable, DigestMismatch)
        try:
            outgoing = await sending.open(blob_of(content), 0, SIZE)
        except wanted:
            assert at < BLOCK
        else:
            got, why = await cut(outgoing)
            assert isinstance(why, wanted)
            assert len(got) < SIZE
            if is_known:  # nothing wrong leaves at all
                assert got == DATA[: len(got)]
        assert content.open_now == 0
        with pytest.raises(wanted):
            await get(sending, blob_of(content), at, SIZE)
        await sending.close()

    run(main())


def test_a_blob_that_is_not_what_its_name_says_is_cut_before_its_last_block() -> None:
    async def main() -> None:
        sending = Sending()
        content = Assembled(DATA)
        blob = blob_of(content, Digest.of(b"another"))
        for _ in range(2):
            got, why = await cut(await sending.open(blob, 0, SIZE))
            assert got == DATA[: 3 * BLOCK]
            assert isinstance(why, DigestMismatch)
        with pytest.raises(DigestMismatch):  # nothing of a part is sent before all of it was right
            await sending.open(blob, 0, 1)
        small = Sendable(Digest.of(b"another"), 4, Assembled(b"some"), "x")
        for start, stop in [(0, 4), (1, 2)]:
            with pytest.raises(DigestMismatch):
                await sending.open(small, start, stop)
        with pytest.raises(DigestMismatch):
            await sending.open(Sendable(NAME, 0, Assembled(b""), "x"), 0, 0)
        assert content.open_now == 0
        await sending.close()

    run(main())


def test_many_ranges_of_an_unknown_blob_wait_for_one_pass() -> None:
    async def main() -> None:
        content = AssembledBySkips(DATA)
        sending = Sending()
        parts = [(n * 1000, n * 1000 + 500) for n in range(30)]
        got = await asyncio.gather(*(get(sending, blob_of(content), *part) for part in parts))
        assert got == [DATA[start:stop] for start, stop in parts]
        assert content.n_read == SIZE + 30 * BLOCK
        await sending.close()

    run(main())


@pytest.mark.parametrize("when", ["at once", "in the middle", "between chunks"])
def test_a_client_that_goes_leaves_nothing_open(when: str) -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending(at_once=1)

        async def client(begun: asyncio.Event) -> None:
            outgoing = await sending.open(blob_of(content), 0, SIZE)
            try:
                async for _ in outgoing:
                    begun.set()
                    if when == "between chunks":
                        await asyncio.Event().wait()
            finally:
                await outgoing.close()

        for _ in range(3):
            begun = asyncio.Event()
            task = asyncio.create_task(client(begun))
            if when != "at once":
                await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert content.open_now == 0
        assert await get(sending, blob_of(content)) == DATA
        await sending.close()

    run(main())


# --- more clients than may be served at once -----------------------------------------------------


def test_who_waits_for_the_same_layer_gets_it_from_one_file() -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0)
        slow = await sending.open(blob_of(content), 0, SIZE)
        got = await asyncio.gather(*(get(sending, blob_of(content)) for _ in range(40)))
        assert all(one == DATA for one in got)
        assert content.opened == 2
        part = await sending.open(blob_of(content), 5, SIZE - 5)
        assert await get(sending, blob_of(content), 7, 10) == DATA[7:10]
        assert await sent(part, SIZE - 10) == DATA[5:-5]
        assert await sent(slow, SIZE) == DATA
        await sending.close()

    run(main())


def test_what_is_wrong_is_told_to_all_who_wait() -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0)
        slow = await sending.open(blob_of(content), 0, SIZE)
        content.data[SIZE - 1] ^= 1
        waiting = [get(sending, blob_of(content)) for _ in range(9)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in done} == {DigestMismatch}
        await slow.close()
        assert content.open_now == 0
        await sending.close()

    run(main())


def test_without_room_for_a_file_clients_wait_for_each_other_but_not_for_ever() -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0, wait_s=0.0, spools_limit=0)
        slow = await sending.open(blob_of(content), 0, SIZE)
        with pytest.raises(ServerBusy):
            await sending.open(blob_of(content), 0, SIZE)
        await slow.close()
        assert await get(sending, blob_of(content)) == DATA
        await sending.close()

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_clients_that_take_nothing_keep_nobody_out_and_get_the_rest_later(
    kind: type[Assembled], is_known: bool
) -> None:
    async def main() -> None:
        content = kind(DATA)
        sending = Sending(at_once=2, spools_limit=0)
        if is_known:
            await get(sending, blob_of(content))
        slow = [await sending.open(blob_of(content), 0, SIZE) for _ in range(2)]
        pieces = [aiter(one) for one in slow]
        got = [bytes(await anext(one)) for one in pieces]
        assert max(map(len, got)) < BLOCK
        assert await get(sending, blob_of(content)) == DATA
        more = await asyncio.gather(*(rest_of(one) for one in pieces))
        assert [a + b for a, b in zip(got, more, strict=True)] == [DATA] * 2
        for one in slow:
            await one.close()
        assert content.open_now == 0
        await sending.close()

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
def test_a_block_that_is_another_when_it_is_read_again_is_not_sent(is_known: bool) -> None:
    async def main() -> None:
        content = Assembled(DATA)
        sending = Sending(at_once=1, spools_limit=0)
        if is_known:
            await get(sending, blob_of(content))
        slow = await sending.open(blob_of(content), 0, SIZE)
        pieces = aiter(slow)
        first = len(await anext(pieces))
        other = await sending.open(blob_of(content), 0, 1)  # has the turn now
        await other.close()
        content.data[first] ^= 1
        with pytest.raises(DigestMismatch):
            await anext(pieces)
        await slow.close()
        await sending.close()

    run(main())


def test_hundreds_of_clients_have_little_in_memory() -> None:
    async def main() -> None:
        content = AssembledBySkips(DATA)
        sending = Sending(at_once=4, spools_limit=0)
        await get(sending, blob_of(content))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        slow: list[Outgoing] = []
        pieces = []
        for _ in range(60):
            outgoing = await sending.open(blob_of(content), 0, SIZE)
            slow.append(outgoing)
            pieces.append(aiter(outgoing))
            await anext(pieces[-1])
        nbytes = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert nbytes < 4 * 2 * BLOCK + 60 * (160 << 10)
        for outgoing in slow:
            await outgoing.close()
        await sending.close()

    run(main())


# --- what is kept of blocks -------------------------------------------------------------------------


def test_the_lists_that_were_used_longest_ago_go_first_and_one_too_large_is_not_kept() -> None:
    def blocks(n: int) -> Chain:
        made = new_chain("sha256", BLOCK)
        for _ in range(n):
            made.extend(memoryview(bytes(BLOCK)), is_last=False)
        return made

    lists = BlockLists(3 * blocks(2).nbytes)
    names = [Digest.of(bytes([n])) for n in range(4)]
    for name in names[:3]:
        lists.put(name, blocks(2))
    assert lists.get(names[0]) is not None
    lists.put(names[3], blocks(2))
    assert [lists.get(name) is not None for name in names] == [True, False, True, True]
    lists.put(names[2], blocks(2))  # in its own place
    assert lists.get(names[0]) is not None
    lists.put(names[1], blocks(20))
    assert lists.get(names[1]) is None
