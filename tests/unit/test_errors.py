"""What every error of the package carries."""

from __future__ import annotations

import pytest

from layertee.errors import LayerteeError, NoSpace, TruncatedBody


def test_an_error_has_no_hint_unless_it_is_given_one() -> None:
    assert (LayerteeError.hint, LayerteeError("x").hint) == ("", "")


def test_a_hint_is_given_where_the_error_is_raised_and_stays_with_that_one_error() -> None:
    with pytest.raises(TruncatedBody, match="ended") as caught:
        raise TruncatedBody("ended", got=2, want=3).with_hint("other-word")
    assert (caught.value.hint, caught.value.got) == ("other-word", 2)
    assert TruncatedBody("ended", got=2, want=3).hint == ""
    assert NoSpace("full").hint == "free-space"
