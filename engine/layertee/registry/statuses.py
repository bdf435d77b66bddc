"""What an HTTP status means.

Shared by the registry and its token service. Bodies of error answers are shown to a
person only after they were parsed, shortened and cleaned; anything else a server says
stays out of messages.
"""

from __future__ import annotations

import email.utils
import re
import time
import zlib

from ..errors import (
    DocumentError,
    LayerteeError,
    NotInRegistry,
    RangeMismatch,
    RateLimited,
    RegistryError,
    ServerError,
    Timeout,
    Unauthorized,
    WebPage,
    redact_url,
)
from ..image.strictjson import loads, printable

MAX_ERROR_BODY = 64 << 10
RETRY_MIN_S, RETRY_MAX_S = 1.0, 86400.0
_GZIP = b"\x1f\x8b"
_RETRY_DEFAULT_S = 2.0  # containers/image starts here
_NO_MANIFEST = "MANIFEST_UNKNOWN"
# The other codes of distribution-spec and of docker/distribution, which mean something else.
_OTHER_REASONS = frozenset(
    {
        *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID"),
        *("MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNVERIFIED", "NAME_INVALID", "NAME_UNKNOWN"),
        *("PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "SIZE_INVALID", "TAG_INVALID", "TOOMANYREQUESTS"),
        *("UNAUTHORIZED", "UNAVAILABLE", "UNSUPPORTED"),
    }
)


def retry_after(value: str | None, *, date: str | None = None, now: float | None = None) -> float | None:
    """Seconds to wait from a Retry-After field: delta or HTTP date, from 1 to a day; None without
    one. Whether that is waited for is not decided here.

    A date is held against ``date``, the Date field of the same answer: this machine's clock may be wrong, as
    those of small machines are until they have a network. What cannot be read counts as 2 s.
    RFC 9110 §10.2.3.
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[+-]?[0-9]+", text):
        seconds = RETRY_MIN_S if text.startswith("-") else float(text[:20])
    else:
        when = _moment(text)
        if when is None:
            return _RETRY_DEFAULT_S
        answered = _moment(date) if date is not None else None
        if answered is None:
            answered = time.time() if now is None else now
        seconds = when - answered
    return min(max(seconds, RETRY_MIN_S), RETRY_MAX_S)


def _moment(text: str) -> float | None:
    """What an HTTP date says, in seconds since 1970; None for what is no date."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def is_page_type(content_type: str | None) -> bool:
    """Whether a Content-Type is that of a page for people, or of what storages say in XML."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml", "application/xml", "text/xml")


def is_page(body: bytes, content_type: str | None) -> bool:
    """Whether ``body``, which should be JSON, is a page for people: by its first byte, then by its type.

    Some registries give documents a type that is not theirs, so the type alone says nothing.
    """
    begin = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return begin.startswith(b"<") or (is_page_type(content_type) and not begin.startswith((b"{", b"[")))


def page_instead(what: str, url: str, content_type: str | None) -> WebPage:
    """The error for a page in place of ``what``."""
    kind = printable(content_type, 60) if content_type else "of no type"
    where = redact_url(url)
    return WebPage(f"{what}: {where} answers with a page ({kind}): a login page or a proxy's page?")


def unpacked(body: bytes, encoding: str | None, limit: int) -> bytes:
    """``body`` without the ``gzip`` that a server or a proxy put around it unasked, if it did.

    What a digest names is what is inside. Raises DocumentError for more than ``limit`` bytes, and for gzip
    that is damaged or is followed by something.
    """
    if (encoding or "").strip().lower() not in ("gzip", "x-gzip") or not body.startswith(_GZIP):
        return body
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error as exc:
        raise DocumentError("the answer is gzip that is damaged") from exc
    if len(data) > limit:
        raise DocumentError(f"the answer is larger than {limit} bytes, without its gzip")
    if not inflater.eof or inflater.unused_data:
        raise DocumentError("the answer is gzip that does not end where the answer ends")
    return data


def server_says(body: bytes) -> str:
    """The message in a registry's JSON error body, cleaned, or ``""``.

    Registries answer ``{"errors": [{"code", "message"}]}``, token services ``{"details"}`` or
    ``{"error", "error_description"}`` (RFC 6749 §5.2).
    """
    try:
        document = loads(body, "error", limit=MAX_ERROR_BODY)
    except DocumentError:
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    found = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(found, dict):
        return ""
    keys = ("message", "details", "error_description", "code", "error")
    return next((printable(text) for key in keys if isinstance(text := found.get(key), str) and text), "")


def is_plainly_absent(body: bytes) -> bool:
    """Whether the body of a 404 says that there is no such manifest, or gives no reason at all.

    containers/image goes by the same (docker/docker_client.go, isManifestUnknownError): some registries have
    a code of their own, with "not found" in the message.
    """
    try:
        document = loads(body, "error", limit=MAX_ERROR_BODY)
    except DocumentError:
        return True
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list) or not errors:
        return True
    first = errors[0]
    if not isinstance(first, dict):
        return False
    code, message = first.get("code"), first.get("message")
    if code == _NO_MANIFEST:
        return True
    return code not in _OTHER_REASONS and isinstance(message, str) and "not found" in message.lower()


def status_error(
    status: int, url: str, what: str, *, says: str = "", wait: str | None = None, date: str | None = None
) -> LayerteeError:
    """The error for a status that is not the success it should be.

    ``what`` begins the message, ``says`` is :func:`server_says`, ``wait`` the Retry-After field,
    ``date`` the Date field.
    """
    message = f"{what}: HTTP {status} from {redact_url(url)}" + (f": {says}" if says else "")
    pause = retry_after(wait, date=date)
    if status == 404:
        return NotInRegistry(message, status=status, url=url)
    if status in (401, 403):
        return Unauthorized(message, status=status, url=url)
    if status == 429 or (status == 503 and pause is not None):
        seconds = _RETRY_DEFAULT_S if pause is None else pause
        return RateLimited(
            f"{message} (retry in {seconds:.0f} s)", status=status, url=url, retry_after=seconds
        )
    if status == 408:  # RFC 9110 §15.5.9: ask again, over another connection
        return Timeout(message)
    if status == 416:
        return RangeMismatch(message)
    if status == 511:  # RFC 6585 §6
        return WebPage(f"{message}: the network wants a login")
    if status >= 500:
        return ServerError(message, status=status, url=url)
    return RegistryError(message, status=status, url=url)
