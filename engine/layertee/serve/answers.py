"""Answers as values: status, fields of the head, body. The codes are those of the distribution specification.

What a client sent is repeated in no message: a repository's name or a digest that matched the grammar is.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from ..record import dataclass

if TYPE_CHECKING:
    from ..errors import LayerteeError
    from .outgoing import Outgoing

JSON = "application/json"
DIFF_ID_FIELD = "Layertee-Diff-ID"
DIFF_IDS_FIELD = "Layertee-Diff-IDs"
# For ever, since the address names the content; but who may have it is for this server to say.
FOR_EVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"
# In every answer. "nosniff": what is in a layer is nothing that a browser should guess at.
ALWAYS = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    "Server": "layertee",
    "X-Content-Type-Options": "nosniff",
}


class Code(enum.Enum):
    """The codes of errors: spec.md of distribution, "Error Codes", and two that every registry knows."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is all of it, or else ``outgoing`` gives ``length`` bytes.

    An ``outgoing`` is open: the caller who gets the answer closes it, and calls ``failed`` (which
    blocks) with what it raises. To HEAD only the head is sent.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes = b""
    length: int = 0
    outgoing: Outgoing | None = field(default=None, compare=False)
    place: str = ""
    failed: Callable[[LayerteeError], None] | None = field(default=None, compare=False)


class Refusal(Exception):
    """The request is answered with an error: raised anywhere, answered where requests are handled."""

    def __init__(
        self,
        status: int,
        code: Code,
        message: str,
        *,
        detail: Mapping[str, object] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = dict(fields or {})

    def answer(self) -> Answer:
        """As it is sent."""
        error: dict[str, object] = {"code": self.code.value, "message": str(self)}
        if self.detail is not None:
            error["detail"] = dict(self.detail)
        return document({"errors": [error]}, status=self.status, fields={**_NOT_KEPT, **self.fields})


_NOT_KEPT = {"Cache-Control": "no-store"}


def document(
    value: object, *, status: int = 200, media_type: str = JSON, fields: Mapping[str, str] | None = None
) -> Answer:
    """``value`` as JSON, in ASCII."""
    raw = json.dumps(value).encode("ascii")
    return whole(raw, media_type, status=status, fields=fields)


def whole(
    raw: bytes, media_type: str, *, status: int = 200, fields: Mapping[str, str] | None = None
) -> Answer:
    """``raw``, all of it."""
    head = {**ALWAYS, "Content-Type": media_type, "Cache-Control": ASK_AGAIN, **(fields or {})}
    return Answer(status, head, raw, len(raw))


def unchanged(fields: Mapping[str, str]) -> Answer:
    """304: the client has it. ``fields`` are those that the answer would have had (RFC 9110, 15.4.5)."""
    kept = ("ETag", "Cache-Control", "Vary", "Docker-Content-Digest")
    return Answer(304, {**ALWAYS, **{name: fields[name] for name in kept if name in fields}})
