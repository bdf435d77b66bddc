"""Files in which a layer is put together for several clients: found as long as they can be used."""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from layertee.errors import DigestMismatch, NoSpace
from layertee.image.document import Digest
from layertee.serve.offer import Sendable
from layertee.serve.sending import Sending
from layertee.serve.spools import Spools
from tests.support.sending import Assembled, Gate, open_files, sent

DATA = random.Random(4).randbytes((2 << 20) + 5)
NAME = Digest.of(DATA)


def blob(content: Assembled | None = None, name: Digest = NAME) -> Sendable:
    return Sendable(name, len(DATA), content or Assembled(DATA), "containers-storage:")


def run(main: Coroutine[Any, Any, None]) -> None:
    """``main``, after which nothing is open that was not open before."""
    before = open_files()
    asyncio.run(main)
    assert open_files() == before


def test_what_the_last_user_gave_back_is_not_found_while_it_is_closed() -> None:
    async def main() -> None:
        threads = Gate()
        threads.gate.set()
        spools = Spools(threads, asyncio.Semaphore(2))
        made = await spools.make(blob())
        assert spools.use(NAME) is made
        spools.give_back(made)
        threads.gate.clear()  # the file stays open until a thread has closed it
        spools.give_back(made)
        assert spools.use(NAME) is None
        again = asyncio.create_task(spools.make(blob()))
        threads.gate.set()
        other = await again
        piece = await asyncio.to_thread(other.piece)
        assert piece.size == len(DATA)
        piece.close()
        spools.give_back(other)
        await spools.close()
        threads.shutdown()

    run(main())


def test_one_that_cannot_be_opened_is_forgotten_and_the_layer_comes_without_it() -> None:
    async def main() -> None:
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0)
        content = Assembled(DATA)
        slow = await sending.open(blob(content), 0, len(DATA))
        first = await sending.open(blob(content), 0, len(DATA))
        assert first.file is not None
        # All that this process may open is open: the file without a name cannot be opened once more.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.dup(0)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            waiting = asyncio.create_task(sending.open(blob(content), 0, 10))
            await slow.close()
            outgoing = await waiting
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert outgoing.file is None
        assert await sent(outgoing, 10) == DATA[:10]
        await first.close()
        await sending.close()

    run(main())


def test_the_limit_counts_what_is_being_made_and_what_fails_leaves_nothing() -> None:
    async def main() -> None:
        threads = ThreadPoolExecutor(2)
        spools = Spools(threads, asyncio.Semaphore(2), limit=len(DATA))
        with pytest.raises(DigestMismatch):
            await spools.make(blob(name=Digest.of(b"another")))
        made = await spools.make(blob())
        with pytest.raises(NoSpace):
            await spools.make(blob(name=Digest.of(b"one more")))
        spools.give_back(made)
        await spools.close()
        made = await spools.make(blob())
        spools.give_back(made)
        await spools.close()
        threads.shutdown()

    run(main())


def test_who_leaves_while_it_is_made_leaves_nothing_open() -> None:
    async def main() -> None:
        threads = Gate()
        spools = Spools(threads, asyncio.Semaphore(2), limit=len(DATA))
        waiting = [asyncio.create_task(spools.make(blob())) for _ in range(3)]
        await threads.is_used.wait()
        for one in waiting:
            one.cancel()
        await asyncio.sleep(0)
        threads.gate.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in done} == {asyncio.CancelledError}
        made = await spools.make(blob())  # the limit has room for it
        spools.give_back(made)
        await spools.close()
        threads.shutdown()

    run(main())
