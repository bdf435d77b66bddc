"""What a request asks for, out of its method and its target. Strict, and without I/O.

A target is what the client wrote between the method and ``HTTP/1.1``. Its path is decoded once, must then
match the grammar of the distribution specification, and goes no further than into the types below: no path of
a file is ever made out of it. What does not match is answered, never repaired.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..errors import DocumentError
from ..image.digest import Digest
from ..image.grammar import MAX_REPOSITORY, REPOSITORY, TAG
from ..record import dataclass
from .answers import Code, Refusal

METHODS = ("GET", "HEAD")
MOST_PER_PAGE = 1000

_REPOSITORY = re.compile(REPOSITORY)
_TAG = re.compile(TAG)
_NUMBER = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]-]{0,255}")  # of a registry, as clients name one
_LONGEST = 255  # what ``last`` and an artifact type may have: as long as the longest name
_FORM = 'no such thing: the addresses of this server begin with "/v2/"'


@dataclass(frozen=True, slots=True)
class Base:
    """``/v2/``: is this a registry, and may I come in?"""


@dataclass(frozen=True, slots=True)
class Metrics:
    """``/metrics``."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: at most ``count`` entries, those after ``last``."""

    count: int
    last: str | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """``/v2/_catalog``."""

    page: Page


@dataclass(frozen=True, slots=True)
class Tags:
    """``/v2/<name>/tags/list``."""

    repository: str
    page: Page


@dataclass(frozen=True, slots=True)
class Manifest:
    """``/v2/<name>/manifests/<tag or digest>``; ``registry`` is whose image it is meant to be."""

    repository: str
    reference: str | Digest
    registry: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """``/v2/<name>/blobs/<digest>``."""

    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Referrers:
    """``/v2/<name>/referrers/<digest>``."""

    repository: str
    digest: Digest
    artifact_type: str | None = None


Asked = Base | Metrics | Catalog | Tags | Manifest | Blob | Referrers


def parse(method: str, target: str) -> Asked:
    """What ``method`` and ``target`` ask for. Raises Refusal."""
    if method not in METHODS:
        raise Refusal(
            405,
            Code.UNSUPPORTED,
            "this registry is only read: GET and HEAD are what it answers",
            fields={"Allow": ", ".join(METHODS)},
        )
    path, _, query = target.partition("?")
    words = _decoded(path).split("/")
    if words == ["", "metrics"]:
        return Metrics()
    if words in (["", "v2"], ["", "v2", ""]):
        return Base()
    if len(words) < 3 or words[:2] != ["", "v2"]:
        raise Refusal(404, Code.UNSUPPORTED, _FORM)
    given = _query(query)
    if words[2:] == ["_catalog"]:
        return Catalog(_page(given))
    if len(words) < 5:
        raise Refusal(404, Code.UNSUPPORTED, _FORM)
    *name, kind, last = words[2:]
    if (kind, last) == ("tags", "list"):
        return Tags(_repository(name), _page(given))
    if kind == "manifests":
        return Manifest(_repository(name), _tag_or_digest(last), _registry(given.get("ns")))
    if kind == "blobs":
        return Blob(_repository(name), _digest(last))
    if kind == "referrers":
        return Referrers(_repository(name), _digest(last), _text("artifactType", given.get("artifactType")))
    raise Refusal(404, Code.UNSUPPORTED, _FORM)


def kind_of(asked: Asked | None) -> str:
    """One word for metrics and logs; ``other`` for what was not understood."""
    return "other" if asked is None else type(asked).__name__.lower()


# --- parts ------------------------------------------------------------------------------------------


def _decoded(path: str) -> str:
    """``path`` with its percent-encoding undone, once. Raises Refusal for what no name can have in it."""
    if not path.startswith("/"):  # absolute-form, authority-form, "*"
        raise Refusal(400, Code.UNSUPPORTED, "the target of a request begins with a slash")
    if not path.isascii() or not path.isprintable() or "\\" in path:
        raise Refusal(400, Code.NAME_INVALID, "the path has characters that no name has")
    if "%" not in path:
        return path
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise Refusal(400, Code.NAME_INVALID, "the path is not properly encoded")
    if re.search(r"%(2[Ff]|5[Cc]|25)", path):  # a slash, a backslash, and what would be decoded again
        raise Refusal(400, Code.NAME_INVALID, "the path has encoded characters that no name has")
    plain = unquote_to_bytes(path)
    if not plain.isascii() or not (text := plain.decode("ascii")).isprintable():
        raise Refusal(400, Code.NAME_INVALID, "the path has encoded characters that no name has")
    return text


def _query(query: str) -> dict[str, str]:
    """Its parameters by name. One that stands twice means nothing. Raises Refusal."""
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name in found:
            raise Refusal(400, Code.UNSUPPORTED, "a parameter of the query is given twice")
        if name not in ("n", "last", "ns", "artifactType"):
            continue  # other servers may know it
        if re.search(r"%(?![0-9A-Fa-f]{2})", value) or not value.isascii():
            raise Refusal(400, Code.UNSUPPORTED, "the query is not properly encoded")
        plain = unquote_to_bytes(value.replace("+", "%20") if name != "artifactType" else value)
        if not plain.isascii() or not (text := plain.decode("ascii")).isprintable():
            raise Refusal(400, Code.UNSUPPORTED, "the query has characters that no name has")
        found[name] = text
    return found


def _page(given: dict[str, str]) -> Page:
    number = given.get("n")
    if number is not None and not _NUMBER.fullmatch(number):
        raise Refusal(400, Code.PAGINATION_NUMBER_INVALID, "n is not a number of entries")
    count = MOST_PER_PAGE if number is None else min(int(number), MOST_PER_PAGE)
    return Page(count, _text("last", given.get("last")) or None)


def _text(name: str, text: str | None) -> str | None:
    if text is not None and len(text) > _LONGEST:
        raise Refusal(400, Code.UNSUPPORTED, f"{name} is longer than {_LONGEST} characters")
    return text


def _registry(text: str | None) -> str | None:
    if text is None:
        return None
    if not _NAME.fullmatch(text):
        raise Refusal(400, Code.NAME_INVALID, "ns is not the name of a registry")
    return text.lower()


def _repository(words: list[str]) -> str:
    name = "/".join(words)
    if len(name) > MAX_REPOSITORY or not _REPOSITORY.fullmatch(name):
        raise Refusal(400, Code.NAME_INVALID, "the name of the repository is not one")
    return name


def _tag_or_digest(text: str) -> str | Digest:
    if ":" in text:
        return _digest(text)
    if not _TAG.fullmatch(text):  # the specification's own tests ask for such a tag and want 404
        raise Refusal(404, Code.MANIFEST_UNKNOWN, "there is no such manifest: that is neither tag nor digest")
    return text


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DocumentError:
        raise Refusal(
            400, Code.DIGEST_INVALID, "that is not sha256:<64 hex digits> or sha512:<128 hex digits>"
        ) from None
