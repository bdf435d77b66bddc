"""JSON that two parsers could read differently is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import DocumentError
from layertee.image.strictjson import check_fields, loads, printable


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * (4 << 20),
        b'{"a":' * (1 << 19),
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 123456789012345678901}',
        b'{"a": -123456789012345678901}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "B": 1}}',
        b'{"a": 1} x',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'"' + b"\\" * (1 << 20),
        b"",
        b" " * ((4 << 20) + 1),
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_ambiguous_or_hostile_json_is_a_typed_error(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="doc"):
        loads(raw, "doc")


def test_depth_64_is_accepted_and_brackets_in_strings_do_not_count() -> None:
    assert loads(b"[" * 64 + b"]" * 64, "doc")
    assert loads(json.dumps("[" * 1000 + '\\"').encode(), "doc")
    with pytest.raises(DocumentError, match="64"):
        loads(b"[" * 65 + b"]" * 65, "doc")


@pytest.mark.parametrize(("value", "n_tokens"), [('"a"', 1), ("{}", 2), ("[]", 2), ('["b"]', 3)])
def test_values_are_counted_before_any_of_them_takes_memory(value: str, n_tokens: int) -> None:
    n = ((1 << 18) - 2) // n_tokens
    fits = ",".join([value] * n)
    assert loads(f"[{fits}]".encode(), "doc")
    with pytest.raises(DocumentError, match="more than 262144 strings, objects and arrays"):
        loads(f"[{fits},{fits}]".encode(), "doc")
    assert loads(f"[{fits},{fits}]".encode(), "doc", limit=8 << 20)


def test_labels_may_differ_by_case_only_but_fields_may_not() -> None:
    text = b'{"Labels": {"a": "1", "A": "2"}}'
    assert loads(text, "doc", maps=frozenset({"Labels"})) == {"Labels": {"a": "1", "A": "2"}}
    with pytest.raises(DocumentError, match="case"):
        loads(text, "doc")


def test_the_kelvin_sign_is_a_k() -> None:
    with pytest.raises(DocumentError, match="case"):
        loads('{"k": 1, "\u212a": 2}'.encode(), "doc")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_unambiguous_json_means_what_it_means_elsewhere(value: object) -> None:
    raw = json.dumps(value).encode()
    assert loads(raw, "doc") == json.loads(raw)


def test_a_known_field_in_another_case_is_refused() -> None:
    check_fields({"layers": 1, "other": 2}, {"layers"}, "doc")
    with pytest.raises(DocumentError, match="Layers"):
        check_fields({"Layers": 1}, {"layers"}, "doc")


def test_what_is_shown_is_one_short_line() -> None:
    assert printable("a\n\x1b[31mb\u202e") == "a��[31mb�"
    assert printable("x" * 300) == "x" * 200 + "…"
