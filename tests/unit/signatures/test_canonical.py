"""JSON in the one form of RFC 8785, for values that no two parsers read differently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layertee.errors import DocumentError
from layertee.signatures.keys.canonical import canonical


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-1, "-1"),
        (2**53 - 1, "9007199254740991"),
        ("", '""'),
        ([], "[]"),
        ({}, "{}"),
        ([1, "a", None, [True]], '[1,"a",null,[true]]'),
        ({"b": 1, "a": {"d": 2, "c": 3}}, '{"a":{"c":3,"d":2},"b":1}'),
        # RFC 8785 §3.2.2.2: what is escaped, and how; everything else is as it is
        (
            '\x00\x08\t\n\x0c\r\x1f"\\/\x7f\x80\u2028ö',
            '"\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\/\x7f\x80\u2028ö"',
        ),
    ],
)
def test_values_have_one_form(value: Any, written: str) -> None:
    assert canonical(value, "it") == written.encode()


def test_keys_are_in_the_order_of_utf_16() -> None:
    """The example of RFC 8785 §3.2.3: the smiley is a pair that comes before U+FB33."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    found = list(json.loads(canonical(dict.fromkeys(keys, 0), "it")))
    assert found == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize("value", [1.5, 1.0, float("nan"), 2**53, -(2**53), [1.5], {"a": 2**64}])
def test_numbers_that_may_be_read_differently_are_refused(value: Any) -> None:
    with pytest.raises(DocumentError, match="it has"):
        canonical(value, "it")


@pytest.mark.parametrize("value", ["\ud800", {"\udc00": 1}])
def test_half_a_character_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError, match="half a character"):
        canonical(value, "it")
