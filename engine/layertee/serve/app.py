"""What each request is answered with. Knows the stock and the specification, and nothing of sockets.

A stock's methods block, so each question is asked in a thread. Nothing is remembered between requests: what
the machine has may change at any time, and then the next answer is another one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

from ..errors import (
    IntegrityError,
    InvalidReference,
    LayerteeError,
    NotFound,
    ServerBusy,
    SourceUnreadable,
)
from ..image.digest import Digest
from ..image.media import OCI_INDEX
from .accept import Accept
from .answers import (
    ASK_AGAIN,
    DIFF_ID_FIELD,
    DIFF_IDS_FIELD,
    FOR_EVER,
    Answer,
    Code,
    Refusal,
    document,
    unchanged,
    whole,
)
from .offer import Document, Sendable, Stock
from .outgoing import Outgoing
from .questions import Questions
from .ranges import is_known, part_of, unsatisfiable
from .requests import Asked, Base, Blob, Catalog, Manifest, Metrics, Page, Referrers, Tags

log = logging.getLogger(__name__)

T = TypeVar("T")


_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_COPIES = 3  # of one blob that are tried for one request


class Sender(Protocol):
    """Who has the bytes of blobs: sending.py."""

    async def open(self, blob: Sendable, start: int, stop: int) -> Outgoing:
        """Those from ``start`` up to ``stop``.

        Raises SourceUnreadable, NotFound, IntegrityError, ServerBusy.
        """


class App:
    """A registry that is only read, over ``stock``. ``show_metrics`` gives a page and its media type."""

    def __init__(
        self,
        stock: Stock,
        sender: Sender,
        show_metrics: Callable[[], tuple[bytes, str]],
        questions: Questions | None = None,
    ) -> None:
        self._stock = stock
        self._questions = questions or Questions()
        self._sender = sender
        self._show_metrics = show_metrics
        self._answers: dict[type[Asked], Callable[..., Awaitable[Answer]]] = {
            Base: self._base,
            Metrics: self._metrics,
            Catalog: self._catalog,
            Tags: self._tags,
            Manifest: self._manifest,
            Blob: self._blob,
            Referrers: self._referrers,
        }

    async def answer(self, asked: Asked, fields: Mapping[str, str], *, head_only: bool = False) -> Answer:
        """``fields`` are those of the request, by names in lower case. Raises Refusal.

        The caller closes the answer's ``outgoing``, if it has one. ``head_only``: it never has.
        """
        return await self._answers[type(asked)](asked, fields, head_only)

    async def tell(self, failed: Callable[[LayerteeError], None], exc: LayerteeError) -> None:
        """Let the stock know what came of an answer, if it is not too busy to hear of it."""
        with suppress(ServerBusy):
            await self._questions.ask(failed, exc)

    async def _ask(self, function: Callable[..., T], *args: object) -> T:
        """Raises Refusal where too much is asked at a time."""
        try:
            return await self._questions.ask(function, *args)
        except ServerBusy as exc:
            raise _later(str(exc), exc.retry_after) from exc

    async def _base(self, asked: Base, fields: Mapping[str, str], head_only: bool) -> Answer:
        return document({})

    async def _metrics(self, asked: Metrics, fields: Mapping[str, str], head_only: bool) -> Answer:
        raw, media_type = self._show_metrics()
        return whole(raw, media_type, fields={"Cache-Control": "no-store"})

    # -- lists -----------------------------------------------------------------------

    async def _catalog(self, asked: Catalog, fields: Mapping[str, str], head_only: bool) -> Answer:
        names = await self._ask(self._stock.repositories)
        return _page("/v2/_catalog", {}, "repositories", names, asked.page)

    async def _tags(self, asked: Tags, fields: Mapping[str, str], head_only: bool) -> Answer:
        tags = await self._ask(self._stock.tags, asked.repository)
        if tags is None:
            raise _unknown_name(asked.repository)
        path = f"/v2/{asked.repository}/tags/list"
        return _page(path, {"name": asked.repository}, "tags", tags, asked.page)

    async def _referrers(self, asked: Referrers, fields: Mapping[str, str], head_only: bool) -> Answer:
        found = await self._ask(self._stock.referrers, asked.repository, asked.digest)
        head = {}
        if asked.artifact_type is not None:
            found = [one for one in found if one.get("artifactType") == asked.artifact_type]
            head["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [dict(one) for one in found]}
        return document(index, media_type=OCI_INDEX, fields=head)

    # -- documents -------------------------------------------------------------------

    async def _manifest(self, asked: Manifest, fields: Mapping[str, str], head_only: bool) -> Answer:
        is_by_digest = isinstance(asked.reference, Digest)
        there_are = await self._documents(asked, fields)
        takes = Accept(fields.get("accept")).takes
        found = next((one for one in there_are if takes(one.media_type)), None)
        if found is None:
            raise await self._no_manifest(asked, there_are)
        head = {
            "Docker-Content-Digest": found.digest,
            "ETag": f'"{found.digest}"',
            "Cache-Control": FOR_EVER if is_by_digest else ASK_AGAIN,
            "Vary": f"Accept, {DIFF_IDS_FIELD}",
            DIFF_IDS_FIELD: "1",
        }
        if is_known(fields.get("if-none-match"), head["ETag"]):
            return unchanged(head)
        return whole(found.raw, found.media_type, fields=head)

    async def _documents(self, asked: Manifest, fields: Mapping[str, str]) -> Sequence[Document]:
        reference = asked.reference
        if isinstance(reference, Digest):
            one = await self._ask(self._stock.document, asked.repository, reference)
            return [] if one is None else [one]
        original = fields.get(DIFF_IDS_FIELD.lower(), "").strip() == "1"
        named = partial(
            self._stock.named, asked.repository, reference, registry=asked.registry, original=original
        )
        try:
            return await self._ask(named)
        except (InvalidReference, NotFound) as exc:
            raise Refusal(404, Code.MANIFEST_UNKNOWN, str(exc)) from exc

    async def _no_manifest(self, asked: Manifest, there_are: Sequence[Document]) -> Refusal:
        detail = {"name": asked.repository, "reference": asked.reference}
        if there_are:
            types = ", ".join(dict.fromkeys(one.media_type for one in there_are))
            message = f"the manifest is there as {types}, which the request does not accept"
            return Refusal(404, Code.MANIFEST_UNKNOWN, message, detail=detail, fields={"Vary": "Accept"})
        if await self._ask(self._stock.tags, asked.repository) is None:
            return _unknown_name(asked.repository)
        return Refusal(404, Code.MANIFEST_UNKNOWN, "there is no such manifest here", detail=detail)

    # -- blobs -----------------------------------------------------------------------

    async def _blob(self, asked: Blob, fields: Mapping[str, str], head_only: bool) -> Answer:
        for _ in range(_COPIES):
            try:
                return await self._copy(asked, fields, head_only)
            except _WrongCopy:
                continue
        raise await self._no_blob(asked.digest)

    async def _copy(self, asked: Blob, fields: Mapping[str, str], head_only: bool) -> Answer:
        """The first one. Raises _WrongCopy where there may be another one."""
        found = await self._ask(self._stock.blob, asked.digest)
        if found is None:
            raise await self._no_blob(asked.digest)
        head = {
            "Docker-Content-Digest": found.digest,
            "ETag": f'"{found.digest}"',
            "Cache-Control": FOR_EVER,
            "Accept-Ranges": "bytes",
        }
        if is_known(fields.get("if-none-match"), head["ETag"]):
            return unchanged(head)
        media_type = "application/octet-stream"
        if head_only:  # Range means something for GET alone (RFC 9110, 14.2)
            return Answer(200, whole(b"", media_type, fields=head).fields, length=found.size)
        part = part_of(found.size, fields, head["ETag"])
        if part is None:
            raise Refusal(
                416,
                Code.UNKNOWN,
                f"the blob has {found.size} bytes, and none of them are in that range",
                fields={"Content-Range": unsatisfiable(found.size)},
            )
        if not part.is_whole:
            head["Content-Range"] = part.content_range
        try:
            outgoing = await self._sender.open(found, part.start, part.stop)
        except ServerBusy as exc:
            raise _later(str(exc), exc.retry_after) from exc
        except (IntegrityError, NotFound, SourceUnreadable) as exc:
            log.warning("%s: %s cannot be read: %s", found.place, found.digest, exc)
            if _is_lasting(exc):
                await self._ask(self._stock.distrust, found)
                raise _WrongCopy from exc
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _SHORT_OF:
                raise _later("this machine has no more files or memory just now", 1.0) from exc
            raise await self._no_blob(asked.digest) from exc

        def failed(exc: LayerteeError) -> None:
            if _is_lasting(exc):
                self._stock.distrust(found)

        return Answer(
            200 if part.is_whole else 206,
            whole(b"", media_type, fields=head).fields,
            length=part.stop - part.start,
            outgoing=outgoing,
            place=found.place,
            failed=failed,
        )

    async def _no_blob(self, digest: Digest) -> Refusal:
        known = await self._ask(self._stock.content_of, digest)
        detail: dict[str, object] = {"digest": digest}
        head = {}
        if known is not None:
            detail["diffID"] = head[DIFF_ID_FIELD] = known.diff_id
        return Refusal(404, Code.BLOB_UNKNOWN, "there is no such blob here", detail=detail, fields=head)


def _later(message: str, after_s: float) -> Refusal:
    wait = {"Retry-After": str(max(round(after_s), 1))}
    return Refusal(503, Code.TOOMANYREQUESTS, message, fields=wait)


class _WrongCopy(Exception):
    """What was found under a blob's name is something else."""


def _is_lasting(exc: LayerteeError) -> bool:
    """Whether whoever tries again would meet the same: the bytes are other ones, or gone, and not the machine
    short of something.
    """
    cause = exc.__cause__
    is_gone = cause is None or isinstance(cause, FileNotFoundError | NotADirectoryError | PermissionError)
    return isinstance(exc, IntegrityError) or (isinstance(exc, SourceUnreadable) and is_gone)


# --- lists ------------------------------------------------------------------------------------------


def _page(path: str, about: Mapping[str, object], key: str, names: Sequence[str], page: Page) -> Answer:
    """``names`` (in ASCII order) after ``page.last``, and where the rest is."""
    later = [name for name in names if page.last is None or name > page.last]
    shown = later[: page.count]
    head = {}
    if shown and len(shown) < len(later):
        query = urlencode({"n": page.count, "last": shown[-1]}, quote_via=quote)
        head["Link"] = f'<{path}?{query}>; rel="next"'
    return document({**about, key: shown}, fields=head)


def _unknown_name(repository: str) -> Refusal:
    return Refusal(404, Code.NAME_UNKNOWN, "no image here has that name", detail={"name": repository})
