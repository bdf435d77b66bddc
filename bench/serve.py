"""``layertee serve`` beside other servers: ``python -m bench.serve [--small] [--rounds N]``.

*Sending*: one image of plain tars (*chunked*, 40 layers) is in our own store, in podman's, in an OCI
layout, in a docker-registry and below an nginx. Each hands out the same 40 blobs to a client that throws
bytes away; what counts is the server's CPU time, user and system, and the wall time. Beside podman's store,
reading.c reads and hashes the files of the same layers in the same order: what a server of those cannot do
without. Of that store there is a second row, by a server that was just started and has to hash each layer
as a whole.

*Loop*: in an image with one layer more, one line is changed, alone or with a program of 40 MB beside it,
and podman builds it again, which is not counted. Then the change reaches another machine: a client takes
the image from ``layertee serve`` over podman's store, or podman pushes it to a docker-registry and the
client takes it from there. Both clients have all that was there before; the client is skopeo, and then our
own.

Rounds are shuffled, the first is not counted. What arrived in it is hashed.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import reading
from bench.contenders import WrongResult
from bench.content import TOTAL, Images
from bench.drain import DrainError, drain
from bench.floor import FloorError
from bench.held.rounds import interleaved
from bench.measure import CommandFailed, measure
from bench.proxy import write
from bench.regimes import server_versions
from bench.results import machine
from bench.runner import require_space
from bench.tools import find_tools
from bench.where import BUILT, RESULTS, cache
from tests.support.process import COMMAND, PLAIN
from tests.support.rig.blobcache import run_with_cache
from tests.support.rig.images import BuiltImage, run_tool, upload
from tests.support.rig.nginx import NginxRegistry, process_cpu_s
from tests.support.rig.registry import RegistryServer, RigError
from tests.support.rig.serve import ServeRig
from tests.support.rig.storage import StorageRig

SHAPE = "chunked"
NAME = "localhost/os:1"
OURS, PODMANS, LAYOUT = "layertee, own store", "layertee, podman's store", "layertee, OCI layout"
FIRST = "layertee, podman's store, for the first time"
REGISTRY, NGINX, READING = "docker-registry", "nginx", "reading and hashing the files"
CLIENTS = ("skopeo", "layertee")
# Of CPU time, and of wall time: what is held against what, and the most that it is to be.
GOALS = {(OURS, REGISTRY): 1.0, (FIRST, READING): 1.5, (PODMANS, READING): 1.5}
LOOP_GOAL = 1 / 3
_SPARE = 256 << 20
_PROGRAM_NBYTES = 40_000_000
CHANGES = {"a line": False, "a line and 40 MB": True}  # in the layer that is built anew


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of the server's CPU and of wall time, for ``nbytes``."""

    cpu_s: float
    wall_s: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class Served:
    """The image as one server has it."""

    host: str
    repository: str
    pid: int

    def send(self, digests: Sequence[str], connections: int, *, hashed: bool = False) -> Run:
        """Take all these blobs. Raises DrainError, and WrongResult for another blob than was asked for."""
        paths = {f"/v2/{self.repository}/blobs/{digest}": digest for digest in digests}
        before = process_cpu_s(self.pid)
        taken = drain(self.host, list(paths), connections=connections, hashed=hashed)
        cpu = process_cpu_s(self.pid) - before
        for path, digest in taken.digests.items():
            if digest != paths[path]:
                raise WrongResult(f"{self.host} sent {digest} as {path}")
        return Run(round(cpu, 3), round(taken.wall_s, 4), taken.nbytes)


# --- sending --------------------------------------------------------------------------------------------


def publish(image: BuiltImage, work: Path, stack: ExitStack) -> tuple[dict[str, Served], StorageRig]:
    """The image at every server, and podman's store that one of them serves."""
    registry = stack.enter_context(RegistryServer(work / "registry"))
    name = upload(image, "os:1", registry)
    nginx = stack.enter_context(NginxRegistry(work / "nginx"))
    nginx.add(image, "os:1")
    storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="store-", dir="/tmp"))
    podmans = StorageRig(Path(storage) / "s", "overlay")
    stack.callback(podmans.unmount)
    podmans.take(image.skopeo_name, NAME)
    store = ServeRig(work / "own", "store")
    store.cli.pull("--insecure-policy", name)
    rigs = {
        OURS: store,
        PODMANS: ServeRig(work / "podmans", podmans.name),
        LAYOUT: ServeRig(work / "layout", f"oci:{image.root}"),
    }
    for rig in rigs.values():
        stack.enter_context(rig)
    servers = {key: Served(rig.host, "os", rig.pid) for key, rig in rigs.items()}
    servers[REGISTRY] = Served(registry.host, "os", registry.pid)
    servers[NGINX] = Served(nginx.host, "os", nginx.pid)
    return servers, podmans


def send(image: BuiltImage, work: Path, rounds: int, connections: int) -> dict[str, list[Run]]:
    """Runs of every server in rounds, and of reading.c."""
    digests = list(dict.fromkeys(layer.digest for layer in image.layers))
    with ExitStack() as stack:
        servers, podmans = publish(image, work, stack)
        program, files = reading.build(work), work / "files"
        reading.write_list(files, reading.files_of(podmans, digests))
        field: dict[str, Callable[[], Run]] = {READING: partial(_read, program, files)}
        for name, server in servers.items():
            server.send(digests, connections, hashed=True)
            field[name] = partial(server.send, digests, connections)
        field[FIRST] = partial(_send_first, podmans, digests, connections, work)
        return interleaved(field, seconds=0, rounds=rounds)


def _send_first(podmans: StorageRig, digests: Sequence[str], connections: int, work: Path) -> Run:
    """By a server that knows nothing of the layers yet, and has to hash each as a whole."""
    with (
        tempfile.TemporaryDirectory(prefix="first-", dir=work) as home,
        ServeRig(Path(home), podmans.name) as rig,
    ):
        return Served(rig.host, "os", rig.pid).send(digests, connections)


def _read(program: Path, files: Path) -> Run:
    read = reading.run_once(program, files)
    return Run(read.cpu_s, read.wall_s, read.nbytes)


def sending_rows(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """Medians: CPU seconds and wall seconds of a round, and the CPU seconds for each GB that was sent."""
    return [
        {
            "server": name,
            "cpu_s": round(statistics.median(run.cpu_s for run in taken), 3),
            "wall_s": round(statistics.median(run.wall_s for run in taken), 3),
            "cpu_s_per_gb": round(statistics.median(run.cpu_s / run.nbytes * 1e9 for run in taken), 3),
            "gb_per_s": round(statistics.median(run.nbytes / run.wall_s / 1e9 for run in taken), 3),
            "nbytes": taken[-1].nbytes,
        }
        for name, taken in runs.items()
    ]


def sending_ratios(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """CPU of one over that of another: the median of the rounds' own ratios, and whether the goal is met."""
    pairs = [(OURS, REGISTRY), (OURS, NGINX), (LAYOUT, REGISTRY)]
    pairs += [(FIRST, READING), (PODMANS, READING), (PODMANS, REGISTRY)]
    found = []
    for of, over in pairs:
        ratios = [a.cpu_s / b.cpu_s for a, b in zip(runs[of], runs[over], strict=True)]
        found.append(ratio(f"{of}, over {over}", ratios, GOALS.get((of, over))))
    return found


def ratio(what: str, ratios: Sequence[float], goal: float | None) -> dict[str, Any]:
    """The median with the least and the most."""
    entry: dict[str, Any] = {
        "what": what,
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "rounds": len(ratios),
    }
    if goal is not None:
        entry |= {"goal": round(goal, 3), "met": entry["ratio"] <= goal}
    return entry


# --- the loop -------------------------------------------------------------------------------------------


class Loop:
    """Where an image is built, and the two ways from there to a client. Everything is below ``work``.

    ``program`` is what the layer with the line has besides, of some builds.
    """

    def __init__(self, base: BuiltImage, program: bytes, work: Path, stack: ExitStack) -> None:
        self._work = work
        self._program = program
        self._registry = stack.enter_context(RegistryServer(work / "registry"))
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="store-", dir="/tmp"))
        self._store = StorageRig(Path(storage) / "s", "overlay")
        stack.callback(self._store.unmount)
        self._store.take(base.skopeo_name, "localhost/base:1")
        self._context = work / "context"
        (self._context / "app").mkdir(parents=True)
        (self._context / "Containerfile").write_text("FROM localhost/base:1\nCOPY app /usr/libexec/app/\n")
        self._n_built = 0
        self.build(whole=True)
        self._server = stack.enter_context(ServeRig(work / "server", self._store.name))

    def build(self, *, whole: bool) -> None:
        """Change the line, and build: the ``whole`` of the layer, or the line alone."""
        self._n_built += 1
        (self._context / "app" / "settings").write_text(f"answer = {self._n_built}\n")
        (self._context / "app" / "program").write_bytes(self._program if whole else b"")
        options = ("--quiet", "--isolation", "chroot", "--layers", "--pull-never", "--tag", NAME)
        self._podman("build", *options, str(self._context))

    def served(self, client: str) -> float:
        """Seconds until ``client`` has what was built, from our server."""
        return self._take(client, f"{self._server.host}/os:1", "served")

    def pushed(self, client: str) -> float:
        """Seconds until ``client`` has it, through a registry."""
        name = f"{self._registry.host}/os:1"
        began = time.perf_counter()
        self._podman("push", "--quiet", PLAIN, NAME, name)
        return time.perf_counter() - began + self._take(client, name, "pushed")

    def _take(self, client: str, name: str, by: str) -> float:
        kept = self._work / f"{client} {by}"
        if client == "skopeo":
            # Without --preserve-digests it would compress what comes as it is.
            command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
            return measure([*command, f"docker://{name}", f"oci:{kept}:os"], watch=False).wall_s
        command = [COMMAND, "pull", PLAIN, "--insecure-policy", "--quiet", "--store", str(kept), name]
        return measure(command, watch=False).wall_s

    def _podman(self, *words: str) -> None:
        root = self._store.root
        places = ("--root", str(root), "--runroot", f"{root}.run", "--storage-driver", self._store.driver)
        run_with_cache(self._work / "blobs known", "podman", *places, *words)


def program_of(image: BuiltImage, nbytes: int) -> bytes:
    """The beginning of the largest layer: real content, as a program that was built would be."""
    largest = max(image.layers, key=lambda layer: layer.size)
    with image.blob_path(largest.digest).open("rb") as file:
        return file.read(nbytes)


def loop(
    base: BuiltImage,
    work: Path,
    rounds: int,
    changes: Mapping[str, bool] = CHANGES,
    clients: Sequence[str] = CLIENTS,
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each round, by what changed and who takes it, and by way."""
    taken: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        developer = Loop(base, program_of(base, _PROGRAM_NBYTES), work, stack)
        ways = {"served": developer.served, "pushed": developer.pushed}
        for take, client in itertools.product(ways.values(), clients):
            take(client)  # the first time, all of the image
        field = list(itertools.product(changes.items(), clients))
        for _ in range(rounds):
            for (change, whole), client in random.sample(field, len(field)):
                developer.build(whole=whole)  # for each: what was pushed for one is there for the next
                row = taken.setdefault(f"{change}, {client}", {way: [] for way in ways})
                for way in random.sample(list(ways), len(ways)):
                    row[way].append(round(ways[way](client), 4))
    return dict(sorted(taken.items()))


def loop_rows(taken: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """For each change and client: medians of both ways, and the median of the rounds' own ratios."""
    found = []
    for what, ways in taken.items():
        ratios = [a / b for a, b in zip(ways["served"], ways["pushed"], strict=True)]
        medians = {f"{way}_s": round(statistics.median(seconds), 3) for way, seconds in ways.items()}
        found.append(medians | ratio(what, ratios, LOOP_GOAL))
    return found


# --- the whole ------------------------------------------------------------------------------------------


def tables(document: Mapping[str, Any]) -> str:
    """As Markdown."""
    lines = ["| server | CPU s | CPU s per GB | GB/s |", "|---|---|---|---|"]
    for row in document["sending"]:
        speeds = f"{row['cpu_s_per_gb']:.3f} | {row['gb_per_s']:.2f}"
        lines.append(f"| {row['server']} | {row['cpu_s']:.3f} | {speeds} |")
    lines += ["", "| CPU | ratio (least-most) | to reach | rounds |", "|---|---|---|---|"]
    lines += [_ratio_line(entry) for entry in document["sending_ratios"]]
    if document["loop"]:
        lines += [
            "",
            "| what is new, and who takes it | served s | pushed and pulled s | ratio (least-most) | to reach"
            " | rounds |",
        ]
        lines.append("|---|---|---|---|---|---|")
        for entry in document["loop"]:
            seconds = f" {entry['served_s']:.2f} | {entry['pushed_s']:.2f} |"
            lines.append(_ratio_line(entry, seconds))
    return "\n".join(lines)


def _ratio_line(entry: Mapping[str, Any], between: str = "") -> str:
    goal = ""
    if "goal" in entry:
        goal = f"{entry['goal']:.3f} {'reached' if entry['met'] else '**not reached**'}"
    spread = f"{entry['ratio']:.3f} ({entry['least']:.3f}-{entry['most']:.3f})"
    return f"| {entry['what']} |{between} {spread} | {goal} | {entry['rounds']} |"


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parsed, with what depends on other options filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="a tenth of the content, 3 rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="counted rounds (default: 7)")
    parser.add_argument("--connections", type=int, metavar="N", default=4, help="at a time (default: 4)")
    parser.add_argument("--part", choices=("sending", "loop"), action="append", help="default: both")
    parser.add_argument("--out", type=Path, help="default: bench/results/serve, or below build if not all")
    args = parser.parse_args(words)
    whole = not (args.small or args.part)
    args.out = args.out or (RESULTS if whole else BUILT / "results") / "serve"
    args.rounds = args.rounds or (3 if args.small else 7)
    args.part = args.part or ["sending", "loop"]
    return args


def run(args: argparse.Namespace) -> Path:
    """Build, measure, print, write; the path of the results."""
    BUILT.mkdir(parents=True, exist_ok=True)
    made = Images(cache(), TOTAL // 10 if args.small else TOTAL)
    image = made.get(SHAPE, "none")
    sent: dict[str, list[Run]] = {}
    looped: dict[str, dict[str, list[float]]] = {}
    require_space(BUILT, 4 * image.uncompressed_bytes + _SPARE)
    if "sending" in args.part:
        with tempfile.TemporaryDirectory(prefix="serve-", dir=BUILT.absolute()) as work:
            sent = send(image, Path(work), args.rounds, args.connections)
    if "loop" in args.part:
        with tempfile.TemporaryDirectory(prefix="serve-", dir=BUILT.absolute()) as work:
            looped = loop(image, Path(work), args.rounds)
    tools, _ = find_tools(cache() / "peers", ["skopeo"])
    document = {
        "schema": 1,
        "command": " ".join(("python -m bench.serve", *sys.argv[1:])),
        "date": str(datetime.date.today()),
        "machine": machine(),
        "versions": {name: tool.version for name, tool in tools.items()}
        | server_versions()
        | {"podman": run_tool("podman", "--version").split()[-1]},
        "image": {
            "shape": SHAPE,
            "compression": "none",
            "n_layers": len(image.layers),
            "nbytes": image.uncompressed_bytes,
            "content": made.content,
        },
        "connections": args.connections,
        "notes": made.notes,
        "sending": sending_rows(sent),
        "sending_ratios": sending_ratios(sent) if sent else [],
        "loop": loop_rows(looped),
        "runs": {name: [[it.cpu_s, it.wall_s] for it in taken] for name, taken in sent.items()},
        "loop_runs": looped,
    }
    print(tables(document), flush=True)
    return write(args.out, document)


def main() -> int:
    """Measure what the command line asks for; 1 with a message if it can't be done."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what servers wrote would stay behind
    try:
        path = run(arguments(sys.argv[1:]))
    except (CommandFailed, WrongResult, DrainError, FloorError, RigError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
