"""Patterns for subjects: what they match, checked against the expressions they stand for, and their cost."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.config.trustpattern import MAX_PATTERN, MAX_TEXT, MAX_WILDCARDS, parse_pattern

WORKFLOW = "https://github.com/org/*/.github/workflows/build.yml@refs/heads/main"


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        (WORKFLOW, "https://github.com/org/image/.github/workflows/build.yml@refs/heads/main", True),
        (WORKFLOW, "https://github.com/org/a/b/.github/workflows/build.yml@refs/heads/main", False),
        (WORKFLOW, "https://github.com/org2/image/.github/workflows/build.yml@refs/heads/main", False),
        (WORKFLOW, "https://github.com/org/image/.github/workflows/build.yml@refs/heads/main2", False),
        (WORKFLOW, "xhttps://github.com/org/image/.github/workflows/build.yml@refs/heads/main", False),
        (WORKFLOW, "https://github.com/org/image/.github/workflows/buildxyml@refs/heads/main", False),
        ("https://github.com/org/**", "https://github.com/org/a/b/c", True),
        ("https://github.com/org/**", "https://github.com/org/", True),
        ("https://github.com/org/**", "https://github.com/org", False),
        ("*@example.com", "a@example.com", True),
        ("*@example.com", "a@example.com.evil.org", False),
        ("*@example.com", "x/a@example.com", False),
        ("*@example.com", "a@example.com\n", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("https://h/**/x", "https://h//x", True),
        ("https://h/**/x", "https://h/x", False),
    ],
)
def test_a_pattern_is_the_whole_text(pattern: str, text: str, is_match: bool) -> None:
    assert parse_pattern(pattern).matches(text) is is_match


@given(
    st.lists(st.sampled_from(["a", "b", "/", ".", "*", "**"]), min_size=1, max_size=7),
    st.text("ab/.", max_size=9),
)
def test_patterns_are_what_their_expressions_are(parts: list[str], text: str) -> None:
    try:
        pattern = parse_pattern("".join(parts))
    except ValueError:
        return
    words = re.findall(r"\*+|[^*]", pattern.text)
    meant = "".join({"*": "[^/]*", "**": ".*"}.get(word) or re.escape(word) for word in words)
    assert pattern.matches(text) is bool(re.fullmatch(meant, text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://github.com/org/", "exact text"),
        ("*", "begin or to end"),
        ("**a**", "begin or to end"),
        ("a***", "not more"),
        ("^https://github.com/org/*", "regular expression"),
        ("https://github.com/org/.*", "regular expression"),
        (r"https://github\.com/org/*", "regular expression"),
        ("https://github.com/(a|b)/*", "regular expression"),
        ("https://github.com/*$", "regular expression"),
        ("a*" * (MAX_WILDCARDS + 1), "wildcards"),
        ("a*" + "b" * MAX_PATTERN, "characters"),
    ],
)
def test_what_is_no_pattern_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_pattern(text)


@pytest.mark.parametrize("pattern", ["a" + "*a" * 15 + "*b", "a" + "**a" * 15 + "**b", "**" + "a" * 500])
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    found, start = parse_pattern(pattern), time.process_time()
    found.matches("a" * MAX_TEXT)
    assert time.process_time() - start < 1


def test_a_text_that_is_too_long_matches_nothing() -> None:
    pattern = parse_pattern("a**")
    assert pattern.matches("a" * MAX_TEXT)
    assert not pattern.matches("a" * (MAX_TEXT + 1))
