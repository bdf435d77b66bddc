"""Whole pulls beside skopeo: ``python -m bench.bench_pull [--runs N] [--shape big] [--small]``.

Whole commands, in rounds whose order is shuffled, each into an empty directory: wall time from spawn
to exit, CPU (user + system) from wait4, peak RSS (VmHWM) by looking a hundred times a second. What a
first, uncounted run wrote is hashed, once per form, for both. The images are real content of this
machine (content.py), built once into build/bench.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.content import SHAPES, TOTAL, bench_image
from tests.rig.images import BuiltImage, upload
from tests.rig.registry import RegistryServer

LAYERTEE = str(Path(sys.executable).with_name("layertee"))
BUILT = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Run:
    """One command, from spawn to exit. Seconds, and MiB of RSS."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A command that brings an image to a directory, and how its result is checked."""

    name: str
    command: Callable[[str, Path], list[str]]
    check: Callable[[Path, BuiltImage], None]


def measure(command: list[str]) -> Run:
    began = time.perf_counter()
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        # ru_maxrss would be that of this process, from before the exec.
        peak = 0
        while (done := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, _peak_kib(child.pid))
            time.sleep(0.01)
        wall = time.perf_counter() - began
        stderr.seek(0)
        complaint = stderr.read()
    _, status, usage = done
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command[0]} failed: {complaint.decode(errors='replace')}")
    return Run(wall, usage.ru_utime + usage.ru_stime, peak / 1024)


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blobs_are_right(directory: Path, image: BuiltImage) -> None:
    for digest in image.layer_digests:
        assert _sha256(directory / "blobs/sha256" / digest.removeprefix("sha256:")) == digest[7:], digest


def tars_are_right(directory: Path, image: BuiltImage) -> None:
    for layer in image.layers:
        name = layer.diff_id.removeprefix("sha256:")
        found = directory / "blobs/sha256" / name if (directory / "blobs").exists() else directory / name
        assert _sha256(found) == name, name


def contenders(form: str) -> list[Contender]:
    skopeo = ["skopeo", "copy", "-q", "--src-tls-verify=false"]
    ours = [LAYERTEE, "pull", "-q", "--tls-verify=false"]
    if form == "as-is":
        return [
            Contender("layertee", lambda ref, to: [*ours, "--store", str(to), ref], blobs_are_right),
            Contender("skopeo", lambda ref, to: [*skopeo, f"docker://{ref}", f"oci:{to}:x"], blobs_are_right),
        ]
    uncompressed = [*ours, "--layers", "uncompressed"]
    decompress = [*skopeo, "--dest-decompress"]
    return [
        Contender("layertee", lambda ref, to: [*uncompressed, "--store", str(to), ref], tars_are_right),
        Contender("skopeo", lambda ref, to: [*decompress, f"docker://{ref}", f"dir:{to}"], tars_are_right),
    ]


def compare(form: str, ref: str, image: BuiltImage, runs: int, scratch: Path) -> None:
    field = contenders(form)
    results: dict[str, list[Run]] = {contender.name: [] for contender in field}
    for number in range(runs + 1):
        for contender in random.sample(field, len(field)):
            target = scratch / "out"
            shutil.rmtree(target, ignore_errors=True)
            run = measure(contender.command(ref, target))
            if number == 0:  # warms the caches, and is the run whose result is hashed
                contender.check(target, image)
            else:
                results[contender.name].append(run)
    medians = {
        name: Run(
            *(statistics.median(getattr(run, what) for run in taken) for what in ("wall", "cpu", "rss"))
        )
        for name, taken in results.items()
    }
    for name, taken in results.items():
        walls = [run.wall for run in taken]
        middle = medians[name]
        print(
            f"| {form} | {name} | {middle.wall:.2f} ({min(walls):.2f}-{max(walls):.2f})"
            f" | {middle.cpu:.2f} | {middle.rss:.0f} |"
        )
    ours, theirs = medians["layertee"], medians["skopeo"]
    print(f"| {form} | ratio | {ours.wall / theirs.wall:.2f} | {ours.cpu / theirs.cpu:.2f} | |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="40 layers, or 3 (default: chunked)")
    parser.add_argument("--small", action="store_true", help="a tenth of the content, for a quick look")
    parser.add_argument("--compression", choices=("gzip", "zstd"), action="append")
    parser.add_argument("--dest", type=Path, default=Path("/dev/shm"), help="where results are written")
    args = parser.parse_args()
    total = TOTAL // 10 if args.small else TOTAL
    images = {
        (shape, kind): bench_image(BUILT, shape, kind, total=total)
        for shape in args.shape or ["chunked"]
        for kind in args.compression or ["gzip", "zstd"]
    }
    with (
        tempfile.TemporaryDirectory(prefix="layertee-bench-", dir=args.dest) as scratch,
        tempfile.TemporaryDirectory(prefix="layertee-bench-registry-") as storage,
        RegistryServer(Path(storage)) as server,
    ):
        version = subprocess.run(["skopeo", "--version"], check=True, capture_output=True, text=True).stdout
        where = f"{platform.machine()}, {os.cpu_count()} CPUs"
        print(f"{datetime.date.today()}, {where}, {version.strip()}, to {args.dest}")
        for (shape, kind), image in images.items():
            ref = f"{server.host}/os:{shape}-{kind}"
            upload(image, f"os:{shape}-{kind}", server)
            print(
                f"\n{shape}, {kind}: {len(image.layers)} layers, {image.uncompressed_bytes / 1e6:.0f} MB,"
                f" {image.blob_bytes / 1e6:.0f} MB compressed; median of {args.runs} (min-max)\n"
            )
            print("| layers kept | client | wall s | CPU s | RSS MiB |\n|---|---|---|---|---|")
            for form in ("uncompressed", "as-is"):
                compare(form, ref, image, args.runs, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
