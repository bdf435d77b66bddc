"""Errors carry a word for what could be changed; the command line has the text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import layertee
from layertee.cli import main as cli
from layertee.cli import store as store_commands
from layertee.cli.arguments import parser_of
from layertee.cli.dispatch import COMMANDS
from layertee.cli.hints import HINTS, tell_hints
from layertee.errors import LayerteeError

PACKAGE = Path(layertee.__file__).parent
LIBRARY = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in path.parents]


def texts(path: Path) -> Iterator[str]:
    """The strings of a module that can be part of a message: of one line, and no docstring."""
    tree = ast.parse(path.read_text())
    described = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and node not in described else None
        if isinstance(text, str) and "\n" not in text:
            yield text


def hints(path: Path) -> Iterator[str]:
    """The words that a module gives to errors as their hint, or to other things that have one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "with_hint":
                yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.Assign) and "hint" in re.findall(r"\w+", ast.unparse(node.targets[0])):
            items = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            values = [str(item.value) for item in items if isinstance(item, ast.Constant)]
            yield from (value for value in values if value)


@pytest.mark.parametrize("path", sorted(LIBRARY), ids=lambda path: path.stem)
def test_no_message_of_the_library_says_what_to_type(path: Path) -> None:
    told = [text for text in texts(path) if re.search(r"(?:^|[\s(])--[a-z]|layertee [a-z]+\b", text)]
    ours = [text for text in told if not re.fullmatch(r"--[a-z.=-]+", text)]  # an argument for a program
    assert ours == []


def test_every_hint_has_a_text_and_every_text_a_hint() -> None:
    given = {word for path in LIBRARY for word in hints(path)}
    assert given <= set(HINTS)
    assert {
        "free-space",
        "logins",
        "ostree-fsck",
        "plain-http",
        "read-only-repository",
        "trust-basis",
    } <= given


def test_the_flags_that_hints_name_are_there() -> None:
    known = "".join(parser_of(command).format_help() for command in (None, *COMMANDS))
    for text in HINTS.values():
        for flag in re.findall(r"(?<!ostree fsck )(?<!unshare )--[a-z-]+", text):
            assert flag in known
        for command in re.findall(r"layertee ([a-z]+)", text):
            assert command in COMMANDS


def test_the_text_stands_below_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise LayerteeError("it did not work").with_hint("trust-basis")

    monkeypatch.setattr(store_commands, "ls", fails)
    assert cli.main(["ls"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "layertee: it did not work [ERROR]"
    assert hint.startswith("hint: ") and "--trust" in hint


def test_a_word_without_a_text_and_no_word_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell_hints(["", "a-word-of-tomorrow", "trust-basis", "", "trust-basis"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"hint: {HINTS['trust-basis']}"
