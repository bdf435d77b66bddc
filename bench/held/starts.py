"""What a command costs that has nothing to do: ``python -m bench starts [--small] [--rounds N]``.

A pull of 40 layers that are all here, ``inspect``, and the image-proxy up to its answer to ``Initialize``,
beside skopeo's ``inspect`` and image-proxy. A docker-registry over loopback; wall time and the command's own
CPU, in interleaved rounds. Of the image-proxy, wall time is from the start to the reply, and CPU up to its
end, which the client asks for at once.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.held.document import Body, paired
from bench.held.pulls import OURS, find_baseline
from bench.held.rounds import interleaved
from bench.measure import CommandFailed, measure
from bench.regimes import server_versions
from bench.tools import Tool, find_tools
from bench.where import BUILT, DESTINATIONS, cache
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

N_LAYERS = 40
MAX_ROUNDS = 60
_REPLY_S = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """``run`` does it once and returns ``wall_s`` and ``cpu_s``. Goals are seconds."""

    name: str
    peer: str
    run: Callable[[], dict[str, float]]
    goal_wall_s: float | None = None
    goal_cpu_s: float | None = None


# What the others are compared with: skopeo's command for each of ours.
BESIDE = {
    "pull, nothing to do": "inspect",
    "inspect": "inspect",
    "image-proxy, Initialize": "image-proxy, Initialize",
}


def image(root: Path) -> BuiltImage:
    """40 layers with a line of text each: their bytes are not what is measured."""
    return build_image(root, [text_layer({f"etc/part-{n}": f"{n}\n"}) for n in range(N_LAYERS)])


def initialize(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """An image-proxy from its start to its answer. Raises CommandFailed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_REPLY_S)
    began = time.perf_counter()
    with ours, tempfile.TemporaryFile() as stderr:
        with theirs:
            words = [*command, "--sockfd", str(theirs.fileno())]
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        try:
            ours.send(b'{"method":"Initialize","args":[]}')
            reply = ours.recv(1 << 16)
            wall = time.perf_counter() - began
            ours.send(b'{"method":"Shutdown","args":[]}')
        except OSError:
            reply = b""
        finally:
            ours.close()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if not reply or not json.loads(reply)["success"] or child.returncode:
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip()[-500:]
            raise CommandFailed(
                f"{words[0]} did not answer Initialize ({child.returncode}): {said or reply!r}"
            )
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime}


def commands(
    tools: Mapping[str, Tool], baselines: Sequence[Tool], reference: str, scratch: Path
) -> list[Command]:
    """Ours, those of other versions of ourselves, and skopeo's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "XDG_RUNTIME_DIR": str(scratch),
        "LC_ALL": "C.UTF-8",
    }

    def timed(*words: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            usage = measure(words, environment=environment, watch=False)
            return {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s}

        return run

    def proxied(*words: str) -> Callable[[], dict[str, float]]:
        return lambda: initialize(words, environment)

    found = []
    for tool in (tools[OURS], *baselines):
        store = str(scratch / f"store-{tool.name.replace('/', '-')}")
        program, reach = tool.program, ("--tls-verify=false", "--store", store)
        measure((program, "pull", "-q", *reach, reference), environment=environment)
        found += [
            Command("--version", tool.name, timed(program, "--version"), 0.1),
            Command(
                "pull, nothing to do", tool.name, timed(program, "pull", "-q", *reach, reference), 0.25, 0.2
            ),
            Command("inspect", tool.name, timed(program, "inspect", *reach, reference), 0.25, 0.2),
            Command(
                "image-proxy, Initialize",
                tool.name,
                proxied(program, "image-proxy", "--store", store),
                0.25,
                0.2,
            ),
        ]
    for name in ("skopeo-latest", "skopeo"):
        if name in tools:
            program = tools[name].program
            words = (program, "inspect", "--tls-verify=false", f"docker://{reference}")
            found.append(Command("inspect", name, timed(*words)))
            found.append(
                Command("image-proxy, Initialize", name, proxied(program, "experimental-image-proxy"))
            )
            break
    return found


def measure_starts(
    body: Body, *, seconds: float, peers: Sequence[str] = (), rounds: int | None = None
) -> None:
    """Fill ``body``, ``seconds`` long but for at least three rounds. Raises CommandFailed, RigError."""
    asked = [name for name in peers if not name.startswith(f"{OURS}=")] if peers else None
    baselines = [find_baseline(name) for name in peers if name.startswith(f"{OURS}=")]
    tools, left_out = find_tools(cache() / "peers", ["skopeo-latest", "skopeo"] if asked is None else asked)
    body.notes += left_out
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="layertee-starts-", dir=DESTINATIONS["tmpfs"]) as directory:
        scratch = Path(directory)
        made = image(scratch / "image")
        with RegistryServer(scratch / "registry") as server:
            reference = upload(made, "os:starts", server)
            field = commands(tools, baselines, reference, scratch)
            runs = {(it.name, it.peer): it.run for it in field}
            taken = interleaved(runs, seconds=seconds, rounds=rounds, most=MAX_ROUNDS)
    used = {command.peer for command in field}
    body.versions |= {name: tool.version for name, tool in tools.items() if name in used} | server_versions()
    body.versions |= {tool.name: tool.version for tool in baselines}
    body.versions["python"] = sys.version.split()[0]
    body.profile |= {name: it for name, it in body.versions.items() if not name.startswith(OURS)}
    add(body, field, taken)


def add(
    body: Body, field: Sequence[Command], taken: Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
) -> None:
    """A row for each command, and ratios: to skopeo's, and to other versions' same command."""
    for command in field:
        times = taken[command.name, command.peer]
        row: dict[str, Any] = {"command": command.name, "client": command.peer, "rounds": len(times)}
        row |= {key: round(statistics.median(it[key] for it in times), 4) for key in ("wall_s", "cpu_s")}
        if command.peer == OURS:
            goals = {"goal_wall_s": command.goal_wall_s, "goal_cpu_s": command.goal_cpu_s}
            row |= {name: goal for name, goal in goals.items() if goal is not None}
        body.rows.append(row)
    for (name, peer), theirs in taken.items():
        if peer == OURS:
            continue
        for ours in [it for it in BESIDE if BESIDE[it] == name] if not peer.startswith(OURS) else [name]:
            beside = f"{peer} {name}" if name != ours else peer
            body.ratios.append(paired(f"{ours}: over {beside}", taken[ours, OURS], theirs))
    noop = next(row for row in body.rows if (row["command"], row["client"]) == ("pull, nothing to do", OURS))
    body.facts |= {"noop_wall_s": noop["wall_s"], "noop_cpu_s": noop["cpu_s"]}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: medians in ms, beside what is to be reached."""
    lines = ["| command | client | wall ms | CPU ms | to reach: wall / CPU ms | rounds |", "|---" * 6 + "|"]
    for row in rows:
        goals = [row.get(name) for name in ("goal_wall_s", "goal_cpu_s")]
        wanted = (
            " / ".join("-" if goal is None else f"{goal * 1000:.0f}" for goal in goals) if any(goals) else ""
        )
        lines.append(
            f"| {row['command']} | {row['client']} | {row['wall_s'] * 1000:.0f} | {row['cpu_s'] * 1000:.0f}"
            f" | {wanted} | {row['rounds']} |"
        )
    return lines
