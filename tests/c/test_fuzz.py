"""The decoders against zlib and libzstd, on inputs that a fuzzer makes up. See tests/c/fuzz_*.c.

``LAYERTEE_FUZZ_SECONDS`` is the time for each target (default 10).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.ccore import CTESTS, OPTIONAL, REQUIRED, build, pkg_config
from tests.support.vectors.make_vectors import VECTORS

SECONDS = int(os.environ.get("LAYERTEE_FUZZ_SECONDS", "10"))
SPLITS = (b"", b"\x01", b"\x00\x05\x20\x01")


def fuzzing_missing() -> str | None:
    """Why the fuzzers cannot run here, or None."""
    if not shutil.which("clang"):
        return "libFuzzer needs clang"
    missing = [package for package in (REQUIRED, *OPTIONAL.values()) if pkg_config(package) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def seed(directory: Path, form: str) -> None:
    """The vectors as inputs of the fuzz targets: flags, piece sizes, the stream.

    Flag 1 is a gzip file, without it raw deflate; flag 2 the slower inflater.
    """
    for vector in VECTORS:
        if vector.format != form or len(vector.data) > 20_000:
            continue
        for number, sizes in enumerate(SPLITS):
            head = b"\x01" + bytes([len(sizes)]) + sizes
            (directory / f"{vector.name}.{number}").write_bytes(head + vector.data)
        if form == "gzip":
            (directory / f"{vector.name}.slower").write_bytes(b"\x03\x00" + vector.data)
            (directory / f"{vector.name}.raw").write_bytes(b"\x00\x00" + vector.data[10:])
            (directory / f"{vector.name}.raw.slower").write_bytes(b"\x02\x00" + vector.data[10:])


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_no_input_tells_our_decoder_from_the_reference(form: str, tmp_path: Path) -> None:
    if why := fuzzing_missing():
        pytest.skip(why)
    flags = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    program = build(tmp_path / "fuzz", CTESTS / f"fuzz_{form}.c", compiler="clang", flags=flags)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seed(corpus, form)
    command = [str(program), f"-max_total_time={SECONDS}", "-max_len=8192", "-timeout=20", str(corpus)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path
    )
    found = [
        path for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-", "leak-"))
    ]
    inputs = "".join(f"\n{path.name}: {path.read_bytes().hex()}" for path in found)
    assert done.returncode == 0, done.stderr[-5000:] + inputs
