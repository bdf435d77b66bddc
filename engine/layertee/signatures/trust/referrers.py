"""What refers to an image in its registry: the bundles of signatures and attestations.

distribution-spec v1.1: ``GET /v2/<name>/referrers/<digest>`` lists artifacts whose manifests have the image
as ``subject``; a registry without that API keeps the same list in an index under the tag ``sha256-<hex>``.
Rules of this file: the list is a hint, and each manifest says itself whom it refers to; each manifest and
bundle is hashed to the digest that named it; lists, their pages, and the bundles in them are counted, and
more than a machine can look at refuse the image.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, unquote

from ...aio import unwrapped_group
from ...errors import DocumentError, NotInRegistry, PolicyRefused, RegistryError, Timeout
from ...image.digest import Digest
from ...image.media import OCI_INDEX, OCI_MANIFEST
from ...image.strictjson import as_list, as_object, as_text, load_object, printable
from ...record import dataclass
from ..signature import MAX_SIGNATURE, MAX_SIGNATURES, Bundle

if TYPE_CHECKING:
    from ...registry.client import Registry
    from ...registry.http import WholeResponse

BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_REFERRERS: Final = 1024
"""Of one image, whatever they are."""
MAX_PAGES: Final = 16
MAX_BYTES: Final = 32 << 20
"""Of the bundles of one image together."""

LIMIT_S: Final = 60.0
"""For all of it."""

_LIST: Final = 4 << 20
_MANIFEST: Final = 256 << 10
_BUNDLE_FAMILY: Final = "application/vnd.dev.sigstore.bundle"
# What an entry says whose manifest says no more: it may be a bundle.
_UNSAID: Final = frozenset({"", "application/vnd.oci.empty.v1+json"})
# By these, registries say that they have no such API. 404 also if there is nothing.
_NO_API: Final = frozenset({400, 404, 405, 406, 501})
_AT_ONCE: Final = 4

T = TypeVar("T")
V = TypeVar("V")
_NEXT: Final = re.compile(r'<([^<>]+)>\s*;(?:[^,]*;)?\s*rel="?next"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: Digest
    size: int


class Referrers:
    """Those of the images of one repository, which ``registry`` asks for.

    All that is asked for one image takes at most ``limit_s`` seconds.
    """

    def __init__(self, registry: Registry, *, limit_s: float = LIMIT_S) -> None:
        self._registry = registry
        self._limit_s = limit_s

    async def bundles(self, subject: Digest) -> list[Bundle]:
        """The sigstore bundles that refer to ``subject``, each once; their bytes are what their digests name.

        Raises PolicyRefused for too many or too large ones, IntegrityError for other bytes than were named,
        TransportError and RegistryError.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._bundles(subject)
        except TimeoutError as exc:
            raise Timeout(f"what refers to {subject} did not arrive within {self._limit_s:g} s") from exc

    async def manifests(self, subject: Digest) -> list[Digest]:
        """Those that are listed as referring to ``subject`` and may be of bundles; nothing else is known of
        them. Raises as ``bundles``.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                return [each.digest async for each in self._listed(subject)]
        except TimeoutError as exc:
            raise Timeout(f"what refers to {subject} did not arrive within {self._limit_s:g} s") from exc

    async def _bundles(self, subject: Digest) -> list[Bundle]:
        entries = [each async for each in self._listed(subject)]
        if len(entries) > MAX_SIGNATURES:
            raise PolicyRefused(
                f"{subject} has {len(entries)} artifacts that may be signatures; at most {MAX_SIGNATURES} are"
                " looked at"
            )
        held = await _each(entries, lambda entry: self._layer(entry, subject))
        layers = {layer.digest: (layer, entry) for entry, layer in zip(entries, held, strict=True) if layer}
        sizes = [layer.size for layer, _ in layers.values()]
        if max(sizes, default=0) > MAX_SIGNATURE or sum(sizes) > MAX_BYTES:
            raise PolicyRefused(f"the bundles of {subject} are larger than is looked at")
        return list(await _each(layers.values(), lambda found: self._bundle(*found)))

    async def _listed(self, subject: Digest) -> AsyncIterator[_Entry]:
        """Entries that are bundles or may be."""
        n, seen = 0, set()
        async for page in self._pages(subject):
            for value in page:
                n += 1
                if n > MAX_REFERRERS:
                    raise PolicyRefused(f"more than {MAX_REFERRERS} artifacts refer to {subject}")
                entry = _entry(value)
                if entry is not None and entry.digest not in seen:
                    seen.add(entry.digest)
                    yield entry

    async def _pages(self, subject: Digest) -> AsyncIterator[list[object]]:
        what = f"the list of what refers to {subject}"
        query = f"artifactType={quote(BUNDLE_TYPE, safe='')}"
        for n in range(MAX_PAGES):
            try:
                answer = await self._registry.small(
                    f"referrers/{subject}?{query}", OCI_INDEX, limit=_LIST, what=what
                )
            except RegistryError as exc:
                if n or exc.status not in _NO_API:
                    raise
                answer = None
            if answer is None or (not n and not _is_index(answer)):
                async for page in self._tagged(subject, what):
                    yield page
                return
            yield _manifests(answer.body, what)
            following = _next(answer, subject)
            if following is None:
                return
            query = following
        raise PolicyRefused(f"{what} has more than {MAX_PAGES} pages")

    async def _tagged(self, subject: Digest, what: str) -> AsyncIterator[list[object]]:
        """The list under the tag of a registry without the API; it may not be there."""
        tag = f"{subject.algorithm}-{subject.hex}"[:128]
        try:
            answer = await self._registry.small(f"manifests/{tag}", OCI_INDEX, limit=_LIST, what=what)
        except NotInRegistry:
            return
        if not _is_index(answer):
            raise PolicyRefused(f"{what}, under the tag {tag}, is no index")
        yield _manifests(answer.body, what)

    async def _layer(self, entry: _Entry, subject: Digest) -> _Entry | None:
        """The bundle of the manifest ``entry``; None if it has none, is gone, or is about another image."""
        what = f"the manifest {entry.digest}, which refers to {subject},"
        if entry.size > _MANIFEST:
            raise PolicyRefused(f"{what} is larger than {_MANIFEST} bytes")
        try:
            answer = await self._registry.small(
                f"manifests/{entry.digest}", OCI_MANIFEST, limit=_MANIFEST, what=what
            )
        except NotInRegistry:
            return None
        entry.digest.check(answer.body, what)
        document = load_object(answer.body, what, maps=None)
        about = document.get("subject")
        if about is None or as_object(about, f"{what}: subject").get("digest") != subject:
            return None
        layers = as_list(document.get("layers"), f"{what}: layers")
        if len(layers) != 1:
            return None
        layer = as_object(layers[0], f"{what}: layers[0]")
        if not as_text(layer.get("mediaType"), f"{what}: mediaType").startswith(_BUNDLE_FAMILY):
            return None
        return _Entry(Digest.parse(layer.get("digest"), f"{what}: layer"), _size(layer, what))

    async def _bundle(self, layer: _Entry, entry: _Entry) -> Bundle:
        what = f"the bundle {layer.digest} of {entry.digest}"
        answer = await self._registry.small(f"blobs/{layer.digest}", "*/*", limit=layer.size, what=what)
        layer.digest.check(answer.body, what)
        return Bundle(answer.body, f"bundle {layer.digest} in {entry.digest}")


async def _each(values: Iterable[T], ask: Callable[[T], Awaitable[V]]) -> list[V]:
    """What ``ask`` has for each of ``values``, in their order; a few are asked for at once."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def asked(value: T) -> V:
        async with turn:
            return await ask(value)

    async with unwrapped_group() as group:
        tasks = [group.create_task(asked(value)) for value in values]
    return [task.result() for task in tasks]


def _is_index(answer: WholeResponse) -> bool:
    kind = (answer.field("Content-Type") or "").partition(";")[0].strip().lower()
    return kind == OCI_INDEX


def _manifests(raw: bytes, what: str) -> list[object]:
    return as_list(load_object(raw, what, maps=None).get("manifests"), what)


def _entry(value: object) -> _Entry | None:
    """What may be a bundle, by what the list says. Raises DocumentError for what makes no sense."""
    what = "an entry of the list of referrers"
    found = as_object(value, what)
    kind = found.get("artifactType")
    kind = "" if kind is None else as_text(kind, f"{what}: artifactType")
    if kind not in _UNSAID and not kind.startswith(_BUNDLE_FAMILY):
        return None
    if as_text(found.get("mediaType"), f"{what}: mediaType") != OCI_MANIFEST:
        return None
    return _Entry(Digest.parse(found.get("digest"), what), _size(found, what))


def _size(found: dict[str, object], what: str) -> int:
    size = found.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise DocumentError(f"{what} has no size")
    return size


def _next(answer: WholeResponse, subject: Digest) -> str | None:
    """The query of the next page: only that part of a link is used, so that it leads to no other place."""
    for link in _links(answer):
        path, mark, query = link.partition("?")
        if not mark or not unquote(path).endswith(f"/referrers/{subject}"):
            raise DocumentError(f"the next page of what refers to {subject} is at {printable(link)!r}")
        return query.partition("#")[0]
    return None


def _links(answer: WholeResponse) -> Iterator[str]:
    for value in answer.fields("Link"):
        yield from _NEXT.findall(value[:4096])
