"""The documentation is true as far as a program can tell: what it links to and names is there.

Whether its examples run is tested in tests/product/test_docs.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.cli.arguments import COMMANDS, parser_of
from layertee.cli.settings import options_in
from layertee.config.trustfile import SCOPE_KEYS, SIGNER_KEYS, parse_trust
from layertee.config.trustrules import Action, Form
from layertee.serve.metrics import PLAIN, SENT, Metrics
from tests.support.ccore import ROOT
from tests.support.pages import DOCS, PACKAGE, PAGES, PARTS, marks, replaced, table

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# A path in backquotes: from the root of the project, or within the package.
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|c|h|md|sh|toml|svg))`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files that ``page`` links to, and the headings in them; of the web none."""
    for link in LINK.findall(FENCED.sub("", text_of(page))):
        if ":" not in link:
            target, _, heading = link.partition("#")
            yield (page.parent / target).resolve() if target else page, heading


def headings(page: Path) -> set[str]:
    """As they are in links: GitHub's rule."""
    found = re.findall(r"^#+ (.+)$", FENCED.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_made_out_of_the_code_is_what_the_code_says(name: str) -> None:
    if name == "commands" and sys.version_info[:2] != (3, 11):
        pytest.skip("another Python's argparse lays help out in another way")
    page, make = PARTS[name]
    text = text_of(ROOT / page)
    assert replaced(text, name, make()) == text, f"{page} is out of date: make docs"


@pytest.mark.parametrize("text", ["", "{0}", "{1}{0}", "{0}{1}{1}", "{0}{0}{1}"])
def test_a_page_without_its_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        replaced(text.format(*marks("rooms")), "rooms", "new")


def test_only_what_is_between_the_marks_is_replaced() -> None:
    begin, end = marks("rooms")
    once = replaced(f"before\n{begin}old\n{end}\nafter\n", "rooms", "new")
    assert once == f"before\n{begin}new\n{end}\nafter\n"
    assert replaced(once, "rooms", "new") == once


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), target
        assert not heading or heading in headings(target), f"{target} has no heading {heading}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for path in NAMED.findall(text_of(page)):
        assert any((base / path).exists() for base in (ROOT, PACKAGE, page.parent)), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    makefile = text_of(ROOT / "Makefile")
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text_of(page), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_links_of_pages_are_seen() -> None:
    assert (DOCS / "design.md") in PAGES
    found = {target for target, _ in links(DOCS / "design.md")}
    assert {ROOT / "csrc/lt_api.h", ROOT / "tests/unit/test_rooms.py"} <= found


def test_a_decision_is_short() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        assert len(text_of(path).splitlines()) <= 40, path


# --- reference pages that are written by hand ---------------------------------------------------------

SOURCES = "\n".join(text_of(path) for path in [*sorted(PACKAGE.rglob("*.py")), ROOT / "build_ext.py"])
ENVIRONMENT = text_of(DOCS / "reference" / "environment.md")
BY_LIBRARIES = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"}  # urllib, ssl


def test_every_variable_that_is_read_is_on_its_page() -> None:
    read = set(re.findall(r"\.get\(\s*\"([A-Z][A-Z0-9_]+)\"|directory\(\"([A-Z_]+)\"", SOURCES))
    names = {one or other for one, other in read}
    names |= set(re.findall(r"\b(?:LAYERTEE|CONTAINERS)_[A-Z_]+\b", SOURCES))
    of_options = {
        option.variable for command in COMMANDS for option in options_in(parser_of(command)).values()
    }
    names -= of_options - {"LAYERTEE_KEEP_FREE", "LAYERTEE_KEEP_PARTIALS"}  # which the library reads as well
    assert len(names) > 15
    assert sorted(name for name in names if f"`{name}`" not in ENVIRONMENT) == []


def test_every_variable_on_the_page_is_read() -> None:
    names = set(re.findall(r"`([A-Z][A-Z_]+)`", ENVIRONMENT)) - BY_LIBRARIES
    assert sorted(name for name in names if f'"{name}"' not in SOURCES) == []


def test_every_usual_path_is_on_the_page() -> None:
    paths = set(re.findall(r"Path\(\"(/[^\"]+/[^\"]+)\"\)", SOURCES))
    assert len(paths) > 8
    assert sorted(path for path in paths if path not in ENVIRONMENT and not path.startswith("/proc/")) == []


def test_every_key_that_is_read_is_on_the_page_about_configuration() -> None:
    page = text_of(DOCS / "reference/configuration.md")
    for module, least in (("registries_file", 15), ("storage", 5), ("registries_d", 4)):
        source = text_of(PACKAGE / f"config/{module}.py")
        keys = set(re.findall(r"(?:_\w+|text|place|get)\((?:[\w.]+, )?\"([a-z][a-z_-]+)\"", source))
        keys |= set(re.findall(r"\"([a-z]+(?:[_-][a-z]+)+)\"", source))
        keys -= {"registry.mirror", "digest-only", "tag-only", "rootful", "rootless", "problem_mark"}
        assert len(keys) >= least, (module, sorted(keys))
        assert sorted(key for key in keys if key not in page) == []


def test_every_key_of_trust_toml_is_on_its_page() -> None:
    page = text_of(DOCS / "reference/trust.md")
    keys = {
        *SCOPE_KEYS,
        *SIGNER_KEYS,
        "predicate-type",
        *(form.value for form in Form),
        *(action.value for action in Action),
    }
    assert len(keys) > 40
    assert sorted(key for key in keys if f"`{key}`" not in page and f'`"{key}"`' not in page) == []


def test_the_examples_of_trust_toml_are_understood() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", text_of(DOCS / "reference/trust.md"), re.S | re.M)
    assert len(blocks) >= 3
    for block in blocks:
        assert parse_trust(Path("/etc/layertee/trust.toml"), block.encode())


def test_every_page_is_reached_from_the_index() -> None:
    found: set[Path] = set()
    todo = [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page not in found:
            found.add(page)
            todo += [target for target, _ in links(page) if target.suffix == ".md" and DOCS in target.parents]
    assert set(DOCS.rglob("*.md")) - found == set()


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 130


def test_a_table_has_as_many_cells_as_heads_whatever_is_in_them() -> None:
    assert table(("a", "b"), [("x | y", "z")]) == "| a | b |\n|---|---|\n| x \\| y | z |"


def test_what_contributing_shows_as_it_should_be_is_there() -> None:
    shown = re.findall(
        r"^after .*?(?:def |\b)(test_\w+|lt_\w+(?=\()|failed(?=\())", text_of(ROOT / "CONTRIBUTING.md"), re.M
    )
    assert len(shown) > 2
    code = SOURCES + "".join(
        text_of(path) for path in [*ROOT.glob("csrc/*.h"), *ROOT.glob("tests/**/test_*.py")]
    )
    assert [name for name in shown if not re.search(rf"\b{name}\b", code)] == []


def test_every_metric_of_the_server_is_documented() -> None:
    metrics = Metrics(lambda: 0)
    metrics.answered("blob", 200, 0.1)
    metrics.blob("store", PLAIN, SENT)
    there_are = {sample.name for family in metrics.collect() for sample in family.samples}
    page = text_of(DOCS / "reference/serve.md")
    documented = set(re.findall(r"^\| `(layertee_serve_\w+)`", page, re.M))
    summary = "layertee_serve_request_seconds"
    assert {name.removesuffix("_count").removesuffix("_sum") for name in there_are} == documented
    assert summary in documented
