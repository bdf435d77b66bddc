"""The parts of the documentation that are made out of the code; ``make docs`` writes them.

A part stands between two marks of a page, ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``. A test fails as
long as a part is not what the code says. What a page says besides is written by hand.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.support.ccore import ROOT

PACKAGE = ROOT / "engine" / "layertee"
DOCS = ROOT / "docs"
TABLE_OF_ROOMS = ROOT / "tests" / "unit" / "test_rooms.py"


# What readers meet as Markdown; the pages of a release are among them.
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench" / "README.md"])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("| --- ", "|---")


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


# --- all of them --------------------------------------------------------------------------------------

PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "rooms": ("docs/design.md", rooms),
    "decisions": ("docs/design.md", decisions),
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
