"""What more cores would give: ``python -m bench model [--small] [--rounds N]``.

A pull as a flow: layers of the image are in flight, as many as the product has with so many workers; each is
inflated in order, hashed in order and written, by workers; one thread receives; the server takes its part of
the same cores. Costs for each GB are those that *kernels* and *lone* measured, the event loop's and the
server's those of a pull that is measured for it. The model is checked against whole pulls on one core and on
two, where client and server have only these; for more cores it is a computation, and no measurement.
"""

from __future__ import annotations

import os
import select
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import Contender, Source, check, layertee
from bench.content import Images
from bench.held.document import Body, Document
from bench.held.rounds import interleaved
from bench.measure import CommandFailed
from bench.regimes import REGIMES, Server, serve, server_versions
from bench.runner import require_space
from bench.tools import find_tools
from bench.where import BUILT, DESTINATIONS, cache
from layertee.core.workers import MAX_WORKERS
from layertee.pulling.pull import layers_in_flight
from tests.support.rig.images import BuiltImage

SOURCES = ("kernels", "lone", "starts")
CORES = (1, 2, 4, 8, 16)
IMAGES = (("chunked", "gzip"), ("big", "gzip"), ("chunked", "zstd"), ("big", "zstd"))
MOST_PIECES = 6  # that the pool decodes ahead at once: lt_pool_config in csrc/lt_api.h
_POLL_MS = 5


class NoCosts(RuntimeError):
    """A section that the model takes its costs from was not measured; the message says which."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds for each GB (10^9 bytes), of output or (``_in``) of input.

    ``hash_pair`` is the share of one of two streams hashed at once, ``hash_single`` that of a stream alone.
    ``ahead`` is what a byte costs that is decoded before its turn, over one in its turn; 0: none ever is.
    ``start_s`` is what a pull with nothing to do takes of one core: it goes by before the first byte.
    """

    inflate: float
    hash_pair: float
    hash_single: float
    write: float
    loop_in: float
    server_in: float
    ahead: float
    start_s: float


@dataclass(frozen=True, slots=True)
class Layer:
    """GB of its blob and of its tar."""

    gb_in: float
    gb_out: float

    @property
    def ratio(self) -> float:
        """Bytes of input for one of output."""
        return self.gb_in / self.gb_out


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of one pull. ``cpu_s`` is the client's."""

    wall_s: float
    cpu_s: float


# -- the model -----------------------------------------------------------------------------


def predict(layers: Sequence[Layer], costs: Costs, cores: int) -> Predicted:
    """A pull of ``layers`` on ``cores``, which the server shares."""
    workers = min(cores, MAX_WORKERS)
    todo = sorted(layers, key=lambda layer: layer.gb_in, reverse=True)
    left: list[tuple[Layer, float]] = []
    wall = cpu = costs.start_s
    while todo or left:
        while todo and len(left) < layers_in_flight(workers):
            layer = todo.pop(0)
            left.append((layer, layer.gb_out))
        rates, spent = _rates([layer for layer, _ in left], costs, cores, workers)
        step = min(gb / rate for (_, gb), rate in zip(left, rates, strict=True))
        wall += step
        cpu += step * spent
        done = ((layer, gb - rate * step) for (layer, gb), rate in zip(left, rates, strict=True))
        left = [(layer, gb) for layer, gb in done if gb > 1e-9]
    return Predicted(wall, cpu)


def _rates(layers: Sequence[Layer], costs: Costs, cores: int, workers: int) -> tuple[list[float], float]:
    """GB of output a second of each layer, and the client's CPU a second."""
    if len(layers) == 1:
        rate = _lone_rate(layers[0], costs, cores, workers)
        return [rate], rate * (_work(layers[0], costs, rate, 1) - costs.server_in * layers[0].ratio)
    rates = _shared(layers, costs, cores)
    received = sum(rate * layer.ratio for layer, rate in zip(layers, rates, strict=True))
    if received * costs.loop_in > 1:
        rates = [rate / (received * costs.loop_in) for rate in rates]
        received = 1 / costs.loop_in
    work = sum(
        rate * _work(layer, costs, rate, len(layers)) for layer, rate in zip(layers, rates, strict=True)
    )
    return rates, work - received * costs.server_in


def _shared(layers: Sequence[Layer], costs: Costs, cores: int) -> list[float]:
    """Equal shares of the cores, but none more than its chain of one job after another can use."""
    rates: dict[int, float] = {}
    free, waiting = float(cores), list(range(len(layers)))
    while waiting:
        share = free / len(waiting)
        bound = [i for i in waiting if _most(costs) * _work(layers[i], costs, 0.0, 2) <= share]
        for i in bound or waiting:
            work = _work(layers[i], costs, 0.0, 2)
            rates[i] = min(_most(costs), share / work)
            free -= rates[i] * work
        waiting = [i for i in waiting if i not in rates]
    return [rates[i] for i in range(len(layers))]


def _most(costs: Costs) -> float:
    """GB of output a second of a layer on any number of cores: what must be done in order, one after another.

    Two streams that are hashed at once take twice the share of one.
    """
    return 1 / max(costs.inflate, min(2 * costs.hash_pair, costs.hash_single) + costs.write)


def _lone_rate(layer: Layer, costs: Costs, cores: int, workers: int) -> float:
    """The fastest that chain, event loop and cores allow, where idle workers decode ahead."""
    pieces = min(workers - 1, MOST_PIECES) if costs.ahead else 0
    decoders = 1 + (pieces / costs.ahead if pieces else 0)
    chain = min(2 * costs.hash_pair, costs.hash_single) + costs.write
    low, high = 0.0, min(decoders / costs.inflate, 1 / chain, 1 / (costs.loop_in * layer.ratio))
    if high * _work(layer, costs, high, 1) <= cores:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        if middle * _work(layer, costs, middle, 1) <= cores:
            low = middle
        else:
            high = middle
    return low


def _work(layer: Layer, costs: Costs, rate: float, in_flight: int) -> float:
    """CPU seconds for a GB of output at ``rate`` GB a second, the server's included."""
    if in_flight > 1:
        hashing = costs.hash_pair * (1 + layer.ratio)
    else:  # its blob and the same number of bytes of its tar at once, the rest of the tar alone
        paired = min(layer.ratio, 1.0)
        hashing = 2 * paired * costs.hash_pair + (1 - paired) * costs.hash_single
    ahead = max(0.0, 1 - 1 / (rate * costs.inflate)) if rate and in_flight == 1 and costs.ahead else 0.0
    inflating = costs.inflate * (1 + ahead * (costs.ahead - 1))
    return inflating + hashing + costs.write + (costs.loop_in + costs.server_in) * layer.ratio


def layers_of(image: BuiltImage) -> list[Layer]:
    """Each blob once."""
    once = {layer.digest: layer for layer in image.layers}.values()
    return [Layer(layer.size / 1e9, layer.uncompressed_size / 1e9) for layer in once]


def costs_of(form: str, documents: Mapping[str, Document]) -> Costs:
    """Of the kernels alone, as the sections have measured them; those of a pull are still 0.

    Raises NoCosts.
    """
    for name in SOURCES:
        if name not in documents:
            raise NoCosts(f"the model takes costs from what `python -m bench {name}` measures")
    kernels = documents["kernels"].body.facts
    stages = kernels[f"stages_{form}_s_per_gb"]
    ahead = documents["lone"].body.facts[f"ahead_{form}"]
    return Costs(
        inflate=kernels["inflate_s_per_gb"] if form == "gzip" else stages["inflate"],
        hash_pair=stages["hash2_out"],
        hash_single=stages["hash1_out"],
        write=stages["write_out"],
        loop_in=0.0,
        server_in=0.0,
        ahead=ahead["all"] if ahead["share"] else 0.0,
        start_s=documents["starts"].body.facts["noop_cpu_s"],
    )


# -- whole pulls -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Took:
    """Of one pull. ``loop_s``: CPU of the thread that receives, the start included."""

    wall_s: float
    cpu_s: float
    loop_s: float
    server_s: float


def timed(command: Sequence[str], environment: Mapping[str, str], server: Server) -> Took:
    """Run a pull. Raises CommandFailed."""
    spent, began = server.cpu_s(), time.perf_counter()
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
        )
        loop_ns = 0
        process, ended = os.pidfd_open(child.pid), select.poll()
        try:
            ended.register(process, select.POLLIN)
            while not ended.poll(_POLL_MS):
                loop_ns = max(loop_ns, _on_cpu_ns(child.pid))
            wall = time.perf_counter() - began
        finally:
            os.close(process)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip()[-500:]
            raise CommandFailed(f"{' '.join(command[:2])} failed ({child.returncode}): {said}")
    return Took(wall, usage.ru_utime + usage.ru_stime, loop_ns / 1e9, server.cpu_s() - spent)


def _on_cpu_ns(pid: int) -> int:
    """Of the first thread of a process, which runs the event loop; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])
    except (OSError, IndexError):
        return 0


@contextmanager
def only_cpus(number: int) -> Iterator[None]:
    """What is started inside has only so many CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def observed(
    images: Mapping[tuple[str, str], BuiltImage], cores: Sequence[int], seconds: float, rounds: int | None
) -> dict[tuple[str, str, int], list[Took]]:
    """Pulls of ``images`` on so many ``cores``, by shape, compression and cores."""
    tools, _ = find_tools(cache() / "peers", [])
    (contender,) = [it for it in layertee(tools["layertee"].program) if it.work == "decompress"]
    BUILT.mkdir(parents=True, exist_ok=True)
    most = max(image.uncompressed_bytes for image in images.values())
    require_space(DESTINATIONS["tmpfs"], most + (64 << 20))
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
        scratch = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="layertee-model-", dir=DESTINATIONS["tmpfs"])
            )
        )
        field: dict[tuple[str, str, int], Callable[[], Took]] = {}
        for number in cores:
            with only_cpus(number):
                place = Path(storage).absolute() / str(number)
                server = stack.enter_context(serve(REGIMES["nginx"], place))
            for (shape, form), image in images.items():
                source = server.publish(image, f"{shape}-{form}")
                run = partial(_one, contender, source, server, scratch, number)
                field[shape, form, number] = run
        return interleaved(field, seconds=seconds, rounds=rounds, warm=False)


def _one(contender: Contender, source: Source, server: Server, scratch: Path, cores: int) -> Took:
    target = scratch / "out"
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "LC_ALL": "C.UTF-8"}
    try:
        with only_cpus(cores):
            took = timed(contender.command(source, target), environment, server)
        check(contender, target, source.image, hashed=False)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return took


# -- the section -----------------------------------------------------------------------------


def measure(
    body: Body,
    made: Images,
    documents: Mapping[str, Document],
    *,
    seconds: float,
    rounds: int | None = None,
) -> None:
    """Fill ``body`` from what other sections measured, and whole pulls. Raises NoCosts, CommandFailed."""
    images = {(shape, form): made.get(shape, f"{form}:podman") for shape, form in IMAGES}
    alone = {form: costs_of(form, documents) for form in ("gzip", "zstd")}
    cores = [number for number in CORES[:2] if number <= len(os.sched_getaffinity(0))]
    found = observed(images, cores, seconds, rounds)
    body.versions |= server_versions()
    body.profile |= {f"image {shape}, {form}": image.digest for (shape, form), image in images.items()}
    loaded = [name for name in SOURCES if not documents[name].counts]
    body.notes += [f"the costs of {name} are not of an idle machine" for name in loaded]
    for (shape, form), image in images.items():
        costs = _with_pull(alone[form], found[shape, form, cores[-1]], image)
        body.facts[f"{shape}, {form}"] = {name: round(getattr(costs, name), 4) for name in Costs.__slots__}
        body.rows += _rows(shape, form, layers_of(image), costs, found)


def _with_pull(costs: Costs, taken: Sequence[Took], image: BuiltImage) -> Costs:
    """``costs`` with the event loop's and the server's, as medians of pulls of ``image``."""
    gb_in = image.blob_bytes / 1e9
    loop = statistics.median(took.loop_s for took in taken) - costs.start_s
    server = statistics.median(took.server_s for took in taken)
    return replace(costs, loop_in=max(loop, 0.0) / gb_in, server_in=server / gb_in)


def _rows(
    shape: str,
    form: str,
    layers: Sequence[Layer],
    costs: Costs,
    found: Mapping[tuple[str, str, int], Sequence[Took]],
) -> list[dict[str, Any]]:
    rows = []
    first = predict(layers, costs, 1)
    for cores in CORES:
        here, elsewhere = (predict(layers, it, cores) for it in (costs, replace(costs, server_in=0.0)))
        row: dict[str, Any] = {"image": f"{shape}, {form}", "cores": cores}
        row |= {"wall_s": round(here.wall_s, 3), "cpu_s": round(here.cpu_s, 3)}
        row |= {"times": round(first.wall_s / here.wall_s, 2), "elsewhere_s": round(elsewhere.wall_s, 3)}
        if taken := found.get((shape, form, cores)):
            row["measured_wall_s"] = round(statistics.median(took.wall_s for took in taken), 3)
            row["measured_cpu_s"] = round(statistics.median(took.cpu_s for took in taken), 3)
            row["rounds"] = len(taken)
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    heads = "image | cores | wall s | times one core's | CPU s | server elsewhere: wall s"
    lines = [f"| {heads} | measured: wall, CPU s | measured over model |", "|---" * 8 + "|"]
    for row in rows:
        real, off = "", ""
        if "measured_wall_s" in row:
            real = f"{row['measured_wall_s']:.2f}, {row['measured_cpu_s']:.2f}"
            off = f"{row['measured_wall_s'] / row['wall_s']:.2f}, {row['measured_cpu_s'] / row['cpu_s']:.2f}"
        lines.append(
            f"| {row['image']} | {row['cores']} | {row['wall_s']:.2f} | {row['times']:.2f}"
            f" | {row['cpu_s']:.2f} | {row['elsewhere_s']:.2f} | {real} | {off} |"
        )
    return lines
