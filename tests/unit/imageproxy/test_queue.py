"""How the layers of an open image come into the store: begun, paced, given up, handed to their client."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from layertee.core.result import BlobResult, make_blob_result
from layertee.disk.blob_file import FileContent, OpenFile
from layertee.disk.locks import HeldLock, when_free
from layertee.disk.space import KeepFree, Space
from layertee.errors import DiffIDMismatch, DigestMismatch, NoSpace, StoreCorrupt, TransportError
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.holding import Basis, Holding
from layertee.image.media import OCI_LAYER, Compression
from layertee.imageproxy.appetite import AHEAD, N_AHEAD, N_WAITING
from layertee.imageproxy.queue import N_OPEN, Brought, LayerQueue
from layertee.pulling.ingest import Ingest
from layertee.pulling.plan import Action, LayerPlan, Source, SourceKind
from layertee.pulling.report import Ingested, LayerProgress
from layertee.store.store import Store
from tests.support.process import inode, open_inodes

MIB = 1 << 20


def name_of(index: int) -> Digest:
    return Digest("sha256:" + f"{index:064x}")


def step(index: int, size: int, content: int | None = None) -> LayerPlan:
    """Of a layer with a content of its own, or with that of another."""
    text = "sha256:" + hashlib.sha256(b"%d" % (index if content is None else content)).hexdigest()
    layer = Layer(
        index, Descriptor(f"{OCI_LAYER}+gzip", name_of(index), size), DiffID(text), Compression.GZIP
    )
    source = Source(kind=SourceKind.NETWORK, reason="not on this machine", wire_bytes=size, disk_bytes=size)
    return LayerPlan(layer, (source,))


def steps(*sizes: int) -> dict[Digest, LayerPlan]:
    return {name_of(index): step(index, size) for index, size in enumerate(sizes)}


class Bringer:
    """Stands for the network: says what was begun, and lets each layer end when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = store.room.ingest
        self.measured: list[tuple[int, bool]] = []
        self.wrong: list[int] = []  # each time that a layer is in here, it is not what it should be
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Future[None]] = {}
        self._began = asyncio.Condition()
        self.progress: dict[int, LayerProgress] = {}
        self.pace: dict[int, Callable[[], float]] = {}
        self.n_cancelled = 0
        self.busy = False

    def is_busy(self) -> bool:
        return self.busy

    async def lock(self, step: LayerPlan) -> HeldLock:
        name, blobs = step.layer.digest, self.store.blobs
        return await when_free(lambda: blobs.lock(name), blobs.lock_path(name), math.inf)

    async def stage(
        self, step: LayerPlan, lock: HeldLock, progress: LayerProgress, *, pace: Callable[[], float]
    ) -> Ingested:
        with lock:
            return await self._stage(step, progress, pace)

    async def _stage(self, step: LayerPlan, progress: LayerProgress, pace: Callable[[], float]) -> Ingested:
        index = step.layer.index
        self.progress[index], self.pace[index] = progress, pace
        self.begun.append(index)
        self.ends[index] = asyncio.get_running_loop().create_future()
        async with self._began:
            self._began.notify_all()
        try:
            await self.ends[index]
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        one = step.layer
        path = self.files / one.digest.hex
        path.touch()
        os.truncate(path, one.size)
        held = Holding(
            diff_id=one.diff_id,
            digest=one.digest,
            size=one.size,
            uncompressed_size=None,
            compression=one.compression,
            place="store",
            basis=Basis.COMPUTED,
            content=FileContent(path),
        )
        return Ingested(Action.FETCH, step.reason, held, None, one.size)

    async def measure(self, file: OpenFile, held: Holding, layer: Layer, *, inflate: bool) -> BlobResult:
        self.measured.append((layer.index, inflate))
        if layer.index in self.wrong:
            self.wrong.remove(layer.index)
            raise DigestMismatch(f"layer {layer.index}", want="a", got="b", nbytes=0)
        digest = bytes.fromhex(held.digest.hex)
        return make_blob_result(digest=digest, size=file.size, compression=held.compression)

    async def until_begun(self, index: int, *, times: int = 1) -> None:
        """It may have to wait for a lock, which is looked at now and then, or for a thread."""
        async with self._began:
            await self._began.wait_for(lambda: self.begun.count(index) >= times)

    def received(self, index: int, nbytes: int) -> bool:
        """So much of a layer has arrived; whether more may come."""
        self.progress[index].done = nbytes
        return self.pace[index]() == 0

    async def end(self, *indexes: int, error: Exception | None = None) -> None:
        for index in indexes:
            if error is None:
                self.ends[index].set_result(None)
            else:
                self.ends[index].set_exception(error)
        await settle()


async def settle() -> None:
    """Until every task waits for something that only the test can bring about."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def queue(
    store: Store, wanted: Mapping[Digest, LayerPlan], **options: Any
) -> AsyncIterator[tuple[LayerQueue, Bringer]]:
    bringer = Bringer(store)
    async with LayerQueue.open(
        cast(Ingest, bringer), store, Space(store.root, KeepFree()), wanted, poll_s=0, **options
    ) as made:
        await settle()
        yield made, bringer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def ask(made: LayerQueue, index: int) -> asyncio.Task[Brought]:
    return asyncio.ensure_future(made.get(name_of(index)))


def test_what_nobody_asked_for_is_begun_as_far_as_that_is_allowed(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(*[10 * MIB] * 6)) as (made, bringer):
            assert bringer.begun == [0, 1]
            await bringer.end(0, 1)
            assert bringer.begun == [0, 1, 2], "30 of 32 MiB"
            await bringer.end(2)
            assert bringer.begun == [0, 1, 2], "a client that does not ask stops the network"
            got = await made.get(name_of(0))
            assert got.held.digest == name_of(0)
            await settle()
            assert bringer.begun == [0, 1, 2, 3]

    asyncio.run(main())


def test_what_is_asked_for_is_begun_at_once_and_not_held_back(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB, 2 * AHEAD, MIB)) as (made, bringer):
            assert bringer.begun == [0]
            asked = ask(made, 1)
            await settle()
            assert bringer.begun == [0, 1, 2]
            assert bringer.received(1, 2 * AHEAD - 1)
            await bringer.end(0, 1, 2)
            assert (await asked).held.digest == name_of(1)

    asyncio.run(main())


def test_what_is_ahead_leaves_the_processor_to_what_the_client_waits_for(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(10 * MIB, 10 * MIB)) as (made, bringer):
            bringer.busy = True
            assert bringer.received(1, MIB), "nobody waits"
            asked = ask(made, 0)
            await settle()
            assert not bringer.received(1, 2 * MIB)
            bringer.busy = False
            assert bringer.received(1, 3 * MIB), "the network is what is slow: both may use it"
            await bringer.end(0)
            await asked

    asyncio.run(main())


def test_how_far_the_client_has_read_shows_in_the_descriptor_that_it_was_given(
    store: Store, tmp_path: Path
) -> None:
    async def main() -> None:
        async with queue(store, steps(64 * MIB, 4 * AHEAD)) as (made, bringer):
            asked = ask(made, 0)
            await settle()
            await bringer.end(0)
            await asked
            assert not bringer.received(1, 12 * MIB)
            content = tmp_path / "tar"
            content.touch()
            os.truncate(content, 128 * MIB)  # what the layer of 64 MiB inflates to
            with content.open("rb", buffering=0) as theirs:
                made.reads(theirs.fileno(), 0.5)
                assert not bringer.received(1, 12 * MIB)
                theirs.seek(40 * MIB)
                assert bringer.received(1, 12 * MIB)
                assert bringer.received(1, 32 * MIB - 1)
                assert not bringer.received(1, 32 * MIB)
                theirs.seek(1 << 40)
                assert not bringer.received(1, 76 * MIB), "there is no more to read than there is"

    asyncio.run(main())


@pytest.mark.parametrize("client_has", [frozenset(), frozenset(map(name_of, range(4)))])
def test_what_the_client_reads_makes_room_for_another_layer(
    store: Store, tmp_path: Path, client_has: frozenset[Digest]
) -> None:
    """Also where nothing was left to fetch until the client asked for a layer that it was thought to have."""

    async def main() -> None:
        async with queue(store, steps(*[15 * MIB] * 4), client_has=client_has) as (made, bringer):
            asked = ask(made, 0)
            await settle()
            await bringer.end(0, 1)
            await asked
            await settle()
            await bringer.end(2)
            content = tmp_path / "blob"
            content.touch()
            os.truncate(content, 15 * MIB)
            with content.open("rb", buffering=0) as theirs:
                made.reads(theirs.fileno())
                await settle()
                assert bringer.begun == [0, 1, 2]
                theirs.seek(0, os.SEEK_END)
                await settle()
                assert bringer.begun == [0, 1, 2, 3]

    asyncio.run(main())


def test_a_layer_that_waits_too_long_for_its_client_is_given_up_until_it_is_asked_for(store: Store) -> None:
    """Others may want it, and cannot bring it meanwhile."""

    async def main() -> None:
        async with queue(store, steps(3 * AHEAD, MIB), patience_s=0.0) as (made, bringer):
            assert not bringer.received(0, AHEAD), "it waits"
            assert not bringer.received(0, AHEAD), "and has waited for too long"
            await settle()
            assert bringer.n_cancelled == 1
            assert bringer.begun == [0], "and it is not begun again by itself"
            asked = ask(made, 0)
            await settle()
            assert bringer.begun == [0, 0, 1]
            await bringer.end(0)
            await asked

    asyncio.run(main())


def test_one_content_in_two_blobs_is_brought_twice_and_neither_waits(store: Store) -> None:
    """A client that asks for one of two blobs cannot be given the other, nor wait until it has read that."""

    async def main() -> None:
        wanted = {name_of(0): step(0, MIB), name_of(1): step(1, MIB, content=0)}
        async with queue(store, wanted) as (made, bringer):
            one, two = ask(made, 0), ask(made, 1)
            await bringer.until_begun(1)
            assert bringer.begun == [0, 1]
            await bringer.end(1)
            assert (await two).held.digest == name_of(1)
            await bringer.end(0)
            assert (await one).held.digest == name_of(0)

    asyncio.run(main())


def test_a_layer_is_handed_out_by_the_descriptor_through_which_it_was_hashed(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB)) as (made, bringer):
            await bringer.end(0)
            got = await made.get(name_of(0))
            assert bringer.measured == [(0, True)], "a gzip file is inflated: it may have several members"
            path = got.file.path
            path.rename(path.with_name("away"))
            path.write_bytes(b"another")
            fd = got.file.descriptor()
            assert os.path.samestat(os.fstat(fd), path.with_name("away").stat())
            os.close(fd)
        assert inode(path.with_name("away")) not in open_inodes()

    asyncio.run(main())


def test_of_a_thousand_layers_few_are_open_at_a_time_and_each_can_be_asked_for_again(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(*[MIB] * 1000)) as (made, bringer):
            before = len(os.listdir("/proc/self/fd"))
            most = 0
            for index in [*range(1000), 0]:
                asked = ask(made, index)
                await settle()
                for begun in bringer.begun:
                    if not bringer.ends[begun].done():
                        await bringer.end(begun)
                got = await asked
                assert got.held.digest == name_of(index)
                fd = got.file.descriptor()
                assert os.path.samestat(os.fstat(fd), got.file.path.stat())
                os.close(fd)
                most = max(most, len(os.listdir("/proc/self/fd")))
            assert bringer.begun.count(0) == 2 and bringer.measured.count((0, True)) == 2
            assert most - before <= N_OPEN + N_WAITING + 2 * N_AHEAD

    asyncio.run(main())


def test_small_layers_that_nobody_asked_for_are_brought_up_to_a_number(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(*[10] * 100)) as (made, bringer):
            while not all(bringer.ends[begun].done() for begun in bringer.begun):
                await bringer.end(*(one for one in bringer.begun if not bringer.ends[one].done()))
            assert bringer.begun == list(range(N_WAITING))
            await made.get(name_of(0))
            await settle()
            assert bringer.begun == list(range(N_WAITING + 1)), "one that is asked for makes room for another"

    asyncio.run(main())


def test_what_the_store_had_and_is_wrong_is_brought_anew(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB)) as (made, bringer):
            bringer.wrong = [0]
            asked = ask(made, 0)
            await bringer.end(0)
            await bringer.until_begun(0, times=2)
            await bringer.end(0)
            assert (await asked).held.digest == name_of(0)
            assert bringer.measured == [(0, True)] * 2

    asyncio.run(main())


def test_what_is_wrong_whenever_it_is_read_is_not_handed_out(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB)) as (made, bringer):
            bringer.wrong = [0, 0]
            asked = ask(made, 0)
            await bringer.end(0)
            await bringer.until_begun(0, times=2)
            await bringer.end(0)
            with pytest.raises(StoreCorrupt, match="layer 0"):
                await asked
            path = bringer.files / name_of(0).hex
            assert inode(path) not in open_inodes()

    asyncio.run(main())


def test_a_failure_ahead_stops_the_fetching_and_is_told_when_the_layer_is_asked_for(store: Store) -> None:
    async def main() -> None:
        wrong = DiffIDMismatch("layer 1", want="a", got="b")
        async with queue(store, steps(*[MIB] * 5)) as (made, bringer):
            await bringer.end(1, error=wrong)
            await bringer.end(0)
            assert bringer.begun == [0, 1], "nothing more is fetched that nobody asked for"
            await made.get(name_of(0))
            for _ in range(2):
                with pytest.raises(DiffIDMismatch):
                    await made.get(name_of(1))
            assert bringer.begun.count(1) == 1, "what was looked at and is wrong stays wrong"

    asyncio.run(main())


@pytest.mark.parametrize("error", [TransportError("the network was down"), ZeroDivisionError("a mistake")])
def test_a_layer_that_could_not_be_brought_is_tried_again_when_asked_for(
    store: Store, error: Exception
) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB, MIB)) as (made, bringer):
            asked = ask(made, 0)
            await settle()
            await bringer.end(0, error=error)
            with pytest.raises(type(error)):
                await asked
            again = ask(made, 0)
            await settle()
            assert bringer.begun.count(0) == 2
            await bringer.end(0, 1)
            await again
            assert (await made.get(name_of(1))).held.digest == name_of(1), "and the others came all the while"

    asyncio.run(main())


def test_the_space_that_stays_free_for_the_system_is_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that are under way count together: none of them has taken its room yet."""
    monkeypatch.setattr("layertee.disk.space.free_space", lambda *_: (100 * MIB, 85 * MIB))

    async def main() -> None:
        async with queue(store, steps(10 * MIB, 10 * MIB), ahead=0) as (made, bringer):
            first, second = ask(made, 0), ask(made, 1)
            with pytest.raises(NoSpace, match=r"layer 1 needs 20\.0 MiB"):
                await second
            assert bringer.begun == [0]
            await bringer.end(0)
            await first
            third = ask(made, 1)
            await settle()
            await bringer.end(1)
            await third

    asyncio.run(main())


def test_closing_gives_up_what_is_under_way(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB, MIB, MIB)) as (_, bringer):
            pass
        assert bringer.n_cancelled == 2
        assert bringer.begun == [0, 1], "and begins nothing in its place"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_closing_lets_go_of_the_client_s_descriptor(store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        content = tmp_path / "blob"
        content.touch()
        async with queue(store, steps(MIB)) as (made, _):
            with content.open("rb") as theirs:
                made.reads(theirs.fileno())
                made.reads(theirs.fileno())
            assert inode(content) in open_inodes()
        assert inode(content) not in open_inodes()

    asyncio.run(main())


def test_a_caller_that_gives_up_does_not_stop_the_layer(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(MIB)) as (made, bringer):
            asked = ask(made, 0)
            await settle()
            asked.cancel()
            await settle()
            await bringer.end(0)
            await made.get(name_of(0))
            assert bringer.begun == [0]

    asyncio.run(main())


def test_several_are_brought_a_few_at_a_time_the_largest_first(store: Store) -> None:
    async def main() -> None:
        wanted = steps(1 * MIB, 5 * MIB, 3 * MIB, 4 * MIB, 2 * MIB)
        async with queue(store, wanted, ahead=0) as (made, bringer):
            everything = asyncio.ensure_future(made.get_all(wanted))
            await settle()
            assert bringer.begun == [1, 3, 2]
            await bringer.end(1)
            assert bringer.begun == [1, 3, 2, 4]
            await bringer.end(3, 2, 4)
            await bringer.end(0)
            assert set(await everything) == set(wanted)

    asyncio.run(main())


def test_the_first_of_several_that_fails_is_the_error_of_all(store: Store) -> None:
    async def main() -> None:
        async with queue(store, steps(*[MIB] * 5), ahead=0) as (made, bringer):
            everything = asyncio.ensure_future(made.get_all(map(name_of, range(5))))
            await settle()
            await bringer.end(bringer.begun[0], error=TransportError("the network was down"))
            with pytest.raises(TransportError):
                await everything
            assert len(bringer.begun) == 3, "no more were begun"

    asyncio.run(main())
