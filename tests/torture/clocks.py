"""Clocks: the time jumps by a day in the middle of a pull, and a machine sleeps in the middle of a layer.

The wall clock says when something happened, and is asked nothing else: a pull whose clock jumps, forth or
back or a thousand times, takes as long and asks for as much as any other. ``clock.c`` is such a clock.

A machine that sleeps and wakes up again (the processes are stopped and continued) goes on with its pull,
whether its connections are still there or not.
"""

from __future__ import annotations

import email.utils
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.fakes.credentials import BearerAuth
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held
from tests.support.fakes.refusals import Presigned
from tests.support.imageproxy import ImageProxy, layertee_proxy, parts
from tests.support.process import PLAIN, Cli, Ran, wait_until
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import NotInstalled
from tests.support.store import assert_store_is_sound
from tests.torture.results import Budget, Findings

__all__ = ["CASES", "Clock", "run"]

DAY: Final = 86_400.0
LATE_S: Final = 60.0  # no pull of a case takes that long, beyond the sleep; a busy machine included
FULL_SLEEP_S: Final = 300.0
SHORT_SLEEP_S, SHORT_STALL_S = 6.0, 2.0
HAD: Final = 1 << 20  # of the layer, at least, when a machine falls asleep
LAYER: Final = 4 << 20


class Clock:
    """A wall clock of processes that have ``environment``. Close it."""

    def __init__(self, directory: Path) -> None:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            raise NotInstalled("there is no C compiler")
        library, path = directory / "clock.so", directory / "clock"
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, *flags, "-o", library, source], check=True)
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._says = mmap.mmap(file.fileno(), 16)
        self.environment = {"LD_PRELOAD": str(library), "TORTURE_CLOCK": str(path)}

    def jump(self, seconds: float) -> None:
        """From now on the clock is off by so much."""
        self._says[:8] = struct.pack("=q", int(seconds * 1e9))

    def stand(self, at: float) -> None:
        """From now on it is always ``at``; 0: the clock runs again."""
        self._says[8:] = struct.pack("=q", int(at * 1e9))

    @contextmanager
    def jumping(self, chance: random.Random) -> Iterator[None]:
        """It jumps by up to a day, some thousand times a second, until the end of the block."""
        stop = threading.Event()

        def jump() -> None:
            while not stop.wait(0.0003):
                self.jump(chance.uniform(-DAY, DAY))

        thread = threading.Thread(target=jump, name="jumping clock")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        self._says.close()


@dataclass(slots=True)
class Scene:
    """One case: files of its own, and a clock of its own."""

    root: Path
    sleep_s: float
    stall_s: float
    chance: random.Random
    clock: Clock = field(init=False)
    cli: Cli = field(init=False)
    image: BuiltImage = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.clock = Clock(self.root)
        self.cli = Cli(self.root / "home")
        layers = [incompressible_layer(LAYER), text_layer({"a": "a\n" * 9_000}), text_layer({"b": "b"})]
        self.image = build_image(self.root / "image", layers)

    @property
    def big(self) -> str:
        """The digest of the layer that is asked for first."""
        return self.image.layers[0].digest

    def start(self, reference: str, *words: str) -> subprocess.Popen[str]:
        """A pull whose wall clock is the scene's."""
        return self.cli.start("pull", PLAIN, "--json", *words, reference, **self.clock.environment)

    def run(self, name: str, *words: str) -> Ran:
        """Another command with that clock, which must succeed."""
        return self.cli.finish(self.cli.start(name, *words, **self.clock.environment), late_s=LATE_S)

    def proxy(self, store: Path, *words: str) -> ImageProxy:
        """An image-proxy with that clock."""
        environment: dict[str, Any] = dict(self.clock.environment)
        return layertee_proxy(store, *words, **environment)

    def assert_whole(self, server: FaultServer, *, requests: int = 1) -> None:
        """The image is there; each layer was asked for up to ``requests`` times, and one token was enough."""
        server.settle()
        assert_store_is_sound(self.cli.store)
        assert self.run("verify", "--json").json["ok"] is True
        for layer in self.image.layers:
            assert self.cli.blob(layer.digest).exists(), layer.digest
            asked = len(server.requests("blob", layer.digest))
            assert asked <= requests, f"{layer.digest} was asked for {asked} times"
        assert len(server.requests("token")) <= 1, "the token was thought to have run out"


# --- jumps ----------------------------------------------------------------------------------------


def _jumps(*by: float) -> Callable[[Clock, random.Random], None]:
    def jump(clock: Clock, chance: random.Random) -> None:
        for seconds in by:
            clock.jump(seconds)

    return jump


JUMPS: Final = {"forth": _jumps(DAY), "back": _jumps(-DAY), "forth and back": _jumps(DAY, -DAY, 0.0)}
MOMENTS: Final = ("token", "manifest", "layer")


def _jump(moment: str, jump: Callable[[Clock, random.Random], None]) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        gate = Gate()
        nbytes = LAYER // 2 if moment == "layer" else None
        kind, reference = ("blob", scene.big) if moment == "layer" else (moment, None)
        rule = on(kind, Held(gate, nbytes), reference=reference, last=1)
        if moment == "token":  # its service is honest at once, and what comes next is held
            rule = on("manifest", Held(gate))
        with FaultServer(scene.image, [rule], auth=BearerAuth(fields={"expires_in": 300})) as server:
            began = time.monotonic()
            process = scene.start(server.reference, "--deadline", "50s")
            gate.wait_arrived()
            jump(scene.clock, scene.chance)
            gate.open()
            scene.cli.finish(process, late_s=LATE_S)
            assert time.monotonic() - began < LATE_S
            scene.assert_whole(server)
            server.forget()
            scene.clock.jump(0.0)
            again = scene.cli.pull(server.reference)
            assert set(again.actions) == {"have"}, f"{again.actions} of what was there"

    return case


def _restless(scene: Scene) -> None:
    """All the time, from the first line of the program to its last."""
    with (
        FaultServer(scene.image, rate_per_connection=4e6, auth=BearerAuth()) as server,
        scene.clock.jumping(scene.chance),
    ):
        words = ("--ranges", "never", "--deadline", "50s")
        scene.cli.finish(scene.start(server.reference, *words), late_s=LATE_S)
        scene.assert_whole(server)


def _restless_proxy(scene: Scene) -> None:
    """The same for an image-proxy that has no room for what is not in use: what it drops goes by age."""
    store = scene.root / "store"
    words = ("--tls-verify=false", "--cache-max", "1Mi")
    with (
        FaultServer(scene.image, rate_per_connection=8e6, auth=BearerAuth()) as server,
        scene.clock.jumping(scene.chance),
    ):
        for _ in range(2):
            with scene.proxy(store, *words) as proxy:
                proxy.value("Initialize")
                for _ in range(2):
                    number = proxy.open(f"docker://{server.reference}")
                    for layer in scene.image.layers:
                        assert proxy.blob(number, layer) == scene.image.blob_path(layer.digest).read_bytes()
                    proxy.value("CloseImage", number)
                proxy.hang_up()
                assert proxy.exit_status() == 0, proxy.stderr()
    assert parts(store) == []
    assert_store_is_sound(store)


def _signed(scene: Scene) -> None:
    """A signed URL is used for as long as its storage takes it, whatever the time is."""
    gate = Gate()
    script = [on("signed", Held(gate, LAYER // 2), last=1), on("blob", Presigned(), reference=scene.big)]
    with FaultServer(scene.image, script) as server:
        process = scene.start(server.reference)
        gate.wait_arrived()
        scene.clock.jump(DAY)
        gate.open()
        scene.cli.finish(process, late_s=LATE_S)
        scene.assert_whole(server)
        assert len(server.requests("signed")) == 1


def _ages(scene: Scene) -> None:
    """Images pulled today, tomorrow and yesterday, in that order; one is removed, the others stay whole."""
    others = [
        build_image(scene.root / name, [incompressible_layer(9_000, seed=seed), text_layer({name: name})])
        for seed, name in enumerate(("tomorrow", "yesterday"), 1)
    ]
    images = dict(zip(("today", "tomorrow", "yesterday"), (scene.image, *others), strict=True))
    with FaultServer({f"{name}/os:1": image for name, image in images.items()}) as server:
        for name, off in zip(images, (0.0, DAY, -DAY), strict=True):
            scene.clock.jump(off)
            scene.cli.finish(scene.start(f"{server.host}/{name}/os:1"), late_s=LATE_S)
        for off in (-2 * DAY, 0.0, 2 * DAY):
            scene.clock.jump(off)
            assert len(scene.run("ls", "--json").json["images"]) == 3
            scene.run("map")
            scene.run("gc")
        scene.run("rm", f"{server.host}/tomorrow/os:1")
        scene.run("gc")
        assert_store_is_sound(scene.cli.store)
        assert not scene.cli.blob(images["tomorrow"].layers[0].digest).exists()
        for name in ("today", "yesterday"):
            again = scene.cli.pull(f"{server.host}/{name}/os:1")
            assert set(again.actions) == {"have"}, name


def _damage(scene: Scene) -> None:
    """What is moved aside has the time in its name: at a time that stands still, nothing is overwritten."""
    scene.clock.stand(1_600_000_000)
    with FaultServer(scene.image) as server:
        for n in range(3):
            scene.cli.finish(scene.start(server.reference), late_s=LATE_S)
            catalog = scene.cli.store / "layertee" / "catalog.sqlite"
            catalog.write_bytes(f"damage {n}".encode() * 500)
        scene.cli.finish(scene.start(server.reference), late_s=LATE_S)
    aside = [path.read_bytes()[:8] for path in catalog.parent.glob("catalog.sqlite.corrupt-*")]
    aside = [begin for begin in aside if begin]  # without the journals beside them
    assert sorted(aside) == [b"damage 0", b"damage 1", b"damage 2"], f"moved aside: {aside}"
    assert_store_is_sound(scene.cli.store)


@dataclass(frozen=True, slots=True)
class _ComeBack:
    """503 with a Retry-After that is a date, a second after the answer's own Date."""

    async def respond(self, exchange: Exchange) -> None:
        now = time.time()
        plan = exchange.plain(503)
        plan.set("Date", email.utils.formatdate(now, usegmt=True))
        plan.set("Retry-After", email.utils.formatdate(now + 1, usegmt=True))
        await exchange.send(plan)


def _asked_to_wait(off: float) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        """A wait of a second is one, though this machine thinks that it is another day."""
        scene.clock.jump(off)
        script = [on("manifest", _ComeBack(), last=1), on("blob", _ComeBack(), reference=scene.big, last=1)]
        with FaultServer(scene.image, script) as server:
            began = time.monotonic()
            scene.cli.finish(scene.start(server.reference), late_s=LATE_S)
            assert time.monotonic() - began < LATE_S / 2
            scene.assert_whole(server, requests=2)

    return case


# --- sleep ----------------------------------------------------------------------------------------

CONNECTIONS: Final = ("kept", "kept, and all sent meanwhile", "dropped meanwhile", "dropped afterwards")


def _sleep(connection: str) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        gate = Gate()
        held = Held(gate, LAYER // 2, then_reset=connection.startswith("dropped"))
        with FaultServer(scene.image, [on("blob", held, reference=scene.big, last=1)]) as server:
            process = scene.start(server.reference, "--stall-timeout", str(scene.stall_s))
            gate.wait_arrived()
            _let_sleep(process.pid, scene.cli.store, scene, gate, connection)
            scene.cli.finish(process, late_s=LATE_S)
            scene.assert_whole(server, requests=2)
            _assert_most_of_it_once(server, scene)

    return case


def _sleep_proxy(connection: str) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        gate, store = Gate(), scene.root / "store"
        held = Held(gate, LAYER // 2, then_reset=connection.startswith("dropped"))
        words = ("--tls-verify=false", "--stall-timeout", str(scene.stall_s))
        with (
            FaultServer(scene.image, [on("blob", held, reference=scene.big, last=1)]) as server,
            scene.proxy(store, *words) as proxy,
        ):
            proxy.value("Initialize")
            number = proxy.open(f"docker://{server.reference}")
            layer = scene.image.layers[0]
            proxy.begin("GetBlob", number, layer.digest, layer.size)
            gate.wait_arrived()
            _let_sleep(proxy.pid, store, scene, gate, connection)
            reply = proxy.receive()
            assert reply.success, reply.error
            content, finished = proxy.drain(reply)
            assert finished.success, finished.error
            assert content == scene.image.blob_path(layer.digest).read_bytes()
            server.settle()
            _assert_most_of_it_once(server, scene)
        assert parts(store) == []
        assert_store_is_sound(store)

    return case


def _assert_most_of_it_once(server: FaultServer, scene: Scene) -> None:
    """What had come before the sleep was not sent again, but what was on its way in it may have been."""
    nbytes = server.bytes_sent("blob", scene.big)
    assert nbytes <= 2 * LAYER - HAD + (64 << 10), f"{nbytes} bytes were sent of a layer of {LAYER}"


def _let_sleep(pid: int, store: Path, scene: Scene, gate: Gate, connection: str) -> None:
    """Stop a process for as long as the scene says, once it has some of the layer; its clock is off then."""

    def come() -> int:
        return sum(path.stat().st_size for path in (store / "layertee").rglob("*.part"))

    wait_until(lambda: come() >= HAD, "nothing of the layer comes")
    os.kill(pid, signal.SIGSTOP)
    if connection in ("kept, and all sent meanwhile", "dropped meanwhile"):
        gate.open()
    time.sleep(scene.sleep_s)
    scene.clock.jump(1.0)
    os.kill(pid, signal.SIGCONT)
    gate.open()


# --- the part -------------------------------------------------------------------------------------

CASES: Final[Mapping[str, Callable[[Scene], None]]] = {
    **{f"{name} at a {moment}": _jump(moment, jump) for name, jump in JUMPS.items() for moment in MOMENTS},
    "all the time": _restless,
    "all the time, image-proxy": _restless_proxy,
    "forth behind a redirect": _signed,
    "ages": _ages,
    "damage at a time that stands still": _damage,
    "asked to wait by a clock that is behind": _asked_to_wait(-DAY),
    "asked to wait by a clock that is ahead": _asked_to_wait(DAY),
    **{f"sleep, {how}": _sleep(how) for how in CONNECTIONS},
    **{f"sleep, {how}, image-proxy": _sleep_proxy(how) for how in CONNECTIONS},
}


def run(budget: Budget) -> Mapping[str, object]:
    """All cases, those that sleep side by side; of a sample each kind once, and a sleep of seconds."""
    findings, full = Findings("clocks", budget), budget.scale >= 1.0
    sleep_s, stall_s = (FULL_SLEEP_S, 60.0) if full else (SHORT_SLEEP_S, SHORT_STALL_S)
    names = [name for name in CASES if budget.wants(name)]
    if not full and not budget.cases:
        names = budget.random("clocks").sample(names, budget.count(len(names), least=8))
    names.sort(key=lambda name: not name.startswith("sleep"))  # the longest first

    with TemporaryDirectory(prefix="layertee-clocks-") as directory:

        def one(name: str) -> None:
            root = Path(directory) / name.replace(" ", "_")
            try:
                scene = Scene(root, sleep_s, stall_s, budget.random("clocks", name))
                try:
                    CASES[name](scene)
                finally:
                    scene.clock.close()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                findings.add(name, error if isinstance(error, AssertionError) else repr(error))

        with ThreadPoolExecutor(8 if full else 4) as pool:
            list(pool.map(one, names))
    return {"cases": len(names), "sleep_s": sleep_s} | findings.figures()
