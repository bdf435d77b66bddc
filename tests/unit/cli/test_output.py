"""The gate: what is printed, in which characters, and what happens when it cannot be."""

from __future__ import annotations

import ast
import errno
import io
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layertee
from layertee.cli.output import (
    SCHEMA,
    OutputFailed,
    ReaderLeft,
    Tolerant,
    clean,
    flush,
    print_json,
    print_table,
    say,
    tell,
    warn,
)

PACKAGE = Path(layertee.__file__).parent
# What moves a cursor, sets a colour, reverses a line or ends one; and what cannot be encoded.
HARMFUL = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff",
    *map(chr, (0xD800, 0xDBFF, 0xDC80, 0xDCFF, 0xDFFF, 0xE0001, 0xE007F)),
]
ANYTHING = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)


class Broken(io.StringIO):
    """A stream of which each write fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "no more")

    def flush(self) -> None:
        raise OSError(self.number, "no more")


def assert_harmless(text: str) -> None:
    assert not set(HARMFUL) & set(text)
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)
    text.encode()


# --- clean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", HARMFUL, ids=ascii)
def test_no_harmful_character_gets_out(char: str) -> None:
    shown = clean(f"a{char}b")
    assert_harmless(shown)
    assert shown[0] + shown[-1] == "ab" and shown[1] == "\\" and len(shown) > 3


@given(ANYTHING)
def test_whatever_comes_is_one_harmless_line_and_cleaning_it_again_changes_nothing(text: str) -> None:
    shown = clean(text)
    assert_harmless(shown)
    assert clean(shown) == shown


@given(ANYTHING, ANYTHING)
def test_a_text_is_cleaned_character_by_character(one: str, other: str) -> None:
    assert clean(one + other) == clean(one) + clean(other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text",
        "back\\slash",
        "Größe, τιμή, 日本語　文, ½ … 🙂",
        "no\N{NO-BREAK SPACE}break",
        "e\u0301",
    ],
)
def test_what_people_read_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc\x00\x7f", "a\\nb\\r\\tc\\x00\\x7f"),
        ("\x9b2J", "\\x9b2J"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("caf\udce9", "caf\\xe9"),  # a file name in Latin-1
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_the_escape_says_what_it_was(text: str, shown: str) -> None:
    assert clean(text) == shown


# --- printing ------------------------------------------------------------------------------------


def test_lines_are_lines_whatever_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\x1b[2J", "two\nthree", "")
    tell("four\u2028five", "")
    warn(["six\nseven", "six\nseven"])
    told = capsys.readouterr()
    assert told.out == "one\\x1b[2J\ntwo\\nthree\n\n"
    assert told.err == "four\\u2028five\n\nlayertee: warning: six\\nseven\n"


@given(st.recursive(ANYTHING, lambda inner: st.lists(inner) | st.dictionaries(ANYTHING, inner)))
def test_json_is_ascii_and_comes_back_as_it_was(value: object) -> None:
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        print_json({"x": value})
        printed = sys.stdout.getvalue()
    finally:
        sys.stdout = out
    assert printed.isascii() and json.loads(printed) == {"schema": SCHEMA, "x": value}
    for line in printed.split("\n"):
        assert_harmless(line)


def test_columns_are_as_wide_as_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "size"), [("a\x1b", "1"), ("abcdefg", "22"), ("", "")])
    assert capsys.readouterr().out == "name     size\na\\x1b    1\nabcdefg  22\n\n"


DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_digests_are_shown_by_their_beginnings_unless_all_is_to_be_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for whole, shown in ((False, "sha256:0123456789ab"), (True, DIGEST)):
        print_table(("digest", "why"), [(DIGEST, f"as {DIGEST}, here")], whole=whole)
        assert capsys.readouterr().out.splitlines()[1].split("  ")[0] == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@given(rows=st.lists(st.lists(ANYTHING, min_size=3, max_size=3), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_table_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, rows: list[list[str]]
) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stdout", terminal)
        print_table(("name", "size", "why"), rows)
    least = 3 * 12 + 2 * 2  # a column that is cut has 12 characters
    lines = terminal.getvalue().splitlines()
    assert len(lines) == len(rows) + 1 and all(len(line) <= max(width, least) for line in lines)


def test_of_what_is_cut_both_ends_are_shown_and_elsewhere_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "registry.example.com/some/where/image:stable"
    print_table(("image", "size"), [(name, "1.5 GiB")])
    assert name in capsys.readouterr().out
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", "40")
        patch.setattr(sys, "stdout", terminal)
        print_table(("image", "size"), [(name, "1.5 GiB")])
        print_table(("image", "size"), [(name, "1.5 GiB")], whole=True)
    lines = terminal.getvalue().splitlines()
    assert len(lines[1]) == 40
    assert lines[1].startswith("registry.exampl..") and lines[1].endswith("image:stable  1.5 GiB")
    assert name in lines[3]


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "size"), [])
    assert capsys.readouterr().out == "name  size\n"


# --- output that cannot be written -----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EBADF, errno.EAGAIN])
def test_a_result_that_cannot_be_written_is_an_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number))
    acts: list[Callable[[], None]]
    acts = [flush, lambda: say("x"), lambda: print_json({}), lambda: print_table(("x",), [])]
    for act in acts:
        with pytest.raises(OutputFailed, match="standard output cannot be written: no more"):
            act()


def test_a_reader_that_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    acts: list[Callable[[], None]] = [flush, lambda: say("x")]
    for act in acts:
        with pytest.raises(ReaderLeft):
            act()


def test_what_cannot_be_told_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(errno.ENOSPC), Broken(errno.EPIPE), closed):
        monkeypatch.setattr(sys, "stderr", stream)
        tell("x")
        warn(["x"])
        tell("x", to=stream)


def test_a_library_that_draws_is_not_disturbed_by_a_terminal_that_is_gone() -> None:
    stream = Tolerant(Broken(errno.EIO))
    assert stream.write("bar") == 3
    stream.flush()
    whole = io.StringIO()
    Tolerant(whole).write("\x1b[1mbar")
    assert whole.getvalue() == "\x1b[1mbar"


# --- the only one ------------------------------------------------------------------------------------


def printing(path: Path) -> list[str]:
    """What a module does by which text reaches standard output or standard error."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in ("print", "logging.StreamHandler", "rich.print") or (
            name.rpartition(".")[2] in ("print_usage", "print", "print_exc", "write", "writelines")
            and name.startswith(("sys.", "console.", "traceback.", "parser."))
        ):
            found.append(f"{name}:{node.lineno}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_printed_but_by_the_gate(path: Path) -> None:
    if path == PACKAGE / "cli/output.py":
        assert {name.partition(":")[0] for name in printing(path)} == {"sys.stdout.write"}
    else:
        assert printing(path) == []
