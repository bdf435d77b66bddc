"""What an image has beside it in its registry, brought along for those who pull it from this machine.

Cosign's signatures and attestations by their tags, bundles by what refers to the image, and the index that
the image was chosen from. Nothing in them is judged here: that is done where an image is taken. Everything
is hashed, counted and bounded as what is looked at for a verdict.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import DocumentError, NotInRegistry, Timeout
from ..image.digest import Digest
from ..image.document import MAX_DOCUMENT
from ..image.media import OCI_MANIFEST
from ..image.strictjson import as_list, as_object, load_object
from ..signatures.signature import MAX_SIGNATURE, MAX_SIGNATURES
from ..signatures.trust.referrers import MAX_BYTES, Referrers
from ..store.beside import BesideDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image.resolved import ResolvedImage
    from ..registry.client import Registry

LIMIT_S: Final = 60.0
"""For all of it."""

_SUFFIXES: Final = ("sig", "att")


async def collect(registry: Registry, image: ResolvedImage) -> tuple[BesideDocument, ...]:
    """What ``registry`` has beside ``image``, as it is there now.

    Raises DocumentError for what makes no sense or is more than is looked at of one image, IntegrityError for
    other bytes than were named, TransportError and RegistryError.
    """
    found = []
    if image.index is not None and image.whole is None:
        found.append(BesideDocument(image.index.raw, image.index.media_type))
    try:
        async with asyncio.timeout(LIMIT_S):
            found += await _Collector(registry).collect(_subjects(image))
    except TimeoutError as exc:
        raise Timeout(f"what is beside {registry.reference} did not arrive within {LIMIT_S:g} s") from exc
    return tuple(found)


def _subjects(image: ResolvedImage) -> list[Digest]:
    """What may have signatures: the manifest and its index, or the index and all of its images."""
    index = [image.index.digest] if image.index is not None else []
    if image.whole is None:
        return [image.manifest.digest, *index]
    return [*index, *(one.digest for one in image.whole.members if not one.is_artifact)]


class _Collector:
    """Counts what it brings: of one image, and once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._left = MAX_BYTES
        self._blobs: dict[Digest, bytes] = {}

    async def collect(self, subjects: list[Digest]) -> list[BesideDocument]:
        found: dict[tuple[str, bytes], BesideDocument] = {}
        for subject in subjects:
            names = [f"{subject.algorithm}-{subject.hex}.{suffix}" for suffix in _SUFFIXES]
            names += map(str, await Referrers(self._registry).manifests(subject))
            for name in names:
                if (one := await self._document(name)) is not None:
                    found[one.tag, one.raw] = one
                if len(found) > MAX_SIGNATURES:
                    raise DocumentError(f"{subject} has more than {MAX_SIGNATURES} documents beside it")
        return list(found.values())

    async def _document(self, name: str) -> BesideDocument | None:
        """The manifest that is called so, a tag or a digest, with its blobs; None where there is none."""
        what = f"{name}, beside {self._registry.reference},"
        try:
            answer = await self._registry.small(
                f"manifests/{name}", OCI_MANIFEST, limit=min(MAX_DOCUMENT, self._left), what=what
            )
        except NotInRegistry:
            return None
        raw, is_tag = answer.body, ":" not in name
        if not is_tag:
            Digest.parse(name).check(raw, what)
        self._left -= len(raw)
        document = load_object(raw, what, maps=None)
        blobs = [await self._blob(digest, size, what) for digest, size in _named(document, what)]
        return BesideDocument(raw, OCI_MANIFEST, name if is_tag else "", tuple(blobs))

    async def _blob(self, digest: Digest, size: int, what: str) -> bytes:
        if digest not in self._blobs:
            if size > min(MAX_SIGNATURE, self._left):
                raise DocumentError(f"{what} is larger than is kept beside an image")
            answer = await self._registry.small(f"blobs/{digest}", "*/*", limit=size, what=f"{what} {digest}")
            digest.check(answer.body, f"{what} {digest}")
            self._left -= len(answer.body)
            self._blobs[digest] = answer.body
        return self._blobs[digest]


def _named(document: dict[str, object], what: str) -> Iterator[tuple[Digest, int]]:
    """The digests and sizes of the blobs that a manifest names. Raises DocumentError."""
    layers = as_list(document.get("layers"), f"{what} layers")
    if len(layers) > MAX_SIGNATURES:
        raise DocumentError(f"{what} has more than {MAX_SIGNATURES} layers")
    for place, value in enumerate([document.get("config"), *layers]):
        found = as_object(value, f"{what} descriptor {place}")
        size = found.get("size")
        if type(size) is not int or size < 0:
            raise DocumentError(f"{what} descriptor {place} has no size")
        yield Digest.parse(found.get("digest"), f"{what} descriptor {place}"), size
