"""One layer, handed to a caller while it arrives."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from layertee import Engine, Form, ImagePlan, LayerStream, Options, PullResult, sync
from layertee.errors import (
    DecodeError,
    DiffIDMismatch,
    DigestMismatch,
    IntegrityError,
    NotFound,
    SizeMismatch,
    TransportError,
)
from layertee.transfer.limits import FetchLimits
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Behaviour, Chunked, LongBody, OtherBody, Replace, Reset
from tests.support.fakes.refusals import Status
from tests.support.process import until
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer, write_tar
from tests.support.rig.registry import RegistryServer

T = TypeVar("T")
MIB = 1 << 20
SPECS = [
    incompressible_layer(3 * MIB, seed=7),
    text_layer({"a": "alpha\n" * 300_000}),
    text_layer({"b": "beta\n" * 200_000}),
]
QUICK = FetchLimits(attempts=2, backoff_s=0.01)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), SPECS, compression=["gzip", "zstd", "none"])


def tar_of(spec: LayerSpec) -> bytes:
    out = bytearray()
    write_tar(spec, out.extend)
    return bytes(out)


TARS = [tar_of(spec) for spec in SPECS]


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await main

    return sync.run(bounded())


def options(core: str | None = None, **more: Any) -> Options:
    return Options(tls_verify=False, core=core, limits=QUICK, **more)


async def read(stream: LayerStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


# --- what comes out ----------------------------------------------------------------------------


def test_every_layer_of_a_real_registry_streams_as_its_tar(
    image: BuiltImage, registry: RegistryServer, core: str, tmp_path: Path
) -> None:
    name = push(image, f"stream/{core}:latest", registry)

    async def main() -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(name)
            for step, tar, built in zip(plan.layers, TARS, image.layers, strict=True):
                async with engine.open_layer(step) as stream:
                    assert stream.result is None  # not before both digests are known
                    assert await read(stream) == tar
                    assert stream.result is not None
                assert (stream.result.digest, stream.result.diff_id) == (built.digest, built.diff_id)
            pairs = {pair.digest: pair.diff_id for pair in engine.store.catalog.pairs()}
            assert pairs == {layer.digest: layer.diff_id for layer in image.layers}
            assert engine.store.catalog.holdings() == []  # kept nowhere

    run(main())
    assert not list((tmp_path / "blobs").rglob("*.*"))


@pytest.mark.parametrize("form", list(Form))
def test_a_layer_that_the_store_holds_is_streamed_from_there(
    image: BuiltImage, core: str, form: Form, tmp_path: Path
) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            await engine.pull(await engine.plan(server.reference, form=form))
            server.settle()
            server.forget()
            plan = await engine.plan(server.reference)
            for step, tar in zip(plan.layers, TARS, strict=True):
                async with engine.open_layer(step) as stream:
                    assert await read(stream) == tar
        assert {r.reference for r in server.requests("blob")} <= {image.config_digest}

    with FaultServer(image) as server:
        run(main(server))


def test_another_layout_is_streamed_from_like_the_store(image: BuiltImage, core: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(f"oci:{image.root}:{image.ref}")
            async with engine.open_layer(plan.layers[0]) as stream:
                assert await read(stream) == TARS[0]

    run(main())


def test_many_streams_at_once_do_not_mix(image: BuiltImage, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options()) as engine:
            plan = await engine.plan(server.reference)

            async def one(index: int) -> None:
                async with engine.open_layer(plan.layers[index]) as stream:
                    assert await read(stream) == TARS[index]

            await asyncio.gather(*(one(n % len(TARS)) for n in range(15)))

    with FaultServer(image) as server:
        run(main(server))


def test_a_pull_goes_on_beside_streams_that_nobody_reads(image: BuiltImage, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options()) as engine:
            plan = await engine.plan(server.reference)
            step = plan.layers[0]
            async with engine.open_layer(step) as one, engine.open_layer(step) as other:
                first = bytes(await anext(one))
                result = await engine.pull(plan)
                assert result.bytes_fetched == image.blob_bytes
                assert first + await read(one) == TARS[0]
                assert await read(other) == TARS[0]

    with FaultServer(image) as server:
        run(main(server))


@pytest.mark.slow
def test_streams_that_nobody_reads_take_no_connection_from_a_pull(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [incompressible_layer(16 * MIB)], compression="none")
    one_at_a_time = dataclasses.replace(options(), limits=FetchLimits(max_connections=1))

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path / "store", options=one_at_a_time) as engine:
            plan = await engine.plan(server.reference)
            step = plan.layers[0]
            async with engine.open_layer(step) as one, engine.open_layer(step) as other, asyncio.timeout(20):
                first = bytes(await anext(one))
                result = await engine.pull(plan)
                assert result.bytes_fetched == image.blob_bytes
                assert await read(other) == first + await read(one)

    with FaultServer(image) as server:
        run(main(server))


@pytest.mark.slow
def test_a_reader_who_stops_makes_the_server_stop(core: str, tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [incompressible_layer(64 * MIB)], compression="none")

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path / "store", options=options(core)) as engine:
            plan = await engine.plan(server.reference)
            digest = image.layers[0].digest
            async with engine.open_layer(plan.layers[0]) as stream:
                nbytes = len(await anext(stream))
                before = -1
                while server.bytes_sent("blob", digest) != before:
                    before = server.bytes_sent("blob", digest)
                    await asyncio.sleep(0.1)
                assert server.bytes_sent("blob", digest) <= 32 * MIB
                async for piece in stream:
                    nbytes += len(piece)
            assert nbytes == image.layers[0].uncompressed_size

    with FaultServer(image) as server:
        run(main(server))


# --- what is not true is not said ------------------------------------------------------------------


def spoilt_pull(
    image: BuiltImage, tmp_path: Path, behaviour: Behaviour, index: int = 0, core: str | None = None
) -> None:
    """Stream a layer that the server spoils; raises what leaving the block raises."""
    digest = image.layers[index].digest

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(server.reference)
            try:
                async with engine.open_layer(plan.layers[index]) as stream:
                    await read(stream)
            finally:
                assert stream.result is None or stream.result.digest != digest
                assert engine.store.catalog.pairs() == []

    with FaultServer(image, [on("blob", behaviour, reference=digest)]) as server:
        run(main(server))


def test_other_bytes_of_the_same_size_are_a_digest_mismatch(
    image: BuiltImage, core: str, tmp_path: Path
) -> None:
    with pytest.raises(DigestMismatch) as caught:
        spoilt_pull(image, tmp_path, OtherBody(at=1000), index=2, core=core)
    assert caught.value.want == image.layers[2].digest


def test_a_corrupt_stream_is_a_decode_error(image: BuiltImage, core: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        spoilt_pull(image, tmp_path, OtherBody(at=2 * MIB), core=core)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Replace(b"short"), IntegrityError),
        (LongBody(), SizeMismatch),
        (Chunked(stop_after=1000, chunk=1000), TransportError),
        (Reset(0), TransportError),
        (Status(404), NotFound),
    ],
    ids=str,
)
def test_what_a_server_does_wrong_is_raised_to_the_reader(
    image: BuiltImage, behaviour: Behaviour, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        spoilt_pull(image, tmp_path, behaviour)


def test_a_layer_that_is_not_what_the_config_says_is_refused_at_the_end(core: str, tmp_path: Path) -> None:
    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = digest_of(b"something else")

    image = build_image(tmp_path / "image", SPECS[:1], edit_config=lie)

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path / "store", options=options(core)) as engine:
            plan = await engine.plan(server.reference)
            with pytest.raises(DiffIDMismatch) as caught:
                async with engine.open_layer(plan.layers[0]) as stream:
                    assert await read(stream) == TARS[0]
            assert (caught.value.want, caught.value.got) == (digest_of(b"something else"), digest_of(TARS[0]))
            assert engine.store.catalog.pairs() == []

    with FaultServer(image) as server:
        run(main(server))


def test_a_held_file_that_was_changed_is_found_out(image: BuiltImage, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path, options=options()) as engine:
            name = f"oci:{image.root}:{image.ref}"
            await engine.pull(await engine.plan(name, form=Form.UNCOMPRESSED))
            plan = await engine.plan(name)
            holding = plan.layers[1].holding
            assert holding is not None
            assert holding.path is not None
            data = bytearray(holding.path.read_bytes())
            data[5000] ^= 4
            holding.path.chmod(0o600)
            holding.path.write_bytes(data)
            with pytest.raises(DigestMismatch):
                async with engine.open_layer(plan.layers[1]) as stream:
                    await read(stream)

    run(main())


@pytest.mark.parametrize("n_pieces", [0, 1])
def test_a_stream_that_was_not_read_to_its_end_says_nothing(
    image: BuiltImage, core: str, n_pieces: int, tmp_path: Path
) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(server.reference)
            with pytest.raises(IntegrityError, match="not read to its end"):
                async with engine.open_layer(plan.layers[0]) as stream:
                    for _ in range(n_pieces):
                        await anext(stream)
            assert stream.result is None
            assert engine.store.catalog.pairs() == []
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with FaultServer(image) as server:
        run(main(server))
        server.wait_closed()


def test_the_last_piece_need_not_be_followed_by_a_look_for_more(image: BuiltImage, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path, options=options()) as engine:
            plan = await engine.plan(f"oci:{image.root}:{image.ref}")
            left = len(TARS[1])
            async with engine.open_layer(plan.layers[1]) as stream:
                while left:
                    left -= len(await anext(stream))
            assert stream.result is not None

    run(main())


# --- leaving early -----------------------------------------------------------------------------------


class Odd(Exception):
    """A caller's own."""


def test_an_exception_of_the_block_passes_through_as_it_is(
    image: BuiltImage, core: str, tmp_path: Path
) -> None:
    async def leave(engine: Engine, plan: ImagePlan, exc: BaseException) -> None:
        async with engine.open_layer(plan.layers[0]) as stream:
            await anext(stream)
            raise exc from cause

    cause = KeyError("why")

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(server.reference)
            for exc in (Odd("x"), asyncio.CancelledError(), ExceptionGroup("mine", [Odd("y")])):
                with pytest.raises(type(exc)) as caught:
                    await leave(engine, plan, exc)
                assert caught.value is exc
                assert exc.__cause__ is cause
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with FaultServer(image) as server:
        run(main(server))
        server.wait_closed()


def test_a_cancelled_reader_leaves_nothing_behind(image: BuiltImage, core: str, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=options(core)) as engine:
            plan = await engine.plan(server.reference)

            async def reader() -> None:
                async with engine.open_layer(plan.layers[0]) as stream:
                    await read(stream)

            before = len(os.listdir("/proc/self/fd"))
            for steps in range(1, 60, 7):
                task = asyncio.create_task(reader())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert asyncio.all_tasks() == {asyncio.current_task()}
            # The server is of this process too, and closes its ends later; a connection may be kept alive.
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1, "descriptors are left")

    with FaultServer(image) as server:
        run(main(server))
        server.wait_closed()


def test_a_plan_outlives_its_engine_and_its_process(image: BuiltImage, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> tuple[str, PullResult]:
        async with Engine(tmp_path / "one", options=options()) as one:
            kept = pickle.dumps(await one.plan(server.reference))
        plan = pickle.loads(kept)
        async with Engine(tmp_path / "other", options=options()) as other:
            async with other.open_layer(plan.layers[0]) as stream:
                tar = await read(stream)
            return digest_of(tar), await other.pull(plan)

    with FaultServer(image) as server:
        diff_id, result = run(main(server))
    assert diff_id == image.layers[0].diff_id
    assert result.local_manifest_digest == image.digest


def test_two_registries_with_one_blob_are_not_mixed_up(image: BuiltImage, tmp_path: Path) -> None:
    async def main(one: FaultServer, other: FaultServer) -> None:
        async with Engine(tmp_path, options=options()) as engine:
            first, second = await engine.plan(one.reference), await engine.plan(other.reference)
            for plan in (first, second):
                async with engine.open_layer(plan.layers[0]) as stream:
                    await read(stream)

    with FaultServer(image) as one, FaultServer(image) as other:
        run(main(one, other))
        for server in (one, other):
            server.settle()
            assert server.bytes_sent("blob", image.layers[0].digest) == image.layers[0].size
