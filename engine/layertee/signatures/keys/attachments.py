"""Signatures that are beside an image in its registry, as cosign puts them there: the tag ``sha256-….sig``.

cosign's specs/SIGNATURE_SPEC.md; found as containers/image finds them (docker/docker_client.go), where
registries.d says ``use-sigstore-attachments``. Rules of this file: the tag is asked for once, and every layer
of what it names counts, of whatever kind; sizes and counts are looked at before a layer is asked for, its
bytes are hashed, and all of it together has one time limit. A layer that is elsewhere, by URLs, is refused:
containers/image would fetch it there alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...aio import unwrapped_group
from ...errors import DocumentError, NotInRegistry, PolicyRefused, SizeMismatch, Timeout, UnsupportedImage
from ...image.digest import Digest
from ...image.document import MAX_DOCUMENT, Descriptor, Manifest, parse_document
from ...image.media import INDEX_TYPES, MANIFEST_TYPES, OCI_MANIFEST, SCHEMA1_TYPES
from ...image.strictjson import printable
from ..signature import MAX_SIGNATURE, MAX_SIGNATURES, Attachment, Signature

if TYPE_CHECKING:
    from ...registry.client import Registry

MAX_TOTAL: Final = 16 << 20
"""Bytes of all attachments of an image; one has about 250."""
LIMIT_S: Final = 60.0
_AT_ONCE: Final = 4
# As containers/image asks: a registry that converts documents for a client does so for both alike.
_ACCEPT: Final = ", ".join(
    [OCI_MANIFEST, *sorted((MANIFEST_TYPES | INDEX_TYPES | SCHEMA1_TYPES) - {OCI_MANIFEST})]
)


class RegistryAttachments:
    """The attachments of one repository, which ``registry`` asks; ``repository`` names it in messages.

    All that is asked for one image takes at most ``limit_s`` seconds. A SignatureSource.
    """

    def __init__(self, registry: Registry, repository: str, *, limit_s: float = LIMIT_S) -> None:
        self._registry = registry
        self._repository = repository
        self._limit_s = limit_s

    async def signatures(self, digest: Digest) -> list[Signature]:
        """All attachments of the manifest or index ``digest``; none where there is no such tag.

        Raises PolicyRefused if they are too many or too large, or what the tag names makes no sense,
        IntegrityError if the registry gives other bytes than it named, TransportError and RegistryError.
        """
        tag = f"{digest.algorithm}-{digest.hex}.sig"
        what = f"the signatures of {self._repository}@{digest}"
        try:
            async with asyncio.timeout(self._limit_s):
                manifest = await self._manifest(tag, what)
                if manifest is None:
                    return []
                _check(manifest.layers, what)
                return list(await self._attachments(manifest, tag, what))
        except TimeoutError as exc:
            raise Timeout(f"{what} did not arrive within {self._limit_s:g} s") from exc

    async def _manifest(self, tag: str, what: str) -> Manifest | None:
        try:
            response = await self._registry.small(f"manifests/{tag}", _ACCEPT, limit=MAX_DOCUMENT, what=what)
        except NotInRegistry as exc:
            if not exc.is_plain:
                raise PolicyRefused(f"whether there are signatures is not known: {exc}") from exc
            return None
        except DocumentError as exc:
            raise PolicyRefused(f"{what} cannot be read: {exc}") from exc
        carried = response.field("Content-Type")
        if (carried or "").partition(";")[0].strip().lower() != OCI_MANIFEST:
            shown = printable(carried or "none", 100)
            raise PolicyRefused(f"{what} are of the media type {shown}, not in an OCI manifest")
        for stated in response.fields("Docker-Content-Digest"):
            _check_stated(stated, response.body, what)
        try:
            document = parse_document(response.body, OCI_MANIFEST)
        except (DocumentError, UnsupportedImage) as exc:
            raise PolicyRefused(f"{what} cannot be read: {exc}") from exc
        if not isinstance(document, Manifest):
            raise PolicyRefused(f"{what} are in an index, not in a manifest")
        return document

    async def _attachments(self, manifest: Manifest, tag: str, what: str) -> Sequence[Attachment]:
        """One for each layer, in their order. Signatures of one payload are layers with one digest."""
        payloads: dict[Digest, bytes] = {}
        distinct = {layer.digest: layer for layer in manifest.layers}
        turn = asyncio.Semaphore(_AT_ONCE)

        async def fetch(layer: Descriptor) -> None:
            async with turn:
                payloads[layer.digest] = await self._payload(layer, what)

        async with unwrapped_group() as group:
            for layer in distinct.values():
                group.create_task(fetch(layer))
        return [
            Attachment(
                layer.media_type,
                payloads[layer.digest],
                layer.annotations,
                f"{self._repository}:{tag}, layer {number}",
            )
            for number, layer in enumerate(manifest.layers)
        ]

    async def _payload(self, layer: Descriptor, what: str) -> bytes:
        what = f"{what}, {layer.digest}"
        try:
            response = await self._registry.small(f"blobs/{layer.digest}", "*/*", limit=layer.size, what=what)
        except DocumentError as exc:
            raise PolicyRefused(f"{what} cannot be read: {exc}") from exc
        got = len(response.body)
        if got != layer.size:
            message = f"{what} is {got} bytes, its descriptor says {layer.size}"
            raise SizeMismatch(message, want=layer.size, got=got)
        layer.digest.check(response.body, what)
        return response.body


def _check(layers: Sequence[Descriptor], what: str) -> None:
    """Refuse what would cost this machine much, before any of it is asked for."""
    if len(layers) > MAX_SIGNATURES:
        raise PolicyRefused(f"{what} are {len(layers)}; at most {MAX_SIGNATURES} are looked at")
    sizes: dict[Digest, int] = {}
    for layer in layers:
        if layer.urls:
            raise PolicyRefused(f"{what}: one is said to be elsewhere, at URLs")
        if layer.size > MAX_SIGNATURE:
            raise PolicyRefused(f"{what}: one is larger than {MAX_SIGNATURE} bytes")
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise PolicyRefused(f"{what}: {layer.digest} is there with two sizes")
    if sum(sizes.values()) > MAX_TOTAL:
        raise PolicyRefused(f"{what} are larger than {MAX_TOTAL} bytes together")


def _check_stated(stated: str, body: bytes, what: str) -> None:
    """What the registry says of the manifest is compared, where it is a digest."""
    try:
        named = Digest.parse(stated)
    except DocumentError:
        return
    named.check(body, what)
