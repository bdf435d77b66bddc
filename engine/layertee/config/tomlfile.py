"""A file in TOML, and on which line of it things stand.

Other readers of the same files take version 1.1 of TOML, Python's takes 1.0 before Python 3.15: inline tables
over several lines, a comma before their end, and the escapes \\e and \\x41. A file that is not TOML 1.0 is
therefore read once more with those forms written as 1.0 has them. A byte order mark is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..record import dataclass

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*')"""
_KEYS: Final = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_STATEMENT: Final = re.compile(
    rf"[ \t]*(?:(?P<open>\[\[?)[ \t]*(?P<header>{_KEYS})[ \t]*\]\]?|(?P<pair>{_KEYS})[ \t]*=|(?P<other>\[)|)"
)
_PART: Final = re.compile(_KEY)
# All that a text is made of. Of a string that does not end, which tomllib refuses, the quote alone.
_TOKEN: Final = re.compile(
    r"""
    "{3}(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5} | "(?:[^"\\\n]|\\.)*"
    | '{3}(?:[^']|'{1,2}(?!'))*'{3,5} | '[^'\n]*'
    | \#[^\n]* | \n | [\[\]{},] | [ \t]+ | [^\s"'\#\[\]{},]+ | [\s\S]
    """,
    re.VERBOSE,
)
_GOES_ON: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*[,}]")  # after a value in an inline table
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(e)|[\s\S])")
_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


_MAX_PARTS: Final = 64  # of a key, and of brackets within brackets: tomllib's time and stack grow with them


class NotToml(ValueError):
    """The text is none of TOML. ``line`` counts from 1; None where that cannot be said."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Statement:
    """A header or a pair. ``key`` is the whole one, that of the header before it included.

    ``opened`` has, for a pair with an array, the line of each inline table that is an element of it.
    Statements whose keys, or whose headers' keys, have escapes in them are not understood, and not listed.
    """

    key: tuple[str, ...]
    line: int
    is_header: bool = False
    is_array: bool = False
    opened: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What a file says, as tomllib gives it, and its statements in order."""

    data: Mapping[str, object]
    statements: tuple[Statement, ...]


def parse_toml(raw: bytes) -> TomlFile:
    """Raises NotToml, also for tables or arrays that are nested deeper than can be read."""
    import tomllib  # a machine without such a file does not pay for it

    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise NotToml("this is not text in UTF-8", raw.count(b"\n", 0, exc.start) + 1) from exc
    scan = _Scan(text)
    try:
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            data = tomllib.loads("".join(scan.older))
    except tomllib.TOMLDecodeError as exc:
        at = _AT.search(str(exc))
        if at is None:
            raise NotToml(str(exc), None) from exc
        line = int(at[1]) if at[1] else max(1, len(text.splitlines()))
        raise NotToml(str(exc)[: at.start()], line) from exc
    except ValueError as exc:  # a number of more digits than Python reads
        raise NotToml(str(exc), None) from exc
    return TomlFile(data, tuple(scan.statements))


class _Scan:
    """One way through a text: its statements, and ``older``, which is the text in the forms of TOML 1.0.

    It knows strings, comments and brackets, and leaves all else to tomllib. Lines that an inline table loses
    follow it in ``older``, so that what comes later stays on its line.
    """

    def __init__(self, text: str) -> None:
        self.statements: list[Statement] = []
        self.older: list[str] = []
        self._context: tuple[str, ...] | None = ()  # None: beneath a header that is not understood
        self._brackets: list[str] = []
        self._before = ""  # the last token but for blanks, lines and comments
        self._is_broken = False
        self._n_dots = (
            0  # outside of strings, since the last bracket, comma or line: of a key, if they are many
        )
        self._lost = 0
        position = 0
        line = 1
        while position < len(text):
            begin, begun = position, line
            if head := _STATEMENT.match(text, position):
                position = head.end()
                self.older.append(text[begin:position])
            opened: list[int] = []
            while position < len(text):
                match = _TOKEN.match(text, position)
                token = match[0] if match else text[position]
                position += len(token)
                if token == "{" and self._brackets == ["["]:
                    opened.append(line)
                self._take(token, text, position)
                if len(self._brackets) > _MAX_PARTS:
                    raise NotToml("tables or arrays are nested too deeply", line)
                if self._n_dots > _MAX_PARTS:
                    raise NotToml(f"a key has more than {_MAX_PARTS} parts", line)
                line += token.count("\n")
                if token == "\n" and not self._brackets:
                    break
            if head:
                self._note(head, begun, tuple(opened))

    def _note(self, head: re.Match[str], line: int, opened: tuple[int, ...]) -> None:
        if head["other"]:
            self._context = None
        elif head["header"]:
            self._context = _parts(head["header"], line)
            self.statements.append(Statement(self._context, line, True, head["open"] == "[["))
        elif head["pair"]:
            parts = _parts(head["pair"], line)
            if self._context is not None:
                self.statements.append(Statement(self._context + parts, line, opened=opened))

    def _take(self, token: str, text: str, position: int) -> None:
        """``token`` ends at ``position`` of ``text``."""
        older, brackets = self.older, self._brackets
        in_table = brackets[-1:] == ["{"] and not self._is_broken
        is_shown = not token.isspace() and not token.startswith("#")
        if token in ("[", "]", "{", "}", ",", "\n"):
            self._n_dots = 0
        elif not token.startswith(('"', "'", "#")):
            self._n_dots += token.count(".")
        self._is_broken |= token in ('"', "'")  # a string without end: what follows cannot be told apart
        if token in ("[", "{"):
            brackets.append(token)
        elif token in ("]", "}") and brackets:
            brackets.pop()
            if token == "}" and in_table and self._before == ",":
                self._drop_comma()
        elif in_table and token == "\n" and (self._before in ("{", ",") or _GOES_ON.match(text, position)):
            self._lost += 1
            token = " "
        elif in_table and token.startswith("#"):
            token = " "
        elif token == "\n":
            token += "\n" * self._lost
            self._lost = 0
        elif token.startswith('"') and "\\" in token:
            token = _ESCAPE.sub(_escape_of_1_0, token)
        older.append(token)
        if is_shown:
            self._before = token

    def _drop_comma(self) -> None:
        """One comma before the end of an inline table; more than one, or one after nothing, is no TOML."""
        shown = (at for at in range(len(self.older) - 1, -1, -1) if not self.older[at].isspace())
        last, before = next(shown, None), next(shown, None)
        if last is not None and before is not None and self.older[before] not in (",", "{"):
            self.older[last] = " "


def _escape_of_1_0(match: re.Match[str]) -> str:
    if match[1]:
        return rf"\u00{match[1]}"
    return r"\u001b" if match[2] else match[0]


def _parts(keys: str, line: int) -> tuple[str, ...]:
    parts = _PART.findall(keys)
    if len(parts) > _MAX_PARTS:
        raise NotToml(f"a key has more than {_MAX_PARTS} parts", line)
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in parts)
