"""What the way of bytes costs, from socket to file: ``python -m bench copies [--small] [--rounds N]``.

copies.c receives over loopback into buffers like the pool's and writes them to a file, in several ways: how
much is read at once, huge pages, write-behind, ``O_DIRECT``. Then real pulls of *big* that inflate nothing
(``--verify digest``), over plain HTTP and over TLS: their CPU time in user and kernel mode and, under strace,
how many calls they make and how much each reads and writes. Also what there is of TLS in the kernel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import Contender, layertee
from bench.content import Images
from bench.floor import FloorError
from bench.held.document import Body
from bench.held.rounds import interleaved
from bench.regimes import REGIMES, Case, serve, server_versions
from bench.results import Row
from bench.runner import Round, require_space
from bench.tools import find_tools
from bench.where import BUILT, DESTINATIONS, cache
from tests.support.rig.images import BuiltImage

SOURCE = Path(__file__).with_name("copies.c")
NBYTES = 256 << 20
_ROUND_S = 5.0  # of all variants of copies.c
_READS = ("read", "recvfrom", "recvmsg", "readv")
_WRITES = ("pwrite64", "write", "pwritev", "sendto")
_CALL = re.compile(r"^\d+ +(\w+)\(.* = (-?\d+)(?: |$)")


def build(directory: Path, *, compiler: str = "cc") -> Path:
    """Compile copies.c; the program. Raises FloorError."""
    program = directory / "copies"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [compiler, *flags, str(SOURCE), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    return program


def alone(nbytes: int, rounds: int, tmpfs: Path, disk: Path) -> list[dict[str, Any]]:
    """Rows of copies.c: seconds for each GB, medians of ``rounds``. Raises FloorError."""
    with tempfile.TemporaryDirectory(prefix="layertee-copies-") as directory:
        command = [str(build(Path(directory))), str(nbytes), str(rounds), str(tmpfs), str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    per_gb = 1e9 / nbytes
    return [
        {
            "way": it["name"],
            "rounds": rounds,
            "cpu_s_per_gb": round(statistics.median(it["cpu_s"]) * per_gb, 4),
            "wall_s_per_gb": round(statistics.median(it["wall_s"]) * per_gb, 4),
            "read_nbytes": nbytes // it["n_recv"],
        }
        for it in json.loads(done.stdout)["variants"]
    ]


# -- real pulls ------------------------------------------------------------------------------


def traced(command: Sequence[str], environment: Mapping[str, str], log: Path) -> dict[str, dict[str, int]]:
    """The calls that read and write, while ``command`` runs: number and bytes by name of the call.

    Those that were interrupted or failed do not count. Raises FloorError if it fails.
    """
    calls = ",".join((*_READS, *_WRITES))
    words = ["strace", "-f", "-qq", "-s", "0", "-e", f"trace={calls}", "-o", str(log), *command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FloorError(f"{' '.join(command[:2])} failed under strace: {done.stderr.strip()[-500:]}")
    return summed(log.read_text(encoding="utf-8", errors="replace").splitlines())


def summed(lines: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of the lines of ``strace -f -o``: number and bytes of the calls that moved any, by name."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        resumed = re.sub(r"^(\d+ +)<\.\.\. (\w+) resumed>", r"\1\2(", line)
        if (match := _CALL.match(resumed)) and int(match[2]) > 0:
            entry = found.setdefault(match[1], {"n": 0, "nbytes": 0})
            entry["n"] += 1
            entry["nbytes"] += int(match[2])
    return found


def pulls(body: Body, image: BuiltImage, seconds: float, rounds: int | None) -> None:
    """Rows of pulls that inflate nothing, from nginx without and with TLS."""
    tools, _ = find_tools(cache() / "peers", [])
    (contender,) = [it for it in layertee(tools["layertee"].program) if it.work == "blob-digest"]
    BUILT.mkdir(parents=True, exist_ok=True)
    require_space(DESTINATIONS["tmpfs"], image.blob_bytes + (64 << 20))
    with ExitStack() as stack:
        scratch = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="layertee-copies-", dir=DESTINATIONS["tmpfs"])
            )
        )
        field: dict[str, Callable[[], Row]] = {}
        rounds_of: dict[str, Round] = {}
        for regime in ("nginx", "tls"):
            storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
            server = stack.enter_context(serve(REGIMES[regime], Path(storage).absolute()))
            case = Case(REGIMES[regime], "big", "gzip", "tmpfs")
            rounds_of[regime] = it = Round(case, server, {case.pulled: image}, scratch)
            field[regime] = partial(it.run, contender, counted=True)
        taken = interleaved(field, seconds=seconds, rounds=rounds)
        for regime, rows in taken.items():
            body.rows.append(_row(regime, rows, image) | _calls(rounds_of[regime], contender, scratch))


def _row(regime: str, rows: Sequence[Row], image: BuiltImage) -> dict[str, Any]:
    per_gb = 1e9 / image.blob_bytes
    found: dict[str, Any] = {"way": f"pull from {regime}, blob digest", "rounds": len(rows)}
    for name in ("wall_s", "user_s", "sys_s"):
        found[f"{name}_per_gb"] = round(statistics.median(getattr(row, name) for row in rows) * per_gb, 4)
    found["cpu_s_per_gb"] = round(found["user_s_per_gb"] + found["sys_s_per_gb"], 4)
    return found


def _calls(it: Round, contender: Contender, scratch: Path) -> dict[str, Any]:
    """How many calls a pull makes for a GB, and how much one reads and writes; nothing without strace."""
    if shutil.which("strace") is None:
        return {}
    target = scratch / "traced"
    command = contender.command(it.source, target)
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "LC_ALL": "C.UTF-8"}
    found = traced(command, environment | contender.environment(it.source), scratch / "calls")
    shutil.rmtree(target)
    row: dict[str, Any] = {}
    for what, names in (("read", _READS), ("write", _WRITES)):
        # What a program reads besides, of its own files, is small and in small pieces.
        largest = max((found[name] for name in names if name in found), key=lambda one: one["nbytes"])
        row |= {f"{what}s": largest["n"], f"{what}_nbytes": largest["nbytes"] // largest["n"]}
    return row


def kernel_tls() -> dict[str, bool]:
    """What there is of TLS in the kernel, for who receives."""
    protocols = Path("/proc/sys/net/ipv4/tcp_available_ulp")
    return {
        "kernel": protocols.exists() and "tls" in protocols.read_text().split(),
        "python": hasattr(ssl, "OP_ENABLE_KTLS"),
    }


def measure(body: Body, images: Images, *, seconds: float, small: bool, rounds: int | None = None) -> None:
    """Fill ``body``. Raises FloorError, CommandFailed, WrongResult, OSError."""
    image = images.get("big", "gzip:podman")
    body.profile["image big, gzip:podman"] = image.digest
    body.versions |= server_versions() | {"openssl": ssl.OPENSSL_VERSION.split()[1]}
    number = rounds or max(3, round(seconds * 0.5 / _ROUND_S))
    disk = DESTINATIONS["disk"]
    disk.mkdir(parents=True, exist_ok=True)
    body.rows += alone(NBYTES // (8 if small else 1), number, DESTINATIONS["tmpfs"], disk)
    pulls(body, image, seconds * 0.4, rounds)
    have = kernel_tls()
    body.facts["kernel_tls"] = have
    body.notes += [
        f"TLS in the kernel: {'there' if have['kernel'] else 'not in this kernel'};"
        f" ssl.OP_ENABLE_KTLS: {'there' if have['python'] else 'not in this Python'}"
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: seconds for each GB."""
    lines = [
        "| way | CPU s/GB | wall s/GB | user + kernel | KiB a read | KiB a write | rounds |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        split = f"{row['user_s_per_gb']:.2f} + {row['sys_s_per_gb']:.2f}" if "user_s_per_gb" in row else ""
        sizes = [f"{row[key] / 1024:.0f}" if key in row else "" for key in ("read_nbytes", "write_nbytes")]
        lines.append(
            f"| {row['way']} | {row['cpu_s_per_gb']:.3f} | {row['wall_s_per_gb']:.3f} | {split}"
            f" | {sizes[0]} | {sizes[1]} | {row['rounds']} |"
        )
    return lines
