"""What clients of the server write: targets of requests, and the fields of a head that decide something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from layertee.image.digest import Digest
from layertee.serve.accept import Accept
from layertee.serve.answers import Refusal
from layertee.serve.ranges import is_known, part_of
from layertee.serve.requests import Blob, Catalog, Manifest, Referrers, Tags, parse
from tests.fuzz.target import Target

_LINE_MAX: Final = 4096  # of a head: http.py
_DIGEST: Final = "sha256:" + "ab" * 32
_ETAG: Final = f'"{_DIGEST}"'
_SIZE: Final = 1000
_NAME: Final = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+|/[a-z0-9]+)*")


def request_target(raw: bytes) -> object:
    """What comes out names nothing outside of the grammar, whatever went in."""
    asked = parse("GET", raw.decode("utf-8", "surrogateescape"))
    if isinstance(asked, Manifest | Blob | Tags | Referrers):
        assert _NAME.fullmatch(asked.repository)
        assert len(asked.repository) <= 255
    if isinstance(asked, Manifest) and not isinstance(asked.reference, Digest):
        assert re.fullmatch(r"\w[\w.-]{0,127}", asked.reference, re.ASCII)
    if isinstance(asked, Catalog | Tags):
        assert 0 <= asked.page.count <= 1000
    return asked


def _targets() -> Iterator[bytes]:
    for target in (
        "/v2/",
        "/metrics",
        "/v2/_catalog?n=10&last=a%2Fb",
        "/v2/os/image/tags/list?n=3",
        "/v2/os/manifests/latest?ns=quay.io",
        f"/v2/os/manifests/{_DIGEST}",
        f"/v2/os/blobs/{_DIGEST.replace(':', '%3A')}",
        f"/v2/os/referrers/{_DIGEST}?artifactType=application/vnd.example%2Bjson",
    ):
        yield target.encode()


def range_field(raw: bytes) -> object:
    """A part lies within the bytes, and has some of them."""
    part = part_of(_SIZE, {"range": raw.decode("latin-1")}, _ETAG)
    assert part is None or 0 <= part.start < part.stop <= _SIZE
    return part


def _ranges() -> Iterator[bytes]:
    yield from (b"bytes=0-9", b"bytes=-5", b"bytes=900-", b"bytes=1-2,4-5", b"bytes=5-1", b"items=1-2")


def accept_field(raw: bytes) -> object:
    accept = Accept(raw.decode("latin-1"))
    return accept.takes("application/vnd.oci.image.manifest.v1+json")


def _accepts() -> Iterator[bytes]:
    yield from (b"*/*", b"application/*;q=0.5, text/html", b"application/vnd.oci.image.manifest.v1+json;q=0")


def match_field(raw: bytes) -> object:
    return is_known(raw.decode("latin-1"), _ETAG)


def _matches() -> Iterator[bytes]:
    yield from (b"*", _ETAG.encode(), b'W/"a", "b"')


_WORDS_OF_TARGETS: Final = (
    *(b"/v2/", b"manifests/", b"blobs/", b"referrers/", b"tags/list", b"_catalog", b"sha256:", b"?n="),
    *(b"&last=", b"&ns=", b"%2F", b"%25", b"..", b"//", b"%00"),
)
TARGETS: Final = (
    Target("request-target", request_target, _targets, _WORDS_OF_TARGETS, (Refusal,), _LINE_MAX, _LINE_MAX),
    Target("range-field", range_field, _ranges, (b"bytes=", b"-", b","), (), _LINE_MAX, _LINE_MAX),
    Target("accept-field", accept_field, _accepts, (b";q=0", b"*/*", b","), (), _LINE_MAX, _LINE_MAX),
    Target("match-field", match_field, _matches, (b'"', b"W/", b","), (), _LINE_MAX, _LINE_MAX),
)
