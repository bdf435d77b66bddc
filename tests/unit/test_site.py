"""How pages that are read as files become those of a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import DOCS
from tests.support.site import ELSEWHERE, SiteError, named_in, navigation, on_site, page_of_site, prepare

INDEX = """# Title

**Guides**

- [One](guides/bootc.md): words, and [a link](reference/cli.md) in them
  that goes on
- [Two](guides/serve.md)

**[Questions](faq.md)**: some

**Project**

- [The design](design.md)
- [CHANGELOG.md](../CHANGELOG.md), [SECURITY.md](../SECURITY.md)
"""


def test_the_index_says_what_is_where() -> None:
    assert navigation(INDEX, []) == [
        {"layertee": "index.md"},
        {"Guides": [{"One": "guides/bootc.md"}, {"Two": "guides/serve.md"}]},
        {"Questions": "faq.md"},
        {"Project": [{"The design": "design.md"}, "project/changelog.md", "project/security.md"]},
    ]


def test_a_page_that_the_index_does_not_name_stands_with_its_neighbours() -> None:
    nav = navigation(INDEX, ["guides/fleet.md", "decisions/0001-x.md", "decisions/0002-y.md", "index.md"])
    assert nav[1]["Guides"][-1] == "guides/fleet.md"
    assert nav[-1]["Project"][-1] == {"Decisions": ["decisions/0001-x.md", "decisions/0002-y.md"]}
    with pytest.raises(SiteError, match=r"no section for alone/page\.md"):
        navigation(INDEX, ["alone/page.md"])
    with pytest.raises(SiteError, match="no sections"):
        navigation("# Title\n", [])


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("index.md", "faq.md", ("faq.md", "")),
        ("guides/bootc.md", "../reference/cli.md#images", ("reference/cli.md", "#images")),
        ("guides/bootc.md", "#here", ("guides/bootc.md", "#here")),
        ("reference/library.md", "../../CHANGELOG.md", ("project/changelog.md", "")),
        ("design.md", "../csrc/lt_api.h", ("", "")),
        ("project/contributing.md", "docs/design.md#1-words", ("design.md", "#1-words")),
        ("project/contributing.md", "README.md", ("index.md", "")),
        ("project/benchmarks.md", "../docs/faq.md", ("faq.md", "")),
        ("reference/json.md", "json-1.schema.json", ("reference/json-1.schema.json", "")),
    ],
)
def test_a_link_leads_to_what_the_site_has(source: str, link: str, expected: tuple[str, str]) -> None:
    assert on_site(source, link) == expected


def test_a_link_to_nothing_is_refused() -> None:
    with pytest.raises(SiteError, match=r"design.md links to ../csrc/nothing.h"):
        on_site("design.md", "../csrc/nothing.h")


def test_links_are_moved_and_code_is_left_alone() -> None:
    page = "See [`lt_api.h`](../csrc/lt_api.h), [it](../CHANGELOG.md#x), [web](https://a.example/b)\n"
    code = "```text\n[x](../CHANGELOG.md)\n```\n"
    marks = "<!-- part:begin -->\n| a |\n<!-- part:end -->\n"
    assert page_of_site("design.md", page + code + marks) == (
        f"See `lt_api.h`, [it](project/changelog.md#x), [web](https://a.example/b)\n{code}\n| a |\n\n"
    )


def test_every_page_is_handed_to_the_builder(tmp_path: Path) -> None:
    configuration = prepare(tmp_path / "folder")
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(ELSEWHERE)
    made = {str(path.relative_to(tmp_path / "folder/docs")) for path in tmp_path.rglob("*.md")}
    assert made == pages
    nav = navigation((DOCS / "index.md").read_text(encoding="utf-8"), sorted(pages))
    assert sorted(named_in(nav)) == sorted(pages)  # each once
    assert "guides/bootc.md" in configuration.read_text(encoding="utf-8").partition("\nnav: ")[2]
