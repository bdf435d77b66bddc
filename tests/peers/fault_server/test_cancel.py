"""Cancelled at any moment, a pull leaves nothing behind that the next one would stumble over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Form, Options, RangeMode, Store, sync
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.fault_server import FaultServer
from tests.support.process import wait_until
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import assert_store_is_sound

N_POINTS = 12  # moments tried of each program
Program = Callable[[Path], Coroutine[Any, Any, object]]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    texts = [text_layer({f"file-{n}": f"layer {n}\n" * 9000}) for n in range(3)]
    layers = [incompressible_layer(2 << 20), *texts]
    return build_image(
        tmp_path_factory.mktemp("image"), layers, compression=["gzip-fast", "zstd", "none", "gzip"]
    )


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The event loop logs what nobody else heard of: exceptions never retrieved, broken transports."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR] == []


def descriptors() -> set[str]:
    """What is open, by number and name. Sockets and pipes of event loops come and go with these."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # of the listing itself
    return found


def left_over(before: set[str]) -> set[str]:
    """What stays open; the server, in this process too, may need a moment to see a broken handshake."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: descriptors() <= before, "something stays open", timeout_s=20)
    return descriptors() - before


async def steps_of(program: Coroutine[Any, Any, object]) -> int:
    """How many turns of the event loop the program takes."""
    task = asyncio.create_task(program)
    n = 0
    while not task.done():
        await asyncio.sleep(0)
        n += 1
    await task
    return n


async def cancelled_after(program: Coroutine[Any, Any, object], steps: int, *again: int) -> tuple[bool, int]:
    """Run ``steps`` turns of the loop, then cancel (and once more after each of ``again``); whether
    the cancellation came before the end, and after how many turns it came or found the program ended.
    No task may be left.
    """
    task = asyncio.create_task(program)
    turns = 0
    while turns < steps and not task.done():
        await asyncio.sleep(0)
        turns += 1
    task.cancel()
    for n in again:
        for _ in range(n):
            if not task.done():
                await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.done(), "the cancelled program does not end"
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    if not task.cancelled():
        task.result()
    return task.cancelled(), turns


def _whole(program: Program, store: Path, prepare: Callable[[Path], None]) -> int:
    """How many steps ``program`` takes on a new store when nobody cancels it."""
    prepare(store)
    return sync.run(steps_of(program(store)))


def cancel_everywhere(
    program: Program,
    root: Path,
    *again: int,
    server: FaultServer | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> int:
    """Cancel ``program`` at moments spread over its life, each time on a new store; then run it whole.

    The number of runs that were really cancelled. ``server`` must see its connections closed.
    """
    # A program that waits for threads takes more steps while the machine is busy. A run that ends before
    # its moment has come tells how short a life can be: the moments after it are spread over that.
    n_steps = _whole(program, root / "whole", prepare or Path.mkdir)
    n_cancelled = 0
    for point in range(N_POINTS + 1):
        steps = n_steps * point // N_POINTS
        store = root / str(point)
        (prepare or Path.mkdir)(store)
        before = descriptors()
        was_cancelled, turns = sync.run(cancelled_after(program(store), steps, *again))
        n_cancelled += was_cancelled
        n_steps = min(n_steps, turns) if turns < steps else n_steps
        if server is not None:
            server.wait_closed()
        assert left_over(before) == set()
        if (store / "oci-layout").exists():
            assert_store_is_sound(store)
            assert list((store / "layertee/ingest").iterdir()) == []
            assert list((store / "blobs/sha256").glob("*.part")) == []
            with Store.open(store) as opened:
                opened.exclusive(timeout=0).release()  # nobody holds it any more
                for lock in opened.room.locks.iterdir():
                    assert lock.stat().st_size == 0
        sync.run(program(store))
        assert_store_is_sound(store)
        with Store.open(store) as opened:
            assert [image.problem for image in opened.images.all()] == [None]
    return n_cancelled


def puller(reference: str, form: Form, **options: Any) -> Program:
    async def pull(root: Path) -> None:
        async with Engine(root, options=Options(tls_verify=False, **options)) as engine:
            await engine.pull(await engine.plan(reference, form=form))

    return pull


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("core", ["c", "python"])
def test_a_pull_from_a_registry_can_be_cancelled_at_any_moment(
    image: BuiltImage, form: Form, core: str, tmp_path: Path
) -> None:
    with FaultServer(image) as server:
        program = puller(server.reference, form, core=core)
        assert cancel_everywhere(program, tmp_path, server=server) > N_POINTS // 3


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
def test_a_pull_in_ranges_can_be_cancelled_at_any_moment(
    image: BuiltImage, form: Form, tmp_path: Path
) -> None:
    limits = FetchLimits(ranges=RangeMode.ALWAYS, range_nbytes=300_000, max_connections=3)
    with FaultServer(image, tls=True) as server:
        program = puller(server.reference, form, limits=limits)
        assert cancel_everywhere(program, tmp_path, server=server) > N_POINTS // 3


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
def test_a_pull_from_a_layout_can_be_cancelled_at_any_moment(
    image: BuiltImage, form: Form, tmp_path: Path
) -> None:
    program = puller(f"oci:{image.root}:{image.ref}", form)
    assert cancel_everywhere(program, tmp_path) > N_POINTS // 3


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
def test_looking_through_a_store_without_its_catalog_can_be_cancelled_at_any_moment(
    image: BuiltImage, form: Form, tmp_path: Path
) -> None:
    program = puller(f"oci:{image.root}:{image.ref}", form)

    def prepare(root: Path) -> None:
        sync.run(program(root))
        for path in (root / "layertee").glob("catalog.sqlite*"):
            path.unlink()

    assert cancel_everywhere(program, tmp_path, prepare=prepare) > N_POINTS // 3


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [(0,), (1,), (1, 1, 2, 3)], ids=str)
def test_cancelling_again_while_it_ends_changes_nothing(
    image: BuiltImage, gaps: tuple[int, ...], tmp_path: Path
) -> None:
    with FaultServer(image) as server:
        program = puller(server.reference, Form.UNCOMPRESSED)
        assert cancel_everywhere(program, tmp_path, *gaps, server=server) > N_POINTS // 3


@pytest.mark.slow
def test_a_verification_can_be_cancelled_at_any_moment(image: BuiltImage, tmp_path: Path) -> None:
    pull = puller(f"oci:{image.root}:{image.ref}", Form.AS_IS)

    async def verify(root: Path) -> None:
        async with Engine(root) as engine:
            assert (await engine.verify()).ok

    def prepare(root: Path) -> None:
        sync.run(pull(root))

    assert cancel_everywhere(verify, tmp_path, prepare=prepare) > N_POINTS // 3


def test_one_cancelled_pull_does_not_touch_the_other(image: BuiltImage, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=Options(tls_verify=False)) as engine:
            plan = await engine.plan(server.reference)
            for steps in (3, 30, 60):
                one, other = (asyncio.create_task(engine.pull(plan)) for _ in range(2))
                for _ in range(steps):
                    await asyncio.sleep(0)
                one.cancel()
                await asyncio.wait([one])
                assert len((await other).layers) == len(image.layers)

    with FaultServer(image, rate_per_connection=20e6) as server:
        sync.run(main(server))
    assert_store_is_sound(tmp_path)
