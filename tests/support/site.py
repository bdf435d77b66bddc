"""The documentation as a site; ``make site`` builds it into build/site.

The pages are GitHub's Markdown, and their links lead where the files are, so that they read well where the
sources are hosted. For the site they are copied: the navigation is read out of docs/index.md, the pages
beside docs/ are taken in, and a link to a source file, which the site has not, becomes its text. Nothing has
to be written twice for that.

What builds it is Zensical, which refuses broken links, needs no network and fetches nothing from others. It
is handed a folder and a configuration as MkDocs has them, without plugins or hooks: another builder will do.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.ccore import ROOT

DOCS = ROOT / "docs"
BUILD = ROOT / "build"
# Pages that stand elsewhere in the project, by where the site has them.
ELSEWHERE = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/benchmarks.md": "bench/README.md",
}
PLACES = {source: target for target, source in ELSEWHERE.items()} | {"README.md": "index.md"}
BUILDER = ("zensical", "build", "--clean", "--strict", "-f")

Nav = list[dict[str, Any]]

_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s:]+)\)")
_MARK = re.compile(r"^<!-- [\w-]+:(?:begin|end) -->$", re.MULTILINE)
_SECTION = re.compile(r"\*\*(?:(?P<name>[^*\[\]]+)|\[(?P<text>[^\]]+)\]\((?P<page>[^)]+)\))\*\*")
_ENTRY = re.compile(r"(?:- |, )\[([^\]]+)\]\(([^)]+)\)")


class SiteError(Exception):
    """The pages do not make a site; the message says which, and why."""


def navigation(index: str, pages: Sequence[str]) -> Nav:
    """The sections of ``index`` with their pages. One of ``pages`` that it does not name stands with its
    neighbours. Raises SiteError for one that has none, and for an index without sections.
    """
    nav: Nav = [{"layertee": "index.md"}]
    for line in index.splitlines():
        if (title := _SECTION.match(line)) is not None:
            nav.append({title["name"]: []} if title["name"] else {title["text"]: title["page"]})
        elif line.startswith("- "):
            (section,) = nav[-1].values()
            head = line.partition("):")[0] + ")"
            for text, link in _ENTRY.findall(head):
                page, _ = on_site("index.md", link)
                section.append(page if text.endswith(".md") else {text: page})  # by its own title
    if len(nav) < 2:
        raise SiteError("docs/index.md has no sections")
    named = set(named_in(nav))
    for page in pages:
        if page not in named:
            _beside_its_neighbours(nav, page)
    return nav


def named_in(entry: Any) -> list[str]:
    """The pages of a navigation, in its order."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in named_in(value)]


def _beside_its_neighbours(nav: Nav, page: str) -> None:
    folder = posixpath.dirname(page)
    if folder == "decisions":
        (last,) = nav[-1].values()
        if not (last and "Decisions" in last[-1]):
            last.append({"Decisions": []})
        last[-1]["Decisions"].append(page)
        return
    for entry in nav:
        (section,) = entry.values()
        if isinstance(section, list) and folder in map(posixpath.dirname, named_in(section)):
            section.append(page)
            return
    raise SiteError(f"docs/index.md has no section for {page}")


def page_of_site(source: str, markdown: str) -> str:
    """``markdown``, where links lead to what the site has. ``source`` is the page, as the site has it."""

    def moved(found: re.Match[str]) -> str:
        text, link = found.groups()
        target, anchor = on_site(source, link)
        if not target:
            return text
        if target == source:
            return f"[{text}]({anchor})"
        return f"[{text}]({posixpath.relpath(target, posixpath.dirname(source) or '.')}{anchor})"

    parts = _FENCED.split(markdown)  # every other part is a block of code
    return "".join(
        part if number % 2 else _LINK.sub(moved, _MARK.sub("", part)) for number, part in enumerate(parts)
    )


def on_site(source: str, link: str) -> tuple[str, str]:
    """What of the site ``link`` on ``source`` leads to, and its anchor; "" for a file that the site has not.

    Raises SiteError for one that nobody has.
    """
    path, sharp, anchor = link.partition("#")
    if not path:
        return source, f"#{anchor}"
    base = posixpath.dirname(ELSEWHERE.get(source, f"docs/{source}"))
    target = posixpath.normpath(posixpath.join(base, path))
    if not os.path.exists(ROOT / target):
        raise SiteError(f"{source} links to {link}, which there is not")
    if target in PLACES:
        return PLACES[target], sharp + anchor
    return (target.removeprefix("docs/"), sharp + anchor) if target.startswith("docs/") else ("", "")


def prepare(folder: Path) -> Path:
    """Make ``folder`` what a builder of sites takes; its configuration is returned. Raises SiteError."""
    pages = folder / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "mkdocs.yml"))
    sources: Mapping[str, Path] = {
        **{str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))},
        **{target: ROOT / source for target, source in ELSEWHERE.items()},
    }
    for source, path in sources.items():
        made = pages / source
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(page_of_site(source, path.read_text(encoding="utf-8")), encoding="utf-8")
    nav = navigation((DOCS / "index.md").read_text(encoding="utf-8"), list(sources))
    configuration = folder / "mkdocs.yml"
    said = (DOCS / "site/mkdocs.yml").read_text(encoding="utf-8")
    configuration.write_text(f"{said}\nnav: {json.dumps(nav)}\n", encoding="utf-8")
    return configuration


def build(configuration: Path) -> Path:
    """The site of a prepared folder; where it is. Raises SiteError with what the builder said."""
    words = [str(Path(sys.executable).parent / BUILDER[0]), *BUILDER[1:], str(configuration)]
    folder = configuration.parent
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, timeout=300)
    if done.returncode:
        raise SiteError(f"{done.stdout}{done.stderr}")
    return folder / "site"


def main() -> int:
    """Build the site into build/site."""
    try:
        made = build(prepare(BUILD / "site-sources"))
    except SiteError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    shutil.copytree(made, BUILD / "site")
    sys.stdout.write(f"wrote {BUILD / 'site/index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
