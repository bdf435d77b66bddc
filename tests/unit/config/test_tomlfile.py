"""TOML in both of its versions, and the lines on which its statements stand."""

from __future__ import annotations

import pytest

from layertee.config.tomlfile import NotToml, Statement, parse_toml

EVERYTHING = b'''\xef\xbb\xbf# a comment with [[registry]] in it
a.b = "x # no comment" # {
[[registry]]
prefix = """
[[registry]]
\\" """ # that was text
other = \'\'\'
[[registry]]\'\'\'\'\'
mirrors = [ # ]
  { location = "[" },
  # {
  { location = "b" }, ]
[ "table" . 'of \\tables' ]
x = 1
["with \\"escape"]
[[registry.mirror]]
location = 'x'
'''


def test_statements_are_found_with_their_lines_and_text_is_not_taken_for_one() -> None:
    assert parse_toml(EVERYTHING).statements == (
        Statement(("a", "b"), 2),
        Statement(("registry",), 3, True, True),
        Statement(("registry", "prefix"), 4),
        Statement(("registry", "other"), 7),
        Statement(("registry", "mirrors"), 9, opened=(10, 12)),
        Statement(("table", "of \\tables"), 13, True),
        Statement(("table", "of \\tables", "x"), 14),
        Statement(("registry", "mirror"), 16, True, True),
        Statement(("registry", "mirror", "location"), 17),
    )


def test_lines_are_those_of_an_editor_also_where_they_end_as_on_windows() -> None:
    windows = EVERYTHING.replace(b"\n", b"\r\n")
    assert parse_toml(windows).statements == parse_toml(EVERYTHING).statements
    assert parse_toml(windows).data == parse_toml(EVERYTHING).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\x41\x7f\e[0m"', "A\x7f\x1b[0m"),
        (r'"\\x41 \\e"', "\\x41 \\e"),
        (r"['\x41', '\e', {}, {a = 1,}]", ["\\x41", "\\e", {}, {"a": 1}]),
        ('"""\\x42\n\\e"""', "B\n\x1b"),
        ("{ # c\n a = 1, # c }\n\n b = [\n1,\n], \n\t}", {"a": 1, "b": [1]}),
        ("[{\na = {\nb = 1\n}\n},\n]", [{"a": {"b": 1}}]),
        ("{a = 1 # c\n\n, # d\n\n}", {"a": 1}),
        ("{a = '#', b = '''\n}''', }", {"a": "#", "b": "}"}),
    ],
)
def test_the_forms_of_version_1_1_are_read(text: str, value: object) -> None:
    found = parse_toml(f"x = {text}\n[t]\nlast = 1\n".encode())
    assert found.data == {"x": value, "t": {"last": 1}}
    assert found.statements[-1] == Statement(("t", "last"), 3 + text.count("\n"))


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"a = 1\nb =\n", 2),
        (b"a = 1\r\nb = \r\n", 2),
        (b"x = {\na = 1,\n}\ny = nothing\n", 4),
        (b"a = [\n1,\n", 2),
        (b"a\n", 1),
        (b"a = {,}", 1),
        (b"a = {b = 1,,}", 1),
        (b"a = {b = 1,\n,\n}", 1),
        (b"\na = '\n'", 2),
        (b'\na = """\n\n', 3),
        (b"a = 1\n\nb = \x00", 3),
        (b"a = '\0'", 1),
        (b"a = 1\n# \xff\n", 2),
        (b"[a]\n[a]\n", 2),
        (b"x = {a = 'b\nc', }\n", 1),
        (b'x = {a = "b\n}\n', 1),
        (b'x = {a = "b\\"\nc", }\n', 1),
        (b"x = {a\n.b = 1}\n", 1),
        (b"x = {a =\n1}\n", 1),
        (b"x = {a = 1\nb = 2}\n", 1),
        (b"[[a]\n", 1),
        (b"[a]]\n", 1),
        (b"a = 1\na = 2\n", 2),
        (b"a = []\n[[a]]\n", 2),
        (b"\xff\xfea\0=\x001\0", 1),
        (b"a = 1\nb = " + b"[" * 5000 + b"]" * 5000, 2),
        (b"a = 1\n[" + b"a." * 65 + b"a]", 2),
        (b"a = " + b"9" * 5000, None),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(raw: bytes, line: int | None) -> None:
    with pytest.raises(NotToml) as caught:
        parse_toml(raw)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"# only this", b"\xef\xbb\xbf", b" \t\r\n"])
def test_an_empty_file_says_nothing(raw: bytes) -> None:
    found = parse_toml(raw)
    assert (found.data, found.statements) == ({}, ())


@pytest.mark.parametrize("start", ["[", "[[", "x = {", '["\\u0041"]\n', "x = [{y = {"])
@pytest.mark.parametrize("part", ["a.", '"a" . '])
def test_a_key_of_very_many_parts_is_refused_at_once_though_its_statement_makes_no_sense(
    start: str, part: str
) -> None:
    with pytest.raises(NotToml, match="a key has more than 64 parts"):
        parse_toml((start + part * 20_000).encode())
    with pytest.raises(NotToml, match="a key has more than 64 parts"):
        parse_toml((start + part * 65 + "a = 1").encode())


def test_dots_in_strings_comments_and_numbers_are_no_parts_of_keys() -> None:
    dots = "a." * 100
    text = f'x = "{dots}" # {dots}\ny = [{"1.5, " * 100}]\nz = {{a.b = 1.5, c.d = 2.5}}\n'
    assert parse_toml(text.encode()).data["z"] == {"a": {"b": 1.5}, "c": {"d": 2.5}}
