"""Lists of tags: page after page, and whatever a registry may send in their place."""

from __future__ import annotations

import asyncio

import pytest

from layertee.errors import DocumentError, LayerteeError, NotInRegistry, ServerError
from layertee.registry.tags import MAX_TAGS, TagList, list_tags
from tests.support.fakes.image import Rig
from tests.support.fakes.transport import Answer, Request, Script, json_answer


def page(tags: object, link: str | None = None) -> Answer:
    value = {"name": "ns/repo", "tags": tags}
    return json_answer(value) if link is None else json_answer(value, Link=link)


def listed(*answers: Script, asking: int | None = None) -> tuple[TagList, list[str]]:
    """The list, and what was asked for it, below the repository."""
    rig = Rig()
    rig.transport.on(f"{rig.base}/tags/list", *answers)
    found = asyncio.run(list_tags(rig.registry, page=asking))
    return found, [url.removeprefix(f"{rig.base}/") for url in rig.urls()]


def refused(*answers: Script) -> LayerteeError:
    with pytest.raises(LayerteeError) as caught:
        listed(*answers)
    return caught.value


def test_tags_come_in_the_order_of_the_registry() -> None:
    assert listed(page(["v2", "v1", "latest"])) == (TagList(("v2", "v1", "latest")), ["tags/list"])


def test_a_repository_without_tags_has_none() -> None:
    assert listed(page(None))[0] == TagList(())
    assert listed(page([]))[0] == TagList(())


@pytest.mark.parametrize(
    "link",
    [
        '</v2/ns/repo/tags/list?n=1&last=a>; rel="next"',
        "<https://elsewhere.example/v2/other/tags/list?n=1&last=a>; rel=next",
        '<?n=1&last=a>; title="x"; rel="prefetch next"',
        '</first?x=y>; rel="first", <tags/list?n=1&last=a>; REL="NEXT"',
    ],
)
def test_the_next_page_is_of_the_same_repository_whatever_the_link_names(link: str) -> None:
    found, asked = listed(page(["a"], link), page(["b"]), asking=1)
    assert found == TagList(("a", "b"))
    assert asked == ["tags/list?n=1", "tags/list?n=1&last=a"]


@pytest.mark.parametrize("link", ['</x?a=b>; rel="prev"', "</x?a=b>", "next", "", '<"x">; rel=next'])
def test_other_links_lead_nowhere(link: str) -> None:
    assert listed(page(["a"], link))[0] == TagList(("a",))


@pytest.mark.parametrize(
    "link",
    [
        "</v2/ns/repo/tags/list>; rel=next",
        "<http://[?a=b>; rel=next",
        "</x?a=ü>; rel=next",
        f"</x?{'a' * 9000}>; rel=next",
    ],
)
def test_a_link_that_no_page_can_be_asked_by_is_an_error(link: str) -> None:
    assert isinstance(refused(page(["a"], link)), DocumentError)


def test_a_list_that_leads_in_a_circle_is_an_error() -> None:
    there, back = "</x?last=a>; rel=next", "</x?last=b>; rel=next"
    assert "leads back" in str(refused(page(["a"], there), page(["b"], back), page(["a"], there)))


def test_a_list_without_end_is_an_error() -> None:
    """A registry that makes up a new page each time, all of them empty."""
    count = iter(range(100_000))

    def more(request: Request) -> Answer:
        return page([], f"</x?last={next(count)}>; rel=next")

    assert "more than 1000 pages" in str(refused(more))


def test_a_list_that_takes_too_long_is_an_error() -> None:
    """Each look at the clock is a minute after the one before."""
    count = iter(range(100))
    minutes = iter(range(0, 6000, 60))
    rig = Rig()
    rig.transport.on(f"{rig.base}/tags/list", lambda _: page([], f"</x?last={next(count)}>; rel=next"))
    with pytest.raises(DocumentError, match="has no end after 2 pages and 120 s"):
        asyncio.run(list_tags(rig.registry, clock=lambda: float(next(minutes))))


def test_too_many_tags_are_an_error() -> None:
    tags = [f"t{number}" for number in range(MAX_TAGS + 1)]
    assert str(MAX_TAGS) in str(refused(page(tags)))
    assert listed(page(tags[:-1]))[0] == TagList(tuple(tags[:-1]))


def test_a_tag_that_is_listed_twice_is_one() -> None:
    assert listed(page(["a", "b"], "</x?last=b>; rel=next"), page(["b", "a", "c"]))[0].tags == ("a", "b", "c")


def test_what_can_be_no_tag_is_left_out_and_counted() -> None:
    texts = ["ok", "", "a b", "\x1b[31m", "x" * 129, ".dot", None, 7, ["ok"], "Ok_1.2-3"]
    assert listed(page(texts))[0] == TagList(("ok", "Ok_1.2-3"), 8)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"[]"),
        Answer(200, b"{"),
        Answer(200, b'{"tags": {"a": 1}}'),
        Answer(200, b'{"tags": [], "tags": ["a"]}'),
        Answer(200, b'{"tags": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ],
)
def test_an_answer_that_is_no_list_is_an_error(answer: Answer) -> None:
    assert isinstance(refused(answer), DocumentError)


def test_a_repository_that_is_not_there_is_not_found() -> None:
    error = refused(json_answer({"errors": [{"code": "NAME_UNKNOWN", "message": "no such name"}]}, 404))
    assert isinstance(error, NotInRegistry) and "no such name" in str(error)


def test_a_registry_that_fails_is_asked_again() -> None:
    assert listed(Answer(503), page(["a"]))[0] == TagList(("a",))
    assert isinstance(refused(Answer(503)), ServerError)
