"""What a pull cannot cost less than: ``python -m bench.floor [--small] [--runs N]``.

floor.c runs the kernels that a pull is made of, each alone, on the layers of the same images, and gives
their CPU seconds on one thread. A floor is the sum of those that a pull of some kind cannot do without,
with two streams hashed at a time. HTTP, the pool, memory management and start-up are not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.content import SHAPES, TOTAL, bench_image
from bench.where import BUILT, cache
from tests.support import ccore
from tests.support.rig.images import BuiltImage, BuiltLayer

SOURCE = Path(__file__).with_name("floor.c")
COMPRESSIONS = ("gzip", "zstd")

KERNELS = ("inflate_s", "hash1_s", "hash2_s", "hash2_in_s", "receive_s", "write_out_s", "write_in_s")
FLOORS = {
    "floor_decompress_s": ("inflate_s", "hash2_s", "receive_s", "write_out_s"),
    "floor_as_is_s": ("inflate_s", "hash2_s", "receive_s", "write_in_s"),
    "floor_blob_digest_s": ("hash2_in_s", "receive_s", "write_in_s"),
}


class FloorError(RuntimeError):
    """floor.c was not built, failed, or came to other bytes than the image has."""


def build(directory: Path, *, compiler: str = "cc") -> Path:
    """Compile floor.c with the SHA-256 of the C core, optimised as the extension is; return the program.

    Raises FloorError where libisal or libzstd is not installed, or if it does not compile.
    """
    command = [
        compiler,
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        str(SOURCE),
        *sha256(),
    ]
    for package in ("libisal", "libzstd"):
        if (flags := ccore.pkg_config(package)) is None:
            raise FloorError(f"pkg-config finds no {package} (Debian: {package}-dev)")
        command += flags
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "floor"
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    return program


def sha256() -> list[str]:
    """What a compiler of a C program is given for the SHA-256 of the C core."""
    words = [f"-I{ccore.CSRC}", *(str(ccore.ROOT / name) for name in ccore.sources() if _hashes(name))]
    flags = ccore.pkg_config("libcrypto")
    return words if flags is None else [*words, "-DLT_HAVE_OPENSSL", *flags]


def _hashes(source: str) -> bool:
    """Whether a C file of the core is part of its SHA-256."""
    return source.startswith(("csrc/cpu/", "csrc/hash/"))


def run_once(program: Path, compression: str, blobs: Sequence[Path], scratch: Path) -> dict[str, Any]:
    """One run of floor.c over ``blobs``: what it printed. ``scratch`` is a directory to write in."""
    command = [str(program), compression, str(scratch / "floor.tmp"), *map(str, blobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check(result: Mapping[str, Any], image: BuiltImage) -> None:
    """Raise FloorError unless what was hashed is exactly the image's layers, both ends of each."""
    for got, layer in zip(result["layers"], _layers(image), strict=True):
        if (got["in_digest"], got["out_digest"]) != (layer.digest, layer.diff_id):
            raise FloorError(f"floor.c hashed something else than {layer.digest}: {got}")


def floors(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Medians of the kernels over ``runs``, and the floors: sums of these medians."""
    row = {name: statistics.median(_kernel(run, name) for run in runs) for name in KERNELS}
    return row | {floor: sum(row[part] for part in parts) for floor, parts in FLOORS.items()}


def measure(images: Sequence[tuple[str, str, BuiltImage]], runs: int, dest: Path) -> list[dict[str, object]]:
    """One row for every ``(shape, compression, image)``: seconds of CPU, medians of ``runs`` runs.

    ``dest`` is an existing directory on the filesystem that writing is measured on. Raises FloorError.
    """
    program = build(BUILT)
    where = filesystem(dest)
    rows: list[dict[str, object]] = []
    for shape, compression, image in images:
        blobs = [image.blob_path(layer.digest) for layer in _layers(image)]
        with tempfile.TemporaryDirectory(prefix="layertee-floor-", dir=dest) as scratch:
            taken = []
            for _ in range(runs):
                # zstd:chunked is zstd to a decoder.
                taken.append(run_once(program, compression.partition(":")[0], blobs, Path(scratch)))
                check(taken[-1], image)
        rows.append({"shape": shape, "compression": compression, "dest": where, **floors(taken)})
    return rows


def filesystem(directory: Path) -> str:
    """``"tmpfs"`` or ``"disk"``: where files in ``directory`` end up."""
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "tmpfs" if kind in ("tmpfs", "ramfs") else "disk"


def _layers(image: BuiltImage) -> list[BuiltLayer]:
    """Each blob once."""
    return list({layer.digest: layer for layer in image.layers}.values())


def _kernel(run: Mapping[str, Any], name: str) -> float:
    if name in ("hash1_s", "hash2_s"):
        lanes = name.removesuffix("_s")
        return float(run[f"{lanes}_in_s"] + run[f"{lanes}_out_s"])
    return float(run[name])


def main() -> int:
    """Measure the images that the benchmarks pull, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tenth of the content, for a quick look")
    parser.add_argument("--dest", type=Path, default=Path("/dev/shm"), help="where to write")
    args = parser.parse_args()
    total = TOTAL // 10 if args.small else TOTAL
    images = [
        (shape, kind, bench_image(cache(), shape, kind, total=total))
        for shape in SHAPES
        for kind in COMPRESSIONS
    ]
    rows = measure(images, args.runs, args.dest)
    columns = [*KERNELS, *FLOORS]
    print(f"CPU seconds, medians of {args.runs} runs, to {rows[0]['dest']}\n")
    print("| image | " + " | ".join(name.removesuffix("_s") for name in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row in rows:
        print(
            f"| {row['shape']} {row['compression']} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
