"""Names that differ by a slip of the fingers."""

from __future__ import annotations

import pytest

from layertee.cli.slips import nearest, slips


@pytest.mark.parametrize(
    ("a", "b", "number"),
    [
        ("STORE", "STORE", 0),
        ("STOER", "STORE", 1),
        ("STOR", "STORE", 1),
        ("STORES", "STORE", 1),
        ("STARE", "STORE", 1),
        ("TSOER", "STORE", 2),
        ("CORPUS", "CORE", 3),
        ("A", "ABCDEFGH", 3),
        ("abcdef", "uvwxyz", 3),
    ],
)
def test_slips_are_counted_in_both_directions(a: str, b: str, number: int) -> None:
    assert (slips(a, b), slips(b, a)) == (number, number)


def test_a_long_name_may_have_two_slips_and_a_short_one_one() -> None:
    assert nearest("TSOER", ["STORE"]) is None
    assert nearest("LAYERTEE_MAXCONECTIONS", ["LAYERTEE_MAX_CONNECTIONS"]) == "LAYERTEE_MAX_CONNECTIONS"
    assert nearest("x", []) is None
