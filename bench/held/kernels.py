"""Inflaters beside one another: ``python -m bench kernels [--small] [--rounds N]``.

Every inflater of the C core's table, and libdeflate and zlib-ng where they are installed, on five kinds of
data as zlib writes them, and on layers of an OS image as podman's writer and as zlib write them. Interleaved
rounds in one process, CPU time of the thread (kernels.c). Then the kernels of a pull alone (floor.c), as the
model takes them.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import floor
from bench.content import Images
from bench.held.document import Body, paired
from bench.where import DESTINATIONS
from tests.support import ccore
from tests.support.rig.images import BuiltImage

SOURCE = Path(__file__).with_name("kernels.c")
KIND_NBYTES = 16 << 20
# Of the layers of the image, those around these sizes as tars: what a layer of an OS image has.
LAYER_NBYTES = (16_000_000, 32_000_000, 48_000_000)
OWN, YARDSTICK = "own", "isal"
# What the layer of podman's writer has to reach over libisal: a time ratio.
_GOAL_LAYER = 1 / 1.22
_GOAL_ANY = 1.0
_ROUNDS_S = 3.0  # of one round of everything, about


# -- data ------------------------------------------------------------------------------


def kinds(nbytes: int) -> dict[str, bytes]:
    """Gzip members by kind, each of about ``nbytes`` of content; the same on the same machine."""
    text = _files(("/usr/share", "/usr/lib/python3"), (".txt", ".py", ".h", ".html", ".xml"), nbytes)
    binaries = _files(("/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu", "/usr/lib"), ("", ".so"), nbytes)
    noise = random.Random(nbytes).randbytes(nbytes)
    return {
        "text": pack(text),
        "binaries": pack(binaries),
        "incompressible": pack(noise),
        "tiny blocks": pack(text[: nbytes // 4], memory=1),
        "long runs": pack(_runs(nbytes)),
    }


def pack(data: bytes, *, memory: int = 8) -> bytes:
    """One gzip member as zlib writes it at its level 6. ``memory`` 1: a block for each 127 symbols."""
    writer = zlib.compressobj(6, zlib.DEFLATED, 31, memory)
    return writer.compress(data) + writer.flush()


def _files(tops: Iterable[str], suffixes: tuple[str, ...], nbytes: int) -> bytes:
    """The first ``nbytes`` of the files below ``tops`` that have one of ``suffixes``, in order of name."""
    found = bytearray()
    for top in tops:
        for path in sorted(Path(top).rglob("*")):
            suffix = ".so" if ".so." in path.name else path.suffix
            if suffix in suffixes and path.is_file() and not path.is_symlink():
                found += path.read_bytes()
            if len(found) >= nbytes:
                return bytes(found[:nbytes])
    raise ValueError(f"this machine has only {len(found)} bytes of files like {suffixes[0]}")


def _runs(nbytes: int) -> bytes:
    """Runs of one byte, and of patterns of a few bytes, of 16 bytes to 64 KiB."""
    chooser = random.Random(nbytes)
    made = bytearray()
    while len(made) < nbytes:
        pattern = chooser.randbytes(chooser.choice((1, 1, 1, 2, 3, 4, 8)))
        length = int(16 * 4096 ** chooser.random())
        made += (pattern * (length // len(pattern) + 1))[:length]
    return bytes(made[:nbytes])


def layers(image: BuiltImage, sizes: Sequence[int]) -> list[Path]:
    """The blobs whose tars come closest to ``sizes``, no layer twice."""
    left = list({layer.digest: layer for layer in image.layers}.values())
    chosen = []
    for size in sizes[: len(left)]:
        nearest = min(left, key=lambda layer: (abs(layer.uncompressed_size - size), layer.digest))
        left.remove(nearest)
        chosen.append(image.blob_path(nearest.digest))
    return chosen


# -- running -----------------------------------------------------------------------------


def build(directory: Path, *, compiler: str = "cc") -> Path:
    """Compile kernels.c with the C core, optimised as the extension is; the library.

    Raises FloorError where it cannot be compiled.
    """
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ccore.CSRC}"]
    command += ["-fPIC", "-shared", str(SOURCE), *(str(ccore.ROOT / name) for name in ccore.sources())]
    optional = ccore.OPTIONAL | {"BENCH_HAVE_LIBDEFLATE": "libdeflate"}
    for macro, package in optional.items():
        if (flags := ccore.pkg_config(package)) is not None:
            command += [f"-D{macro}", *flags]
    command += [*(ccore.pkg_config(ccore.REQUIRED) or ()), "-lz"]
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "kernels.so"
    done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise floor.FloorError(done.stderr.strip())
    return library


def zlib_ng() -> str:
    """The shared library of Python's package zlib-ng, or nothing where it is not installed."""
    if importlib.util.find_spec("zlib_ng") is None:
        return ""
    spec = importlib.util.find_spec("zlib_ng.zlib_ng")
    return spec.origin or "" if spec else ""


def run_members(library: Path, rounds: int, members: Sequence[Path]) -> dict[str, Any]:
    """What kernels.c printed. Raises FloorError."""
    command = [sys.executable, "-m", "bench.held.inprocess", str(library), str(rounds), zlib_ng()]
    done = subprocess.run([*command, *map(str, members)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise floor.FloorError(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def others() -> tuple[dict[str, str], list[str]]:
    """Versions of the libraries beside ours, and a line for each that is not here."""
    versions, missing = {}, []
    for name, package in (("isal", "libisal"), ("zlib", "zlib"), ("libdeflate", "libdeflate")):
        if (version := _version(package)) is not None:
            versions[name] = version
        else:
            missing.append(f"{name}: left out, pkg-config finds no {package}")
    if zlib_ng():
        versions["zlib-ng"] = f"of the Python package {metadata.version('zlib-ng')}"
    else:
        missing.append("zlib-ng: left out, Python's package zlib-ng is not installed (Debian 12 has none)")
    return versions, missing


def _version(package: str) -> str | None:
    done = subprocess.run(
        ["pkg-config", "--modversion", package], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


# -- the section ---------------------------------------------------------------------------


def measure(body: Body, images: Images, *, seconds: float, small: bool, rounds: int | None = None) -> None:
    """Fill ``body``; about ``seconds`` long. Raises FloorError, OSError, ValueError."""
    rounds = rounds or max(3, round(seconds * 0.6 / _ROUNDS_S))
    versions, missing = others()
    body.versions |= versions
    body.notes += missing
    written = {name: images.get("chunked", name) for name in ("gzip:podman", "gzip")}
    with tempfile.TemporaryDirectory(prefix="layertee-kernels-", dir=DESTINATIONS["tmpfs"]) as scratch:
        files: dict[str, list[Path]] = {}
        for name, data in kinds(KIND_NBYTES // (10 if small else 1)).items():
            path = Path(scratch) / name.replace(" ", "-")
            path.write_bytes(data)
            files[name] = [path]
        for name, image in written.items():
            files[f"layers, {'podman' if ':' in name else 'zlib'}"] = layers(image, LAYER_NBYTES)
            body.profile[f"image chunked, {name}"] = image.digest
        library = build(Path(scratch))
        result = run_members(library, rounds, [path for group in files.values() for path in group])
        stages(body, images, Path(scratch))
    body.facts["default"] = result["default"]
    members = iter(result["members"])
    for name, paths in files.items():
        add(body, name, [next(members) for _ in paths], result["default"])
    body.profile |= versions


def add(body: Body, name: str, members: Sequence[dict[str, Any]], default: str) -> None:
    """A row for each inflater on the data ``name``, and the ratio of the one that is used to libisal."""
    times: dict[str, list[dict[str, float]]] = {}
    for inflater in members[0]["seconds"]:
        rounds = zip(*(member["seconds"][inflater] for member in members), strict=True)
        times[inflater] = [{"cpu_s": sum(parts)} for parts in rounds]
    sizes = {key: sum(member[key] for member in members) for key in ("in_nbytes", "out_nbytes")}
    for inflater, taken in times.items():
        seconds = [one["cpu_s"] for one in taken]
        row: dict[str, Any] = {"data": name, "inflater": inflater, **sizes, "rounds": len(seconds)}
        row |= {"best_s": round(min(seconds), 6), "median_s": round(statistics.median(seconds), 6)}
        if YARDSTICK in times and inflater != YARDSTICK:
            row["over_isal"] = paired("", taken, times[YARDSTICK], wall=False).cpu
        body.rows.append(row)
    if default != YARDSTICK and YARDSTICK in times:
        goal = _GOAL_LAYER if name.startswith("layers") else _GOAL_ANY
        key = f"{name}: {default} over libisal"
        body.ratios.append(paired(key, times[default], times[YARDSTICK], wall=False, goal_cpu=goal))
    if name == "layers, podman":
        row = next(row for row in body.rows if (row["data"], row["inflater"]) == (name, default))
        body.facts["inflate_s_per_gb"] = round(row["median_s"] / row["out_nbytes"] * 1e9, 5)


def stages(body: Body, images: Images, scratch: Path) -> None:
    """What each kernel of a pull costs a byte, alone: medians of three runs of floor.c on one layer."""
    program = floor.build(scratch)
    for form in ("gzip", "zstd"):
        image = images.get("chunked", f"{form}:podman")
        blob = image.blob_path(max(image.layers, key=lambda layer: layer.uncompressed_size).digest)
        runs = [floor.run_once(program, form, [blob], scratch) for _ in range(3)]
        (layer,) = runs[0]["layers"]
        per = {"in": 1e9 / layer["in_nbytes"], "out": 1e9 / layer["out_nbytes"]}
        found = {
            name.removesuffix("_s"): round(statistics.median(run[name] for run in runs) * per[side], 5)
            for name, side in _SIDES.items()
        }
        body.facts[f"stages_{form}_s_per_gb"] = found
        body.profile[f"image chunked, {form}:podman"] = image.digest


_SIDES = {
    "inflate_s": "out",
    "hash1_in_s": "in",
    "hash1_out_s": "out",
    "hash2_in_s": "in",
    "hash2_out_s": "out",
    "receive_s": "in",
    "write_in_s": "in",
    "write_out_s": "out",
}


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: GB/s of output, best and median of the rounds, and how many times libisal's."""
    names = list(dict.fromkeys(row["inflater"] for row in rows))
    lines = [f"| GB/s: best, median (times libisal) | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        cells = []
        for name in names:
            row = next((it for it in rows if (it["data"], it["inflater"]) == (data, name)), None)
            cells.append(_cell(row) if row else "-")
        lines.append(f"| {data} | {' | '.join(cells)} |")
    return lines


def _cell(row: dict[str, Any]) -> str:
    best, middle = (row["out_nbytes"] / row[key] / 1e9 for key in ("best_s", "median_s"))
    times = f" ({1 / row['over_isal']:.2f})" if row.get("over_isal") else ""
    return f"{best:.3f}, {middle:.3f}{times}"
