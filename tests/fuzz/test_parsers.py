"""Whatever bytes a parser is given: a value, or an error of the kind that it promises, in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.errors import DocumentError
from tests.fuzz import running
from tests.fuzz.parsers import PARSERS
from tests.fuzz.target import LIMIT_S, Target, TooSlow

SECONDS = 12  # of guided fuzzing, of all targets together

pytestmark = pytest.mark.slow


def larger(raw: bytes, size: int) -> Iterator[bytes]:
    """``raw`` made ``size`` bytes long: by repeating all of it, and its middle."""
    third = len(raw) // 3
    for head, again in ((b"", raw), (raw[:third], raw[third : 2 * third])):
        if again:
            yield (head + again * (size // len(again)))[:size]


@pytest.mark.parametrize("target", PARSERS.values(), ids=lambda target: target.name)
def test_every_kept_input_gives_a_value_or_an_error_that_is_promised(target: Target) -> None:
    inputs = [*target.seeds(), *(path.read_bytes() for path in running.kept(target))]
    taken = sum([target.check(raw) for raw in inputs])
    assert taken


@pytest.mark.alone
@pytest.mark.parametrize("target", PARSERS.values(), ids=lambda target: target.name)
def test_no_input_of_the_largest_size_takes_a_second(target: Target) -> None:
    seeds = list(target.seeds())
    for raw in [*seeds[:1], *target.words[:2]]:
        for large in larger(raw, target.largest):
            target.check(large)


@pytest.mark.spread
@pytest.mark.timeout(SECONDS + 200)
def test_no_input_that_a_fuzzer_makes_up_breaks_a_parser(tmp_path: Path) -> None:
    if why := running.missing():
        pytest.skip(why)
    outcome = running.fuzz_all(SECONDS, tmp_path)
    assert not outcome.problem
    assert outcome.executions > 20 * SECONDS


@pytest.mark.spread
@pytest.mark.timeout(200)
def test_a_target_without_words_runs_alone(tmp_path: Path) -> None:
    if why := running.missing():
        pytest.skip(why)
    assert not PARSERS["elf"].words
    outcome = running.fuzz(PARSERS["elf"], 1, tmp_path)
    assert not outcome.problem
    assert outcome.executions > 100


def test_kept_inputs_are_small_and_of_targets_that_there_are() -> None:
    assert {path.name for path in running.CORPUS.iterdir()} <= set(PARSERS)
    sizes = [path.stat().st_size for target in PARSERS.values() for path in running.kept(target)]
    assert max(sizes) <= 8 << 10
    assert sum(sizes) <= 300_000


def of(parse: object) -> Target:
    assert callable(parse)
    return Target("x", parse, lambda: (), raises=(DocumentError,))


def test_a_target_tells_a_value_from_an_error_that_is_promised() -> None:
    def refuse(raw: bytes) -> None:
        raise DocumentError("no")

    assert of(len).check(b"abc")
    assert not of(refuse).check(b"abc")


def test_another_error_than_those_promised_comes_through() -> None:
    with pytest.raises(UnicodeDecodeError):
        of(bytes.decode).check(b"\xff")


def test_what_takes_too_long_is_found_whether_it_fails_or_not() -> None:
    def slow(raw: bytes) -> None:
        end = time.thread_time() + LIMIT_S / 10
        while time.thread_time() < end:
            pass
        raise DocumentError("no")

    with pytest.raises(TooSlow):
        of(slow).check(b"", LIMIT_S / 20)
