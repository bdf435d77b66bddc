"""The tags of a repository, page by page (distribution-spec v1.1, "Listing Tags").

Rules of this file: the pages that a registry leads to are of the same repository, whatever path it names; no
page is asked for twice; tags, bytes, pages and time are bounded, and what goes beyond is an error, not a
shorter list. A text that can be no tag is left out: nobody could pull it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ..errors import DocumentError
from ..image.grammar import TAG
from ..image.strictjson import as_list, load_object, printable
from ..record import dataclass

if TYPE_CHECKING:
    from .client import Registry

MAX_TAGS: Final = 200_000
_MAX_PAGES: Final = 1_000
_MAX_SECONDS: Final = 120.0
_MAX_PAGE: Final = 16 << 20  # bytes: 200,000 tags of 80 characters
_MAX_LINK: Final = 8 << 10
_TAG = re.compile(TAG)
# RFC 8288: <target>; rel="next". Registries send this one relation; a comma may stand in a target.
_LINK = re.compile(r'<([^<>"\s]*)>\s*((?:;[^,;"]*(?:"[^"]*")?)*)')


@dataclass(frozen=True, slots=True)
class TagList:
    """The tags as the registry has them in order, each once; ``n_unusable`` texts beside them were none."""

    tags: tuple[str, ...]
    n_unusable: int = 0


async def list_tags(
    registry: Registry, *, page: int | None = None, clock: Callable[[], float] = time.monotonic
) -> TagList:
    """All tags of the registry's repository; ``page`` at a time, or as many as the registry likes.

    Raises NotInRegistry where there is no such repository, DocumentError for an answer that is none or has
    no end, and what ``Registry.small`` raises.
    """
    what = f"the list of tags of {registry.reference.name}"
    found: dict[str, None] = {}
    n_unusable = 0
    query = f"n={page}" if page is not None else ""
    asked: set[str] = set()
    began = clock()
    while query not in asked:
        if len(asked) == _MAX_PAGES:
            raise DocumentError(f"{what} has more than {_MAX_PAGES} pages")
        if clock() - began > _MAX_SECONDS:
            raise DocumentError(f"{what} has no end after {len(asked)} pages and {_MAX_SECONDS:g} s")
        asked.add(query)
        path = f"tags/list?{query}" if query else "tags/list"
        answer = await registry.small(path, "application/json", limit=_MAX_PAGE, what=what)
        for tag in as_list(load_object(answer.body, what, limit=_MAX_PAGE).get("tags"), f"{what}: tags"):
            if isinstance(tag, str) and _TAG.fullmatch(tag):
                found[tag] = None
            else:
                n_unusable += 1
        if len(found) + n_unusable > MAX_TAGS:
            raise DocumentError(f"{what} has more than {MAX_TAGS} entries")
        following = _next(answer.fields("Link"), what)
        if following is None:
            return TagList(tuple(found), n_unusable)
        query = following
    raise DocumentError(f"{what} leads back to a page that was read: {printable(query, 80)}")


def _next(links: list[str], what: str) -> str | None:
    """The query of the next page; None for the last one. Raises DocumentError."""
    for link in links:
        if len(link) > _MAX_LINK:
            raise DocumentError(f"{what} leads to a next page by more than {_MAX_LINK} characters")
        for target, parameters in _LINK.findall(link):
            if not _is_next(parameters):
                continue
            query: str
            try:
                query = urlsplit(target).query
            except ValueError:
                query = ""
            if not query or not query.isascii() or not query.isprintable():
                raise DocumentError(f"{what} leads to a next page that is no URL with a query")
            return query
    return None


def _is_next(parameters: str) -> bool:
    """Whether ``; name=value; …`` has the relation "next", alone or among others."""
    pairs = (parameter.partition("=") for parameter in parameters.split(";"))
    return any(
        name.strip().lower() == "rel" and "next" in value.strip().strip('"').lower().split()
        for name, _, value in pairs
    )
