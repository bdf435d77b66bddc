"""The parts of the documentation that are made out of the code; ``make docs`` writes them.

A part stands between two marks of a page, ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``. A test fails as
long as a part is not what the code says. What a page says besides is written by hand.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import layertee
from layertee.cli import settings as cli_settings
from layertee.cli.arguments import GROUPS, parser_of
from layertee.cli.exits import exit_code
from layertee.cli.topics import TOPICS
from layertee.errors import LayerteeError
from layertee.options import Budget, PolicyOptions
from layertee.pulling.consent import Consent
from layertee.pulling.freshness import Freshness
from layertee.pulling.plan import Source, TarAt
from layertee.signatures.signature import Verified
from layertee.store.seen import Seen
from tests.support.api import public_names, surface
from tests.support.ccore import ROOT

PACKAGE = ROOT / "engine" / "layertee"
DOCS = ROOT / "docs"
TABLE_OF_ROOMS = ROOT / "tests" / "unit" / "test_rooms.py"


# What readers meet as Markdown; the pages of a release are among them.
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench" / "README.md"])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. A bar in a cell is escaped."""
    bar = r"\|"
    lines = [f"| {' | '.join(cell.replace('|', bar) for cell in cells)} |" for cells in (heads, *rows)]
    lines.insert(1, "|---" * len(heads) + "|")
    return "\n".join(lines)


def first_sentence(docstring: str | None) -> str:
    """Of a docstring, as Markdown."""
    text = " ".join((docstring or "").split("\n\n")[0].split())
    found = re.match(r"(.+?)\.(?=\s|$)", text)
    return (found[1] if found else text).replace("``", "`")


def docstring_of(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


# --- design.md ----------------------------------------------------------------------------------------


def rooms() -> str:
    """Each room of the architecture, its first sentence about itself, and what it may import."""
    allowed, words = _constant("ROOMS"), _constant("WORDS")
    rows = []
    for room, others in allowed.items():
        folder = PACKAGE / room
        module = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        arrows = ", ".join(f"`{other}`" for other in allowed if other in others)
        if room in words:
            arrows = "nothing; every room may import it"
        rows.append((f"`{room}`", first_sentence(docstring_of(module)), arrows or "nothing"))
    return table(("room", "what it says of itself", "may import"), rows)


def _constant(name: str) -> dict[str, set[str]]:
    """A constant of the table of rooms, which is read and not imported: test modules are for pytest."""
    for node in ast.parse(TABLE_OF_ROOMS.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and getattr(target, "id", "") == name:
            assert node.value is not None
            value: dict[str, set[str]] = eval(compile(ast.Expression(node.value), name, "eval"))
            return value
    raise AssertionError(f"{TABLE_OF_ROOMS} has no {name}")


def decisions() -> str:
    """The decision records by their titles."""
    records = sorted((DOCS / "decisions").glob("*.md"))
    titles = [(path, path.read_text(encoding="utf-8").split("\n", 1)[0]) for path in records]
    return "\n".join(f"- [{title.removeprefix('# ')}](decisions/{path.name})" for path, title in titles)


# --- reference ----------------------------------------------------------------------------------------


def commands() -> str:
    """The help of every command, as it is typed and printed in 80 columns."""
    parts = []
    for group, summaries in GROUPS.items():
        parts.append(f"## {group[0].upper()}{group[1:]}")
        for name in summaries:
            with narrow():
                text = parser_of(name).format_help().rstrip()
            parts.append(f"### layertee {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def topics() -> str:
    """The texts of ``layertee help``."""
    return "\n\n".join(
        f"### layertee help {name}\n\n```text\n{text.rstrip()}\n```" for name, text in TOPICS.items()
    )


def settings() -> str:
    """Every key of layertee.toml: what has it, and who may set it."""
    commands: dict[str, list[str]] = {}
    variables: dict[str, str] = {}
    for group in GROUPS.values():
        for command in group:
            for name, option in cli_settings.options_in(parser_of(command)).items():
                who = cli_settings.may_set(command, name)
                if who:
                    own = ", in its table" if cli_settings.is_own(command, name) else ""
                    commands.setdefault(name, []).append(command + own)
                    variables[name] = option.variable if who == "anybody" else variables.get(name, who)
    rows = []
    for name in sorted(commands):
        logging = name in ("verbose", "debug")
        variable = variables[name]
        files = "files, in a table" if cli_settings.is_of_one(name) else "files"
        by = {"machine": "the machine's files", "files": files}.get(variable, f"{files}, `{variable}`")
        rows.append((f"`{name}`", "every command" if logging else "; ".join(commands[name]), by))
    return table(("key", "commands", "set by"), rows)


@contextmanager
def narrow() -> Iterator[None]:
    """argparse lays text out for the terminal that the environment describes."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def every_error() -> list[type[LayerteeError]]:
    """All classes of errors in the package, each behind the one that it refines."""
    for module in pkgutil.walk_packages(layertee.__path__, "layertee."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found: list[type[LayerteeError]] = []

    def add(one: type[LayerteeError]) -> None:
        if one not in found and one.__module__.startswith("layertee."):
            found.append(one)
            for other in sorted(one.__subclasses__(), key=lambda each: each.__name__):
                add(other)

    add(LayerteeError)
    return found


def errors() -> str:
    """Every code with its class, what it is, whether it may pass by itself, and its exit code."""
    rows = []
    for one in every_error():
        bases = [base.__name__ for base in one.__bases__ if issubclass(base, LayerteeError)]
        rows.append(
            (
                f"`{one.code}`",
                f"`{one.__name__}`" + (f" ({', '.join(bases)})" if bases else ""),
                first_sentence(one.__doc__),
                "yes" if one.retryable else "no",
                str(exit_code(one.__new__(one))),
            )
        )
    return table(("code", "class (refines)", "what it is", "retryable", "exit code"), rows)


def facts() -> str:
    """What each class of errors carries besides its message, with types, by what it is made with."""
    rows = []
    for one in every_error():
        own = inspect.signature(one).parameters if "__init__" in vars(one) else {}
        found = [(name, parameter.annotation) for name, parameter in list(own.items())[1:]]
        found += [
            (name, kind) for name, kind in vars(one).get("__annotations__", {}).items() if name not in own
        ]
        if found:
            listed = ", ".join(f"`{name}`: `{kind}`" for name, kind in found)
            rows.append((f"`{one.__name__}`", listed))
    return table(("class", "its facts"), rows)


def names() -> str:
    """The public names of the package."""
    rows = []
    for name in public_names():
        value = getattr(layertee, name)
        what = first_sentence(value.__doc__) if inspect.isroutine(value) or inspect.isclass(value) else ""
        rows.append((f"[`{name}`](#{name.lower()})", what))
    return table(("name", "what it is"), rows)


def methods() -> str:
    """What an engine does."""
    rows = []
    for name, value in vars(layertee.Engine).items():
        if not name.startswith("_") and inspect.isfunction(value):
            what = first_sentence(value.__doc__)
            rows.append(
                (f"`{name}`", what, f"`{', '.join(list(inspect.signature(value).parameters)[1:]) or '-'}`")
            )
    return table(("method", "what it does", "arguments"), rows)


def fields_of(value: type) -> str:
    """The fields of a dataclass with their defaults, in the order of the class."""
    rows = []
    for field in dataclasses.fields(value):
        rows.append((f"`{field.name}`", f"`{field.type}`", _default_of(field)))
    return table(("field", "type", "default"), rows)


def values() -> str:
    """What callers get: for each class its contract, its fields, and what it says besides."""
    return "\n\n".join(_described(value) for value in VALUES)


def _described(value: type) -> str:
    said = (value.__doc__ or "").replace("``", "`").strip()
    said = re.sub(r":\w+:`~?\.?([\w.]+)`", r"`\1`", inspect.cleandoc(said))
    of_a_record = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    fields = [(f"`{field.name}`", f"`{field.type}`") for field in of_a_record]
    names = {field.name for field in of_a_record}
    for one in reversed(value.__mro__):
        for name, member in vars(one).items():
            if name.startswith("_") or name in names or one is object:
                continue
            if isinstance(member, property | FunctionType):
                function = member.fget if isinstance(member, property) else member
                assert function is not None
                parts = [f"`{inspect.signature(function).return_annotation}`", first_sentence(member.__doc__)]
                call = "" if isinstance(member, property) else "()"
                fields.append((f"`{name}{call}`", ": ".join(part for part in parts if part)))
    return f"### {value.__name__}\n\n{said}\n\n{table(('name', 'type'), fields)}"


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "`" + getattr(field.default_factory, "__qualname__", "") + "()`"
    if isinstance(field.default, enum.Enum):
        return f"`{field.default}`"
    return "needed" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


VALUES = (
    layertee.ImagePlan,
    layertee.LayerPlan,
    Source,
    TarAt,
    layertee.PullResult,
    layertee.LayerResult,
    layertee.Progress,
    layertee.Inspection,
    Consent,
    Verified,
    Freshness,
    Seen,
    layertee.LayerStream,
    layertee.TeeResult,
)

# --- all of them --------------------------------------------------------------------------------------

PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "rooms": ("docs/design.md", rooms),
    "decisions": ("docs/design.md", decisions),
    "commands": ("docs/reference/cli.md", commands),
    "topics": ("docs/reference/cli.md", topics),
    "settings": ("docs/reference/layertee-toml.md", settings),
    "errors": ("docs/reference/errors.md", errors),
    "facts": ("docs/reference/errors.md", facts),
    "names": ("docs/reference/api.md", names),
    "surface": ("docs/reference/api.md", surface),
    "engine": ("docs/reference/library.md", methods),
    "want": ("docs/reference/library.md", lambda: fields_of(layertee.Want)),
    "options": ("docs/reference/library.md", lambda: fields_of(layertee.Options)),
    "limits": ("docs/reference/library.md", lambda: fields_of(layertee.FetchLimits)),
    "values": ("docs/reference/library.md", values),
    "budget": ("docs/reference/library.md", lambda: fields_of(Budget)),
    "policy": ("docs/reference/library.md", lambda: fields_of(PolicyOptions)),
}


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind a part."""
    return f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"


def replaced(text: str, name: str, part: str) -> str:
    """``text`` with ``part`` between its marks. Raises ValueError unless each is there once, in order."""
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin.strip()} and, after it, one {end}")
    head, rest = text.split(begin)
    return f"{head}{begin}{part}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Write every part into its page."""
    for name, (page, make) in PARTS.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        new = replaced(text, name, make())
        if new != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"wrote {name} into {page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
