"""What has arrived of a layer stays: after a kill, a signal, a failure, in every form and with both cores."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from layertee import Engine, sync
from layertee.options import Options
from layertee.pulling.plan import SourceKind
from layertee.pulling.report import PullResult
from layertee.transfer.limits import FetchLimits, RangeMode
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, NoRanges, Reset
from tests.support.fakes.refusals import Status
from tests.support.imageproxy import layertee_proxy
from tests.support.mounts import tmpfs
from tests.support.process import CORES, PLAIN, Cli, flip_a_byte, until, wait_until
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

MIB = 1 << 20
HELD = 60 * MIB
LOST = 16 * MIB  # of a layer in flight, at most, by a kill
FORMS = ("as-is", "uncompressed")


@pytest.fixture(scope="module", params=["gzip-fast", "zstd"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 80 MB, and a small one."""
    layers = [incompressible_layer(80 * MIB, seed=5), text_layer({"a": "small"})]
    return build_image(tmp_path_factory.mktemp("resume"), layers, compression=request.param)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 12 MB."""
    layers = [incompressible_layer(12 * MIB, seed=6)]
    return build_image(tmp_path_factory.mktemp("small"), layers, compression="gzip-fast")


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def part(user: Cli, image: BuiltImage) -> Path:
    """Where the first bytes of the image's first layer are."""
    return user.store / "layertee" / "parts" / (image.layers[0].digest.removeprefix("sha256:") + ".part")


def arrived(user: Cli, image: BuiltImage) -> int:
    path = part(user, image)
    return path.stat().st_size if path.exists() else 0


def killed(user: Cli, image: BuiltImage, form: str) -> int:
    """Kill a pull of which 60 MB of the first layer were sent; how many are here then."""
    gate, layer = Gate(), image.layers[0]
    with FaultServer(image, [on("blob", Held(gate, HELD), reference=layer.digest)]) as server:
        process = user.start("pull", PLAIN, "--layers", form, "--ranges", "never", server.reference)
        gate.wait_arrived()
        wait_until(lambda: arrived(user, image) >= HELD - LOST, "more would be lost")
        process.kill()
        assert user.finish(process, None).code == -signal.SIGKILL
        gate.open()
    return arrived(user, image)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_pull_goes_on_where_it_was(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path, form: str, core: str
) -> None:
    user = Cli(tmp_path / "home", core)
    name = push(image, "killed/os:1", registry)
    registry.reset()
    here = killed(user, image, form)
    listed = user.partial()
    assert listed.pop(image.layers[0].digest) == here
    assert set(listed) <= {image.layers[1].digest}, "the small layer may have been under way, too"
    assert user.run("ls", "--json").json["images"] == []
    planned = user.pull("--dry-run", "--layers", form, name)
    assert planned.layers[0]["resumed_at"] == here
    assert planned.layers[0]["bytes_fetched"] == image.layers[0].size - here
    assert "goes on at byte" in planned.layers[0]["reason"]
    ran = user.pull("--layers", form, name)
    assert ran.layers[0]["resumed_at"] == here
    assert here <= ran.json["bytes_reused"] <= here + image.layers[1].size
    assert ran.layers[0]["bytes_fetched"] == image.layers[0].size - here
    assert registry.blob_bytes(digests=[image.layers[0].digest]) == image.layers[0].size - here
    assert arrived(user, image) == 0 and user.leftovers() == []
    user.verified()
    other = "uncompressed" if form == "as-is" else "as-is"
    assert user.pull("--layers", other, name).json["bytes_fetched"] == 0


@pytest.mark.parametrize("forms", [FORMS, FORMS[::-1]], ids=["as-is first", "tar first"])
def test_a_part_serves_every_form(
    image: BuiltImage, registry: RegistryServer, user: Cli, forms: tuple[str, str]
) -> None:
    name = push(image, "forms/os:1", registry)
    here = killed(user, image, forms[0])
    assert user.pull("--layers", forms[1], name).layers[0]["resumed_at"] == here
    user.verified()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_pull_that_is_ended_goes_on_where_it_was(
    small: BuiltImage, user: Cli, form: str, end: signal.Signals
) -> None:
    gate, layer = Gate(), small.layers[0]
    with FaultServer(
        small, [on("blob", Held(gate, layer.size - MIB), reference=layer.digest, last=1)]
    ) as server:
        process = user.start("pull", PLAIN, "--layers", form, "--ranges", "never", server.reference)
        gate.wait_arrived()
        wait_until(lambda: arrived(user, small) >= layer.size - 3 * MIB, "it does not arrive")
        process.send_signal(end)
        assert "what has arrived is kept" in user.finish(process, 128 + end).err
        gate.open()
        here = arrived(user, small)
        ran = user.pull("--layers", form, server.reference)
        assert (ran.layers[0]["resumed_at"], ran.layers[0]["bytes_fetched"]) == (here, layer.size - here)
    user.verified()


@pytest.mark.parametrize("form", FORMS)
def test_what_a_server_did_not_send_is_all_that_the_next_run_asks_for(
    small: BuiltImage, user: Cli, form: str
) -> None:
    here, layer = left_behind(user, small, form), small.layers[0]
    assert here >= layer.size - 3 * MIB
    with FaultServer(small) as server:
        ran = user.pull("--layers", form, server.reference)
        assert ran.layers[0]["resumed_at"] == here
        asked = [request.header("Range") for request in server.requests("blob")]
    assert f"bytes={here}-{layer.size - 1}" in asked


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["middle", "all of it", "other bytes"])
def test_a_part_that_is_wrong_costs_one_new_start(
    small: BuiltImage, user: Cli, form: str, where: str
) -> None:
    left_behind(user, small, form)
    path, layer = part(user, small), small.layers[0]
    size = path.stat().st_size
    if where == "middle":
        flip_a_byte(path)
    else:
        path.write_bytes(bytes(size) if where == "all of it" else b"\x1f\x8b" + bytes(size - 2))
    with FaultServer(small) as server:
        ran = user.pull("--layers", form, server.reference)
    assert ran.layers[0]["resumed_at"] == 0
    assert ran.layers[0]["reason"] == "from its start; what was here of it was not used"
    assert layer.size <= ran.layers[0]["bytes_fetched"] <= 2 * layer.size - size
    user.verified()
    assert arrived(user, small) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["longer", "second name", "symlink", "directory mode", "empty", "whole"])
def test_what_is_found_in_place_of_a_part(small: BuiltImage, user: Cli, form: str, kind: str) -> None:
    left_behind(user, small, form)
    path, layer = part(user, small), small.layers[0]
    size = path.stat().st_size
    blob = small.root / "blobs/sha256" / path.name.removesuffix(".part")
    other = path.with_name("other")
    want = 0
    if kind == "longer":
        path.write_bytes(bytes(layer.size + 1))
    elif kind == "second name":
        other.hardlink_to(path)
    elif kind == "symlink":
        path.rename(other)
        path.symlink_to(other)
    elif kind == "directory mode":
        path.chmod(0o400)
        want = size
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(blob.read_bytes())
        want = layer.size
    before = other.read_bytes() if other.exists() else b""
    with FaultServer(small) as server:
        ran = user.pull("--layers", form, server.reference)
    assert ran.layers[0]["resumed_at"] == want
    assert ran.layers[0]["bytes_fetched"] == layer.size - want
    assert not other.exists() or other.read_bytes() == before
    user.verified()
    user.run("gc")
    assert list(path.parent.iterdir()) == []


def left_behind(user: Cli, image: BuiltImage, form: str) -> int:
    """A pull whose server breaks off near the end; how many bytes are here then."""
    with breaking_off(image) as server:
        words = (PLAIN, "--layers", form, "--ranges", "never", server.reference)
        assert user.run("pull", *words, code=1).code == 1
    assert arrived(user, image) > 0
    return arrived(user, image)


def breaking_off(image: BuiltImage) -> FaultServer:
    """A registry that breaks off in the first layer, and has no more of it."""
    digest, cut = image.layers[0].digest, image.layers[0].size - 2 * MIB
    script = [
        on("blob", Reset(cut), reference=digest, last=1),
        on("blob", Status(403), reference=digest, first=2),
    ]
    return FaultServer(image, script)


@pytest.mark.parametrize("form", FORMS)
def test_a_server_without_ranges_sends_it_all_and_what_is_here_stays(
    small: BuiltImage, user: Cli, form: str
) -> None:
    here, layer = left_behind(user, small, form), small.layers[0]
    with FaultServer(small, [on("blob", NoRanges(), reference=layer.digest)]) as server:
        ran = user.pull("--layers", form, server.reference)
    assert (ran.layers[0]["resumed_at"], ran.layers[0]["bytes_fetched"]) == (here, layer.size)
    user.verified()


@pytest.mark.parametrize("form", FORMS)
def test_two_processes_never_write_one_part(small: BuiltImage, user: Cli, form: str) -> None:
    """The one that comes second, in another form, has a file of its own."""
    gate, layer = Gate(), small.layers[0]
    other = FORMS[form == FORMS[0]]
    with FaultServer(
        small, [on("blob", Held(gate, layer.size // 2), reference=layer.digest, last=1)]
    ) as server:
        words = ("pull", PLAIN, "--json", "--ranges", "never")
        first = user.start(*words, "--layers", form, server.reference)
        gate.wait_arrived()
        done = user.pull("--layers", other, "--ranges", "never", server.reference)
        assert done.layers[0]["resumed_at"] == 0
        gate.open()
        user.finish(first)
    user.verified()
    assert arrived(user, small) == 0


def test_parts_are_kept_as_long_as_is_asked_for(small: BuiltImage, user: Cli) -> None:
    left_behind(user, small, "as-is")
    path = part(user, small)
    words = ("ls", "--partial")
    assert "10.0 MiB" in user.run(*words).out
    week_ago = path.stat().st_mtime - 8 * 86400
    subprocess.run(["touch", "-d", f"@{week_ago:.0f}", str(path)], check=True)
    assert "8 d" in user.run(*words).out
    user.run("gc", "--keep-partials", "9d")
    assert path.exists()
    user.run("gc", "--keep-partials", "7d")
    assert not path.exists()
    left_behind(user, small, "as-is")
    user.run("gc", "--keep-partials", "1Gi")
    assert path.exists()
    user.run("gc")
    assert not path.exists()
    with breaking_off(small) as server:
        never = ("--ranges", "never", "--keep-partials", "never")
        user.run("pull", PLAIN, *never, server.reference, code=1)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("end", ["hangs up", "killed", "SIGTERM"])
@pytest.mark.parametrize("identity", ["as-is", "diffid"])
def test_image_proxy_goes_on_with_what_an_earlier_one_had(
    small: BuiltImage, user: Cli, identity: str, end: str
) -> None:
    gate, layer = Gate(), small.layers[0]
    script = [on("blob", Held(gate, layer.size - MIB), reference=layer.digest, last=1)]
    options = ("--tls-verify=false", "--layer-identity", identity, "--ranges", "never")
    with FaultServer(small, script) as server:
        name = f"docker://{server.reference}"
        with layertee_proxy(user.store, *options) as proxy:
            proxy.value("Initialize")
            if identity == "as-is":
                proxy.begin("GetBlob", proxy.open(name), layer.digest, layer.size)
            else:
                proxy.begin("GetManifest", proxy.open(name))  # which wants to know the sizes of tars
            gate.wait_arrived()
            wait_until(lambda: arrived(user, small) >= layer.size - 3 * MIB, "it does not arrive")
            if end == "hangs up":
                proxy.hang_up()
            elif end == "killed":
                proxy.kill()
            else:
                proxy.signal(signal.SIGTERM)
            proxy.exit_status()
        gate.open()
        server.wait_closed()
        here = arrived(user, small)
        assert here >= layer.size - 3 * MIB
        server.forget()
        with layertee_proxy(user.store, *options) as proxy:
            proxy.value("Initialize")
            number = proxy.open(name)
            named = proxy.manifest(number)[1]["layers"][0]
            data = proxy.body("GetBlob", number, named["digest"], named["size"])
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == named["digest"]
        server.settle()
        assert server.bytes_sent("blob") - len(small.config) == layer.size - here
    user.verified()


@pytest.mark.parametrize("form", FORMS)
def test_the_rest_comes_from_another_endpoint(small: BuiltImage, user: Cli, form: str) -> None:
    """Of another host, with another ETag: the digest says what the bytes are."""
    here, layer = left_behind(user, small, form), small.layers[0]
    with FaultServer({"elsewhere/os:2": small}) as other:
        ran = user.pull("--layers", form, other.reference)
    assert (ran.layers[0]["resumed_at"], ran.layers[0]["bytes_fetched"]) == (here, layer.size - here)


def test_the_library_goes_on_where_it_was(small: BuiltImage, user: Cli) -> None:
    """A pull that its caller cancels, in one engine, and the next one in another."""
    gate, layer = Gate(), small.layers[0]
    script = [on("blob", Held(gate, layer.size - MIB), reference=layer.digest, last=1)]
    options = Options(tls_verify=False, limits=FetchLimits(ranges=RangeMode.NEVER))

    seen: list[str] = []

    async def interrupted(reference: str) -> None:
        async with Engine(user.store, options=options) as engine:
            pull = asyncio.create_task(engine.pull(await engine.plan(reference)))
            await until(lambda: arrived(user, small) >= layer.size - 3 * MIB, "it does not arrive")
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull

    async def resumed(reference: str) -> PullResult:
        async with Engine(user.store, options=options) as engine:
            plan = await engine.plan(reference)
            assert plan.layers[0].sources[0].kind is SourceKind.RESUME
            return await engine.pull(plan, lambda now: seen.append(now.layers[0].state))

    with FaultServer(small, script) as server:
        sync.run(interrupted(server.reference))
        gate.open()
        here = arrived(user, small)
        result = sync.run(resumed(server.reference))
    order = [state for at, state in enumerate(seen) if at == 0 or seen[at - 1] != state]
    assert order[-1] == "done" and set(order) <= {"waiting", "checking", "running", "done"}
    assert (result.layers[0].resumed_at, result.layers[0].bytes_fetched) == (here, layer.size - here)


def test_a_copy_of_the_blob_is_given_up_for_a_tar_that_fits_without_it(
    registry: RegistryServer, user: Cli, tmp_path: Path
) -> None:
    """Of 80 MiB that shrink to an eighth: more than is reckoned with before it is inflated."""
    random = hashlib.shake_128(b"room").digest(10 * MIB)
    layers = [text_layer({"a": b"".join(random[at : at + 1024] * 8 for at in range(0, len(random), 1024))})]
    image = build_image(tmp_path / "image", layers, compression="gzip-fast")
    name = push(image, "room/large:1", registry)
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "86m"):
        to = ("--store", disk / "store", "--keep-free", "0")
        assert user.pull(*to, "--layers", "uncompressed", name).actions == ["fetch"]
        assert list((disk / "store" / "layertee" / "parts").iterdir()) == []


def test_beginnings_of_other_layers_are_the_first_to_go(
    small: BuiltImage, image: BuiltImage, tmp_path: Path
) -> None:
    """On a disk that has room for the image, or for them."""
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", "88m"):
        user = Cli(tmp_path / "home")
        user.store = tmp_path / "disk" / "store"
        left_behind(user, small, "as-is")
        with FaultServer(image) as server:
            user.pull("--keep-free", "0", server.reference)
        assert arrived(user, small) == 0
        user.verified()


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_costs_nothing_that_has_arrived(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path, form: str
) -> None:
    """Something else fills it in the middle of a layer."""
    name = push(image, "full/os:1", registry)
    gate, layer, disk = Gate(), image.layers[0], tmp_path / "disk"
    disk.mkdir()
    with (
        tmpfs(disk, "420m"),
        FaultServer(image, [on("blob", Held(gate, HELD // 2), reference=layer.digest)]) as held,
    ):
        user = Cli(tmp_path / "home")
        user.store = disk / "store"
        words = (PLAIN, "--layers", form, "--keep-free", "0", "--ranges", "never")
        process = user.start("pull", *words, held.reference)
        gate.wait_arrived()
        wait_until(lambda: arrived(user, image) >= HELD // 2 - LOST, "it does not arrive")
        with (disk / "filler").open("wb") as file, suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(64 << 10))
        gate.open()
        assert "STORE_FULL" in user.finish(process, 5).err
        (disk / "filler").unlink()
        here = arrived(user, image)
        assert here >= HELD // 2 - LOST
        ran = user.pull("--layers", form, "--keep-free", "0", name)
        assert (ran.layers[0]["resumed_at"], ran.layers[0]["bytes_fetched"]) == (here, layer.size - here)
        user.verified()


def test_what_is_never_kept_is_not_planned_with(small: BuiltImage, user: Cli) -> None:
    left_behind(user, small, "as-is")
    with FaultServer(small) as server:
        planned = user.pull("--dry-run", "--keep-partials", "never", server.reference)
    assert (planned.layers[0]["resumed_at"], planned.json["bytes_fetched"]) == (0, small.layers[0].size)


def test_a_wrong_part_is_not_charged_to_what_the_image_may_inflate_to(small: BuiltImage, user: Cli) -> None:
    left_behind(user, small, "uncompressed")
    flip_a_byte(part(user, small))
    with FaultServer(small) as server:
        user.pull("--layers", "uncompressed", "--max-output", "14Mi", server.reference)
    user.verified()
