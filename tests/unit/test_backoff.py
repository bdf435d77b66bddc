"""How long to wait before asking a server again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.backoff import MAX_WAIT_S, backoff_s, in_words


@given(failures=st.integers(1, 1000), first=st.floats(0.001, 5))
def test_the_wait_grows_and_is_bounded(failures: int, first: float) -> None:
    wait = backoff_s(failures, first)
    assert 0 < wait <= MAX_WAIT_S
    assert wait <= first * 2.0 ** min(failures - 1, 16)
    assert wait >= min(MAX_WAIT_S, first * 2.0 ** min(failures - 1, 16)) / 2


@given(failures=st.integers(1, 20), asked=st.floats(0, 300))
def test_what_a_server_asked_for_is_never_undercut_and_little_more(failures: int, asked: float) -> None:
    wait = backoff_s(failures, 0.5, asked_s=asked)
    assert asked < wait <= asked * 1.25 + MAX_WAIT_S


def test_hosts_do_not_wait_in_step() -> None:
    assert len({backoff_s(3) for _ in range(20)}) > 15
    assert len({round(backoff_s(1, 0.001, asked_s=60)) for _ in range(50)}) > 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "5 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (300, "5 min"),
        (7169, "119 min"),
        (7200, "2 h"),
        (3661 * 2, "2 h 2 min"),
        (86400, "24 h"),
    ],
)
def test_a_wait_in_words_is_exact_enough(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
