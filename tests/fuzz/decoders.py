"""The decoders of the C core against zlib and libzstd: tests/c/fuzz_*.c under libFuzzer.

An input is flags, piece sizes and a stream, as fuzz_common.h has it. Kept inputs, which together reach all
that earlier runs reached, are in tests/c/corpus; a run begins with them and with the vectors.
"""

from __future__ import annotations

import re
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.ccore import CTESTS, fuzzer
from tests.support.vectors.make_vectors import VECTORS

FORMS: Final = ("gzip", "zstd")
TARGETS: Final = (*FORMS, "ahead")  # the last: both, by pieces before their turn
CORPUS: Final = CTESTS / "corpus"
GZIP_FILE, ZLIB, MUCH, TEE, NO_CRC, ISAL, PORTABLE, FREEZE = (1 << n for n in range(8))  # of fuzz_common.h
MAX_LEN: Final = 4096
_SPLITS: Final = (b"", b"\x01", b"\x00\x05\x20\x01")
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
_FOUND: Final = ("crash-", "timeout-", "oom-", "leak-")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of a fuzzer came to; ``problem`` says what it found, with the input in hex, or is empty."""

    executions: int
    problem: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An input as the targets take it apart. ``sizes``: of the pieces, used in turn; none: at once."""

    flags: int
    sizes: bytes
    stream: bytes

    @classmethod
    def of(cls, raw: bytes) -> Kept:
        """Raises ValueError for one that the targets pass over."""
        if len(raw) < 2:
            raise ValueError("an input has two bytes at least")
        n = min(raw[1] % 32, len(raw) - 2)
        return cls(raw[0], raw[2 : 2 + n], raw[2 + n :])


def kept(form: str) -> Iterator[tuple[str, Kept]]:
    """The inputs of the corpus that are inputs, by name."""
    for path in sorted((CORPUS / form).iterdir()):
        raw = path.read_bytes()
        if len(raw) >= 2:
            yield path.name, Kept.of(raw)


def _seed_ahead(directory: Path) -> None:
    """Streams with many places to begin at: deflate that is flushed again and again, small zstd frames."""
    texts = [b"layer tee " * n + bytes(range(n)) for n in (1, 7, 30, 120)]
    for strategy in range(5):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, 8, strategy)
        parts = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in texts]
        stream = b"".join([*parts, packer.flush(), bytes(8)])
        for sizes in _SPLITS:
            head = bytes([GZIP_FILE | MUCH, len(sizes)]) + sizes
            (directory / f"flushed.{strategy}.{len(sizes)}").write_bytes(head + stream)
    frames = [v.data for v in VECTORS if v.format == "zstd" and v.outcome == "ok" and len(v.data) < 500]
    for number in range(0, len(frames) - 3, 3):
        stream = b"".join(frames[number : number + 4])[:MAX_LEN]
        (directory / f"frames.{number}").write_bytes(bytes([MUCH, 0]) + stream)


def seed(directory: Path, form: str) -> None:
    """The vectors as inputs: each in several splits, gzip also as raw deflate, and by every inflater."""
    if form == "ahead":
        _seed_ahead(directory)
    for vector in VECTORS:
        if vector.format != form or len(vector.data) > MAX_LEN:
            continue
        for number, sizes in enumerate(_SPLITS):
            flags = GZIP_FILE | (MUCH if number == 1 else 0) | (TEE if number == 2 else 0)
            flags |= 0 if vector.check_crc else NO_CRC
            head = bytes([flags, len(sizes)]) + sizes
            (directory / f"{vector.name}.{number}").write_bytes(head + vector.data)
        if form != "gzip":
            continue
        for number, inflater in enumerate((0, ZLIB, ISAL, PORTABLE)):
            (directory / f"{vector.name}.by{number}").write_bytes(
                bytes([GZIP_FILE | inflater, 0]) + vector.data
            )
            (directory / f"{vector.name}.raw{number}").write_bytes(bytes([inflater, 0]) + vector.data[10:])
        head = bytes([FREEZE, 3, 3, 1, 9])
        (directory / f"{vector.name}.frozen").write_bytes(head + vector.data[10:])


def fuzz(form: str, seconds: int, directory: Path) -> Outcome:
    """Run the target of ``form`` for that long; new inputs are left in ``directory``. Raises NoCompiler."""
    own = directory / "corpus"
    own.mkdir()
    seed(own, form)
    command = [
        str(fuzzer(form).build()),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LEN}",
        "-timeout=20",
        "-entropic_scale_per_exec_time=1",
        "-print_final_stats=1",
        str(own),
        str(CORPUS / form),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, cwd=directory
    )
    counted = _RUNS.search(done.stderr)
    problem = ""
    if done.returncode:
        found = [path for path in directory.iterdir() if path.name.startswith(_FOUND)]
        problem = done.stderr[-5000:] + "".join(f"\n{p.name}: {p.read_bytes().hex()}" for p in found)
    return Outcome(int(counted[1]) if counted else 0, problem)
