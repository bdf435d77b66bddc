"""The site: everything in it is there, and nothing of it is anywhere else."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.pages import DOCS
from tests.support.site import ELSEWHERE, SiteError, build, prepare

pytest.importorskip("zensical", reason="the builder is in the extra 'docs'")
pytestmark = pytest.mark.slow

# What a browser fetches by itself.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Outline(HTMLParser):
    """Of a page: where its links lead, what it fetches, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if tag in FETCHED and FETCHED[tag] in found:
            self.fetched.add(found[FETCHED[tag]])


def outline(page: Path) -> Outline:
    made = Outline()
    made.feed(page.read_text(encoding="utf-8"))
    return made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("site") / "folder")


@pytest.fixture(scope="module")
def site(sources: Path) -> Path:
    return build(sources)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Outline]:
    return {str(path.relative_to(site)): outline(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_site(pages: dict[str, Outline]) -> None:
    sources = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(ELSEWHERE)
    assert set(pages) - {"404.html"} == {source.removesuffix(".md") + ".html" for source in sources}


def test_every_link_of_the_site_leads_to_a_page_and_a_heading_of_it(
    pages: dict[str, Outline], site: Path
) -> None:
    wrong = []
    for name, page in pages.items():
        if name == "404.html":  # which is shown for every path, so that it has whole ones
            continue
        for link in page.links:
            path, _, anchor = link.partition("#")
            if ":" in path:
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            )
            target = "index.html" if target == "." else target
            is_there = (site / target).is_file()
            if is_there and anchor and target in pages:
                is_there = unquote(anchor) in pages[target].anchors
            if not is_there:
                wrong.append((name, link))
    assert wrong == []


def of_the_web(site: Path, pages: dict[str, Outline]) -> Iterator[str]:
    for name, page in pages.items():
        yield from (f"{name}: {link}" for link in page.fetched if re.match(r"(https?:)?//", link))
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        for link in re.findall(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", text):
            yield f"{sheet.name}: {link}"


def test_a_reader_of_the_site_fetches_nothing_from_elsewhere(pages: dict[str, Outline], site: Path) -> None:
    assert any(page.fetched for page in pages.values())
    assert list(of_the_web(site, pages)) == []


@pytest.mark.parametrize(
    ("text", "said"), [("[x](nothing.md)", "nothing.md"), ("[x](faq.md#no-such-heading)", "no-such-heading")]
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str, said: str) -> None:
    configuration = prepare(tmp_path / "folder")
    index = configuration.parent / "docs/index.md"
    index.write_text(f"{index.read_text(encoding='utf-8')}\n{text}\n", encoding="utf-8")
    with pytest.raises(SiteError) as caught:
        build(configuration)
    assert said in re.sub(r"\x1b\[[\d;]*m", "", str(caught.value))
