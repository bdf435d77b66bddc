"""One ready-made instance of every behaviour, by name, for tests that try them all.

Each is meant for requests that have an entity: manifests, blobs, signed URLs. ``HARMLESS`` names those that a
good client must take in its stride, at the first try and without an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.fakes.faults import (
    Behaviour,
    Chunked,
    ContentEncoding,
    ContentLength,
    ContentRange,
    Header,
    HugeHeader,
    LongBody,
    MultipartByteranges,
    NoLength,
    NoRanges,
    Ok,
    OtherBody,
    Raw,
    Replace,
    Reset,
    ShortBody,
    Slow,
    Stall,
    TruncatedHead,
)
from tests.support.fakes.refusals import (
    RETRY_AFTER_FORMS,
    Presigned,
    Redirect,
    RedirectChain,
    RedirectLoop,
    Status,
    too_many,
)

_STATUSES = (204, 304, 400, 401, 403, 404, 410, 418, 500, 502, 503, 504, 999)

CATALOGUE: Mapping[str, Behaviour] = {
    "ok": Ok(),
    "no-ranges": NoRanges(),
    "no-length": NoLength(),
    "slow": Slow(20_000_000),
    "chunked": Chunked(),
    "redirect-to-signed": Presigned(),
    "redirect-relative": Presigned(relative=True),
    "redirect-3-hops": RedirectChain(3),
    **{f"content-range-{kind}": ContentRange(kind) for kind in ContentRange.KINDS},
    "multipart-byteranges": MultipartByteranges(),
    "other-body": OtherBody(),
    "other-body-at-the-end": OtherBody(at=1000),
    "other-body-other-etag": OtherBody(etag='"another-version"'),
    "replaced": Replace(b"this is not the blob you are looking for"),
    "content-encoding-claimed": ContentEncoding(),
    "content-encoding-real": ContentEncoding(really=True),
    "content-encoding-unknown": ContentEncoding("br"),
    "short-body-empty": ShortBody(0),
    "short-body": ShortBody(1000),
    "long-body-declared": LongBody(),
    "long-body-undeclared": LongBody(declared=False),
    "content-length-high": ContentLength(10),
    "content-length-low": ContentLength(-10),
    "content-length-negative": Header("Content-Length", "-1"),
    "content-length-garbage": Header("Content-Length", "many"),
    "chunked-cut": Chunked(stop_after=1000, chunk=500),
    "chunked-malformed": Chunked(stop_after=1000, malformed=True, chunk=500),
    "chunked-100000-trailers": Chunked(n_trailers=100_000),
    "digest-header-wrong": Header("Docker-Content-Digest", "sha256:" + "0" * 64),
    "digest-header-missing": Header("Docker-Content-Digest", None),
    "stall-no-reply": Stall(),
    "stall-after-head": Stall(0),
    "stall-after-1000": Stall(1000),
    "slow-loris": Slow(1),
    "reset-no-reply": Reset(),
    "reset-after-head": Reset(0),
    "reset-after-1000": Reset(1000),
    "hang-up": TruncatedHead(0),
    "head-truncated": TruncatedHead(30),
    "head-huge": HugeHeader(),
    "head-nul": Header("X-Nul", "a\0b"),
    "head-not-http": Raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "head-status-garbage": Raw(b"HTTP/1.1 two hundred fine\r\n\r\n"),
    "head-no-colon": Raw(b"HTTP/1.1 200 OK\r\nthis line has none\r\n\r\n"),
    "redirect-loop": RedirectLoop(),
    "redirect-50-hops": RedirectChain(50),
    "redirect-no-location": Status(307),
    "redirect-file": Redirect("file:///etc/passwd"),
    "redirect-metadata": Redirect("http://169.254.169.254/latest/meta-data/"),
    "redirect-garbage": Redirect("http://[::1"),
    "redirect-presigned-expired": Presigned(uses=0),
    "presigned-expired-400": Presigned(uses=0, expired=400),
    "presigned-expired-401": Presigned(uses=0, expired=401),
    "presigned-expired-404": Presigned(uses=0, expired=404),
    "presigned-expired-410": Presigned(uses=0, expired=410),
    **{
        f"status-{code}": Status(code)
        for code in (204, 304, 400, 401, 403, 404, 410, 418, 500, 502, 503, 504, 999)
    },
    **{f"retry-after-{index}": too_many(form) for index, form in enumerate(RETRY_AFTER_FORMS)},
}

HARMLESS = frozenset(
    {
        "ok",
        "no-ranges",
        "no-length",
        "slow",
        "chunked",
        "redirect-to-signed",
        "redirect-relative",
        "redirect-3-hops",
        "content-range-unknown-total",
        "content-range-short",
        "digest-header-missing",
    }
)
