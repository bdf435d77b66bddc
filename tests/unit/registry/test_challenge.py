"""What a 401 says about the ways in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("fields", "challenges"),
    [
        ([], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="x y"'], [("basic", {"realm": "x y"})]),
        (
            ['BEARER Realm = "https://a/t" , SERVICE="s",scope="repository:a:pull,push"'],
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"})],
        ),
        (
            ['Negotiate, Basic realm="a", Bearer realm="b", x=y'],
            [("negotiate", {}), ("basic", {"realm": "a"}), ("bearer", {"realm": "b", "x": "y"})],
        ),
        (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (["Negotiate abc==, Basic realm=r"], [("negotiate", {}), ("basic", {"realm": "r"})]),
        ([r'Basic realm="a\"b\\c, d=\"e\""'], [("basic", {"realm": r'a"b\c, d="e"'})]),
        (
            ["Bearer realm=https://a/t?x=1,service=s"],
            [("bearer", {"realm": "https://a/t?x=1", "service": "s"})],
        ),
        (['Bearer realm="a",realm="b", Basic realm="c"'], [("basic", {"realm": "c"})]),
        (['Bearer realm="unterminated'], [("bearer", {}), ("realm", {})]),
        (['realm="x"'], [("realm", {})]),
        ([",,  ,", '""'], []),
    ],
)
def test_challenges_are_parsed_as_rfc_9110_has_them(
    fields: list[str], challenges: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(c.scheme, dict(c.params)) for c in parse_challenges(fields)] == challenges


@given(st.lists(st.text(alphabet='aB=", \\\t/é', max_size=40) | st.text(max_size=40), max_size=3))
def test_no_field_breaks_the_parser(fields: list[str]) -> None:
    for challenge in parse_challenges(fields):
        assert challenge.scheme == challenge.scheme.lower()


values = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.lists(st.dictionaries(st.sampled_from(["realm", "service", "scope"]), values, min_size=1), max_size=4)
)
def test_quoted_challenges_come_back_as_they_were(given: list[dict[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = [f"Bearer {', '.join(f'{k}={quoted(v)}' for k, v in params.items())}" for params in given]
    expected = tuple(Challenge("bearer", params) for params in given)
    assert parse_challenges([", ".join(written)]) == parse_challenges(written) == expected
