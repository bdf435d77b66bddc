"""The library as it is documented: plan, pull, progress, and what they leave in the store."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

import layertee
from layertee import Action, Engine, Form, ImagePlan, Options, Progress, PullResult, RangeMode, Store, sync
from layertee.engine import ImageName
from layertee.errors import (
    DigestMismatch,
    IntegrityError,
    InvalidReference,
    LocalError,
    NoSpace,
    NotFound,
    SizeMismatch,
    TransportError,
)
from layertee.image.document import Digest
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Behaviour, ContentEncoding, ContentLength, Gate, Held, OtherBody
from tests.support.process import until, wait_until
from tests.support.rig.images import BuiltImage, build_image, push, recompress
from tests.support.rig.layers import empty_layer, text_layer, zeros_layer
from tests.support.rig.registry import RegistryServer
from tests.support.store import assert_store_is_sound, visible_blobs

T = TypeVar("T")
GIB = 1 << 30
INSECURE = Options(tls_verify=False)


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await main

    return sync.run(bounded())


def layer_bytes(server: FaultServer, image: BuiltImage) -> dict[str, int]:
    """Body bytes that each layer cost."""
    server.settle()
    return {digest: server.bytes_sent("blob", digest) for digest in image.layer_digests}


def pull(
    name: str,
    root: Path,
    *,
    form: Form = Form.AS_IS,
    options: Options = INSECURE,
    ref: str | ImageName | None = ImageName.AS_REFERENCE,
) -> PullResult:
    async def main() -> PullResult:
        async with Engine(root, options=options) as engine:
            return await engine.pull(await engine.plan(name, form=form, name=ref))

    return run(main())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    specs = [text_layer({f"file-{n}": f"layer {n}\n" * 20_000}) for n in range(6)]
    return build_image(tmp_path_factory.mktemp("small"), specs, compression=["gzip", "zstd"] * 3)


# --- the public names --------------------------------------------------------------------------------


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    assert sorted(layertee.__all__) == sorted(set(layertee.__all__))
    for name in layertee.__all__:
        value = getattr(layertee, name)
        can_say = inspect.isclass(value) or inspect.isroutine(value)  # not a version, nor an alias
        assert value.__doc__ or not can_say, name
    with pytest.raises(AttributeError, match="no_such_name"):
        layertee.no_such_name  # noqa: B018
    namespace: dict[str, object] = {}
    exec("from layertee import *", namespace)
    assert set(layertee.__all__) <= set(namespace) | {"__version__"}


def test_the_public_names_are_typed_for_callers(tmp_path: Path) -> None:
    """A program that uses all of them passes mypy --strict against the installed package."""
    program = tmp_path / "program.py"
    names = ", ".join(layertee.__all__)
    program.write_text(
        textwrap.dedent(
            f"""
            from layertee import {names}

            async def main(ref: str) -> str:
                async with Engine(store="/x", options=Options()) as engine:
                    plan: ImagePlan = await engine.plan(ref, form=Form.UNCOMPRESSED)
                    step: LayerPlan = plan.layers[0]
                    async with engine.open_layer(step) as tar:
                        async for piece in tar:
                            reveal_type(piece)
                    result = await engine.pull(plan, progress=lambda p: print(p.bytes_done))
                    reveal_type(result.layers)
                    return result.manifest_digest

            reveal_type(pull("x", store="/x"))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    revealed = [line.partition('"')[2].rstrip('"') for line in done.stdout.splitlines() if "Revealed" in line]
    assert done.returncode == 0, done.stdout
    assert [text.replace("builtins.", "") for text in revealed] == [
        "memoryview[int]",
        "tuple[layertee.pulling.report.LayerResult, ...]",
        "layertee.pulling.report.PullResult",
    ]


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys, layertee; print(sorted(m for m in sys.modules if m.split('.')[0] in sys.argv[1:]))"
    command = [sys.executable, "-c", code, "aiohttp", "asyncio", "rich", "ssl", "uvloop", "zstandard"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    assert importlib.import_module("layertee").__version__


def times_below(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


# --- plan ----------------------------------------------------------------------------------------------


def test_a_plan_says_what_a_pull_would_do_and_changes_nothing(
    built: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(built, "engine/plan:latest", registry)
    registry.reset()

    async def main() -> ImagePlan:
        async with Engine(tmp_path, options=INSECURE) as engine:
            before = times_below(tmp_path)
            plan = await engine.plan(name)
            assert times_below(tmp_path) == before
            return plan

    plan = run(main())
    assert plan.manifest.digest == built.digest
    assert plan.config.digest == built.config_digest
    assert [(step.layer.digest, step.layer.diff_id) for step in plan.layers] == [
        (layer.digest, layer.diff_id) for layer in built.layers
    ]
    assert {step.action for step in plan.layers} == {Action.FETCH}
    assert plan.bytes_to_fetch == built.blob_bytes
    assert json.loads(json.dumps(plan.to_json()))["manifest_digest"] == built.digest
    assert registry.blob_bytes("engine/plan", digests=built.layer_digests) == 0


@pytest.mark.parametrize("name", ["Ubuntu", "host/UPPER:x", "oci:", "containers-storage:[overlay@x", ""])
def test_a_name_that_cannot_be_understood_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidReference):
        pull(name, tmp_path)


def test_an_image_that_is_not_there_is_said_to_be_missing(
    registry: RegistryServer, small: BuiltImage, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="engine/none"):
        pull(f"{registry.host}/engine/none:latest", tmp_path)
    with pytest.raises(NotFound):
        pull(f"oci:{small.root}:other", tmp_path)
    with pytest.raises(NotFound):
        pull(f"oci:{tmp_path / 'nowhere'}", tmp_path)


def test_an_engine_outside_its_block_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        Engine(tmp_path).store  # noqa: B018


# --- pull ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(Form))
def test_a_pull_brings_the_image_from_a_real_registry(
    built: BuiltImage, registry: RegistryServer, form: Form, tmp_path: Path
) -> None:
    name = push(built, f"engine/pull-{form.value}:latest", registry)
    registry.reset()
    seen: list[Progress] = []

    async def main() -> tuple[PullResult, PullResult]:
        async with Engine(store=tmp_path, options=INSECURE) as engine:
            plan = await engine.plan(name, form=form)
            result = await engine.pull(plan, progress=seen.append)
            again = await engine.pull(await engine.plan(name, form=form))
            return result, again

    result, again = run(main())
    assert registry.blob_bytes(digests=built.layer_digests) == built.blob_bytes
    assert result.bytes_fetched == built.blob_bytes
    assert (again.bytes_fetched, again.bytes_reused) == (0, built.blob_bytes)
    assert (result.manifest_digest == result.local_manifest_digest) is (form is Form.AS_IS)
    assert again.local_manifest_digest == result.local_manifest_digest
    assert {"sha256:" + path.name for path in (tmp_path / "blobs/sha256").iterdir()} >= {
        layer.digest if form is Form.AS_IS else layer.diff_id for layer in built.layers
    }
    assert_store_is_sound(tmp_path)
    assert [layer.uncompressed_size for layer in result.layers] == [
        layer.uncompressed_size for layer in built.layers
    ]
    with Store.open(tmp_path) as store:
        assert {pair.digest: pair.diff_id for pair in store.catalog.pairs()}.items() >= {
            (layer.digest, layer.diff_id) for layer in built.layers
        }


def test_pull_is_also_a_plain_function(small: BuiltImage, registry: RegistryServer, tmp_path: Path) -> None:
    name = push(small, "engine/sync:latest", registry)
    seen: list[Progress] = []
    result = layertee.pull(
        name, store=str(tmp_path), form="uncompressed", options=INSECURE, progress=seen.append
    )
    assert isinstance(result, PullResult)
    assert result.bytes_fetched == small.blob_bytes
    assert seen[-1].bytes_done == seen[-1].bytes_total == small.blob_bytes
    with Store.open(tmp_path) as store:
        assert layertee.pull(name, store=store, options=INSECURE).bytes_fetched == 0
        store.images.all()  # a store that was given stays open

    async def within_a_loop() -> None:
        with pytest.raises(RuntimeError):
            layertee.pull(name, store=tmp_path, options=INSECURE)

    with pytest.warns(RuntimeWarning, match="never awaited"):
        run(within_a_loop())


def test_progress_only_grows_and_ends_complete(built: BuiltImage, tmp_path: Path) -> None:
    seen: list[Progress] = []

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=INSECURE) as engine:
            await engine.pull(await engine.plan(server.reference), progress=seen.append)

    with FaultServer(built, rate_per_connection=20e6) as server:
        run(main(server))
    done = [progress.bytes_done for progress in seen]
    assert len(seen) > 3
    assert done == sorted(done)
    assert done[0] < done[len(done) // 2] < done[-1]
    assert {progress.bytes_total for progress in seen} == {built.blob_bytes}
    assert done[-1] == built.blob_bytes
    assert {layer.state for layer in seen[-1].layers} == {"done"}
    seconds = [progress.seconds for progress in seen]
    assert seconds == sorted(seconds)
    states = ["waiting", "running", "done"]
    for index in range(len(built.layers)):
        order = [states.index(progress.layers[index].state) for progress in seen]
        assert order == sorted(order)


def test_a_failing_progress_callback_ends_the_pull_with_its_error(small: BuiltImage, tmp_path: Path) -> None:
    def fails(_: Progress) -> None:
        raise KeyError("display")

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=INSECURE) as engine:
            with pytest.raises(KeyError, match="display"):
                await engine.pull(await engine.plan(server.reference), progress=fails)

    with FaultServer(small) as server:
        run(main(server))
    assert list((tmp_path / "layertee/ingest").iterdir()) == []


@pytest.mark.parametrize("form", list(Form))
def test_two_pulls_at_once_in_one_engine_fetch_each_layer_once(
    small: BuiltImage, form: Form, tmp_path: Path
) -> None:
    async def main(server: FaultServer) -> tuple[PullResult, PullResult]:
        async with Engine(tmp_path, options=INSECURE) as engine:

            async def one() -> PullResult:
                return await engine.pull(await engine.plan(server.reference, form=form))

            return await asyncio.gather(one(), one())

    with FaultServer(small) as server:
        one, other = run(main(server))
        assert layer_bytes(server, small) == {layer.digest: layer.size for layer in small.layers}
    assert one.bytes_fetched + other.bytes_fetched == small.blob_bytes
    assert one.local_manifest_digest == other.local_manifest_digest
    assert {layer.reason for layer in (*one.layers, *other.layers) if layer.action is Action.HAVE} <= {
        "brought by another process meanwhile",
        "in the store",
    }
    assert_store_is_sound(tmp_path)


def test_two_engines_on_one_store_fetch_each_layer_once(small: BuiltImage, tmp_path: Path) -> None:
    gate = Gate()
    first = small.layers[0].digest

    async def main(server: FaultServer) -> tuple[PullResult, PullResult]:
        async def one() -> PullResult:
            async with Engine(tmp_path, options=INSECURE) as engine:
                return await engine.pull(await engine.plan(server.reference))

        pulls = asyncio.gather(one(), one())
        await asyncio.to_thread(gate.wait_arrived)
        others = [Path(tmp_path, "blobs", *layer.digest.split(":")) for layer in small.layers[1:]]
        await until(lambda: all(path.exists() for path in others), "layers do not come")  # all that can
        gate.open()
        return await pulls

    with FaultServer(small, [on("blob", Held(gate), reference=first)]) as server:
        one, other = run(main(server))
        assert layer_bytes(server, small) == {layer.digest: layer.size for layer in small.layers}
    assert one.bytes_fetched + other.bytes_fetched == small.blob_bytes


def test_the_same_content_compressed_anew_is_not_fetched_again(small: BuiltImage, tmp_path: Path) -> None:
    other = recompress(small, "gzip-fast", tmp_path / "image")
    assert not small.layer_digests & other.layer_digests
    with FaultServer({"a/image:1": small, "b/image:2": other}) as server:
        pull(f"{server.host}/a/image:1", tmp_path / "store")
        result = pull(f"{server.host}/b/image:2", tmp_path / "store")
        assert result.bytes_fetched == 0
        assert set(layer_bytes(server, other).values()) == {0}
    assert result.manifest_digest == other.digest
    assert_store_is_sound(tmp_path / "store")


def test_a_layer_that_occurs_twice_is_brought_once(tmp_path: Path) -> None:
    twice = text_layer({"x": "x\n" * 5000})
    image = build_image(tmp_path / "image", [twice, empty_layer(), twice, empty_layer()])
    with FaultServer(image) as server:
        result = pull(server.reference, tmp_path / "store")
        assert layer_bytes(server, image) == {layer.digest: layer.size for layer in image.layers}
    assert [layer.action for layer in result.layers] == [Action.FETCH] * 2 + [Action.HAVE] * 2
    assert result.bytes_fetched == image.blob_bytes
    assert result.layers[2].reason == "same content as layer 0"


def test_an_image_without_layers_is_pulled(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [])
    with FaultServer(image) as server:
        result = pull(server.reference, tmp_path / "store")
    assert (result.layers, result.bytes_fetched) == ((), 0)
    assert_store_is_sound(tmp_path / "store")


# --- where layers come from besides the registry -----------------------------------------------------------


def test_another_layout_on_the_machine_gives_what_it_has(small: BuiltImage, tmp_path: Path) -> None:
    options = Options(tls_verify=False, places=(small.root,))
    with FaultServer(small) as server:
        result = pull(server.reference, tmp_path, options=options)
        assert set(layer_bytes(server, small).values()) == {0}
    assert {layer.action for layer in result.layers} == {Action.REUSE}
    assert (result.bytes_fetched, result.bytes_reused) == (0, small.blob_bytes)
    assert_store_is_sound(tmp_path)


def test_a_place_that_lies_is_not_believed_and_the_registry_asked(small: BuiltImage, tmp_path: Path) -> None:
    place = tmp_path / "place"
    copy = recompress(small, "gzip-fast", place)
    path = copy.blob_path(copy.layers[0].digest)
    path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    options = Options(tls_verify=False, places=(place,))
    with FaultServer(small) as server:
        result = pull(server.reference, tmp_path / "store", options=options)
        assert layer_bytes(server, small)[small.layers[0].digest] == small.layers[0].size
    assert result.layers[0].action is Action.FETCH
    assert "could not give it" in result.layers[0].reason
    assert {layer.action for layer in result.layers[1:]} == {Action.REUSE}
    assert_store_is_sound(tmp_path / "store")


@pytest.mark.parametrize("core", ["c", "python"])
@pytest.mark.parametrize("kept", list(Form))
@pytest.mark.parametrize("wanted", list(Form))
def test_without_its_catalog_a_store_is_looked_through_and_not_fetched_again(
    small: BuiltImage, core: str, kept: Form, wanted: Form, tmp_path: Path
) -> None:
    options = Options(tls_verify=False, core=core)
    seen: list[Progress] = []

    async def again(server: FaultServer) -> PullResult:
        async with Engine(tmp_path, options=options) as engine:
            return await engine.pull(await engine.plan(server.reference, form=wanted), progress=seen.append)

    with FaultServer(small) as server:
        first = pull(server.reference, tmp_path, form=kept, options=options)
        for path in (tmp_path / "layertee").glob("catalog.sqlite*"):
            path.unlink()
        blobs = set(visible_blobs(tmp_path))
        server.forget()
        result = run(again(server))
        assert set(layer_bytes(server, small).values()) == {0}
    assert result.bytes_fetched == 0
    assert {layer.reason for layer in result.layers} == {"in the store, checked again now"}
    assert result.local_manifest_digest == first.local_manifest_digest
    assert set(visible_blobs(tmp_path)) == blobs
    done = [progress.bytes_done for progress in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].bytes_total
    assert_store_is_sound(tmp_path)


def test_an_unrecorded_tar_that_is_wrong_is_fetched_instead(small: BuiltImage, tmp_path: Path) -> None:
    with FaultServer(small) as server:
        pull(server.reference, tmp_path, form=Form.UNCOMPRESSED)
        for path in (tmp_path / "layertee").glob("catalog.sqlite*"):
            path.unlink()
        tar = tmp_path / "blobs" / small.layers[3].diff_id.replace(":", "/")
        data = bytearray(tar.read_bytes())
        data[1000] ^= 1
        tar.chmod(0o600)
        tar.write_bytes(data)
        result = pull(server.reference, tmp_path, form=Form.UNCOMPRESSED)
    actions = [layer.action for layer in result.layers]
    assert actions == [Action.FETCH if n == 3 else Action.HAVE for n in range(6)]
    assert_store_is_sound(tmp_path)


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(Form))
def test_what_was_finished_before_a_failure_is_kept(small: BuiltImage, form: Form, tmp_path: Path) -> None:
    bad = min(small.layers, key=lambda layer: layer.size)  # brought last
    with FaultServer(small, [on("blob", OtherBody(at=bad.size - 2), reference=bad.digest)]) as server:
        with pytest.raises(IntegrityError):
            pull(server.reference, tmp_path, form=form)
        assert_store_is_sound(tmp_path)
        assert list((tmp_path / "layertee/ingest").iterdir()) == []
        assert list(visible_blobs(tmp_path))
        server.script([])
        result = pull(server.reference, tmp_path, form=form)
    fetched = {layer.digest for layer in result.layers if layer.action is Action.FETCH}
    assert bad.digest in fetched
    assert len(fetched) < len(small.layers)
    assert_store_is_sound(tmp_path)


def test_a_lying_mirror_of_ranges_is_found_out_by_one_stream(built: BuiltImage, tmp_path: Path) -> None:
    layer = built.layers[0]
    limits = FetchLimits(ranges=RangeMode.ALWAYS, range_nbytes=2 << 20, backoff_s=0.01)
    options = Options(tls_verify=False, limits=limits)
    with FaultServer(built, [on("blob", OtherBody(at=6 << 20), reference=layer.digest, last=5)]) as server:
        result = pull(server.reference, tmp_path, options=options)
        assert server.requests("blob", layer.digest)[-1].header("Range") is None
    assert result.layers[0].bytes_fetched > layer.size
    with FaultServer(built, [on("blob", OtherBody(at=6 << 20), reference=layer.digest)]) as server:
        with pytest.raises(IntegrityError):
            pull(server.reference, tmp_path / "other", options=options)
        assert sum(r.header("Range") is None for r in server.requests("blob", layer.digest)) == 1


def test_an_error_keeps_its_own_cause(small: BuiltImage, tmp_path: Path) -> None:
    """What went wrong below is in the traceback of a program that prints one."""

    async def main() -> None:
        async with Engine(tmp_path / "store", options=INSECURE) as engine:
            plan = await engine.plan(f"oci:{image.root}:{image.ref}")
            for layer in image.layers:
                image.blob_path(layer.digest).unlink()
            with pytest.raises(layertee.LayerteeError) as caught:
                await engine.pull(plan)
            assert isinstance(caught.value.__cause__, FileNotFoundError)

    image = recompress(small, "gzip-fast", tmp_path / "image")
    run(main())


def test_a_pull_that_cannot_fit_is_refused_before_it_begins(
    small: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertee.disk.space.free_space", lambda *_: (50_000, 49_999))
    with FaultServer(small) as server:
        with pytest.raises(NoSpace, match="must stay free"):
            pull(server.reference, tmp_path)
        assert set(layer_bytes(server, small).values()) == {0}


def test_a_disk_that_fills_up_meanwhile_stops_the_pull(
    built: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [(10 * GIB, GIB), (10 * GIB, GIB)]
    monkeypatch.setattr("layertee.disk.space.free_space", lambda *_: space.pop() if space else (100, GIB))
    with FaultServer(built, rate_per_connection=5e6) as server:
        with pytest.raises(NoSpace, match="what has arrived is kept"):
            pull(server.reference, tmp_path)
        server.wait_closed()
    assert list((tmp_path / "layertee/ingest").iterdir()) == []


def test_a_commit_that_fails_leaves_no_part_and_no_lock(
    small: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync
    left = [2]

    def fails(fd: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        real(fd)

    with FaultServer(small) as server:
        before = set(os.listdir("/proc/self/fd"))
        for n in range(6):
            Store.open(tmp_path / str(n)).close()
            left[0] = n
            monkeypatch.setattr(os, "fdatasync", fails)
            with pytest.raises(LocalError, match="Input/output error"):
                pull(server.reference, tmp_path / str(n))
            monkeypatch.setattr(os, "fdatasync", real)
            assert list((tmp_path / str(n) / "layertee/ingest").iterdir()) == []
            # The server is of this process too, and closes its ends later.
            wait_until(lambda: set(os.listdir("/proc/self/fd")) <= before, "something stays open")
            pull(server.reference, tmp_path / str(n))
            assert_store_is_sound(tmp_path / str(n))


def test_an_image_that_contradicts_what_was_computed_is_refused(small: BuiltImage, tmp_path: Path) -> None:
    def lie(config: dict[str, Any]) -> None:
        ids = config["rootfs"]["diff_ids"]
        ids[0], ids[1] = ids[1], ids[0]

    specs = [text_layer({f"file-{n}": f"layer {n}\n" * 20_000}) for n in range(6)]
    liar = build_image(tmp_path / "liar", specs, compression=["gzip", "zstd"] * 3, edit_config=lie)
    assert liar.layers == small.layers
    with FaultServer({"rig/good:latest": small, "rig/liar:latest": liar}) as server:
        pull(f"{server.host}/rig/good:latest", tmp_path / "store")
        server.forget()
        with pytest.raises(layertee.LayerteeError, match="the image is refused") as caught:
            pull(f"{server.host}/rig/liar:latest", tmp_path / "store")
        assert isinstance(caught.value, IntegrityError)
        assert set(layer_bytes(server, liar).values()) == {0}


def test_wrong_bytes_never_become_visible(small: BuiltImage, tmp_path: Path) -> None:
    layer = small.layers[0]
    for form in Form:
        root = tmp_path / form.value
        with (
            FaultServer(small, [on("blob", OtherBody(at=layer.size // 2), reference=layer.digest)]) as server,
            pytest.raises(IntegrityError) as caught,
        ):
            pull(server.reference, root, form=form)
        assert not isinstance(caught.value, DigestMismatch) or caught.value.want == layer.digest
        assert not (root / "blobs" / layer.digest.replace(":", "/")).exists()
        assert not (root / "blobs" / layer.diff_id.replace(":", "/")).exists()
        with Store.open(root) as store:
            assert store.catalog.diff_id(Digest(layer.digest)) is None
            assert store.images.all() == []


# --- connections and memory -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [ContentLength(-7), ContentLength(7), ContentEncoding(really=True)], ids=str
)
def test_a_blob_that_is_announced_with_another_size_ends_the_pull_soon(
    small: BuiltImage, tmp_path: Path, fault: Behaviour
) -> None:
    layer = small.layers[0].digest
    with FaultServer(small, [on("blob", fault, reference=layer)]) as server:
        with pytest.raises((SizeMismatch, TransportError)):
            pull(server.reference, tmp_path)
        asked = [request for request in server.requests("blob") if request.reference == layer]
        assert len(asked) <= 8


def test_more_connections_than_eight_are_opened_when_asked_for(built: BuiltImage, tmp_path: Path) -> None:
    gate = Gate()
    limits = FetchLimits(ranges=RangeMode.ALWAYS, range_nbytes=1 << 20, max_connections=11)
    layer = built.layers[0]

    async def main(server: FaultServer) -> None:
        async with Engine(tmp_path, options=Options(tls_verify=False, limits=limits)) as engine:
            plan = await engine.plan(server.reference)
            pulling = asyncio.create_task(engine.pull(plan))
            await asyncio.to_thread(gate.wait_arrived, 10)
            assert await engine.plan(server.reference)  # documents do not queue behind layers
            gate.open()
            await pulling

    with FaultServer(built, [on("blob", Held(gate), reference=layer.digest, first=2)]) as server:
        run(main(server))
        assert 11 <= server.max_connections <= 12


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
def test_a_gibibyte_of_zeros_is_pulled_in_bounded_memory(form: Form, tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [zeros_layer(GIB)], compression="gzip-fast")
    program = textwrap.dedent(
        """
        import sys, layertee
        options = layertee.Options(tls_verify=False)
        result = layertee.pull(sys.argv[1], store=sys.argv[2], form=sys.argv[3], options=options)
        peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]  # ru_maxrss is pytest's
        print(result.layers[0].uncompressed_size, peak)
        """
    )
    with FaultServer(image) as server:
        command = [sys.executable, "-c", program, server.reference, str(tmp_path / "store"), form.value]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    nbytes, peak_kib = map(int, done.stdout.split())
    shutil.rmtree(tmp_path / "store")  # pytest keeps its directories for a while
    assert nbytes == image.layers[0].uncompressed_size
    assert peak_kib <= 128 << 10
