"""Whole pulls beside other tools: ``python -m bench``; ``python -m bench.report`` makes tables of it.

``python -m bench refresh`` measures the figures that this project is held to, in minutes; see its --help.

Everything it needs is built once into build/bench: two images of real content, and the newest versions of
other tools, as far as they can be had. A full run takes about an hour on two CPUs. Each command is run from
spawn to exit, in rounds of shuffled order, into tmpfs or onto a disk; see --help for less.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import floor, size
from bench.contenders import Contender, WrongResult, contenders
from bench.content import COMPRESSIONS, PODMANS, SHAPES, TOTAL, Images
from bench.held import command
from bench.measure import CommandFailed, measure
from bench.regimes import REGIMES, SMALL, Case, Server, cases, client_cpu, serve, server_versions
from bench.results import Results, Row, machine
from bench.runner import Round, require_space, run_case, space_needed
from bench.tools import PEERS, Tool, find_tools
from bench.where import BUILT, DESTINATIONS, RESULTS, cache
from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import RigError

_BUILD_SPACE = 14 << 30  # packages unpacked, seven images, the storage of a registry
_NO_CTR = "ctr: left out, a daemon does its work, which the run of one command does not account for"
_Images = dict[tuple[str, str], BuiltImage]


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parsed, with what depends on other options filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--small", action="store_true", help=f"a tenth of the content, 2 runs, {' and '.join(SMALL)} only"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="counted runs of each command (default: 5)")
    parser.add_argument("--regime", choices=REGIMES, action="append", help="default: all")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: as the regime has")
    parser.add_argument(
        "--compression", choices=(*COMPRESSIONS, *PODMANS), action="append", help="likewise; not :podman"
    )
    parser.add_argument("--dest", choices=DESTINATIONS, action="append", help="likewise")
    parser.add_argument("--peer", choices=PEERS, action="append", help="default: all that can be had")
    parser.add_argument(
        "--floor", action=argparse.BooleanOptionalAction, help="the kernels alone (default: unless narrowed)"
    )
    parser.add_argument(
        "--size",
        action=argparse.BooleanOptionalAction,
        help="memory over layer size, up to 8 GiB (default: in a full run)",
    )
    parser.add_argument(
        "--out", type=Path, help=f"default: {RESULTS}, or {BUILT / 'results'} if not everything is measured"
    )
    args = parser.parse_args(words)
    narrowed = any((args.regime, args.shape, args.compression, args.dest, args.peer))
    args.runs = args.runs or (2 if args.small else 5)
    args.out = args.out or (BUILT / "results" if narrowed or args.small else RESULTS)
    args.floor = not narrowed if args.floor is None else args.floor
    args.size = not (narrowed or args.small) if args.size is None else args.size
    args.regime = args.regime or list(SMALL if args.small else REGIMES)
    return args


def planned(args: argparse.Namespace) -> list[Case]:
    """What is measured. A small run has gzip and zstd to tmpfs, unless others are asked for."""
    plan = cases(args.regime, args.shape or (), args.compression or (), args.dest or ())
    if args.small:
        plan = [case for case in plan if args.compression or case.compression != "zstd:chunked"]
        plan = [case for case in plan if args.dest or case.dest == "tmpfs"]
    return plan


def main() -> int:
    """Measure what the command line asks for, and write the results; 1 with a message if it can't be done."""
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        return command.main(sys.argv[1:])
    args = arguments(sys.argv[1:])
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # or servers' storage and results would stay behind
    try:
        path = run(args)
    except (CommandFailed, WrongResult, RigError, floor.FloorError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten: {path}")
    return 0


def run(args: argparse.Namespace) -> Path:
    """Build, measure, write after each case; return the path of the results."""
    BUILT.mkdir(parents=True, exist_ok=True)
    require_space(BUILT, _BUILD_SPACE // 4 if args.small else _BUILD_SPACE)
    tools, left_out = find_tools(cache() / "peers", args.peer or PEERS)
    left_out += [] if args.peer else [_NO_CTR]
    print("\n".join(left_out), flush=True)
    said = " ".join(("python -m bench", *sys.argv[1:]))
    versions = {name: tool.version for name, tool in tools.items()} | server_versions()
    results = Results(said, versions, machine(), notes=left_out)
    plan = planned(args)
    images = build_images(plan, Images(cache(), TOTAL // 10 if args.small else TOTAL), tools, results)
    results.startup = startup(tools["layertee"], args.runs)
    for case in plan:
        measure_case(case, images, contenders(tools), args.runs, results)
        results.write(args.out)
    if args.floor:
        wanted = [(*key, image) for key, image in images.items() if key[0] in SHAPES]
        results.floor = floor.measure(wanted, args.runs, DESTINATIONS["tmpfs"])
    if args.size:
        results.size = size.measure(size.SMALL_MIB if args.small else size.SIZES_MIB, dest=BUILT)
    return results.write(args.out)


def build_images(plan: list[Case], made: Images, tools: dict[str, Tool], results: Results) -> _Images:
    """All images of ``plan``; a case whose image can't be made here is taken out of it, with a note."""
    results.notes += made.notes
    converter = chunked_converter(tools)
    if converter is None and any(case.compression == "zstd:chunked" for case in plan):
        results.notes.append("zstd:chunked left out: no tool here writes it")
        print(results.notes[-1])
        plan[:] = [case for case in plan if case.compression != "zstd:chunked"]
    wanted = dict.fromkeys(key for case in plan for key in (case.present, case.pulled) if key)
    images = {key: made.get(*key, converter=converter) for key in wanted}
    for (shape, compression), image in images.items():
        results.add_image(shape, compression, image, made.content)
    return images


def chunked_converter(tools: dict[str, Tool]) -> list[str] | None:
    """A command that writes zstd:chunked; the newest library's annotations are what others read today."""
    options = ["--dest-compress-format", "zstd:chunked"]
    if "imagecopy" in tools:
        return [tools["imagecopy"].program, *options]
    for name in ("skopeo-latest", "skopeo"):
        if name in tools:
            return [tools[name].program, "copy", "-q", "--dest-compress", *options]
    return None


def startup(layertee: Tool, runs: int) -> list[dict[str, object]]:
    """What the command costs before it does anything."""
    taken = [measure([layertee.program, "--version"]) for _ in range(runs + 1)][1:]
    return [
        {"command": "layertee --version", "wall_s": round(it.wall_s, 4), "cpu_s": round(it.cpu_s, 4)}
        for it in taken
    ]


def measure_case(
    case: Case, images: _Images, field: Sequence[Contender], runs: int, results: Results
) -> None:
    """Serve, run, and add to ``results``."""
    if case.regime.name == "one-core" and results.machine["n_cpus"] < 2:
        results.notes.append("one-core left out: this machine has one CPU")
        return
    field = case.field(field)
    destination = DESTINATIONS[case.dest]
    destination.mkdir(parents=True, exist_ok=True)
    require_space(destination, space_needed(case, images[case.pulled], field))
    with ExitStack() as stack:
        cpu = stack.enter_context(client_cpu(case.regime))
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="layertee-bench-", dir=destination))
        server: Server = stack.enter_context(serve(case.regime, Path(storage).absolute()))
        rows, notes = run_case(Round(case, server, images, Path(scratch).absolute()), field, runs, cpu)
    regime = {"name": case.regime.name, "server": case.regime.server, "description": case.regime.description}
    if regime not in results.regimes:
        results.regimes.append(regime)
    results.filesystems[case.dest] = filesystem(destination)
    results.runs += rows
    results.notes += notes
    print_case(case, images[case.pulled], rows)


def print_case(case: Case, image: BuiltImage, rows: Sequence[Row]) -> None:
    """Medians, as a table, fastest first."""
    print(
        f"\n{case.regime.name}, {case.shape}, {case.compression}, to {case.dest}: {len(image.layers)} layers,"
        f" {image.uncompressed_bytes / 1e6:.0f} MB, {image.blob_bytes / 1e6:.0f} MB compressed"
    )
    print(
        "| client | work | wall s (min-max) | CPU s | server CPU s | RSS MiB | MB sent |\n" + "|---" * 7 + "|"
    )
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.peer, row.work), []).append(row)
    lines = []
    for (peer, work), taken in groups.items():
        walls = sorted(row.wall_s for row in taken)
        wall, cpu, server, rss, wire = (
            statistics.median(values)
            for values in (
                walls,
                [row.user_s + row.sys_s for row in taken],
                [row.server_cpu_s for row in taken],
                [row.rss_mib for row in taken],
                [row.wire_nbytes / 1e6 for row in taken],
            )
        )
        spread = f"{wall:.2f} ({walls[0]:.2f}-{walls[-1]:.2f})"
        lines.append(
            (wall, f"| {peer} | {work} | {spread} | {cpu:.2f} | {server:.2f} | {rss:.0f} | {wire:.0f} |")
        )
    print("\n".join(line for _, line in sorted(lines)), flush=True)


def filesystem(directory: Path) -> str:
    """The type of the filesystem that ``directory`` is on, from the kernel's list of mounts."""
    path = str(directory.resolve())
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if (path + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


if __name__ == "__main__":
    sys.exit(main())
