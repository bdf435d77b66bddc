"""Whole pulls in paired rounds: ``python -m bench pulls [--small] [--peer NAME …]``.

The rows that this project holds itself to, and no more, so that they fit into some minutes: layers as
podman's writer makes them, each contender once a round, in shuffled order. ``--peer layertee=PATH`` takes
another checkout (or its virtual environment, or its program) of this project as a contender: what a change is
worth.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import Contender, contenders, layertee
from bench.content import Images
from bench.held.document import Body, paired, require_built
from bench.held.rounds import interleaved
from bench.regimes import REGIMES, Case, serve, server_versions
from bench.results import Row
from bench.runner import Round, require_space, space_needed
from bench.tools import Tool, find_tools
from bench.where import BUILT, DESTINATIONS, cache
from tests.support.rig.images import BuiltImage

PEERS = ("skopeo-latest", "imagecopy", "crane")
OURS = "layertee"
LIBRARIES = ("skopeo-latest", "imagecopy")


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours of ``work`` over a peer's of ``peer_work``; ``wall`` and ``cpu`` are to be reached."""

    work: str
    peers: tuple[str, ...]
    peer_work: str
    wall: float | None
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A case of regimes.py with what is compared in it."""

    regime: str
    shape: str
    compression: str
    goals: tuple[Goal, ...]

    @property
    def name(self) -> str:
        """For keys and rows."""
        where = {"loopback": "", "tls": "TLS, ", "capped": "40 MB/s, "}[self.regime]
        return f"{where}{self.shape}, {self.compression.partition(':')[0]}"


def _tars(wall: float, cpu: float | None) -> Goal:
    return Goal("decompress", LIBRARIES, "decompress", wall, cpu)


def _kept(wall: float, cpu: float) -> Goal:
    return Goal("as-is", LIBRARIES, "decompress", wall, cpu)


_BLOB = Goal("blob-digest", ("crane",), "copy", 1.0, 1.0)
_KEPT = _kept(1 / 3.2, 1 / 3.4)
PLACES = (
    Place("loopback", "chunked", "gzip:podman", (_tars(1 / 3.0, 1 / 3.2), _KEPT, _BLOB)),
    Place("loopback", "big", "gzip:podman", (_tars(1 / 3.2, 1 / 3.2), _KEPT, _BLOB)),
    Place("loopback", "chunked", "zstd:podman", (_tars(1 / 2, 1 / 2),)),
    Place("loopback", "big", "zstd:podman", (_tars(1 / 2, 1 / 2),)),
    Place("tls", "chunked", "gzip:podman", (_tars(1 / 2.6, 1 / 2.8),)),
    Place("tls", "big", "gzip:podman", (_tars(1 / 2.6, 1 / 2.8),)),
    Place("capped", "big", "gzip:podman", (_tars(1 / 3.5, None),)),
)
WORKS = {
    "decompress": "tars written, both digests",
    "as-is": "blobs kept, both digests",
    "blob-digest": "blobs kept, blob digest",
    "copy": "blobs kept, blob digest",
}


# -- another version of ourselves -----------------------------------------------------------


def find_baseline(given: str) -> Tool:
    """``layertee=PATH`` as a tool named ``layertee@NAME``.

    Raises FileNotFoundError, CalledProcessError, and ValueError for a checkout that is not built.
    """
    path = Path(given.partition("=")[2]).absolute()
    tried = [path / ".venv/bin/layertee", path / "bin/layertee", path]
    program = next((it for it in tried if it.is_file()), None)
    if program is None:
        raise FileNotFoundError(f"{path} is no checkout with a .venv, no virtual environment and no program")
    if (path / "csrc").is_dir():
        require_built(path)
    return Tool(f"{OURS}@{_revision(path)}", str(program), _version(program))


def _revision(path: Path) -> str:
    """The commit of a checkout; of anything else its name."""
    command = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if path.is_dir() else None
    return done.stdout.strip() if done is not None and done.returncode == 0 else path.name


def _version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def field_of(tools: Mapping[str, Tool], baselines: Sequence[Tool]) -> list[Contender]:
    """All contenders, those of other versions of ourselves last."""
    return contenders(tools) + [it for tool in baselines for it in layertee(tool.program, tool.name)]


def taking_part(place: Place, field: Sequence[Contender]) -> list[Contender]:
    """Those of ``field`` that a ratio of ``place`` needs."""
    works = {goal.work for goal in place.goals}
    wanted = {(peer, goal.peer_work) for goal in place.goals for peer in goal.peers}
    return [it for it in field if (it.peer, it.work) in wanted or (_is_ours(it.peer) and it.work in works)]


def _is_ours(peer: str) -> bool:
    return peer == OURS or peer.startswith(f"{OURS}@")


# -- rounds --------------------------------------------------------------------------------


def measure(
    body: Body,
    images: Images,
    *,
    seconds: float,
    peers: Sequence[str] = (),
    places: Sequence[Place] = PLACES,
    rounds: int | None = None,
) -> None:
    """Fill ``body``, ``seconds`` long but for at least three rounds each.

    Raises CommandFailed or WrongResult if any contender fails.
    """
    asked = [name for name in peers if not name.startswith(f"{OURS}=")]
    baselines = [find_baseline(name) for name in peers if name.startswith(f"{OURS}=")]
    tools, left_out = find_tools(cache() / "peers", asked if peers else PEERS)
    body.notes += left_out
    body.versions |= {name: tool.version for name, tool in tools.items()} | server_versions()
    body.versions |= {tool.name: tool.version for tool in baselines}
    body.profile |= {name: it for name, it in body.versions.items() if not _is_ours(name)}
    field = field_of(tools, baselines)
    for place in places:
        image = images.get(place.shape, place.compression)
        body.profile[f"image {place.shape}, {place.compression}"] = image.digest
        case = case_of(place)
        part = taking_part(place, field)
        taken = run_place(case, {case.pulled: image}, part, seconds / len(places), rounds)
        add(body, place, taken)


def case_of(place: Place) -> Case:
    """To tmpfs."""
    return Case(REGIMES[place.regime], place.shape, place.compression, "tmpfs")


def run_place(
    case: Case,
    images: Mapping[tuple[str, str], BuiltImage],
    part: Sequence[Contender],
    seconds: float,
    rounds: int | None,
) -> dict[tuple[str, str], list[Row]]:
    """Rows by peer and work. A round before the first, in which all output is hashed, does not count."""
    destination = DESTINATIONS[case.dest]
    require_space(destination, space_needed(case, images[case.pulled], part))
    BUILT.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="layertee-bench-", dir=destination))
        server = stack.enter_context(serve(case.regime, Path(storage).absolute()))
        it = Round(case, server, images, Path(scratch))
        for who in part:
            it.run(who, counted=False)
        field = {(who.peer, who.work): partial(it.run, who, counted=True) for who in part}
        taken = interleaved(field, seconds=seconds, rounds=rounds, warm=False)
    return taken


def add(body: Body, place: Place, taken: Mapping[tuple[str, str], Sequence[Row]]) -> None:
    """A row for each contender, and the ratios of ours to the others'."""
    rounds = {who: [_times(row) for row in rows] for who, rows in taken.items()}
    for (peer, work), times in sorted(rounds.items()):
        rows = taken[peer, work]
        figures = {
            "wall_s": statistics.median(one["wall_s"] for one in times),
            "cpu_s": statistics.median(one["cpu_s"] for one in times),
            "server_cpu_s": statistics.median(row.server_cpu_s for row in rows),
            "rss_mib": max(row.rss_mib for row in rows),
        }
        rounded = {key: round(value, 3) for key, value in figures.items()}
        body.rows.append({"place": place.name, "peer": peer, "work": work, "rounds": len(rows), **rounded})
    for goal in place.goals:
        ours = rounds[OURS, goal.work]
        what = f"{place.name}: {WORKS[goal.work]}"
        for peer in goal.peers:
            if (theirs := rounds.get((peer, goal.peer_work))) is not None:
                key = f"{what}: over {peer}"
                body.ratios.append(paired(key, ours, theirs, goal_wall=goal.wall, goal_cpu=goal.cpu))
        for peer, work in rounds:
            if work == goal.work and peer.startswith(f"{OURS}@"):
                body.ratios.append(paired(f"{what}: over {peer}", ours, rounds[peer, work]))


def _times(row: Row) -> dict[str, float]:
    return {"wall_s": row.wall_s, "cpu_s": row.user_s + row.sys_s}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: medians."""
    lines = [
        "| image | client | work | wall s | CPU s | server CPU s | peak RSS MiB | rounds |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {row['place']} | {row['peer']} | {WORKS[row['work']]} | {row['wall_s']:.2f} | {row['cpu_s']:.2f}"
        f" | {row['server_cpu_s']:.2f} | {row['rss_mib']:.0f} | {row['rounds']} |"
        for row in rows
    ]
    return lines
