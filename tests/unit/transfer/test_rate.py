"""The rate limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.transfer.rate import RateLimiter


@given(reads=st.lists(st.integers(1, 1 << 20), min_size=1, max_size=200), rate=st.integers(10_000, 1 << 30))
def test_a_reader_that_waits_as_told_keeps_the_rate(reads: list[int], rate: int) -> None:
    limiter = RateLimiter(rate)
    now = 100.0
    for nbytes in reads:
        wait = limiter.spend(nbytes, now)
        assert wait >= 0
        now += wait
    allowed = rate * (now - 100.0) + rate * 0.1
    assert sum(reads) <= allowed * 1.0001 + 1


def test_an_idle_bucket_does_not_save_up_for_a_burst() -> None:
    limiter = RateLimiter(1000)
    limiter.spend(1, 0.0)
    assert limiter.spend(1000, 1000.0) == pytest.approx(0.9)


def test_slow_rates_read_in_small_pieces() -> None:
    assert RateLimiter(100_000).read_nbytes == 6250
    assert RateLimiter(1000).read_nbytes == 4096
