"""The image-proxy beside skopeo's: ``python -m bench.proxy [--small] [--runs N]``.

One Rust client (tests/peers/rust/crates/proxyclient, over the crate that bootc uses) asks for the layers
of the *chunked* gzip image one after the other, inflates each where it is compressed, and throws it away.
It starts the server that is measured. Rounds are shuffled, the first is not counted; every run of ours has an
empty store. Wall time is the client's, from spawn to exit; CPU is the client's and the proxy's, told apart by
the client.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import Source, WrongResult
from bench.content import TOTAL, Images
from bench.measure import CommandFailed, measure
from bench.regimes import REGIMES, Server, serve, server_versions
from bench.results import machine
from bench.runner import require_space
from bench.where import BUILT, DESTINATIONS, RESULTS, cache
from tests.support.rig import proxyclient
from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import RigError

SHAPE, COMPRESSION = "chunked", "gzip"
PEER = "skopeo"
MEDIANS = ("wall_s", "cpu_s", "client_cpu_s", "proxy_cpu_s", "server_cpu_s", "wire_nbytes")
_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class Contender:
    """A server: its command on a store, and the goals for its wall time, over skopeo's, by regime."""

    name: str
    command: Callable[[Path], list[str]]
    goals: dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Seconds; ``wire_nbytes`` are bytes of layer blobs that the server of the image sent."""

    regime: str
    round: int
    proxy: str
    wall_s: float
    cpu_s: float
    client_cpu_s: float
    proxy_cpu_s: float
    server_cpu_s: float
    wire_nbytes: int


def contenders(skopeo: str) -> list[Contender]:
    """Ours in both forms, and skopeo."""
    ours = proxyclient.ours
    return [
        Contender("layertee", ours, {"capped": 0.5, "loopback": 1.0}),
        Contender(
            "layertee --layer-identity diffid",
            lambda store: ours(store, "--layer-identity", "diffid"),
            {"capped": 0.5, "loopback": 1.0},
        ),
        Contender(PEER, lambda _: [skopeo], {}),
    ]


def run_once(
    contender: Contender, client: Path, source: Source, server: Server, scratch: Path
) -> dict[str, Any]:
    """One run with an empty store. Raises CommandFailed, and WrongResult if a layer was not read whole."""
    home = scratch / "home"
    home.mkdir()
    report = scratch / "report.json"
    words = ["--insecure-tls", "--insecure-policy", "--out", str(report)]
    command = proxyclient.command(
        client, contender.command(home / "store"), *words, "decompress", f"docker://{source.reference}"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    server.reset()
    spent = server.cpu_s()
    try:
        usage = measure(command, environment=environment)
        spent = server.cpu_s() - spent
        told = json.loads(report.read_bytes())
    finally:
        shutil.rmtree(home)
        report.unlink(missing_ok=True)
    wire = server.layer_bytes(source.image)
    check(contender, told, source.image, wire)
    return {
        "wall_s": round(usage.wall_s, 4),
        "cpu_s": round(usage.cpu_s, 4),
        "client_cpu_s": told["cpu_s"]["client"],
        "proxy_cpu_s": told["cpu_s"]["proxy"],
        "server_cpu_s": round(spent, 2),
        "wire_nbytes": wire,
    }


def check(contender: Contender, told: dict[str, Any], image: BuiltImage, wire: int) -> None:
    """Raises WrongResult: not every layer was read, the server did not end well, or it did not start cold."""
    tars = sum(layer.uncompressed_size for layer in image.layers)
    if (told["finalize"], told["layers"], told["nbytes"]) != ("ok", len(image.layers), tars):
        raise WrongResult(f"{contender.name}: {told}, but {len(image.layers)} layers have {tars} bytes")
    if wire < image.blob_bytes:
        raise WrongResult(f"{contender.name}: {wire} bytes were sent of {image.blob_bytes}: it was not cold")


def measure_regime(
    name: str, image: BuiltImage, client: Path, field: Sequence[Contender], args: argparse.Namespace
) -> list[Row]:
    """``args.runs`` counted rounds of ``field`` in shuffled order."""
    destination = DESTINATIONS[args.dest]
    destination.mkdir(parents=True, exist_ok=True)
    require_space(destination, image.blob_bytes + image.uncompressed_bytes + _SPARE)
    rows = []
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="layertee-bench-", dir=destination))
        server = stack.enter_context(serve(REGIMES[name], Path(storage).absolute()))
        source = server.publish(image, SHAPE)
        for number in range(args.runs + 1):
            for contender in random.sample(field, len(field)):
                taken = run_once(contender, client, source, server, Path(scratch))
                if number:
                    rows.append(Row(name, number, contender.name, **taken))
    return rows


def summary(rows: Sequence[Row], field: Sequence[Contender]) -> list[dict[str, Any]]:
    """Of each regime and server: medians, and the median of each round's own ratio to skopeo."""
    found = []
    for regime in dict.fromkeys(row.regime for row in rows):
        peer = {row.round: row for row in rows if (row.regime, row.proxy) == (regime, PEER)}
        for contender in field:
            taken = [row for row in rows if (row.regime, row.proxy) == (regime, contender.name)]
            entry: dict[str, Any] = {"regime": regime, "proxy": contender.name}
            for key in MEDIANS:
                entry[key] = statistics.median(getattr(row, key) for row in taken)
            walls = [row.wall_s for row in taken]
            entry |= {"wall_min_s": min(walls), "wall_max_s": max(walls)}
            for key in ("wall_s", "cpu_s"):
                ratios = [getattr(row, key) / getattr(peer[row.round], key) for row in taken]
                entry[f"{key}_ratio"] = round(statistics.median(ratios), 3)
            if contender.goals:
                entry["goal"] = contender.goals[regime]
                entry["met"] = entry["wall_s_ratio"] <= entry["goal"]
            found.append(entry)
    return found


def table(entries: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    head = (
        "| regime | proxy | wall s (min-max) | of skopeo's | goal | CPU s | of skopeo's | client | proxy"
        " | server CPU s | MB sent |"
    )
    lines = [head, "|---" * 11 + "|"]
    for it in entries:
        goal = f"≤ {it['goal']:.2f} {'met' if it['met'] else 'missed'}" if "goal" in it else ""
        spread = f"{it['wall_s']:.2f} ({it['wall_min_s']:.2f}-{it['wall_max_s']:.2f})"
        lines.append(
            f"| {it['regime']} | {it['proxy']} | {spread} | {it['wall_s_ratio']:.2f} | {goal}"
            f" | {it['cpu_s']:.2f} | {it['cpu_s_ratio']:.2f} | {it['client_cpu_s']:.2f}"
            f" | {it['proxy_cpu_s']:.2f} | {it['server_cpu_s']:.2f} | {it['wire_nbytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def write(directory: Path, document: dict[str, Any]) -> Path:
    """``<date>-<machine>.json`` in ``directory``; one of the same name is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{document['date']}-{document['machine']['slug']}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parsed, with what depends on other options filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.proxy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="a tenth of the content, 2 runs")
    parser.add_argument("--runs", type=int, metavar="N", help="counted runs of each server (default: 5)")
    parser.add_argument("--regime", choices=("capped", "loopback"), action="append", help="default: both")
    parser.add_argument("--dest", choices=DESTINATIONS, default="tmpfs", help="where our store is")
    parser.add_argument("--skopeo", default=PEER, metavar="PROGRAM", help="the peer (default: as on PATH)")
    parser.add_argument("--out", type=Path, help="default: bench/results/proxy, or below build if not all")
    args = parser.parse_args(words)
    whole = not (args.small or args.regime)
    args.out = args.out or (RESULTS if whole else BUILT / "results") / "proxy"
    args.runs = args.runs or (2 if args.small else 5)
    args.regime = args.regime or ["capped", "loopback"]
    return args


def run(args: argparse.Namespace) -> Path:
    """Build, measure, print, write; the path of the results."""
    BUILT.mkdir(parents=True, exist_ok=True)
    skopeo = shutil.which(args.skopeo)
    if skopeo is None:
        raise RigError(f"{args.skopeo} is not installed")
    client, field = proxyclient.build(optimized=True), contenders(skopeo)
    made = Images(cache(), TOTAL // 10 if args.small else TOTAL)
    image = made.get(SHAPE, COMPRESSION)
    rows = [row for name in args.regime for row in measure_regime(name, image, client, field, args)]
    entries = summary(rows, field)
    print(table(entries), flush=True)
    document = {
        "schema": 1,
        "command": " ".join(("python -m bench.proxy", *sys.argv[1:])),
        "date": str(datetime.date.today()),
        "machine": machine(),
        "versions": {"layertee": _version(field[0].command(Path())[0]), "skopeo": _version(skopeo)}
        | server_versions(),
        "client": f"containers-image-proxy {proxyclient.crate_version()}, flate2 over the system's zlib",
        "dest": args.dest,
        "image": {
            "shape": SHAPE,
            "compression": COMPRESSION,
            "n_layers": len(image.layers),
            "compressed_nbytes": image.blob_bytes,
            "uncompressed_nbytes": image.uncompressed_bytes,
            "content": made.content,
        },
        "notes": made.notes,
        "summary": entries,
        "runs": [dataclasses.asdict(row) for row in rows],
    }
    return write(args.out, document)


def _version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+(\.\d+)+\S*", said)
    return match[0] if match else said.strip()


def main() -> int:
    """Measure what the command line asks for; 1 with a message if it can't be done."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what servers wrote would stay behind
    try:
        path = run(arguments(sys.argv[1:]))
    except (CommandFailed, WrongResult, RigError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
