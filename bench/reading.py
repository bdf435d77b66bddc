"""What reading and hashing the files of layers costs: reading.c, over what a store of podman's has.

It is what a server cannot do without that sends layers out of such a store and knows that they are right.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.floor import FloorError, sha256
from tests.support.rig.storage import StorageRig

SOURCE = Path(__file__).with_name("reading.c")


@dataclass(frozen=True, slots=True)
class Read:
    """One run: bytes of all files, seconds of CPU and of wall time."""

    nbytes: int
    cpu_s: float
    wall_s: float


def build(directory: Path, *, compiler: str = "cc") -> Path:
    """Compile reading.c with the SHA-256 of the C core, optimised as that is. Raises FloorError."""
    program = directory / "reading"
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", str(SOURCE), *sha256()]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    return program


def files_of(store: StorageRig, diff_ids: Sequence[str]) -> Iterator[Path]:
    """The files of these layers that have content, in the order of their tars."""
    for diff_id in diff_ids:
        tree = store.tree(diff_id)
        with gzip.open(store.tarsplit(diff_id), "rt") as lines:
            for entry in map(json.loads, lines):
                if entry["type"] == 1 and entry.get("size"):  # a file; tar-split's storage.FileType
                    name = entry.get("name")
                    raw = os.fsencode(name) if name else base64.b64decode(entry["name_raw"])
                    yield tree / os.fsdecode(raw)


def write_list(path: Path, files: Iterator[Path]) -> int:
    """What reading.c takes; the number of files."""
    names = [os.fsencode(file) + b"\0" for file in files]
    path.write_bytes(b"".join(names))
    return len(names)


def run_once(program: Path, files: Path) -> Read:
    """Read them all once. Raises FloorError."""
    done = subprocess.run([program, files], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FloorError(done.stderr.strip())
    return Read(**json.loads(done.stdout))
