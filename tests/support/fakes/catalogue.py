"""One ready-made instance of every behaviour, by name, for tests that try them all.

Each is meant for requests that have an entity: manifests, blobs, signed URLs, tokens. ``HARMLESS`` names
those that a good client must take in its stride, at the first try and without an error. What sends nothing
more, or next to nothing, has ``stall`` or ``slow`` in its name; what never ends, ``endless``.
"""

from __future__ import annotations

import gzip
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
from tests.support.fakes.floods import Endless, Head, Within
from tests.support.fakes.refusals import (
    RETRY_AFTER_FORMS,
    Presigned,
    Redirect,
    RedirectChain,
    RedirectLoop,
    Status,
    too_many,
)

_STATUSES = (
    *(
        201,
        202,
        203,
        204,
        205,
        206,
        226,
        300,
        304,
        305,
        400,
        401,
        402,
        403,
        404,
        405,
        407,
        408,
        409,
        410,
        413,
    ),
    *(416, 418, 421, 425, 431, 451, 500, 501, 502, 503, 504, 507, 511, 520, 599, 600, 999),
)

_OK = "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\n"
_SIZED = _OK + "Content-Length: {size}\r\n"
_CHUNKED = _OK + "Transfer-Encoding: chunked\r\n\r\n"
_FLOWS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_PAGE = b"<!DOCTYPE html><html><title>Welcome to the hotel</title></html>"
_GZIP_OF_ZEROS = gzip.compress(bytes(32 << 20), 9, mtime=0)


def _refusal(status: str, lines: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{lines}\r\n".encode()


_ODD_LENGTHS: Mapping[str, Behaviour] = {
    "content-length-twice-the-same": Head(_SIZED + "Content-Length: {size}\r\n\r\n"),
    "content-length-twice-different": Head(_SIZED + "Content-Length: 7\r\n\r\n"),
    "content-length-list": Head(_OK + "Content-Length: {size}, {size}\r\n\r\n"),
    "content-length-plus": Head(_OK + "Content-Length: +{size}\r\n\r\n"),
    "content-length-hex": Header("Content-Length", "0x10"),
    "content-length-float": Head(_OK + "Content-Length: {size}.0\r\n\r\n"),
    "content-length-empty": Header("Content-Length", ""),
    "content-length-zeros": Head(_OK + "Content-Length: 000000{size}\r\n\r\n"),
    "content-length-underscore": Header("Content-Length", "1_0"),
    "content-length-2-to-64": Header("Content-Length", "18446744073709551616"),
    "content-length-5000-digits": Header("Content-Length", "9" * 5000),
    "content-length-and-chunked": Head(
        _SIZED + "Transfer-Encoding: chunked\r\n\r\n", before=b"5\r\nhello\r\n0\r\n\r\n", body=False
    ),
}

_ODD_CODINGS: Mapping[str, Behaviour] = {
    "transfer-encoding-identity": Head(_SIZED + "Transfer-Encoding: identity\r\n\r\n"),
    "transfer-encoding-gzip": Head(
        _OK + "Transfer-Encoding: gzip, chunked\r\n\r\n", before=b"0\r\n\r\n", body=False
    ),
    "transfer-encoding-unknown": Head(_OK + "Transfer-Encoding: xchunked\r\n\r\n"),
    "transfer-encoding-twice": Head(
        _OK + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        before=b"0\r\n\r\n",
        body=False,
    ),
    "chunked-empty": Head(_CHUNKED, before=b"0\r\n\r\n", body=False),
    "chunk-size-2-to-64": Head(_CHUNKED, before=b"ffffffffffffffffff\r\n", body=False),
    "chunk-size-negative": Head(_CHUNKED, before=b"-5\r\n", body=False),
    "chunk-size-plus": Head(_CHUNKED, before=b"+5\r\nhello\r\n", body=False),
    "chunk-size-0x": Head(_CHUNKED, before=b"0x5\r\nhello\r\n", body=False),
    "chunk-size-empty": Head(_CHUNKED, before=b"\r\n", body=False),
    "chunk-size-underscore": Head(_CHUNKED, before=b"1_0\r\n", body=False),
    "chunk-longer-than-said": Head(_CHUNKED, before=b"5\r\nhello, world\r\n0\r\n\r\n", body=False),
    "chunk-line-1-mib": Head(
        _CHUNKED, before=b"5;" + b"x" * (1 << 20) + b"\r\nhello\r\n0\r\n\r\n", body=False
    ),
    "chunks-of-20-bytes": Chunked(chunk=20),
    "content-encoding-bomb": Head(
        _OK + f"Content-Encoding: gzip\r\nContent-Length: {len(_GZIP_OF_ZEROS)}\r\n\r\n",
        before=_GZIP_OF_ZEROS,
        body=False,
    ),
    "content-encoding-cut": Head(
        _OK + "Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n", before=_GZIP_OF_ZEROS[:20], body=False
    ),
    "content-encoding-deflate": ContentEncoding("deflate"),
    "content-encoding-twice": ContentEncoding("gzip, gzip"),
    "content-encoding-5000-bytes": ContentEncoding("g" * 5000),
}

_ODD_HEADS: Mapping[str, Behaviour] = {
    "head-http-1.0": Head("HTTP/1.0 200 OK\r\nContent-Type: {type}\r\nContent-Length: {size}\r\n\r\n"),
    "head-http-0.9": Head(""),
    "head-http-2": Raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "head-http-3.0": Head("HTTP/3.0 200 OK\r\nContent-Length: {size}\r\n\r\n"),
    "head-http-99.99": Head("HTTP/99.99 200 OK\r\nContent-Length: {size}\r\n\r\n"),
    "head-line-feeds-only": Head("HTTP/1.1 200 OK\nContent-Length: {size}\n\n"),
    "head-carriage-returns-only": Head("HTTP/1.1 200 OK\rContent-Length: {size}\r\r"),
    "head-folded-line": Head(_SIZED + "X-Folded: a\r\n b\r\n\r\n"),
    "head-space-before-colon": Head(_OK + "Content-Length : {size}\r\n\r\n"),
    "head-no-name": Head(_SIZED + ": nothing\r\n\r\n"),
    "head-no-reason": Head("HTTP/1.1 200\r\nContent-Type: {type}\r\nContent-Length: {size}\r\n\r\n"),
    "head-reason-100-kb": Head(f"HTTP/1.1 200 {'O' * 100_000}\r\nContent-Length: {{size}}\r\n\r\n"),
    "head-latin-1": Head(_SIZED + "X-Name: caf\xe9\r\n\r\n"),
    "head-escape-sequences": Head(_SIZED + "X-Clear: \x1b[2J\x1b]0;owned\x07\r\n\r\n"),
    "head-400-fields": Head(_SIZED + "".join(f"X-{n}: {n}\r\n" for n in range(400)) + "\r\n"),
    "head-100000-fields": Head(_SIZED + "X: y\r\n" * 100_000 + "\r\n"),
    "head-type-twice": Head(_SIZED + "Content-Type: text/html\r\n\r\n"),
    "head-upgrade": Head("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    "head-empty-lines-before": Head("\r\n\r\n" + _SIZED + "\r\n"),
    "head-status-negative": Raw(b"HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n"),
    "head-status-four-digits": Raw(b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    "continue-first": Head("HTTP/1.1 100 Continue\r\n\r\n" + _SIZED + "\r\n"),
    "early-hints-first": Head("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _SIZED + "\r\n"),
    "two-answers": Head(_SIZED + "\r\n", after=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "connection-close": Header("Connection", "close"),
    "etag-missing": Header("ETag", None),
    "etag-newer-each-time": Header("ETag", 'W/"weak"'),
    "accept-ranges-none": Header("Accept-Ranges", "none"),
    "range-unasked": Head(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: {type}\r\n"
        "Content-Range: bytes {range}\r\nContent-Length: {size}\r\n\r\n"
    ),
    "range-in-a-200": Header("Content-Range", "bytes 5-9/10"),
}

_OTHER_DOCUMENTS: Mapping[str, Behaviour] = {
    "page": Replace(_PAGE, "text/html; charset=utf-8"),
    "page-as-json": Replace(_PAGE, "application/json"),
    "type-html": Header("Content-Type", "text/html"),
    "type-missing": Header("Content-Type", None),
    "type-garbage": Header("Content-Type", ";;;=/"),
    "type-schema-1": Header("Content-Type", "application/vnd.docker.distribution.manifest.v1+json"),
    "type-index": Header("Content-Type", "application/vnd.oci.image.index.v1+json"),
    "json-empty": Replace(b""),
    "json-null": Replace(b"null"),
    "json-list": Replace(b"[]"),
    "json-number": Replace(b"9" * 100_000),
    "json-deep": Replace(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "json-not-utf-8": Replace(b'{"schemaVersion":2,"mediaType":"\xff\xfe"}'),
    "json-surrogate": Replace(b'{"schemaVersion":2,"mediaType":"\\ud800"}'),
    "json-keys-twice": Replace(b'{"schemaVersion":2,"schemaVersion":1}'),
    "json-nan": Replace(b'{"schemaVersion":NaN}'),
    "json-of-5-mib": Replace(b'{"schemaVersion":2,"a":"' + b"a" * (5 << 20) + b'"}'),
    "json-100000-layers": Replace(b'{"schemaVersion":2,"layers":[' + b"{}," * 100_000 + b"{}]}"),
    "digest-header-twice": Head(
        _SIZED + "Docker-Content-Digest: {digest}\r\nDocker-Content-Digest: sha256:" + "0" * 64 + "\r\n\r\n"
    ),
    "digest-header-garbage": Header("Docker-Content-Digest", "what:ever"),
    "digest-header-sha512": Header("Docker-Content-Digest", "sha512:" + "0" * 128),
}

_REFUSALS: Mapping[str, Behaviour] = {
    "error-json-deep": Status(500, (), b'{"errors":' * 5000),
    "error-escape-sequences": Status(404, (), b'{"errors":[{"code":"X","message":"\\u001b[2J\\u0007 bye"}]}'),
    "error-page": Status(403, (("Content-Type", "text/html"),), _PAGE),
    "error-gzip-bomb": Status(404, (("Content-Encoding", "gzip"),), _GZIP_OF_ZEROS),
    "error-body-cut": Head(
        "HTTP/1.1 404 Not Found\r\nContent-Length: 10000000\r\n\r\n", before=b'{"errors":[', body=False
    ),
    "error-body-stall": Endless(_refusal("404 Not Found", "Content-Length: 1000\r\n"), b" ", 0.01),
    "error-body-slow": Endless(_refusal("404 Not Found", "Content-Length: 1000000\r\n"), b" ", 5),
    "error-body-endless": Endless(_refusal("404 Not Found"), b"no! "),
    "error-500-body-endless": Endless(_refusal("500 Internal Server Error"), b"no! "),
    "challenge-none": Status(401),
    "challenge-garbage": Status(401, (("WWW-Authenticate", '=,="'),)),
    "challenge-negotiate": Status(401, (("WWW-Authenticate", "Negotiate"),)),
    "challenge-basic": Status(401, (("WWW-Authenticate", 'Basic realm="x"'),)),
    "challenge-no-realm": Status(401, (("WWW-Authenticate", 'Bearer service="x"'),)),
    "challenge-file": Status(401, (("WWW-Authenticate", 'Bearer realm="file:///etc/shadow"'),)),
    "challenge-metadata": Status(401, (("WWW-Authenticate", 'Bearer realm="http://169.254.169.254/t"'),)),
    "challenge-relative": Status(401, (("WWW-Authenticate", 'Bearer realm="/token"'),)),
    "challenge-unclosed": Status(401, (("WWW-Authenticate", 'Bearer realm="http://127.0.0.1/'),)),
    "challenge-60-kb": Status(401, (("WWW-Authenticate", 'Bearer realm="' + "x" * 60_000 + '"'),)),
    "challenge-body-endless": Endless(_refusal("401 Unauthorized"), b"no! "),
    "unavailable-for-an-hour": too_many("3600", 503),
}

_WAYS: Mapping[str, Behaviour] = {
    "redirect-empty": Redirect(""),
    "redirect-ftp": Redirect("ftp://127.0.0.1/blob"),
    "redirect-javascript": Redirect("javascript:alert(1)"),
    "redirect-data": Redirect("data:application/json,{}"),
    "redirect-port-0": Redirect("http://127.0.0.1:0/x"),
    "redirect-port-70000": Redirect("http://127.0.0.1:70000/x"),
    "redirect-nobody-listens": Redirect("http://127.0.0.1:1/x"),
    "redirect-0.0.0.0": Redirect("http://0.0.0.0:1/x"),
    "redirect-mapped-metadata": Redirect("http://[::ffff:169.254.169.254]/latest/"),
    "redirect-decimal-metadata": Redirect("http://2852039166/latest/"),
    "redirect-no-such-host": Redirect("http://no-such-host.invalid/x"),
    "redirect-user-info": Within("http://registry.example@{host}/v2/x"),
    "redirect-backslash": Within("http:\\\\{host}\\v2\\x"),
    "redirect-line-break": Redirect("/v2/\tx\x0b"),
    "redirect-60-kb": Within("http://{host}/" + "x" * 60_000),
    "redirect-1-mb": Within("http://{host}/" + "x" * 1_000_000),
    "redirect-two-locations": Within("http://{host}/v2/a", lines="Location: http://127.0.0.1:1/\r\n"),
    "redirect-to-nothing": Within("http://{host}/v2/nothing/manifests/here"),
    "redirect-to-https": Within("https://{host}/v2/x"),
    "redirect-303": Within("/v2/x", 303),
    "redirect-20-hops": RedirectChain(20),
    "redirect-body-endless": Endless(_refusal("307 Moved", "Location: /v2/x\r\n"), b"moved "),
    "redirect-body-stall": Endless(
        _refusal("307 Moved", "Location: /v2/x\r\nContent-Length: 50\r\n"), b" ", 0.01
    ),
    "redirect-body-slow": Endless(
        _refusal("307 Moved", "Location: /v2/x\r\nContent-Length: 50000\r\n"), b" ", 5
    ),
}

_WITHOUT_END: Mapping[str, Behaviour] = {
    "endless-body": Endless(_FLOWS + b"\r\n", b"[" * 100),
    "endless-chunks": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\n[[[[\r\n"),
    "endless-chunks-of-one-byte": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
    "endless-chunk-extension": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n4;", b"extension"),
    "endless-chunk-size": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "endless-trailers": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: t\r\n"),
    "endless-head": Endless(_FLOWS, b"X-More: more\r\n"),
    "endless-field": Endless(_FLOWS + b"X-More: ", b"more and "),
    "endless-field-name": Endless(_FLOWS, b"X-More-And-"),
    "endless-status-line": Endless(b"HTTP/1.1 200 ", b"OK and "),
    "endless-empty-lines": Endless(b"\r\n", b"\r\n"),
    "endless-continues": Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless-early-hints": Endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "slow-head": Endless(b"HTTP/1.1 200 OK\r\n", b"X-S: s\r\n", 5),
    "slow-status-line": Endless(b"HTTP/1.1 200 ", b"O", 5),
    "slow-continues": Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 5),
    "slow-body": Endless(_FLOWS + b"\r\n", b"{", 5),
    "slow-chunks": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n", 5),
    "slow-chunk-size": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 5),
    "slow-trailers": Endless(_FLOWS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: t\r\n", 5),
}

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
    **{f"status-{code}": Status(code) for code in _STATUSES},
    **{f"retry-after-{index}": too_many(form) for index, form in enumerate(RETRY_AFTER_FORMS)},
    **_ODD_LENGTHS,
    **_ODD_CODINGS,
    **_ODD_HEADS,
    **_OTHER_DOCUMENTS,
    **_REFUSALS,
    **_WAYS,
    **_WITHOUT_END,
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
