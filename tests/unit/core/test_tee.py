"""The tee, on both cores: every vector, every split, budgets, and what a caller may do wrong."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertee.core.loading import c_core, core_name, core_report, inflater_name
from layertee.core.result import TeeResult
from layertee.core.status import Status, decode_error
from layertee.core.tee import Tee
from layertee.core.tee_python import INFLATERS, PythonCore
from layertee.errors import DecodeError, LayerteeError, OutputBudgetExceeded
from layertee.image.media import Compression
from tests.support.cores import C_INFLATERS, c_core_missing, not_built
from tests.support.vectors.make_vectors import NOISE, TEXT, VECTORS, Vector, member, zstd

BY_NAME = {vector.name: vector for vector in VECTORS}
SMALL = [vector for vector in VECTORS if len(vector.data) <= 3000]


@dataclass(frozen=True)
class Outcome:
    """What a caller of the tee can observe."""

    reason: str
    offset: int
    output: bytes | None
    result: tuple[str, str, int, int, int] | None


def chop(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """``data`` in pieces of the given sizes."""
    pos = 0
    while pos < len(data):
        n = next(sizes)
        yield data[pos : pos + n]
        pos += n


def decode(
    vector: Vector,
    core: str,
    sizes: Iterator[int],
    *,
    out_budget: int = 64 << 30,
    check_crc: bool | None = None,
    said: Compression | None = None,
) -> Outcome:
    """Feed a vector in pieces of the given sizes; ``said`` is what it is called, None for what it is."""
    tee = Tee(
        said or Compression(vector.format),
        check_crc=vector.check_crc if check_crc is None else check_crc,
        out_budget=out_budget,
        window_max=vector.window_max,
        core=core,
    )
    out = bytearray()
    try:
        for piece in chop(vector.data, sizes):
            out += tee.feed(piece)
            while tee.pending:
                out += tee.feed(b"")
        result = tee.finish()
        assert result.compression is Compression(vector.format) or not vector.data
    except DecodeError as exc:
        return Outcome(exc.reason, exc.offset, None, None)
    measured = (
        str(result.digest),
        str(result.diff_id),
        result.size,
        result.uncompressed_size,
        result.n_members,
    )
    return Outcome("ok", 0, bytes(out), measured)


def expected(vector: Vector) -> Outcome:
    """The only acceptable outcome of a vector; hashes by hashlib."""
    if vector.outcome != "ok":
        return Outcome(vector.outcome, vector.offset, None, None)
    assert vector.output is not None
    measured = (
        "sha256:" + hashlib.sha256(vector.data).hexdigest(),
        "sha256:" + hashlib.sha256(vector.output).hexdigest(),
        len(vector.data),
        len(vector.output),
        vector.members,
    )
    return Outcome("ok", 0, vector.output, measured)


def random_sizes(seed: int, largest: int) -> Iterator[int]:
    """Piece sizes, many of them small."""
    rng = random.Random(seed)
    return iter(lambda: rng.randint(0 if rng.random() < 0.1 else 1, largest), None)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_every_vector_has_its_one_outcome_however_it_is_split(core: str, vector: Vector) -> None:
    want = expected(vector)
    assert decode(vector, core, itertools.repeat(1 << 30)) == want
    largest = len(vector.data) // 3 + 2
    for seed in range(3):
        assert decode(vector, core, random_sizes(seed, largest)) == want
    if len(vector.data) <= 3000:
        assert decode(vector, core, itertools.repeat(1)) == want


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_gzip_and_zstd_are_told_apart_by_their_first_byte(core: str, vector: Vector) -> None:
    if vector.format == "none":
        pytest.skip("a tar is whatever its bytes are")
    wrong = Compression.ZSTD if vector.format == "gzip" else Compression.GZIP
    want = expected(vector)
    assert decode(vector, core, itertools.repeat(1 << 30), said=wrong) == want
    assert decode(vector, core, random_sizes(0, len(vector.data) // 3 + 2), said=wrong) == want


@pytest.mark.parametrize("said", [Compression.GZIP, Compression.ZSTD])
def test_what_is_neither_gzip_nor_zstd_is_refused_at_its_first_byte(core: str, said: Compression) -> None:
    known = {0x1F, 0x28, *range(0x50, 0x60)}
    for first in range(256):
        tee = Tee(said, core=core)
        if first in known:
            assert len(tee.feed(bytes([first]))) == 0
        else:
            with pytest.raises(DecodeError) as caught:
                tee.feed(bytes([first]))
            assert (caught.value.reason, caught.value.offset) == ("header", 0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plain=st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 2000)), max_size=3),
    actual=st.sampled_from(["gzip", "zstd", "chunked"]),
    said=st.sampled_from([Compression.GZIP, Compression.ZSTD]),
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=40).filter(any),
)
def test_whatever_it_is_called_it_is_inflated_as_what_it_is(
    core: str, plain: list[tuple[bytes, int]], actual: str, said: Compression, sizes: list[int]
) -> None:
    parts = [unit * count for unit, count in plain]
    pack = gzip.compress if actual == "gzip" else zstd
    packed = b"".join(pack(part) for part in parts)
    n_members = len(parts)
    if actual == "chunked":  # a frame to be skipped comes first
        packed = b"\x5c\x2a\x4d\x18\x03\0\0\0toc" + packed
        n_members += 1
    vector = Vector(
        "made", "gzip" if actual == "gzip" else "zstd", packed, b"".join(parts), members=n_members
    )
    assert decode(vector, core, itertools.cycle(sizes), said=said) == expected(vector)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vector=st.sampled_from(SMALL),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=3),
    cut=st.one_of(st.none(), st.integers(0, 3000)),
    surplus=st.binary(max_size=12),
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=40).filter(any),
    budget=st.one_of(st.none(), st.integers(0, 9000)),
)
def test_damaged_streams_meet_the_same_fate_however_they_are_split(
    core: str,
    vector: Vector,
    flips: list[tuple[int, int]],
    cut: int | None,
    surplus: bytes,
    sizes: list[int],
    budget: int | None,
) -> None:
    data = bytearray(vector.data[:cut] + surplus)
    for pos, mask in flips:
        if data:
            data[pos % len(data)] ^= mask
    damaged = dataclasses.replace(vector, data=bytes(data))
    if budget is None or core == "python" or vector.format == "gzip":
        # Where a deflate body breaks off, its last bytes are lost or not (lt_inflate_isal.c), and with
        # them which of two errors comes first; the fallback loses all of the failing call.
        budget = 64 << 30
    whole = decode(damaged, core, itertools.repeat(1 << 30), out_budget=budget)
    assert decode(damaged, core, itertools.cycle(sizes), out_budget=budget) == whole
    assert decode(damaged, core, itertools.repeat(1), out_budget=budget) == whole


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 2000)), max_size=4),
    seed=st.integers(0, 1 << 30),
    largest=st.integers(1, 5000),
    form=st.sampled_from(["gzip", "zstd"]),
)
def test_what_other_tools_compress_comes_out_again(
    core: str, parts: list[tuple[bytes, int]], seed: int, largest: int, form: str
) -> None:
    plain = [unit * count for unit, count in parts]
    pack = gzip.compress if form == "gzip" else zstandard.ZstdCompressor(write_checksum=True).compress
    packed = b"".join(pack(data) for data in plain)
    vector = Vector("made", form, packed, b"".join(plain), members=len(plain))
    assert decode(vector, core, random_sizes(seed, largest)) == expected(vector)


@pytest.mark.parametrize(
    "name", ["none_text", "gzip_two_members", "gzip_noise", "zstd_two_frames", "zstd_rle_bomb"]
)
def test_the_output_budget_is_exact(core: str, name: str) -> None:
    vector = BY_NAME[name]
    assert vector.output is not None
    size = len(vector.output)
    for sizes in (itertools.repeat(1 << 30), random_sizes(1, len(vector.data) // 4 + 1)):
        assert decode(vector, core, sizes, out_budget=size) == expected(vector)
    for budget in (0, 1, size // 2, size - 1):
        outcomes = {
            decode(vector, core, sizes, out_budget=budget)
            for sizes in (itertools.repeat(1 << 30), random_sizes(2, 100), random_sizes(3, 50_000))
        }
        assert {outcome.reason for outcome in outcomes} == {"out_budget"}
        assert len(outcomes) == 1


def test_a_bomb_ends_in_its_own_error_with_the_budget_delivered(core: str) -> None:
    tee = Tee(Compression.ZSTD, out_budget=1_000_000, core=core, media_type="a/b+zstd")
    got = 0
    with pytest.raises(OutputBudgetExceeded, match=r"a/b\+zstd") as caught:
        got += len(tee.feed(BY_NAME["zstd_rle_bomb"].data))
        while tee.pending:
            got += len(tee.feed(b""))
    assert caught.value.reason == "out_budget" and caught.value.media_type == "a/b+zstd"
    assert got == 3 * (256 << 10)  # the part up to the budget came with the error


def test_an_error_is_final_and_says_where(core: str) -> None:
    vector = BY_NAME["gzip_isize_wrong_second"]
    tee = Tee(Compression.GZIP, media_type="application/vnd.oci.image.layer.v1.tar+gzip", core=core)
    with pytest.raises(DecodeError, match=r"tar\+gzip.*length it states") as caught:
        tee.feed(vector.data)
    assert (caught.value.reason, caught.value.offset) == ("length", vector.offset)
    for again in (lambda: tee.feed(b"more"), tee.finish):
        with pytest.raises(DecodeError) as repeated:
            again()
        assert repeated.value.reason == "length"


def test_output_is_bounded_by_the_window_and_pending_says_that_there_is_more(core: str) -> None:
    plain = bytes(1_000_000)
    tee = Tee(Compression.GZIP, core=core)
    sizes = [len(tee.feed(member(plain)))]
    assert tee.pending and sizes == [tee.window]
    with pytest.raises(RuntimeError, match="pending"):
        tee.feed(b"more")
    with pytest.raises(RuntimeError, match="pending"):
        tee.finish()
    while tee.pending:
        sizes.append(len(tee.feed(b"")))
    assert max(sizes) == tee.window and sum(sizes) == len(plain)
    assert tee.finish().uncompressed_size == len(plain)


def test_output_is_readable_until_the_next_call_and_not_writable(core: str) -> None:
    tee = Tee(Compression.NONE, core=core)
    out = tee.feed(bytearray(b"hello"))
    assert bytes(out) == b"hello" and out.readonly
    assert bytes(tee.feed(memoryview(b"bye"))) == b"bye"
    assert tee.finish().size == 8


def test_a_tee_is_finished_once(core: str) -> None:
    tee = Tee(Compression.GZIP, core=core)
    tee.feed(member(TEXT))
    assert not len(tee.feed(b"")) and not tee.pending
    result = tee.finish()
    assert result.compression is Compression.GZIP and result.decoder == f"{core}/gzip"
    for call in (tee.finish, lambda: tee.feed(b"")):
        with pytest.raises(RuntimeError, match="finished"):
            call()


def test_asking_again_and_again_in_vain_is_no_error(core: str) -> None:
    tee = Tee(Compression.ZSTD, core=core)
    out = b""
    for byte in zstd(b"hello"):
        out += tee.feed(bytes([byte]))
        for _ in range(20):
            out += tee.feed(b"")
    assert out == b"hello" and tee.finish().uncompressed_size == 5


def test_a_stored_layer_has_its_digest_for_diff_id(core: str) -> None:
    tee = Tee(Compression.NONE, core=core)
    tee.feed(TEXT)
    result = tee.finish()
    want = "sha256:" + hashlib.sha256(TEXT).hexdigest()
    assert result.digest == want and result.diff_id == want
    assert result.size == result.uncompressed_size == len(TEXT)


def test_negative_limits_are_misuse(core: str) -> None:
    with pytest.raises(ValueError, match="negative"):
        Tee(Compression.GZIP, out_budget=-1, core=core)


def test_a_result_cannot_be_made_only_measured() -> None:
    tee = Tee(Compression.NONE)
    tee.feed(b"x")
    result = tee.finish()
    with pytest.raises(TypeError, match="measures"):
        dataclasses.replace(result, size=2)
    with pytest.raises(TypeError, match="measures"):
        TeeResult(
            digest=result.digest,
            diff_id=result.diff_id,
            size=1,
            uncompressed_size=1,
            n_members=1,
            compression=Compression.NONE,
            decoder="me",
        )
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.size = 2  # type: ignore[misc]


def test_the_cores_agree_on_the_numbers_of_their_verdicts() -> None:
    if why := c_core_missing():
        pytest.skip(why)
    _, lib = c_core()
    theirs = {
        name.removeprefix("LT_ERR_"): getattr(lib, name) for name in dir(lib) if name.startswith("LT_ERR_")
    }
    assert theirs | {"OK": lib.LT_OK} == {status.name: status.value for status in Status}


@pytest.mark.parametrize("status", [s for s in Status if Status.CANCELLED < s < 0])
def test_every_verdict_has_an_exception(status: Status) -> None:
    error = decode_error(status, 7, "a/b")
    assert "a/b" in str(error)
    if status in (Status.MEMORY, Status.THREAD, Status.WRITE):
        assert not isinstance(error, LayerteeError)
    else:
        assert isinstance(error, DecodeError)
        assert error.reason == status.name.lower() and error.offset == 7


@pytest.mark.parametrize("demand", ["", "c", "python"])
def test_the_environment_demands_a_core(demand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if demand == "c" and c_core_missing():
        pytest.skip("no C core")
    monkeypatch.setenv("LAYERTEE_CORE", demand)
    want = demand or ("python" if c_core_missing() else "c")
    assert core_name() == want
    report = core_report()
    assert report.startswith(f"core: {want}")
    assert ("sha256 kernel portable" in report) == (want == "c")
    tee = Tee(Compression.GZIP)
    tee.feed(member(TEXT))
    assert tee.finish().decoder == f"{want}/gzip"


def test_a_core_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERTEE_CORE", "fast")
    with pytest.raises(LayerteeError, match="no such core: 'fast'"):
        core_name()


@pytest.mark.parametrize("core", ["c", "python"])
def test_the_environment_demands_an_inflater(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if core == "c" and (why := c_core_missing()):
        pytest.skip(why)
    monkeypatch.setenv("LAYERTEE_CORE", core)
    monkeypatch.delenv("LAYERTEE_INFLATE", raising=False)
    fastest = inflater_name(core)
    assert f"inflater {fastest}: in use" in core_report()
    for name in C_INFLATERS if core == "c" else INFLATERS:
        if core == "c" and not_built(name):
            continue
        monkeypatch.setenv("LAYERTEE_INFLATE", name)
        assert inflater_name(core) == name
        used = [line for line in core_report().splitlines() if "inflater" in line and "in use" in line]
        assert used == [f"  inflater {name}: in use"]
    monkeypatch.delenv("LAYERTEE_INFLATE")
    assert inflater_name(core) == fastest


@pytest.mark.parametrize("core", ["c", "python"])
def test_an_inflater_that_does_not_exist_is_refused(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if core == "c" and (why := c_core_missing()):
        pytest.skip(why)
    monkeypatch.setenv("LAYERTEE_INFLATE", "fast")
    names = " or ".join(map(repr, C_INFLATERS if core == "c" else INFLATERS))
    with pytest.raises(LayerteeError, match=f"no such inflater: 'fast'; LAYERTEE_INFLATE is {names}$"):
        Tee(Compression.GZIP, core=core)


STALE = """
import sys, types
module = types.ModuleType("layertee.core._ctee")
module.lib = types.SimpleNamespace({abi})
module.ffi = None
sys.modules["layertee.core._ctee"] = module
from layertee.core import loading
print(loading.core_name(), loading.core_report())
"""


@pytest.mark.parametrize("abi", ["LT_ABI=0", "lt_abi=lambda: 3"])
@pytest.mark.parametrize("demand", ["", "c"])
def test_a_binary_of_another_version_is_refused(abi: str, demand: str) -> None:
    env = {**os.environ, "LAYERTEE_CORE": demand, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", STALE.format(abi=abi)], env=env, capture_output=True, text=True, check=False
    )
    if demand:
        assert done.returncode != 0 and "is of another version" in done.stderr
    else:
        assert done.stdout.startswith("python core: python") and "is of another version" in done.stdout


def test_the_fallback_writes_no_more_than_it_is_given_room_for() -> None:
    core = PythonCore(Compression.ZSTD, check_crc=True, out_budget=1 << 30, window_max=1 << 20)
    data = memoryview(zstd(NOISE))
    out = bytearray()
    while True:
        room = memoryview(bytearray(1000))
        status, taken, made = core.feed(data, room)
        assert status == Status.OK
        data = data[taken:]
        out += room[:made]
        if not data and made < len(room):
            break
    assert out == NOISE and core.finish().status == Status.OK


# --- larger than 32 bits can count -----------------------------------------------------------

GIB5 = 5 << 30


def large_gzip() -> Iterator[bytes]:
    """5 GiB in 150 MB: a pattern whose matches reach back 20,000 bytes, wherever a counter may wrap."""
    unit = (NOISE[:20_000] * 60)[:1_000_003]
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = compress.compress(unit) + compress.flush(zlib.Z_FULL_FLUSH)
    count, rest = divmod(GIB5, len(unit))
    yield member(b"")[:10]
    for _ in range(count):
        yield body
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield last.compress(unit[:rest]) + last.flush()
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(unit, crc)
    yield struct.pack("<II", zlib.crc32(unit[:rest], crc), GIB5 & 0xFFFFFFFF)


def drain(tee: Tee, chunks: Iterator[bytes]) -> TeeResult:
    for chunk in chunks:
        tee.feed(chunk)
        while tee.pending:
            tee.feed(b"")
    return tee.finish()


@pytest.mark.slow
@pytest.mark.spread
@pytest.mark.timeout(1800)
def test_more_than_4_gib_come_out_of_gzip(core: str) -> None:
    result = drain(Tee(Compression.GZIP, core=core), large_gzip())
    assert result.uncompressed_size == GIB5
    unit = (NOISE[:20_000] * 60)[:1_000_003]
    want = hashlib.sha256()
    count, rest = divmod(GIB5, len(unit))
    for _ in range(count):
        want.update(unit)
    want.update(unit[:rest])
    assert result.diff_id == "sha256:" + want.hexdigest()


@pytest.mark.slow
@pytest.mark.spread
@pytest.mark.timeout(1800)
def test_more_than_4_gib_go_in(core: str) -> None:
    """Stored deflate blocks: every byte of the output is also one of the input."""
    chunk = b"\x00\xff\xff\x00\x00" + bytes(65535)
    count = (4 << 30) // 65535 + 10
    size = count * 65535

    def chunks() -> Iterator[bytes]:
        yield member(b"")[:10]
        batch, rest = divmod(count, 16)
        for _ in range(batch):
            yield chunk * 16
        yield chunk * rest
        yield b"\x01\x00\x00\xff\xff" + struct.pack("<II", 0, size & 0xFFFFFFFF)

    result = drain(Tee(Compression.GZIP, check_crc=False, core=core), chunks())
    assert result.size > 4 << 30 and result.uncompressed_size == size


@pytest.mark.slow
def test_vectors_can_be_written_as_a_corpus(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "support" / "vectors" / "make_vectors.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == set(BY_NAME)
