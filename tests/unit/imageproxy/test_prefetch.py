"""Which layers are brought before their client asks for them, and which are not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from layertee.disk.blob_file import FileContent
from layertee.errors import DiffIDMismatch, NoSpace, TransportError
from layertee.image.document import (
    OCI_LAYER,
    Compression,
    Descriptor,
    DiffID,
    Digest,
    ImageConfig,
    Layer,
    Platform,
)
from layertee.image.holding import Basis, Holding
from layertee.imageproxy import prefetch
from layertee.imageproxy.prefetch import AHEAD, FINAL_DIFFID, LayerQueue, asking_order
from layertee.pulling.ingest import Ingest, Ingested
from layertee.pulling.plan import Action, LayerPlan
from layertee.pulling.report import LayerProgress
from layertee.store.store import Store

MIB = 1 << 20


def layer(index: int, size: int) -> Layer:
    text = "sha256:" + hashlib.sha256(b"%d" % index).hexdigest()
    descriptor = Descriptor(f"{OCI_LAYER}+gzip", Digest("sha256:" + f"{index:064x}"), size)
    return Layer(index, descriptor, DiffID(text), Compression.GZIP)


def steps(*sizes: int) -> list[LayerPlan]:
    return [
        LayerPlan(layer(i, size), Action.FETCH, "not on this machine", None, size, size)
        for i, size in enumerate(sizes)
    ]


class Bringer:
    """Stands for the network: says what was begun, and lets each layer end when told to."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Future[None]] = {}
        self.progress: dict[int, LayerProgress] = {}
        self.pace: dict[int, Callable[[], float]] = {}
        self.n_cancelled = 0
        self.busy = False

    def is_busy(self) -> bool:
        return self.busy

    async def stage(self, step: LayerPlan, progress: LayerProgress, *, pace: Callable[[], float]) -> Ingested:
        index = step.layer.index
        self.progress[index], self.pace[index] = progress, pace
        self.begun.append(index)
        self.ends[index] = asyncio.get_running_loop().create_future()
        try:
            await self.ends[index]
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        one = step.layer
        path = Path("/nonexistent") / one.digest.hex
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
        return Ingested(Action.FETCH, step.reason, held, one.size)

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
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def queue(
    store: Store, wanted: Sequence[LayerPlan], **options: Any
) -> AsyncIterator[tuple[LayerQueue, Bringer]]:
    bringer = Bringer()
    made = LayerQueue(cast(Ingest, bringer), store, wanted, **options)
    await settle()
    try:
        yield made, bringer
    finally:
        await made.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def ask(made: LayerQueue, step: LayerPlan) -> asyncio.Task[Holding]:
    return asyncio.ensure_future(made.get(step.layer.diff_id))


def test_two_layers_at_once_are_brought_before_anyone_asks_up_to_the_limit(store: Store) -> None:
    async def main() -> None:
        wanted = steps(*[10 * MIB] * 6)
        async with queue(store, wanted) as (_, bringer):
            assert bringer.begun == [0, 1]
            await bringer.end(0, 1)
            assert bringer.begun == [0, 1, 2], "30 of 32 MiB"
            await bringer.end(2)
            assert bringer.begun == [0, 1, 2], "a client that does not ask stops the network"

    asyncio.run(main())


def test_asking_makes_room_for_the_layer_after_the_last_one(store: Store) -> None:
    async def main() -> None:
        wanted = steps(*[10 * MIB] * 6)
        async with queue(store, wanted) as (made, bringer):
            await bringer.end(0, 1)
            await bringer.end(2)
            held = await made.get(wanted[0].layer.diff_id)
            assert held.digest == wanted[0].layer.digest
            await settle()
            assert bringer.begun == [0, 1, 2, 3]

    asyncio.run(main())


def test_what_is_asked_for_is_begun_at_once_however_large_it_is(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB, 2 * AHEAD, MIB)
        async with queue(store, wanted) as (made, bringer):
            assert bringer.begun == [0], "what does not fit waits until nothing else is on its way"
            asked = ask(made, wanted[1])
            await settle()
            assert bringer.begun == [0, 1, 2]
            assert bringer.received(1, 2 * AHEAD - 1)
            await bringer.end(0, 1, 2)
            await asked

    asyncio.run(main())


def test_of_a_layer_that_is_larger_than_the_limit_comes_a_part(store: Store) -> None:
    async def main() -> None:
        wanted = steps(3 * AHEAD, MIB)
        async with queue(store, wanted) as (made, bringer):
            assert bringer.begun == [0], "the one after it has no room"
            assert bringer.received(0, 10 * MIB)
            assert not bringer.received(0, 12 * MIB), "with what is in the sockets, that is all"
            asked = ask(made, wanted[0])
            await settle()
            assert bringer.received(0, 12 * MIB), "somebody waits for it now"
            await bringer.end(0)
            await asked

    asyncio.run(main())


def test_what_is_ahead_leaves_the_processor_to_what_the_client_waits_for(store: Store) -> None:
    async def main() -> None:
        wanted = steps(10 * MIB, 10 * MIB)
        async with queue(store, wanted) as (made, bringer):
            bringer.busy = True
            assert bringer.received(1, MIB), "nobody waits"
            asked = ask(made, wanted[0])
            await settle()
            assert not bringer.received(1, 2 * MIB)
            assert bringer.received(0, 2 * MIB)
            bringer.busy = False
            assert bringer.received(1, 3 * MIB), "the network is what is slow: both may use it"
            bringer.busy = True
            await bringer.end(0)
            await asked
            assert bringer.received(1, 4 * MIB)

    asyncio.run(main())


def test_what_the_client_reads_makes_room(store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        wanted = steps(64 * MIB, 4 * AHEAD)
        async with queue(store, wanted) as (made, bringer):
            asked = ask(made, wanted[0])
            await settle()
            await bringer.end(0)
            await asked
            assert bringer.begun == [0, 1]
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


def test_what_the_client_reads_makes_room_for_another_layer(store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        wanted = steps(*[15 * MIB] * 4)
        async with queue(store, wanted) as (made, bringer):
            await bringer.end(0, 1)
            await made.get(wanted[0].layer.diff_id)
            await settle()
            await bringer.end(2)
            content = tmp_path / "blob"
            content.touch()
            os.truncate(content, 15 * MIB)
            with content.open("rb", buffering=0) as theirs:
                made.reads(theirs.fileno())
                await asyncio.sleep(2 * prefetch._POLL_S)
                assert bringer.begun == [0, 1, 2]
                theirs.seek(0, os.SEEK_END)
                await asyncio.sleep(2 * prefetch._POLL_S)
                assert bringer.begun == [0, 1, 2, 3]

    asyncio.run(main())


def test_a_layer_that_waits_too_long_for_its_client_is_given_up_until_it_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may want it, and cannot bring it meanwhile."""

    async def main() -> None:
        wanted = steps(3 * AHEAD, MIB)
        async with queue(store, wanted) as (made, bringer):
            assert not bringer.received(0, AHEAD)
            monkeypatch.setattr(prefetch, "PATIENCE_S", -1.0)
            assert not bringer.received(0, AHEAD)
            await settle()
            assert bringer.n_cancelled == 1
            await asyncio.sleep(2 * prefetch._POLL_S)
            assert bringer.begun == [0], "and it is not begun again by itself"
            asked = ask(made, wanted[0])
            await settle()
            assert bringer.begun == [0, 0, 1]
            await bringer.end(0)
            await asked

    asyncio.run(main())


def test_nothing_is_brought_ahead_where_that_is_not_wanted(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB, MIB)
        async with queue(store, wanted, ahead=0) as (made, bringer):
            assert bringer.begun == []
            asked = ask(made, wanted[1])
            await settle()
            assert bringer.begun == [1]
            await bringer.end(1)
            await asked

    asyncio.run(main())


def test_layers_that_the_client_has_are_left_out(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB, MIB, MIB)
        has = {wanted[0].layer.diff_id, wanted[1].layer.diff_id}
        async with queue(store, wanted, client_has=has) as (made, bringer):
            await bringer.end(2)
            await made.get(wanted[2].layer.diff_id)
            assert bringer.begun == [2]

    asyncio.run(main())


def test_a_client_that_asks_for_what_it_has_will_ask_for_the_rest_of_it_too(store: Store) -> None:
    """Its layers have other names: it has them as tars, say, and looks for blobs."""

    async def main() -> None:
        wanted = steps(MIB, MIB, MIB, MIB)
        has = {step.layer.diff_id for step in wanted}
        async with queue(store, wanted, client_has=has) as (made, bringer):
            assert bringer.begun == []
            asked = ask(made, wanted[1])
            await settle()
            assert bringer.begun == [1, 2, 3]
            await bringer.end(1)
            await asked

    asyncio.run(main())


def test_layers_that_were_passed_over_no_longer_count(store: Store) -> None:
    async def main() -> None:
        wanted = steps(*[15 * MIB] * 5)
        async with queue(store, wanted) as (made, bringer):
            await bringer.end(0, 1)
            asked = ask(made, wanted[2])
            await settle()
            assert bringer.begun == [0, 1, 2, 3, 4], "the client has 0 and 1, or it would have asked"
            await bringer.end(2)
            await asked

    asyncio.run(main())


def test_a_client_that_asks_for_the_largest_first_is_understood(store: Store) -> None:
    async def main() -> None:
        wanted = steps(1 * MIB, 2 * MIB, 3 * MIB, 40 * MIB, 20 * MIB)
        async with queue(store, wanted, ahead=32 * MIB) as (made, bringer):
            await bringer.end(0, 1)
            asked = ask(made, wanted[3])
            await settle()
            assert bringer.begun == [0, 1, 2, 3, 4], "the next largest, not those that come next"
            await bringer.end(3)
            await asked

    asyncio.run(main())


def test_content_that_occurs_twice_is_brought_once(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB, MIB)
        again = LayerPlan(
            Layer(2, wanted[0].layer.descriptor, wanted[0].layer.diff_id, Compression.GZIP),
            *(Action.HAVE, "same content as layer 0", None, 0, 0),
        )
        async with queue(store, [*wanted, again]) as (made, bringer):
            await bringer.end(0, 1)
            await made.get(again.layer.diff_id)
            assert bringer.begun == [0, 1]

    asyncio.run(main())


def test_a_failure_ahead_stops_the_fetching_and_is_told_when_the_layer_is_asked_for(store: Store) -> None:
    async def main() -> None:
        wanted = steps(*[MIB] * 5)
        wrong = DiffIDMismatch("layer 1", want="a", got="b")
        async with queue(store, wanted) as (made, bringer):
            await bringer.end(1, error=wrong)
            await bringer.end(0)
            assert bringer.begun == [0, 1], "nothing more is fetched that nobody asked for"
            await made.get(wanted[0].layer.diff_id)
            with pytest.raises(DiffIDMismatch):
                await made.get(wanted[1].layer.diff_id)
            assert bringer.begun.count(1) == 1, "what was looked at and is wrong stays wrong"

    asyncio.run(main())


def test_a_layer_that_the_network_failed_to_bring_is_tried_again_when_asked_for(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB, MIB)
        async with queue(store, wanted) as (made, bringer):
            await bringer.end(0, error=TransportError("the network was down"))
            asked = ask(made, wanted[0])
            await settle()
            assert bringer.begun.count(0) == 2
            await bringer.end(0)
            await asked

    asyncio.run(main())


def test_the_space_that_stays_free_for_the_system_is_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that are under way count together: none of them has taken its room yet."""
    monkeypatch.setattr("layertee.store.store.free_space", lambda _: (100 * MIB, 85 * MIB))

    async def main() -> None:
        wanted = steps(10 * MIB, 10 * MIB)
        async with queue(store, wanted, ahead=0) as (made, bringer):
            first, second = ask(made, wanted[0]), ask(made, wanted[1])
            with pytest.raises(NoSpace, match=r"layer 1 needs 20\.0 MiB"):
                await second
            assert bringer.begun == [0]
            await bringer.end(0)
            await first
            third = ask(made, wanted[1])
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

    asyncio.run(main())


def test_a_caller_that_gives_up_does_not_stop_the_layer(store: Store) -> None:
    async def main() -> None:
        wanted = steps(MIB)
        async with queue(store, wanted) as (made, bringer):
            asked = ask(made, wanted[0])
            await settle()
            asked.cancel()
            await settle()
            await bringer.end(0)
            await made.get(wanted[0].layer.diff_id)
            assert bringer.begun == [0]

    asyncio.run(main())


def test_several_are_brought_a_few_at_a_time_the_largest_first(store: Store) -> None:
    async def main() -> None:
        wanted = steps(1 * MIB, 5 * MIB, 3 * MIB, 4 * MIB, 2 * MIB)
        async with queue(store, wanted, ahead=0) as (made, bringer):
            everything = asyncio.ensure_future(made.get_all({step.layer.diff_id for step in wanted}))
            await settle()
            assert bringer.begun == [1, 3, 2]
            await bringer.end(1)
            assert bringer.begun == [1, 3, 2, 4]
            await bringer.end(3, 2, 4)
            await bringer.end(0)
            assert set(await everything) == {step.layer.diff_id for step in wanted}

    asyncio.run(main())


def config(**labels: str) -> ImageConfig:
    return ImageConfig(b"{}", Digest.of(b"{}"), (), Platform("linux", "amd64"), None, labels)


def test_an_ostree_image_is_asked_for_chunks_first_then_its_commit_then_what_was_derived() -> None:
    layers = [layer(i, 1) for i in range(6)]
    labelled = config(**{FINAL_DIFFID: str(layers[3].diff_id)})
    assert [one.index for one in asking_order(labelled, layers)] == [1, 2, 3, 0, 4, 5]


@pytest.mark.parametrize("labels", [{}, {FINAL_DIFFID: "sha256:" + "0" * 64}])
def test_any_other_image_is_asked_for_in_its_order(labels: dict[str, str]) -> None:
    layers = [layer(i, 1) for i in range(3)]
    assert [one.index for one in asking_order(config(**labels), layers)] == [0, 1, 2]
