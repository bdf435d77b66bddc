"""SHA-256 kernels as Python sees them: each against hashlib, and which one is chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertee.core.loading import c_core
from layertee.errors import LayerteeError


@pytest.fixture
def core() -> Iterator[tuple[Any, Any]]:
    """``(ffi, lib)``, with the default kernel again afterwards."""
    try:
        ffi, lib = c_core()
    except LayerteeError as exc:
        pytest.skip(str(exc))
    yield ffi, lib
    lib.lt_kernel_use(ffi.NULL)


def kernels(ffi: Any, lib: Any) -> list[tuple[str, bool]]:
    """Names, fastest first, and whether each runs here."""
    found: list[tuple[str, bool]] = []
    while (raw := lib.lt_kernel_name(len(found))) != ffi.NULL:
        found.append((ffi.string(raw).decode(), lib.lt_kernel_state(len(found)) == lib.LT_OK))
    return found


def test_the_portable_kernel_is_last_and_always_runs(core: tuple[Any, Any]) -> None:
    assert kernels(*core)[-1] == ("portable", True)


def test_asking_for_nothing_picks_the_first_that_runs_here(core: tuple[Any, Any]) -> None:
    ffi, lib = core
    assert lib.lt_kernel_use(b"portable") == lib.LT_OK
    assert lib.lt_kernel_use(ffi.NULL) == lib.LT_OK
    first = next(name for name, runs in kernels(ffi, lib) if runs)
    assert ffi.string(lib.lt_kernel_current()).decode() == first


def test_a_name_is_a_demand(core: tuple[Any, Any]) -> None:
    ffi, lib = core
    before = ffi.string(lib.lt_kernel_current())
    assert lib.lt_kernel_use(b"sha-ni") == lib.LT_ERR_UNKNOWN_NAME
    assert ffi.string(lib.lt_kernel_current()) == before
    for index, (name, runs) in enumerate(kernels(ffi, lib)):
        status = lib.lt_kernel_use(name.encode())
        assert status == lib.lt_kernel_state(index)
        assert status in ({lib.LT_OK} if runs else {lib.LT_ERR_NO_CPU, lib.LT_ERR_NOT_BUILT})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.binary(max_size=700), b=st.binary(max_size=700), repeat=st.integers(1, 20))
def test_every_kernel_agrees_with_hashlib_on_one_stream_and_on_two(
    core: tuple[Any, Any], a: bytes, b: bytes, repeat: int
) -> None:
    ffi, lib = core
    a *= repeat
    digests = ffi.new("uint8_t[64]")
    want_a, want_b = hashlib.sha256(a).digest(), hashlib.sha256(b).digest()
    for name, runs in kernels(ffi, lib):
        if not runs:
            continue
        assert lib.lt_kernel_use(name.encode()) == lib.LT_OK
        lib.lt_sha256(a, len(a), digests)
        assert bytes(ffi.buffer(digests, 32)) == want_a, name
        lib.lt_sha256_two(a, len(a), digests, b, len(b), digests + 32)
        assert bytes(ffi.buffer(digests)) == want_a + want_b, name


def test_kernels_have_one_lane_or_two(core: tuple[Any, Any]) -> None:
    ffi, lib = core
    found = kernels(ffi, lib)
    lanes = {name: lib.lt_kernel_lanes(i) for i, (name, _) in enumerate(found)}
    assert lanes["portable"] == 1
    for index, (name, _) in enumerate(found):
        built = lib.lt_kernel_state(index) != lib.LT_ERR_NOT_BUILT
        assert lanes[name] in ({1, 2} if built else {0})
    assert lib.lt_kernel_lanes(len(found)) == 0
    assert lib.lt_kernel_state(len(found)) == lib.LT_ERR_UNKNOWN_NAME
