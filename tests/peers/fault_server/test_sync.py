"""The engine for threads, and a layer as a file, against a server that may misbehave."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from layertee import Engine, LayerStream, Options, Progress, PullResult, SyncEngine
from layertee.errors import DiffIDMismatch, DigestMismatch, IntegrityError, TransportError
from layertee.sync import run
from layertee.transfer.limits import FetchLimits
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, OtherBody, Reset
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer, write_tar

MIB = 1 << 20
SPECS = [
    text_layer({"a": "alpha\n" * 200_000, "b": "beta\n" * 90_000}),
    incompressible_layer(2 * MIB, seed=3),
]
QUICK = FetchLimits(attempts=2, backoff_s=0.01)
FROM_HERE = Options(tls_verify=False, limits=QUICK)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), SPECS, compression=["gzip", "none"])


def tar_of(spec: LayerSpec) -> bytes:
    out = bytearray()
    write_tar(spec, out.extend)
    return bytes(out)


TARS = [tar_of(spec) for spec in SPECS]


# --- the engine -----------------------------------------------------------------------------------------


def test_a_thread_does_all_that_a_loop_does(image: BuiltImage, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with FaultServer(image) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        with engine.in_time():
            plan = engine.plan(server.reference, form="uncompressed")
            result = engine.pull(plan, progress=seen.append)
        assert result.bytes_fetched == image.blob_bytes
        assert seen[-1].bytes_done == image.blob_bytes
        assert engine.inspect(server.reference).plan.bytes_to_fetch == 0
        assert engine.remember(plan) == ()
        assert engine.verify().n_blobs
        assert [one.name for one in engine.store.images.all()] == [server.reference]


def test_many_threads_use_one_engine(image: BuiltImage, tmp_path: Path) -> None:
    with FaultServer(image) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        plan = engine.plan(server.reference)

        def read(n: int) -> bytes:
            with engine.open_layer(plan.layers[n % 2]) as stream:
                return b"".join(stream)

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(read, range(12))) == TARS * 6


def test_closing_the_engine_ends_what_other_threads_wait_for(image: BuiltImage, tmp_path: Path) -> None:
    gate, told = Gate(), list[str]()
    with FaultServer(image, [on("blob", Held(gate, 1000), reference=image.layers[1].digest)]) as server:
        with SyncEngine(tmp_path, options=FROM_HERE) as engine:
            plan = engine.plan(server.reference)

            def pull() -> None:
                with pytest.raises(RuntimeError) as caught:
                    engine.pull(plan)
                told.append(str(caught.value))

            other = threading.Thread(target=pull)
            other.start()
            gate.wait_arrived()
        other.join()
        gate.open()
        server.wait_closed()
    assert told == ["the engine was closed meanwhile"]


INTERRUPTED = """
import sys, threading
from layertee import Options, SyncEngine

with SyncEngine(sys.argv[2], options=Options(tls_verify=False)) as engine:
    plan = engine.plan(sys.argv[1])
    try:
        engine.pull(plan)
    except KeyboardInterrupt:
        print("interrupted", len(engine.plan(sys.argv[1]).layers), "layers")
print(threading.active_count(), "thread")
"""


def test_ctrl_c_ends_a_pull_and_leaves_the_engine_in_order(image: BuiltImage, tmp_path: Path) -> None:
    gate = Gate()
    with FaultServer(image, [on("blob", Held(gate, 1000), reference=image.layers[1].digest)]) as server:
        program = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", INTERRUPTED, server.reference, str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        gate.wait_arrived()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=100)
        gate.open()
        server.wait_closed()
    assert (program.returncode, out.splitlines(), err) == (0, ["interrupted 2 layers", "1 thread"], "")


FORKED = """
import os, sys
from layertee import Options, SyncEngine

with SyncEngine(sys.argv[2], options=Options(tls_verify=False)) as engine:
    step = engine.plan(sys.argv[1]).layers[0]
    with engine.open_layer(step) as stream:
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sum(map(len, stream)))
        else:
            try:
                next(stream)
            except RuntimeError as exc:
                print(exc, flush=True)
            if sys.argv[3] != "leaves the blocks":
                {"exits at once": os._exit, "exits": sys.exit}[sys.argv[3]](0)
"""


@pytest.mark.parametrize("how", ["exits at once", "exits", "leaves the blocks"])
def test_a_process_that_was_forked_leaves_a_layer_to_its_parent(
    image: BuiltImage, how: str, tmp_path: Path
) -> None:
    with FaultServer(image) as server:
        name = server.reference.replace("127.0.0.1", "localhost")  # which is looked up in a thread
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKED, name, str(tmp_path / "store"), how],
            capture_output=True,
            text=True,
            timeout=100,
            env=os.environ | {"HOME": str(tmp_path)},
        )
    told = "the layer was opened by the parent of this process, which alone can read it"
    assert (done.stdout.splitlines(), done.stderr) == ([told, f"0 {len(TARS[0])}"], "")


STOPPED = """
import asyncio, sys, threading
import layertee
from layertee import Engine, Options, SyncEngine

kind = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[sys.argv[4]]
options = Options(tls_verify=False)

def stop(progress):
    raise kind(7)

async def on_a_loop():
    async with Engine(sys.argv[2], options=options) as engine:
        await engine.pull(await engine.plan(sys.argv[1]), stop)

try:
    if sys.argv[3] == "pull":
        layertee.pull(sys.argv[1], store=sys.argv[2], options=options, progress=stop)
    elif sys.argv[3] == "Engine":
        asyncio.run(on_a_loop())
    else:
        with SyncEngine(sys.argv[2], options=options) as engine:
            try:
                engine.pull(engine.plan(sys.argv[1]), stop)
            finally:
                assert engine.pull(engine.plan(sys.argv[1])).layers  # the engine is in order
except kind as exc:
    print(exc.args, threading.active_count())
"""


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("how", ["pull", "Engine", "SyncEngine"])
def test_a_callback_may_end_the_program(image: BuiltImage, how: str, kind: str, tmp_path: Path) -> None:
    with FaultServer(image) as server:
        done = subprocess.run(
            [sys.executable, "-c", STOPPED, server.reference, str(tmp_path / "store"), how, kind],
            capture_output=True,
            text=True,
            timeout=100,
            env=os.environ | {"HOME": str(tmp_path)},
        )
    assert (done.stdout, done.stderr, done.returncode) == ("(7,) 1\n", "", 0)


ELSEWHERE = """
import pickle, sys
from layertee import Options, SyncEngine
from layertee.errors import LayerteeError

plan, options = pickle.load(sys.stdin.buffer)
with SyncEngine(sys.argv[1], options=options) as engine:
    try:
        told = engine.pull(plan)
    except LayerteeError as exc:
        told = exc
sys.stdout.buffer.write(pickle.dumps(told))
"""


@pytest.mark.parametrize("is_spoilt", [False, True])
def test_another_process_carries_a_plan_out_and_hands_back_what_came_of_it(
    image: BuiltImage, is_spoilt: bool, tmp_path: Path
) -> None:
    digest = image.layers[1].digest
    script = [on("blob", OtherBody(at=1000), reference=digest)] if is_spoilt else []
    with FaultServer(image, script) as server:
        with SyncEngine(tmp_path / "here", options=FROM_HERE) as engine:
            plan = engine.plan(server.reference)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", ELSEWHERE, str(tmp_path / "there")],
            input=pickle.dumps((plan, FROM_HERE)),
            capture_output=True,
            check=True,
            env=os.environ | {"HOME": str(tmp_path)},
        )
    told = pickle.loads(done.stdout)
    if is_spoilt:
        assert isinstance(told, DigestMismatch)
        assert (told.want, told.nbytes, told.code) == (digest, image.layers[1].size, "DIGEST_MISMATCH")
    else:
        assert isinstance(told, PullResult)
        assert told.bytes_fetched == image.blob_bytes
        assert told.manifest_digest == plan.manifest.digest


# --- a layer as a file ----------------------------------------------------------------------------------


def unpacked(file: IO[bytes]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            if (opened := tar.extractfile(member)) is not None:
                found[member.name] = opened.read()
    return found


EXPECTED = unpacked(io.BytesIO(TARS[0]))


def test_tarfile_reads_a_layer_while_it_arrives(image: BuiltImage, core: str, tmp_path: Path) -> None:
    with FaultServer(image) as server, SyncEngine(tmp_path, options=FROM_HERE.replace(core=core)) as engine:
        plan = engine.plan(server.reference)
        with engine.open_layer(plan.layers[0]) as stream, stream.file() as file:
            assert unpacked(file) == EXPECTED
        # The reader of tars stopped at the end of the archive, and the rest was read all the same.
        assert stream.result is not None
        assert stream.result.diff_id == image.layers[0].diff_id
        assert [pair.digest for pair in engine.store.catalog.pairs()] == [image.layers[0].digest]


def test_a_thread_reads_a_file_beside_an_event_loop(image: BuiltImage, core: str, tmp_path: Path) -> None:
    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=FROM_HERE.replace(core=core)) as engine:
            plan = await engine.plan(server.reference)
            async with engine.open_layer(plan.layers[0]) as stream:
                assert await asyncio.to_thread(unpacked, stream.file()) == EXPECTED
                with pytest.raises(RuntimeError, match="async for"):
                    stream.file().read(1)
            async with engine.open_layer(plan.layers[1]) as stream:
                assert await asyncio.to_thread(stream.file().read) == TARS[1]
                assert stream.result is not None
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with FaultServer(image) as server:
        run(main(server))


@pytest.mark.parametrize("size", [1, 511, 4096, 1 << 20, -1])
def test_a_file_gives_what_is_asked_for_and_ends_once(image: BuiltImage, size: int, tmp_path: Path) -> None:
    with FaultServer(image) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        plan = engine.plan(server.reference)
        with engine.open_layer(plan.layers[1]) as stream:
            file = stream.file()
            first = file.read(size)
            assert first == (TARS[1] if size < 0 else TARS[1][:size])
            assert first + file.read() == TARS[1]
            assert (file.read(), file.read(1)) == (b"", b"")


def lie(config: dict[str, dict[str, list[str]]]) -> None:
    config["rootfs"]["diff_ids"][0] = digest_of(b"something else")


def in_small_reads(stream: LayerStream) -> bytes:
    file, found = stream.file(), b""
    while part := file.read(100_000):
        found += part
    return found


READS: dict[str, Callable[[LayerStream], bytes]] = {
    "file": lambda stream: stream.file().read(),
    "small reads": in_small_reads,
    "for": b"".join,
}


@pytest.mark.parametrize("how", READS)
def test_no_reader_comes_to_the_end_of_what_the_image_does_not_name(
    image: BuiltImage, how: str, tmp_path: Path
) -> None:
    spoilt = [on("blob", OtherBody(at=1000), reference=image.layers[1].digest)]
    false = build_image(tmp_path / "false", SPECS, compression=["gzip", "none"], edit_config=lie)
    for built, index, script, error in ((image, 1, spoilt, DigestMismatch), (false, 0, [], DiffIDMismatch)):
        store = tmp_path / error.__name__
        with FaultServer(built, script) as server, SyncEngine(store, options=FROM_HERE) as engine:
            step = engine.plan(server.reference).layers[index]
            with pytest.raises(error), engine.open_layer(step) as stream:
                READS[how](stream)
                pytest.fail("the end was delivered")
            assert engine.store.catalog.pairs() == []


def test_who_forgets_what_a_read_raised_is_reminded_by_the_block(image: BuiltImage, tmp_path: Path) -> None:
    spoilt = [on("blob", OtherBody(at=1000), reference=image.layers[1].digest)]
    with FaultServer(image, spoilt) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        step = engine.plan(server.reference).layers[1]
        with pytest.raises(DigestMismatch), engine.open_layer(step) as stream, suppress(DigestMismatch):
            stream.file().read()


def test_what_keeps_bytes_from_coming_is_raised_where_they_are_read(
    image: BuiltImage, tmp_path: Path
) -> None:
    script = [on("blob", Reset(1000), reference=image.layers[1].digest)]

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=FROM_HERE) as engine:
            step = (await engine.plan(server.reference)).layers[1]
            heard: list[BaseException] = []

            def read(file: IO[bytes]) -> None:
                try:
                    file.read()
                except BaseException as exc:
                    heard.append(exc)
                    raise

            with pytest.raises(TransportError):
                async with engine.open_layer(step) as stream:
                    await asyncio.to_thread(read, stream.file())
            await asyncio.get_running_loop().shutdown_default_executor()
            assert [type(exc) for exc in heard] != []
            assert isinstance(heard[0], TransportError)

    with FaultServer(image, script) as server:
        run(main(server))
        with SyncEngine(tmp_path, options=FROM_HERE) as engine:
            step = engine.plan(server.reference).layers[1]
            with pytest.raises(TransportError), engine.open_layer(step) as stream:
                stream.file().read()


def test_what_a_file_left_is_compared_when_the_block_is_left(image: BuiltImage, tmp_path: Path) -> None:
    spoilt = [on("blob", OtherBody(at=MIB), reference=image.layers[1].digest)]
    with FaultServer(image, spoilt) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        step = engine.plan(server.reference).layers[1]
        with pytest.raises(DigestMismatch), engine.open_layer(step) as stream, stream.file() as file:
            assert file.read(512) == TARS[1][:512]


def test_a_layer_that_was_given_up_is_not_read_to_its_end(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [incompressible_layer(48 * MIB)], compression="none")
    with FaultServer(image) as server, SyncEngine(tmp_path / "store", options=FROM_HERE) as engine:
        step = engine.plan(server.reference).layers[0]
        with engine.open_layer(step) as stream, stream.file() as file:
            assert len(file.read(512)) == 512
            stream.give_up()
        server.settle()
        assert server.bytes_sent("blob", image.layers[0].digest) < 48 * MIB
        assert stream.result is None
        assert engine.store.catalog.pairs() == []


def test_a_file_of_a_block_that_was_left_is_closed(image: BuiltImage, tmp_path: Path) -> None:
    with FaultServer(image) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        step = engine.plan(server.reference).layers[1]
        with pytest.raises(IntegrityError, match="not read to its end"), engine.open_layer(step) as stream:
            next(stream)
        with engine.open_layer(step) as other:
            file = other.file()
            assert file.read(1)
        for late in (stream.file(), other.file()):
            with pytest.raises(ValueError, match="was left"):
                late.read()
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            file.read()


READ_LATE: dict[str, Callable[[io.BufferedReader], object]] = {
    "read": lambda file: file.read(1),
    "read1": lambda file: file.read1(1),
    "peek": lambda file: file.peek(1),
    "readinto": lambda file: file.readinto(bytearray(1)),
    "readinto1": lambda file: file.readinto1(bytearray(1)),
    "readline": lambda file: file.readline(1),
    "lines": next,
    "block": lambda file: file.__enter__(),
}


def test_what_a_file_has_read_ahead_is_not_given_after_the_block(image: BuiltImage, tmp_path: Path) -> None:
    with (
        FaultServer(image) as server,
        SyncEngine(tmp_path, options=FROM_HERE) as engine,
        engine.open_layer(engine.plan(server.reference).layers[1]) as stream,
    ):
        file = stream.file()
        assert len(file.peek()) > 1 and not file.closed
    assert file.closed
    for how, read in READ_LATE.items():
        with pytest.raises(ValueError, match=r"was left|closed"):
            pytest.fail(f"{how} gave {read(file)!r:.50}")


def test_a_file_has_what_the_pieces_before_it_left_and_no_piece_comes_after(
    image: BuiltImage, tmp_path: Path
) -> None:
    with FaultServer(image) as server, SyncEngine(tmp_path / "store", options=FROM_HERE) as engine:
        steps = engine.plan(server.reference).layers
        with engine.open_layer(steps[1]) as stream:
            first = next(stream) + (stream.read_piece() or b"")
            file = stream.file()
            begun = file.read(3)
            for read in (lambda: next(stream), stream.read_piece, lambda: list(stream)):
                with pytest.raises(RuntimeError, match="is read as a file"):
                    read()
            assert first + begun + file.read() == TARS[1]
        assert stream.result is not None

    async def main() -> None:
        async with Engine(tmp_path / "store", options=FROM_HERE) as engine:
            step = (await engine.plan(server.reference)).layers[1]
            async with engine.open_layer(step) as stream:
                file = stream.file()
                with pytest.raises(RuntimeError, match="is read as a file"):
                    await anext(aiter(stream))
                assert await asyncio.to_thread(file.read) == TARS[1]

    with server:
        asyncio.run(main())


def test_a_stream_has_one_file(image: BuiltImage, tmp_path: Path) -> None:
    with (
        FaultServer(image) as server,
        SyncEngine(tmp_path, options=FROM_HERE) as engine,
        engine.open_layer(engine.plan(server.reference).layers[1]) as stream,
    ):
        assert stream.file().read(10) + stream.file().read() == TARS[1]


def test_leaving_the_block_ends_a_thread_that_still_reads(image: BuiltImage, tmp_path: Path) -> None:
    gate, heard = Gate(), list[str]()
    held = on("blob", Held(gate, 1000), reference=image.layers[1].digest)

    def read(stream: LayerStream) -> None:
        with pytest.raises(ValueError, match="was left") as caught:
            stream.file().read()
        heard.append(str(caught.value))

    with FaultServer(image, [held]) as server, SyncEngine(tmp_path, options=FROM_HERE) as engine:
        step = engine.plan(server.reference).layers[1]
        with pytest.raises(KeyError), engine.open_layer(step) as stream:
            other = threading.Thread(target=read, args=(stream,))
            other.start()
            gate.wait_arrived()
            raise KeyError("out of here")
        other.join()
        gate.open()
    assert len(heard) == 1
