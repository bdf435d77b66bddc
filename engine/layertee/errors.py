"""The errors that callers meet, grouped by who must act. A room may refine one for its own use.

Each class carries ``code`` (stable, for programs), ``retryable`` (whether the
same call may succeed later without anyone acting) and its facts as attributes.
The message is one line for a person: what happened, to what, and what to do.
Misuse of the API raises ``TypeError``, ``ValueError`` or ``RuntimeError``.

Secrets never enter a message: URLs pass through :func:`redact_url` first.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

__all__ = [
    "AuthConfigError",
    "CatalogError",
    "ConnectFailed",
    "DeadlineExceeded",
    "DecodeError",
    "DiffIDMismatch",
    "DigestMismatch",
    "DocumentError",
    "DowngradeRefused",
    "IntegrityError",
    "InvalidReference",
    "LayerteeError",
    "LocalError",
    "NoHome",
    "NoSpace",
    "NotFound",
    "NotInRegistry",
    "OtherPlatform",
    "OutputBudgetExceeded",
    "PolicyRefused",
    "ProxyConfigError",
    "ProxyRefused",
    "RangeMismatch",
    "RateLimited",
    "RedirectRefused",
    "RegistriesConfError",
    "RegistryBlocked",
    "RegistryError",
    "ServeConfigError",
    "ServerBusy",
    "ServerError",
    "SinkError",
    "SizeMismatch",
    "SourceUnreadable",
    "StoreBusy",
    "StoreCorrupt",
    "TLSFailed",
    "Timeout",
    "TransportError",
    "TruncatedBody",
    "TrustFileError",
    "Unauthorized",
    "UnresolvedName",
    "UnsafePath",
    "UnsupportedImage",
    "WebPage",
    "WindowTooLarge",
    "WorkBudgetExceeded",
    "redact_url",
]


def redact_url(url: str) -> str:
    """``url`` without user info, query and fragment: presigned URLs carry secrets there."""
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, netloc, parts.path, "…" if parts.query else "", ""))
    except ValueError:
        return "<unparsable URL>"


class LayerteeError(Exception):
    """Root of the tree.

    ``hint`` is a stable word for what could be changed so that the same call succeeds, "plain-http" for
    example; empty where there is no such thing. A message does not say how that is typed or called: the
    program that meets the error knows, and the command line has a line for each word (cli/hints.py).
    """

    code = "ERROR"
    retryable = False
    hint = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def with_hint(self, word: str) -> Self:
        """This error, with its ``hint``: ``raise TLSFailed(message).with_hint("plain-http")``."""
        self.hint = word
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """It pickles with its facts and notes, whatever its class is made with, and without its cause."""
        return _same_error, (type(self), self.args, dict(vars(self)))


def _same_error(kind: type[LayerteeError], args: tuple[Any, ...], facts: dict[str, Any]) -> LayerteeError:
    error = kind.__new__(kind, *args)
    vars(error).update(facts)
    return error


# --- the user, or whoever wrote the configuration ---------------------------


class InvalidReference(LayerteeError):
    """An image reference, digest, platform or place that cannot be understood."""

    code = "BAD_REF"


class UnresolvedName(InvalidReference):
    """A name without registry that stands for nothing on this machine, or for several images.

    ``candidates``: those, in full; empty where there are none.
    """

    code = "SHORT_NAME"
    candidates: tuple[str, ...] = ()


class AuthConfigError(LayerteeError):
    """A credentials file, credential helper or certificate directory is unusable."""

    code = "AUTH_CONFIG"


class RegistriesConfError(LayerteeError):
    """registries.conf, or what is configured like it, cannot be read; the message names file and line."""

    code = "REGISTRIES_CONF"


class RegistryBlocked(LayerteeError):
    """The administrator of this machine does not want this registry asked. Final."""

    code = "BLOCKED"


class ProxyConfigError(LayerteeError):
    """A variable of the environment that names a proxy is unusable. Its value is not shown."""

    code = "PROXY_CONFIG"


class ServeConfigError(LayerteeError):
    """What a server was given to listen at, or to show and to ask of clients, cannot be used."""

    code = "SERVE_CONFIG"


class NotFound(LayerteeError):
    """The image, or a part of it, is not where it was looked for: in a registry, a layout, a store."""

    code = "NOT_FOUND"


class OtherPlatform(NotFound):
    """The image is for the platform ``found``, and ``wanted`` was asked for by name. It has no other."""

    code = "OTHER_PLATFORM"

    def __init__(self, message: str, *, wanted: str = "", found: str = "") -> None:
        super().__init__(message)
        self.wanted = wanted
        self.found = found


class UnsupportedImage(LayerteeError):
    """A valid image of a kind this program does not pull (schema 1, foreign or encrypted layers)."""

    code = "UNSUPPORTED_IMAGE"


class PolicyRefused(LayerteeError):
    """The signature policy of this machine does not allow the image, or cannot be applied to it."""

    code = "POLICY"


class TrustFileError(PolicyRefused):
    """trust.toml does not make sense, or cannot be read or trusted; the message names file and key."""

    code = "TRUST_FILE"


class DowngradeRefused(PolicyRefused):
    """The image is older than one that was seen here under its name, or too old to be the newest."""

    code = "DOWNGRADE"


# --- the registry said no -----------------------------------------------------


class RegistryError(LayerteeError):
    """The registry answered with an error status."""

    code = "REGISTRY"

    def __init__(self, message: str, *, status: int = 0, url: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.url = redact_url(url)


class Unauthorized(RegistryError):
    """401 or 403 at the registry or at its token service."""

    code = "UNAUTHORIZED"


class NotInRegistry(RegistryError, NotFound):
    """404: the registry does not have the image, or a part of it.

    ``is_plain``: it said that and no more, or that there is no such manifest. Otherwise it gave another
    reason, under which the thing may well be there. ``diff_id``: what it says is in the blob that it lacks.
    """

    code = "NOT_FOUND"

    def __init__(
        self,
        message: str,
        *,
        status: int = 404,
        url: str = "",
        is_plain: bool = True,
        diff_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, url=url)
        self.is_plain = is_plain
        self.diff_id = diff_id


class RateLimited(RegistryError):
    """429, or 503 with Retry-After: ``retry_after``, in seconds, a day at most."""

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, message: str, *, status: int = 429, url: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, status=status, url=url)
        self.retry_after = retry_after


class ServerError(RegistryError):
    """5xx."""

    code = "HTTP_5XX"
    retryable = True


# --- the network --------------------------------------------------------------


class TransportError(LayerteeError):
    """The bytes did not arrive. ``url`` is what was asked, without secrets; empty where that is not known."""

    code = "NETWORK"
    retryable = True
    url: str = ""


class ConnectFailed(TransportError):
    """Name resolution or the connection itself failed."""

    code = "CONNECT"


class TLSFailed(TransportError):
    """The peer could not be authenticated. Never retried, never downgraded."""

    code = "TLS"
    retryable = False


class ProxyRefused(TransportError):
    """The proxy of this network does not let the request pass: a login, or a rule of its own."""

    code = "PROXY_REFUSED"
    retryable = False


class Timeout(TransportError):
    """Nothing, or too little, arrived in time."""

    code = "NET_STALL"


class DeadlineExceeded(Timeout):
    """The time that was given for the whole of it has passed. What was finished is kept."""

    code = "DEADLINE"


class TruncatedBody(TransportError):
    """The connection ended after ``got`` of ``want`` bytes."""

    code = "TRUNCATED_BODY"

    def __init__(self, message: str, *, got: int, want: int) -> None:
        super().__init__(message)
        self.got = got
        self.want = want


class WebPage(TransportError):
    """A page for people came in place of what was asked for: a network's login, or a proxy's message."""

    code = "WEB_PAGE"


class RangeMismatch(TransportError):
    """The server's answer to a range request is not the range asked for."""

    code = "RANGE_INVALID"


class RedirectRefused(TransportError):
    """A redirect that must not be followed (too many, downgrade, forbidden target)."""

    code = "REDIRECT_REFUSED"
    retryable = False


# --- do not trust it ------------------------------------------------------------


class IntegrityError(LayerteeError):
    """What arrived is not what was named. Never accepted in place, whatever the retries."""

    code = "INTEGRITY"


class DocumentError(IntegrityError):
    """A manifest, index, config or token document is malformed or ambiguous."""

    code = "BAD_DOCUMENT"


class DigestMismatch(IntegrityError):
    """Bytes hash to ``got`` where ``want`` was named."""

    code = "DIGEST_MISMATCH"

    def __init__(self, message: str, *, want: str, got: str, nbytes: int = 0) -> None:
        super().__init__(message)
        self.want = want
        self.got = got
        self.nbytes = nbytes


class DiffIDMismatch(IntegrityError):
    """A layer inflates to ``got`` where the image config names ``want``."""

    code = "DIFFID_MISMATCH"

    def __init__(self, message: str, *, want: str, got: str) -> None:
        super().__init__(message)
        self.want = want
        self.got = got


class SizeMismatch(IntegrityError):
    """``got`` bytes where ``want`` were named."""

    code = "SIZE_MISMATCH"

    def __init__(self, message: str, *, want: int, got: int) -> None:
        super().__init__(message)
        self.want = want
        self.got = got


class DecodeError(IntegrityError):
    """A gzip or zstd stream is corrupt, truncated or not acceptable.

    ``offset`` is where the failing member or frame begins in the compressed stream; ``reason``
    is a stable word (``truncated``, ``trailing``, ``checksum``, …).
    """

    code = "DECODE"

    def __init__(self, message: str, *, media_type: str = "", offset: int = 0, reason: str = "data") -> None:
        super().__init__(message)
        self.media_type = media_type
        self.offset = offset
        self.reason = reason


class OutputBudgetExceeded(DecodeError):
    """A stream would inflate to more than it may."""

    code = "OUTPUT_BUDGET"


class WindowTooLarge(DecodeError):
    """A zstd frame wants a window of ``window`` bytes, more than the ``window_max`` that it may have."""

    code = "ZSTD_WINDOW"

    def __init__(
        self, message: str, *, media_type: str = "", offset: int = 0, window: int = 0, window_max: int = 0
    ) -> None:
        super().__init__(message, media_type=media_type, offset=offset, reason="window")
        self.window = window
        self.window_max = window_max


class WorkBudgetExceeded(DecodeError):
    """A stream, or all layers of an image, took far more work than their size explains."""

    code = "WORK_BUDGET"


# --- this machine: its disk, its configuration, the consumer of the bytes ---------


class LocalError(LayerteeError):
    """Writing to, reading from or locking something of this machine failed. ``path`` says where."""

    code = "STORE_IO"

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class NoHome(LocalError):
    """The user has no home directory, and something that is kept in one was wanted."""

    code = "NO_HOME"


class UnsafePath(LocalError):
    """Another user could change what is kept or run here. ``path`` is the step of the way that lets them."""

    code = "UNSAFE_PATH"


class NoSpace(LocalError):
    """``need`` bytes are wanted, ``free`` are there, of which ``floor`` have to stay free."""

    code = "STORE_FULL"
    hint = "free-space"

    def __init__(self, message: str, *, path: str = "", need: int = 0, free: int = 0, floor: int = 0) -> None:
        super().__init__(message, path=path)
        self.need = need
        self.free = free
        self.floor = floor


class StoreBusy(LocalError):
    """Another process holds the store in a way that excludes this operation."""

    code = "STORE_BUSY"
    retryable = True


class StoreCorrupt(LocalError):
    """A local place is not what its format demands."""

    code = "STORE_CORRUPT"


class SourceUnreadable(LayerteeError):
    """A local blob vanished, changed its kind or cannot be read. Its caller looks elsewhere."""

    code = "SOURCE_UNREADABLE"


class ServerBusy(LayerteeError):
    """A server of this machine has as much to do as it may. ``retry_after`` is in seconds."""

    code = "SERVER_BUSY"
    retryable = True

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CatalogError(LayerteeError):
    """The map cannot be read or written. It never fails a pull; it is rebuilt."""

    code = "MAP"


SinkError = LocalError  # its name in version 0.1
