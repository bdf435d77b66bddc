"""What every error of the package carries."""

from __future__ import annotations

import pytest

from layertee.errors import LayerteeError, NoSpace


def test_an_error_has_no_hint_unless_it_is_given_one() -> None:
    assert (LayerteeError.hint, LayerteeError("x").hint) == ("", "")


def test_a_hint_is_given_where_the_error_is_raised_and_stays_with_that_one_error() -> None:
    with pytest.raises(NoSpace, match="full") as caught:
        raise NoSpace("full", need=3).with_hint("gc")
    assert (caught.value.hint, caught.value.need) == ("gc", 3)
    assert NoSpace("full").hint == ""
