"""The decoders against zlib and libzstd, on inputs that a fuzzer makes up. See tests/c/fuzz_*.c.

``LAYERTEE_FUZZ_SECONDS`` is the time for each target (default 10).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.core.tee import Tee
from layertee.errors import DecodeError, OutputBudgetExceeded
from layertee.image.media import Compression
from tests.fuzz.decoders import CORPUS, GZIP_FILE, NO_CRC, TARGETS, Kept, fuzz, kept
from tests.support.ccore import fuzzing_missing
from tests.support.cores import c_core_missing

SECONDS = int(os.environ.get("LAYERTEE_FUZZ_SECONDS", "10"))
BUDGET = 256 << 10


@pytest.mark.slow
@pytest.mark.spread
@pytest.mark.builds("core-tests")
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("form", TARGETS)
def test_no_input_tells_our_decoder_from_the_reference(form: str, tmp_path: Path) -> None:
    if why := fuzzing_missing():
        pytest.skip(why)
    # Of the 20,000 that a core makes in a second, or of 500 where pieces of a MiB are decoded; others may be
    # at work.
    seconds, least = (SECONDS // 4, 10) if form == "ahead" else (SECONDS, 200)
    outcome = fuzz(form, seconds, tmp_path)
    assert not outcome.problem
    assert outcome.executions > least * seconds


def test_the_kept_inputs_are_small() -> None:
    sizes = [path.stat().st_size for form in TARGETS for path in (CORPUS / form).iterdir()]
    assert max(sizes) <= 8 << 10
    assert sum(sizes) <= 300_000


def pieces(case: Kept, whole: bool) -> Iterator[bytes]:
    sizes = itertools.cycle([1 << 20] if whole or not any(case.sizes) else case.sizes)
    pos = 0
    while pos < len(case.stream):
        n = next(sizes)
        yield case.stream[pos : pos + n]
        pos += n


def outcome(case: Kept, form: str, core: str, *, whole: bool) -> tuple[object, ...]:
    """The verdict, and what came out if the stream is sound."""
    tee = Tee(
        Compression(form),
        check_crc=not case.flags & NO_CRC,
        out_budget=BUDGET,
        window_max=1 << 20,
        core=core,
    )
    out = bytearray()
    try:
        for piece in pieces(case, whole):
            out += tee.feed(piece)
            while tee.pending:
                out += tee.feed(b"")
        result = tee.finish()
    except DecodeError as exc:
        # The two have libzstds of different versions, one of which sees a fault of a block where the other
        # sees a frame that comes out too short.
        is_fault = form == "zstd" and exc.reason in ("data", "length")
        return "fault" if is_fault else exc.reason, exc.offset
    except OutputBudgetExceeded as exc:
        return exc.code, ""
    return "ok", bytes(out), result.digest, result.diff_id, result.n_members


# ISA-L takes codes that leave patterns of bits unused, which zlib and our own inflater refuse: of a stream
# that has such codes and another fault, the two kinds name different ones.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "inflaters"),
    [
        ("gzip", {"c": "own", "python": "zlib"}),
        ("gzip", {"c": "isal", "python": "isal"}),
        ("zstd", {"c": "", "python": ""}),
    ],
    ids=["gzip", "gzip-isal", "zstd"],
)
def test_both_cores_say_the_same_of_every_kept_input(
    form: str, inflaters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := c_core_missing():
        pytest.skip(why)
    n_sound = 0
    for name, case in kept(form):
        if form == "gzip" and not case.flags & GZIP_FILE:
            continue
        monkeypatch.setenv("LAYERTEE_INFLATE", inflaters["c"])
        want = outcome(case, form, "c", whole=True)
        for core, whole in (("c", False), ("python", True), ("python", False)):
            monkeypatch.setenv("LAYERTEE_INFLATE", inflaters[core])
            assert outcome(case, form, core, whole=whole) == want, name
        n_sound += want[0] == "ok"
    assert n_sound > 10
