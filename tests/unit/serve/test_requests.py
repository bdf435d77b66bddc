"""What a method and a target ask for, and what they are refused with."""

from __future__ import annotations

import pytest

from layertee.image.digest import Digest
from layertee.serve.answers import Refusal
from layertee.serve.requests import (
    MOST_PER_PAGE,
    Asked,
    Base,
    Blob,
    Catalog,
    Manifest,
    Metrics,
    Page,
    Referrers,
    Tags,
    kind_of,
    parse,
)

HEX = "0123456789abcdef" * 4
DIGEST = Digest(f"sha256:{HEX}")
LONG = Digest(f"sha512:{HEX * 2}")
ALL = Page(MOST_PER_PAGE)

ASKED: list[tuple[str, Asked]] = [
    ("/v2/", Base()),
    ("/v2", Base()),
    ("/v2/?x=y", Base()),
    ("/metrics", Metrics()),
    ("/v2/_catalog", Catalog(ALL)),
    ("/v2/_catalog?n=2&last=os%2Fa", Catalog(Page(2, "os/a"))),
    ("/v2/_catalog?n=0", Catalog(Page(0))),
    ("/v2/_catalog?n=999999999&last=", Catalog(ALL)),
    ("/v2/os/tags/list", Tags("os", ALL)),
    ("/v2/tags/tags/list?n=1", Tags("tags", Page(1))),
    ("/v2/os/manifests/latest", Manifest("os", "latest")),
    ("/v2/os/manifests/latest?ns=Quay.IO:443", Manifest("os", "latest", "quay.io:443")),
    ("/v2/os/manifests/l?unknown=%zz", Manifest("os", "l")),
    ("/v2/a/b/c/manifests/1.0_x-y", Manifest("a/b/c", "1.0_x-y")),
    ("/v2/manifests/manifests/manifests", Manifest("manifests", "manifests")),
    (f"/v2/os/manifests/{DIGEST}", Manifest("os", DIGEST)),
    (f"/v2/os/manifests/sha256%3A{HEX}", Manifest("os", DIGEST)),
    (f"/v2/os/manifests/{LONG}", Manifest("os", LONG)),
    (f"/v2/os/blobs/{DIGEST}", Blob("os", DIGEST)),
    ("/v2/%6fs/manifests/latest", Manifest("os", "latest")),
    (f"/v2/os/referrers/{DIGEST}", Referrers("os", DIGEST)),
    (f"/v2/os/referrers/{DIGEST}?artifactType=a/b+c", Referrers("os", DIGEST, "a/b+c")),
    (f"/v2/os/referrers/{DIGEST}?artifactType=a%2Fb%2Bc", Referrers("os", DIGEST, "a/b+c")),
]

REFUSED = [
    ("", 400, "UNSUPPORTED"),
    ("*", 400, "UNSUPPORTED"),
    ("http://127.0.0.1/v2/", 400, "UNSUPPORTED"),
    ("127.0.0.1:80", 400, "UNSUPPORTED"),
    ("/", 404, "UNSUPPORTED"),
    ("/v1/", 404, "UNSUPPORTED"),
    ("//v2/", 404, "UNSUPPORTED"),
    ("/v2//", 404, "UNSUPPORTED"),
    ("/metrics/", 404, "UNSUPPORTED"),
    ("/v2/_catalog/", 404, "UNSUPPORTED"),
    ("/v2/os", 404, "UNSUPPORTED"),
    ("/v2/os/tags/other", 404, "UNSUPPORTED"),
    ("/v2/os/blobs/uploads/", 404, "UNSUPPORTED"),
    ("/v2/manifests/latest", 404, "UNSUPPORTED"),
    ("/v2//manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a//b/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/../manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a/../../etc/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a/./b/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/%2e%2e/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a%2Fb/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a%2fb/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a%5Cb/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/a\\b/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/%252e%252e/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/os%00/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/os%0d%0a/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/os%/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/os%g0/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/ö/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/%C3%B6/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/OS/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/-os/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/" + "a" * 256 + "/manifests/latest", 400, "NAME_INVALID"),
    ("/v2/os/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
    ("/v2/os/manifests/", 404, "MANIFEST_UNKNOWN"),
    ("/v2/os/manifests/" + "t" * 129, 404, "MANIFEST_UNKNOWN"),
    ("/v2/os/manifests/latest?ns=a/b", 400, "NAME_INVALID"),
    ("/v2/os/manifests/latest?ns=a&ns=b", 400, "UNSUPPORTED"),
    ("/v2/os/manifests/sha256:" + HEX.upper(), 400, "DIGEST_INVALID"),
    ("/v2/os/manifests/sha256:" + HEX[1:], 400, "DIGEST_INVALID"),
    ("/v2/os/manifests/md5:" + HEX, 400, "DIGEST_INVALID"),
    ("/v2/os/blobs/latest", 400, "DIGEST_INVALID"),
    (f"/v2/os/blobs/{DIGEST}%0a", 400, "NAME_INVALID"),
    ("/v2/os/referrers/latest", 400, "DIGEST_INVALID"),
    ("/v2/os/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ("/v2/os/tags/list?n=", 400, "PAGINATION_NUMBER_INVALID"),
    ("/v2/os/tags/list?n=1e3", 400, "PAGINATION_NUMBER_INVALID"),
    ("/v2/os/tags/list?n=" + "9" * 5000, 400, "PAGINATION_NUMBER_INVALID"),
    ("/v2/os/tags/list?last=%ff", 400, "UNSUPPORTED"),
    ("/v2/os/tags/list?last=%", 400, "UNSUPPORTED"),
    ("/v2/os/tags/list?last=" + "a" * 256, 400, "UNSUPPORTED"),
]


@pytest.mark.parametrize(("target", "asked"), ASKED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_target_asks_for_one_thing(method: str, target: str, asked: Asked) -> None:
    assert parse(method, target) == asked


@pytest.mark.parametrize(("target", "status", "code"), REFUSED)
def test_what_matches_no_grammar_is_refused(target: str, status: int, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse("GET", target)
    assert (caught.value.status, caught.value.code.value) == (status, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods_are_told_which_there_are(method: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse(method, "/v2/os/blobs/uploads/")
    answer = caught.value.answer()
    assert answer.status == 405
    assert answer.fields["Allow"] == "GET, HEAD"


def test_a_kind_is_one_word() -> None:
    assert {kind_of(asked) for _, asked in ASKED} == {
        *("base", "metrics", "catalog", "tags", "manifest", "blob", "referrers")
    }
    assert kind_of(None) == "other"
