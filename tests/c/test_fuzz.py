"""The decoders against zlib and libzstd, on inputs that a fuzzer makes up. See tests/c/fuzz_*.c.

``LAYERTEE_FUZZ_SECONDS`` is the time for each target (default 10).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.ccore import fuzzer, fuzzing_missing
from tests.support.vectors.make_vectors import VECTORS

SECONDS = int(os.environ.get("LAYERTEE_FUZZ_SECONDS", "10"))
SPLITS = (b"", b"\x01", b"\x00\x05\x20\x01")


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
@pytest.mark.spread
@pytest.mark.builds("core-tests")
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_no_input_tells_our_decoder_from_the_reference(form: str, tmp_path: Path) -> None:
    if why := fuzzing_missing():
        pytest.skip(why)
    program = fuzzer(form).build()
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
