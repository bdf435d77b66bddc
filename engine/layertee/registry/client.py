"""One image at one registry: its documents, and requests for its blobs (distribution-spec v1.1).

Rules of this file: a tag is resolved once, and everything after it is named by digest;
the bytes of a document are hashed before a field is read; what a header says about them
is compared, never believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ..aio import in_thread, unwrapped_group
from ..backoff import LONGEST_WAIT_S
from ..errors import DocumentError, SizeMismatch
from ..image.document import (
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Pairing,
    Platform,
    choose_platform,
    image_layers,
    parse_config,
    parse_document,
)
from ..image.media import INDEX_TYPES, MANIFEST_TYPES
from ..image.resolved import ResolvedImage
from ..image.strictjson import printable
from ..image.whole import Gathering, Known, Wanted
from .exchange import Exchange
from .retry import TRIES, retrying
from .tars import KNOWS, Tars

if TYPE_CHECKING:
    from ..config.logins import Credentials
    from ..image.reference import Reference
    from .http import Body, Response, TLSPolicy, Transport, WholeResponse

_MAX_DEPTH = 2  # an index may hold an index; nothing in use goes deeper
_AT_ONCE = 6  # documents of an index that is kept whole
_ACCEPT = ", ".join(sorted(MANIFEST_TYPES) + sorted(INDEX_TYPES))


T = TypeVar("T")


class Registry:
    """The registry of ``reference``. Belongs to one event loop; the transport belongs to the caller.

    ``allow_http``: the user has waived verification of this registry; https is still tried first.
    ``namespace``: the registry that a proxy is to ask. ``is_blocked``: ``host[:port]`` may not be asked,
    whoever names it. A registry that asks for more than ``patience_s`` seconds is not asked again.
    """

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        credentials: Credentials,
        *,
        tls: TLSPolicy,
        allow_http: bool = False,
        namespace: str = "",
        is_blocked: Callable[[str], bool] = lambda host: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._reference = reference
        self._sleep = sleep
        self._patience_s = patience_s
        self._tries, self._diff_ids = TRIES, True
        self._exchange = Exchange(
            transport,
            reference,
            credentials,
            tls=tls,
            allow_http=allow_http,
            namespace=namespace,
            is_blocked=is_blocked,
        )
        self.tars = Tars(reference.name, self._head, sleep=sleep)
        """What this registry has of layers whose blobs it lacks."""

    @property
    def reference(self) -> Reference:
        """The image, as this registry is asked for it."""
        return self._reference

    @property
    def scheme(self) -> str | None:
        """``https`` or ``http``, once known."""
        return self._exchange.origin.scheme if self._exchange.origin else None

    async def resolve(
        self,
        platform: Platform,
        *,
        pair: Pairing = image_layers,
        tries: int = TRIES,
        diff_ids: bool = True,
        whole: Known | None = None,
    ) -> ResolvedImage:
        """The image that the reference names, for ``platform``; ``pair`` makes the layers of its documents.

        Each document is asked for ``tries`` times, while that makes sense. ``diff_ids``: where blobs are
        gone, their tars will do, so the image's own manifest is wanted in any case. ``whole``: an index is
        meant with all that it names, and this has documents that need not be asked for; called in threads.

        Raises NotFound, Unauthorized and the rest of RegistryError, the TransportError family,
        IntegrityError and its subclasses, UnsupportedImage, AuthConfigError.
        """
        self._tries, self._diff_ids = tries, diff_ids
        document = await self._named()
        index = document if isinstance(document, Index) else None
        if index is not None and whole is not None:
            return await self._whole(index, whole, platform, pair)
        warnings: list[str] = []
        depth = 0
        while isinstance(document, Index):
            depth += 1
            entry = choose_platform(document, platform, warnings)
            if depth == _MAX_DEPTH and entry.media_type in INDEX_TYPES:
                raise DocumentError(f"{self._reference}: indexes are nested deeper than {_MAX_DEPTH}")
            document = await self._entry(entry)
        config = parse_config(await self._config(document.config), document.config)
        return ResolvedImage(document, config, pair(document, config), index, tuple(warnings))

    async def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> Body:
        """Request ``blob``, or its bytes ``[start, stop)``; the body is left to the caller, who closes it.

        The status is 200 or 206: the caller checks which, and Content-Range. Not retried here. Raises
        RangeMismatch for 416, RegistryError and TransportError and their subclasses.
        """
        headers = {}
        if stop is not None or start:
            end = blob.size if stop is None else stop
            if not 0 <= start < end:
                raise ValueError(f"[{start}, {end}) is not a range of bytes")
            # RFC 9110 §14.1.2: inclusive. Always closed: some registries refuse an open end. Nothing else in
            # the package writes a Range; what comes back is read by transfer/ranges.py.
            headers["Range"] = f"bytes={start}-{end - 1}"
        what = f"blob {blob.digest} of {self._reference.name}"
        return await self._exchange.open(
            f"blobs/{blob.digest}", headers, blob=blob.digest, size=blob.size, what=what
        )

    async def small(self, path: str, accept: str, *, limit: int, what: str) -> WholeResponse:
        """The answer to ``GET path`` below the repository: something small that lies beside an image.

        A ``path`` that begins with a slash is one of the registry's host. Nothing in it was checked.
        ``limit`` is in bytes; ``what`` begins error messages. Raises NotInRegistry, and as ``resolve``.
        """
        return await self._fetch(path, accept, limit, what)

    async def ping(self) -> Response:
        """The answer to ``GET /v2/``, whose head says what the registry can do. Its status is 200, or 401.

        Raises as ``resolve``.
        """
        return await self._retrying(self._exchange.ping)

    async def check_login(self) -> bool:
        """Whether the registry takes the login that it was opened with; False where it asks for none.

        Raises Unauthorized where it does not, and as ``resolve``.
        """
        return await self._retrying(self._exchange.check_login)

    async def _named(self) -> Manifest | Index:
        """The document the reference itself names."""
        digest = self._reference.digest
        name = digest or self._reference.tag or "latest"
        what = str(self._reference)
        response = await self._fetch(f"manifests/{name}", _ACCEPT, MAX_DOCUMENT, what)
        _check(response, digest, None, what)
        return parse_document(response.body, response.field("Content-Type"))

    async def _whole(self, index: Index, known: Known, platform: Platform, pair: Pairing) -> ResolvedImage:
        """``index`` with all that it names, several documents at once."""
        gathering = Gathering(index)

        async def work(todo: Iterator[Wanted]) -> None:
            for one in todo:
                raw: bytes | None = await in_thread(known, one.descriptor)
                carried = None
                if raw is None and one.is_config:
                    raw = await self._config(one.descriptor)
                elif raw is None:
                    raw, carried = await self._document(one.descriptor)
                gathering.take(one, raw, carried)

        while wanted := gathering.wanted():
            todo = iter(wanted)
            async with unwrapped_group() as group:
                for _ in range(min(_AT_ONCE, len(wanted))):
                    group.create_task(work(todo))
        return gathering.image(platform, pair)

    async def _entry(self, entry: Descriptor) -> Manifest | Index:
        """The document an index entry names: an index if the entry says so, else a manifest."""
        what = f"manifest {entry.digest} of {self._reference}"
        raw, carried = await self._document(entry)
        document = parse_document(raw, carried, named_as=entry.media_type)
        # Docker's type or OCI's is no matter: the digest has said which bytes they are.
        if entry.media_type and isinstance(document, Index) != (entry.media_type.lower() in INDEX_TYPES):
            says = f"{document.media_type}, the index says {printable(entry.media_type)}"
            raise DocumentError(f"{what} is of type {says}")
        return document

    async def _document(self, entry: Descriptor) -> tuple[bytes, str | None]:
        """The bytes that an index entry names, and their Content-Type."""
        if entry.data is not None:
            return entry.data, entry.media_type
        what = f"manifest {entry.digest} of {self._reference}"
        if entry.size > MAX_DOCUMENT:
            raise DocumentError(f"{what} is larger than {MAX_DOCUMENT} bytes")
        response = await self._fetch(f"manifests/{entry.digest}", _ACCEPT, MAX_DOCUMENT, what)
        _check(response, entry.digest, entry.size, what)
        return response.body, response.field("Content-Type")

    async def _config(self, config: Descriptor) -> bytes:
        if config.data is not None:
            return config.data
        what = f"image config {config.digest} of {self._reference}"
        if config.size > MAX_DOCUMENT:
            raise DocumentError(f"{what} is larger than {MAX_DOCUMENT} bytes")
        response = await self._fetch(f"blobs/{config.digest}", "*/*", config.size, what)
        _check(response, config.digest, config.size, what)
        return response.body

    async def _fetch(self, path: str, accept: str, limit: int, what: str) -> WholeResponse:
        """GET a small document, retried while that makes sense."""
        headers = {"Accept": accept}
        is_manifest = path.startswith("manifests/")
        if is_manifest and self._diff_ids:
            headers[KNOWS] = "1"
        response = await self._retrying(lambda: self._exchange.fetch(path, headers, limit=limit, what=what))
        if is_manifest:
            self.tars.listen(response)
        return response

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrying(attempt, sleep=self._sleep, tries=self._tries, patience_s=self._patience_s)

    async def _head(self, blob: Digest) -> Response:
        """The answer to HEAD for ``blob``: 200 or 404. Not retried."""
        return await self._exchange.head(f"blobs/{blob}", what=f"blob {blob} of {self._reference.name}")


def _check(response: WholeResponse, wanted: Digest | None, size: int | None, what: str) -> None:
    """The bytes are those asked for, and the registry's header does not say otherwise."""
    encoding = response.field("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in ("identity", "gzip", "x-gzip"):
        shown = printable(encoding, 40)
        raise DocumentError(f"{what}: the answer was re-encoded ({shown}) by the registry or a proxy")
    got = len(response.body)
    if size is not None and got != size:
        raise SizeMismatch(f"{what} is {got} bytes, its descriptor says {size}", want=size, got=got)
    if wanted is not None:
        wanted.check(response.body, what)
    for value in response.fields("Docker-Content-Digest"):
        try:
            stated = Digest.parse(value)
        except DocumentError:
            continue  # not a digest; nothing to compare
        if wanted is None or stated.algorithm == wanted.algorithm:
            stated.check(response.body, f"{what} (Docker-Content-Digest)")
