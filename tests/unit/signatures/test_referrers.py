"""Bundles are found through what refers to an image; a registry cannot make that cost much, or swap them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest

from layertee.config.logins import Credentials
from layertee.errors import (
    ConnectFailed,
    DigestMismatch,
    DocumentError,
    LayerteeError,
    PolicyRefused,
    ServerError,
    Timeout,
    Unauthorized,
)
from layertee.image.digest import Digest
from layertee.image.media import OCI_INDEX, OCI_MANIFEST
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, WholeResponse
from layertee.signatures.signature import MAX_SIGNATURE, MAX_SIGNATURES
from layertee.signatures.trust.referrers import BUNDLE_TYPE, MAX_PAGES, MAX_REFERRERS, Referrers
from tests.support.fakes.image import Rig
from tests.support.fakes.transport import Answer, FakeTransport

DIGEST, OTHER = Digest.of(b"image"), Digest.of(b"another image")
SBOM = "application/spdx+json"
FILTER = f"artifactType={quote(BUNDLE_TYPE, safe='')}"
NOT_THERE = Answer(404, b"404 page not found")


def artifact(
    bundle: bytes, subject: Digest = DIGEST, *, kind: str = BUNDLE_TYPE, n_layers: int = 1, **changes: Any
) -> bytes:
    """The manifest that Cosign 3 makes for a bundle."""
    layer = {"mediaType": kind, "digest": str(Digest.of(bundle)), "size": len(bundle)}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": str(Digest.of(b"{}")),
            "size": 2,
        },
        "layers": [layer] * n_layers,
        "subject": {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 5},
        "annotations": {"dev.sigstore.bundle.content": "dsse-envelope"},
    }
    return json.dumps(document | changes).encode()


def entry(manifest: bytes, kind: str | None = BUNDLE_TYPE, **changes: Any) -> dict[str, Any]:
    """What a list of referrers says of it."""
    found = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    return {**found, **({} if kind is None else {"artifactType": kind}), **changes}


def index(entries: Sequence[Any], **headers: str) -> Answer:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return Answer(200, json.dumps(document).encode(), {"Content-Type": OCI_INDEX, **headers})


class Beside(Rig):
    """A registry with artifacts that refer to an image, and the API for them unless ``has_api`` is false."""

    def __init__(self, *bundles: bytes, has_api: bool = True, limit_s: float = 60.0) -> None:
        super().__init__()
        self.api = f"{self.base}/referrers/{DIGEST}"
        self.tag_url = f"{self.base}/manifests/sha256-{DIGEST.hex}"
        self.listed: list[Any] = []
        for bundle in bundles:
            self.listed.append(entry(self.put(artifact(bundle), bundle)))
        self.publish(has_api)
        self.referrers = Referrers(self.registry, limit_s=limit_s)

    def publish(self, has_api: bool = True) -> None:
        self.transport.on(self.api, index(self.listed) if has_api else NOT_THERE)
        self.transport.on(self.tag_url, NOT_THERE if has_api else index(self.listed))

    def put(self, manifest: bytes, *blobs: bytes) -> bytes:
        answer = Answer(200, manifest, {"Content-Type": OCI_MANIFEST})
        self.transport.on(f"{self.base}/manifests/{Digest.of(manifest)}", answer)
        for blob in blobs:
            self.transport.on(f"{self.base}/blobs/{Digest.of(blob)}", Answer(200, blob))
        return manifest

    def found(self) -> list[bytes]:
        return [each.raw for each in asyncio.run(self.referrers.bundles(DIGEST))]

    def refused(self, error: type[LayerteeError], match: str | None = None) -> None:
        with pytest.raises(error, match=match):
            self.found()


@pytest.mark.parametrize("has_api", [True, False], ids=["the API", "the tag"])
def test_bundles_are_found(has_api: bool) -> None:
    rig = Beside(b"one", b"two", has_api=has_api)
    assert rig.found() == [b"one", b"two"]
    first = rig.transport.requests[0]
    assert first.url == f"{rig.api}?{FILTER}"
    assert first.headers["Accept"] == OCI_INDEX


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a_registry_says_in_several_ways_that_it_has_no_such_api(status: int) -> None:
    rig = Beside(b"one", has_api=False)
    rig.transport.on(rig.api, Answer(status, b"no"))
    assert rig.found() == [b"one"]


def test_an_answer_that_is_no_index_is_no_api() -> None:
    rig = Beside(b"one", has_api=False)
    rig.transport.on(rig.api, Answer(200, b"{}", {"Content-Type": "application/json"}))
    assert rig.found() == [b"one"]


@pytest.mark.parametrize("has_api", [True, False])
def test_an_image_without_any(has_api: bool) -> None:
    rig = Beside(has_api=has_api)
    assert rig.found() == []
    rig.transport.on(rig.api, NOT_THERE)
    rig.transport.on(rig.tag_url, NOT_THERE)
    assert rig.found() == []


def test_what_is_of_another_type_is_not_asked_for() -> None:
    rig = Beside(b"one")
    rig.listed.append(entry(rig.put(artifact(b"sbom", kind=SBOM), b"sbom"), SBOM))
    rig.listed.append(entry(b"an image", mediaType=OCI_INDEX))
    rig.publish()
    assert rig.found() == [b"one"]
    assert len(rig.transport.requests) == 3


@pytest.mark.parametrize("said", [None, "", "application/vnd.oci.empty.v1+json"])
def test_a_list_that_does_not_say_the_type_is_looked_into(said: str | None) -> None:
    rig = Beside()
    rig.listed = [entry(rig.put(artifact(b"one"), b"one"), said)]
    rig.listed.append(entry(rig.put(artifact(b"sbom", kind=SBOM), b"sbom"), said))
    rig.publish()
    assert rig.found() == [b"one"]


def test_artifacts_of_another_image_are_passed_over() -> None:
    rig = Beside(b"one")
    for manifest in (
        artifact(b"two", OTHER),
        artifact(b"two").replace(b'"subject"', b'"object"'),
        artifact(b"two", n_layers=2),
        artifact(b"two", n_layers=0),
    ):
        rig.listed.insert(0, entry(rig.put(manifest, b"two")))
    rig.listed.insert(0, entry(artifact(b"gone")))
    rig.transport.on(f"{rig.base}/manifests/{Digest.of(artifact(b'gone'))}", NOT_THERE)
    rig.publish()
    assert rig.found() == [b"one"]


def test_one_bundle_in_two_artifacts_is_one() -> None:
    rig = Beside(b"one", b"one")
    rig.listed.append(entry(rig.put(artifact(b"one", annotations={}))))
    rig.publish()
    assert rig.found() == [b"one"]
    assert len(rig.transport.asked(f"{rig.base}/blobs/")) == 1


# --- pages ---


def test_pages_are_followed() -> None:
    rig = Beside(b"one", b"two")
    first, second = rig.listed
    rig.transport.on(f"{rig.api}?{FILTER}", index([first], Link=f'<{rig.api}?last=x&n=1>; rel="next"'))
    rig.transport.on(f"{rig.api}?last=x&n=1", index([second]))
    assert rig.found() == [b"one", b"two"]
    relative = f"/v2/ns/repo/referrers/{quote(DIGEST)}?last=x&n=1"
    rig.transport.on(f"{rig.api}?{FILTER}", index([first], Link=f"<{relative}>;rel=next"))
    assert rig.found() == [b"one", b"two"]


@pytest.mark.parametrize(
    "link",
    [
        "<https://elsewhere.example.com/x?y>; rel=next",
        f"</v2/ns/repo/referrers/{OTHER}?y>; rel=next",
        f"</v2/ns/repo/referrers/{DIGEST}>; rel=next",
    ],
)
def test_a_next_page_that_is_elsewhere_is_refused(link: str) -> None:
    rig = Beside(b"one")
    rig.transport.on(rig.api, index(rig.listed, Link=link))
    rig.refused(DocumentError, "next page")


def test_a_page_that_is_missing_is_an_error() -> None:
    rig = Beside(b"one")
    rig.transport.on(f"{rig.api}?{FILTER}", index(rig.listed, Link=f"<{rig.api}?2>; rel=next"))
    rig.transport.on(f"{rig.api}?2", NOT_THERE)
    rig.refused(LayerteeError, "not at")


def test_pages_end() -> None:
    rig = Beside(b"one")
    rig.transport.on(rig.api, index(rig.listed, Link=f"<{rig.api}?again>; rel=next"))
    rig.refused(PolicyRefused, "pages")
    assert len(rig.transport.requests) == MAX_PAGES


def test_a_link_that_costs_time_to_read_is_read_at_once() -> None:
    rig = Beside(b"one")
    for link in ("<" * 100_000, "<x>;" * 30_000, "<x> ; " + "a" * 100_000):
        rig.transport.on(rig.api, index(rig.listed, Link=link))
        assert rig.found() == [b"one"]


# --- bounds ---


@pytest.mark.parametrize("has_api", [True, False])
def test_ten_thousand_referrers_are_refused_without_a_look(has_api: bool) -> None:
    rig = Beside(has_api=has_api)
    rig.listed = [entry(str(n).encode()) for n in range(10_000)]
    rig.publish(has_api)
    rig.refused(PolicyRefused, f"more than {MAX_REFERRERS}")
    assert rig.transport.asked(f"{rig.base}/blobs/") == []
    rig.listed = [entry(str(n).encode(), SBOM) for n in range(10_000)]
    rig.publish(has_api)
    rig.refused(PolicyRefused, f"more than {MAX_REFERRERS}")


def test_more_bundles_than_are_looked_at_are_refused() -> None:
    rig = Beside()
    rig.listed = [entry(str(n).encode()) for n in range(MAX_SIGNATURES + 1)]
    rig.publish()
    rig.refused(PolicyRefused, f"at most {MAX_SIGNATURES}")
    assert len(rig.transport.requests) == 1


def test_what_is_too_large_is_refused_without_a_look() -> None:
    rig = Beside()
    rig.listed = [entry(b"x", size=1 << 30)]
    rig.publish()
    rig.refused(PolicyRefused, "larger")
    large = {"mediaType": BUNDLE_TYPE, "digest": str(Digest.of(b"x")), "size": MAX_SIGNATURE + 1}
    rig.listed = [entry(rig.put(artifact(b"x", layers=[large])))]
    rig.publish()
    rig.refused(PolicyRefused, "larger")
    large["size"] = MAX_SIGNATURE
    manifests = [
        artifact(b"x", layers=[{**large, "digest": str(Digest.of(str(n).encode()))}]) for n in range(9)
    ]
    rig.listed = [entry(rig.put(each)) for each in manifests]
    for n in range(9):
        rig.transport.on(f"{rig.base}/blobs/{Digest.of(str(n).encode())}", Answer(200, str(n).encode()))
    rig.publish()
    rig.refused(PolicyRefused, "larger")


def test_a_list_that_is_too_long_is_refused() -> None:
    rig = Beside()
    rig.transport.on(rig.api, index([]))
    rig.transport.on(rig.api, Answer(200, b" " * (5 << 20), {"Content-Type": OCI_INDEX}))
    rig.refused(DocumentError, "larger")


# --- a registry that lies ---


def test_other_bytes_than_were_named_are_refused() -> None:
    rig = Beside(b"one")
    manifest = artifact(b"one")
    rig.transport.on(f"{rig.base}/blobs/{Digest.of(b'one')}", Answer(200, b"two"))
    rig.refused(DigestMismatch)
    rig = Beside(b"one")
    swapped = artifact(b"two")
    rig.transport.on(f"{rig.base}/manifests/{Digest.of(manifest)}", Answer(200, swapped))
    rig.refused(DigestMismatch)


@pytest.mark.parametrize(
    "bad",
    [
        1,
        {},
        {"mediaType": OCI_MANIFEST},
        {"mediaType": OCI_MANIFEST, "digest": "sha256:x", "size": 1},
        {"mediaType": OCI_MANIFEST, "digest": str(DIGEST), "size": -1},
        {"mediaType": OCI_MANIFEST, "digest": str(DIGEST), "size": True},
        {"mediaType": OCI_MANIFEST, "digest": str(DIGEST)},
        {"mediaType": 1, "digest": str(DIGEST), "size": 1},
        {"artifactType": 1, "mediaType": OCI_MANIFEST, "digest": str(DIGEST), "size": 1},
        {"mediaType": OCI_MANIFEST, "digest": "../../x", "size": 1},
    ],
)
def test_entries_that_make_no_sense_are_refused(bad: Any) -> None:
    rig = Beside(b"one")
    rig.listed.append(bad)
    rig.publish()
    rig.refused(DocumentError)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"manifests": {}}', b'{"manifests": [[[[]]]]}', b"[" * 9999]
)
def test_lists_that_make_no_sense_are_refused(body: bytes) -> None:
    rig = Beside(b"one")
    rig.transport.on(rig.api, Answer(200, body, {"Content-Type": OCI_INDEX}))
    rig.refused(DocumentError)


def test_a_tag_that_is_no_index_is_refused() -> None:
    rig = Beside(b"one", has_api=False)
    rig.transport.on(rig.tag_url, Answer(200, artifact(b"one"), {"Content-Type": OCI_MANIFEST}))
    rig.refused(PolicyRefused, "no index")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(500, b""), ServerError),
        (Answer(401, b""), Unauthorized),
        (ConnectFailed("no"), ConnectFailed),
    ],
)
def test_a_registry_that_fails_is_not_one_without_signatures(
    answer: Answer | LayerteeError, error: type[LayerteeError]
) -> None:
    rig = Beside(b"one")
    rig.transport.on(rig.api, answer)
    rig.refused(error)


class Stalled(FakeTransport):
    """It never answers."""

    async def fetch(self, *args: Any, **options: Any) -> WholeResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody answers")


def test_a_registry_that_stalls_has_a_limit() -> None:
    rig = Beside(b"one")
    registry = Registry(Stalled(), rig.reference, Credentials.no_credentials(), tls=TLSPolicy())
    referrers = Referrers(registry, limit_s=0.05)
    with pytest.raises(Timeout, match="did not arrive"):
        asyncio.run(referrers.bundles(DIGEST))


def test_a_proxy_of_several_registries_is_told_which() -> None:
    rig = Beside(b"one")
    registry = Registry(
        rig.transport,
        rig.reference,
        Credentials.no_credentials(),
        tls=TLSPolicy(),
        namespace="docker.io",
    )
    assert len(asyncio.run(Referrers(registry).bundles(DIGEST))) == 1
    assert rig.transport.requests[0].url == f"{rig.api}?{FILTER}&ns=docker.io"
    assert all(request.url.endswith("?ns=docker.io") for request in rig.transport.requests[1:])
