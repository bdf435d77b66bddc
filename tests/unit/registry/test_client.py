"""Resolving an image: what is asked, what is checked, what is refused."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
from typing import Any

import pytest

from layertee.errors import (
    ConnectFailed,
    DigestMismatch,
    DocumentError,
    LayerteeError,
    NotFound,
    RateLimited,
    RegistryError,
    ServerError,
    SizeMismatch,
    Timeout,
    TLSFailed,
    Unauthorized,
    UnsupportedImage,
    WebPage,
)
from layertee.image.document import Digest, Platform
from layertee.image.media import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from tests.support.fakes.image import (
    AMD64,
    CONFIG,
    INDEX,
    MANIFEST,
    Rig,
    described,
    document,
    encode,
    index_of,
    on_amd64,
)
from tests.support.fakes.transport import Answer, json_answer


def test_a_tag_is_resolved_to_manifest_config_and_layers() -> None:
    rig = Rig()
    image = rig.resolve()
    assert (image.manifest.raw, image.config.raw) == (MANIFEST, CONFIG)
    assert image.layers[0].digest == Digest.of(b"tar.gz")
    assert image.layers[0].diff_id == str(Digest.of(b"tar"))
    assert image.index_digest is None
    assert rig.urls() == [rig.tag, rig.config]
    for request in rig.transport.requests:
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.authorization is None
    assert OCI_INDEX in rig.transport.requests[0].headers["Accept"]
    assert DOCKER_MANIFEST in rig.transport.requests[0].headers["Accept"]


def test_requests_for_manifests_say_that_the_client_knows_diff_ids_and_no_others_do() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(INDEX, OCI_INDEX))
    rig.resolve()
    assert [request.headers.get("Layertee-Diff-IDs") for request in rig.transport.requests] == [
        "1",
        "1",
        None,
    ]
    assert not rig.registry.tars.is_known


def test_where_only_blobs_will_do_nothing_is_said_of_diff_ids() -> None:
    rig = Rig()
    asyncio.run(rig.registry.resolve(AMD64, diff_ids=False))
    assert [request.headers.get("Layertee-Diff-IDs") for request in rig.transport.requests] == [None] * 2


def test_an_answer_with_a_manifest_may_say_that_diff_ids_are_known() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(MANIFEST, **{"Layertee-Diff-IDs": "1"}))
    rig.resolve()
    assert rig.registry.tars.is_known


def test_an_index_is_followed_by_digest() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(INDEX, OCI_INDEX))
    image = rig.resolve()
    assert image.index_digest == Digest.of(INDEX)
    assert image.manifest.digest == Digest.of(MANIFEST)
    assert rig.urls() == [rig.tag, f"{rig.base}/manifests/{Digest.of(MANIFEST)}", rig.config]


def test_an_index_in_an_index_is_followed_and_a_third_is_refused() -> None:
    rig = Rig()
    twice = index_of(described(INDEX, OCI_INDEX))
    thrice = index_of(described(twice, OCI_INDEX))
    for content in (INDEX, twice):
        rig.transport.on(f"{rig.base}/manifests/{Digest.of(content)}", document(content, OCI_INDEX))
    rig.transport.on(rig.tag, document(twice, OCI_INDEX))
    assert rig.resolve().index_digest == Digest.of(twice)
    rig = Rig()
    rig.transport.on(f"{rig.base}/manifests/{Digest.of(twice)}", document(twice, OCI_INDEX))
    rig.transport.on(rig.tag, document(thrice, OCI_INDEX))
    with pytest.raises(DocumentError, match="nested"):
        rig.resolve()


def test_a_missing_platform_is_not_found() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(INDEX, OCI_INDEX))
    with pytest.raises(NotFound, match="linux/amd64"):
        rig.resolve(Platform("linux", "s390x"))


def test_embedded_documents_are_used_and_not_fetched() -> None:
    config = described(CONFIG, OCI_CONFIG, data=base64.b64encode(CONFIG).decode())
    manifest = encode({**json.loads(MANIFEST), "config": config})
    index = index_of(on_amd64(manifest, data=base64.b64encode(manifest).decode()))
    rig = Rig()
    rig.transport.on(rig.tag, document(index, OCI_INDEX))
    assert rig.resolve().manifest.raw == manifest
    assert rig.urls() == [rig.tag]


def test_docker_hub_is_asked_where_its_api_is() -> None:
    rig = Rig("docker.io/ubuntu")
    rig.resolve()
    assert rig.urls()[0] == "https://registry-1.docker.io/v2/library/ubuntu/manifests/latest"


def test_a_digest_beats_the_tag_and_is_enforced() -> None:
    rig = Rig(f"quay.io/ns/repo:tag@{Digest.of(MANIFEST)}")
    assert rig.resolve().manifest.digest == Digest.of(MANIFEST)
    assert rig.urls()[0].endswith(f"/manifests/{Digest.of(MANIFEST)}")
    rig.transport.on(rig.tag, document(MANIFEST + b" "))
    with pytest.raises(DigestMismatch) as caught:
        rig.resolve()
    assert caught.value.want == Digest.of(MANIFEST)


def test_a_reference_by_sha512_is_enforced() -> None:
    rig = Rig("quay.io/ns/repo@sha512:" + hashlib.sha512(MANIFEST).hexdigest())
    assert rig.resolve().manifest.digest == Digest.of(MANIFEST)
    rig = Rig("quay.io/ns/repo@sha512:" + "0" * 128)
    with pytest.raises(DigestMismatch):
        rig.resolve()


@pytest.mark.parametrize(
    ("header", "ok"),
    [
        (Digest.of(MANIFEST), True),
        (Digest.of(b"other"), False),
        ("sha512:" + hashlib.sha512(MANIFEST).hexdigest(), True),
        ("sha512:" + "0" * 128, False),
        ("nonsense", True),
    ],
)
def test_the_digest_header_is_compared(header: str, ok: bool) -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(MANIFEST, **{"docker-content-digest": header}))
    if ok:
        assert rig.resolve()
    else:
        with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
            rig.resolve()


def test_a_header_of_another_algorithm_is_not_held_against_the_requested_digest() -> None:
    rig = Rig(f"quay.io/ns/repo@{Digest.of(MANIFEST)}")
    rig.transport.on(rig.tag, document(MANIFEST, **{"Docker-Content-Digest": "sha512:" + "0" * 128}))
    assert rig.resolve()


@pytest.mark.parametrize(
    ("served", "entry", "error"),
    [
        (MANIFEST + b" ", on_amd64(), SizeMismatch),
        (MANIFEST[:-1] + b" ", on_amd64(), DigestMismatch),
        (MANIFEST, on_amd64(size=5), SizeMismatch),
        (MANIFEST, on_amd64(size=5 << 20), DocumentError),
        (MANIFEST, on_amd64(media_type=OCI_INDEX), DocumentError),
    ],
)
def test_the_manifest_must_be_what_the_index_says(
    served: bytes, entry: dict[str, Any], error: type[LayerteeError]
) -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(index_of(entry), OCI_INDEX))
    rig.transport.on(f"{rig.base}/manifests/{entry['digest']}", document(served))
    with pytest.raises(error):
        rig.resolve()


@pytest.mark.parametrize("said", [OCI_MANIFEST, DOCKER_MANIFEST, "application/vnd.example", ""])
def test_what_an_index_calls_a_manifest_is_no_matter(said: str) -> None:
    rig, entry = Rig(), on_amd64(media_type=said)
    rig.transport.on(rig.tag, document(index_of(entry), OCI_INDEX))
    rig.transport.on(f"{rig.base}/manifests/{entry['digest']}", document(MANIFEST))
    assert rig.resolve().manifest.digest == entry["digest"]


def test_a_bad_entry_of_an_index_that_may_have_been_meant_is_told() -> None:
    rig, entry = Rig(), on_amd64()
    rig.transport.on(rig.tag, document(index_of(on_amd64(size=-1), entry), OCI_INDEX))
    rig.transport.on(f"{rig.base}/manifests/{entry['digest']}", document(MANIFEST))
    (told,) = rig.resolve().warnings
    assert "manifests[0] size is not an integer" in told


@pytest.mark.parametrize(
    ("served", "error"),
    [
        (CONFIG[:-1] + b" ", DigestMismatch),
        (CONFIG + b" ", SizeMismatch),
        (b"", SizeMismatch),
        (b"x" * (1 << 20), DocumentError),
    ],
)
def test_the_config_must_be_what_the_manifest_says(served: bytes, error: type[LayerteeError]) -> None:
    rig = Rig()
    rig.transport.on(rig.config, Answer(200, served))
    with pytest.raises(error):
        rig.resolve()


def test_a_document_that_was_re_encoded_says_so() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(MANIFEST, **{"Content-Encoding": "br"}))
    with pytest.raises(DocumentError, match=r"re-encoded \(br\)"):
        rig.resolve()


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP"])
def test_documents_that_were_put_in_gzip_are_judged_by_what_is_inside(coding: str) -> None:
    plain, rig = Rig(), Rig()
    for url, answers in plain.transport.routes.items():
        (answer,) = answers
        assert isinstance(answer, Answer)
        headers = {**dict(answer.pairs()), "Content-Encoding": coding}
        rig.transport.on(url, Answer(200, gzip.compress(answer.body), headers))
    assert rig.resolve() == plain.resolve()
    rig.transport.on(rig.tag, document(MANIFEST, **{"Content-Encoding": coding}))  # it is said only
    assert rig.resolve() == plain.resolve()


def test_what_is_inside_of_gzip_must_be_what_was_named() -> None:
    rig = Rig()
    (answer,) = rig.transport.routes[rig.config]
    assert isinstance(answer, Answer)
    other = gzip.compress(answer.body.replace(b"linux", b"plan9"))
    rig.transport.on(rig.config, Answer(200, other, {"Content-Encoding": "gzip"}))
    with pytest.raises(DigestMismatch):
        rig.resolve()
    rig.transport.on(rig.config, Answer(200, gzip.compress(answer.body) + b"x", {"Content-Encoding": "gzip"}))
    with pytest.raises(DocumentError, match=r"image config .* does not end where the answer ends"):
        rig.resolve()
    bomb = gzip.compress(bytes(5 << 20))
    rig.transport.on(rig.config, Answer(200, bomb, {"Content-Encoding": "gzip"}))
    with pytest.raises(DocumentError, match="larger than 65536 bytes, without its gzip"):
        rig.resolve()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!DOCTYPE html><html>Welcome to our network</html>", "text/html; charset=utf-8"),
        (b"\r\n <html>x</html>", "application/json"),
        (b"", "text/html"),
        (b"Please log in", "text/html"),
    ],
)
@pytest.mark.parametrize("which", ["tag", "config"])
def test_a_page_in_place_of_a_document_is_no_document_and_may_pass(
    which: str, body: bytes, kind: str
) -> None:
    rig = Rig()
    url = getattr(rig, which)
    (good,) = rig.transport.routes[url]
    page = Answer(200, body, {"Content-Type": kind})
    rig.transport.on(url, page)
    with pytest.raises(WebPage) as caught:
        rig.resolve()
    assert str(caught.value).endswith(f"{url} answers with a page ({kind}): a login page or a proxy's page?")
    assert len(rig.transport.asked(url)) == 3
    rig.transport.on(url, page, good)
    assert rig.resolve()


def test_the_content_type_must_agree() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, document(MANIFEST, OCI_INDEX))
    with pytest.raises(DocumentError, match="agree"):
        rig.resolve()


def test_schema_1_is_unsupported() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, json_answer({"schemaVersion": 1, "fsLayers": [], "signatures": []}))
    with pytest.raises(UnsupportedImage, match="schema 1"):
        rig.resolve()


# --- errors -----------------------------------------------------------------------------


def test_a_missing_manifest_names_image_and_registry() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, Answer(404))
    with pytest.raises(NotFound, match=r"quay\.io/ns/repo:tag is not at quay\.io: manifest unknown"):
        rig.resolve()
    errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such\n tag"}]}
    rig.transport.on(rig.tag, json_answer(errors, 404))
    with pytest.raises(NotFound, match="no such� tag"):
        rig.resolve()
    assert rig.slept == []


def test_documents_are_tried_three_times() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, ConnectFailed("x"), Answer(502), document(MANIFEST))
    rig.transport.on(rig.config, Answer(429, headers={"Retry-After": "20"}), Answer(200, CONFIG))
    assert rig.resolve()
    assert len(rig.slept) == 3
    assert rig.slept[2] >= 20


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [
        (Answer(500), ServerError, 3),
        (Answer(503, headers={"Retry-After": "300"}), RateLimited, 3),
        (Answer(503, headers={"Retry-After": "301"}), RateLimited, 1),
        (Timeout("x"), Timeout, 3),
        (TLSFailed("x"), TLSFailed, 1),
        (Answer(403), Unauthorized, 1),
        (Answer(400), RegistryError, 1),
        (Answer(304), RegistryError, 1),
        (Answer(302), RegistryError, 1),
        (Answer(204), RegistryError, 1),
    ],
)
def test_what_may_pass_is_retried_and_the_rest_is_not(
    answer: Answer | LayerteeError, error: type[LayerteeError], tries: int
) -> None:
    rig = Rig()
    rig.transport.on(rig.tag, answer)
    with pytest.raises(error) as caught:
        rig.resolve()
    assert type(caught.value) is error
    assert len(rig.transport.requests) == tries
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == (300 if tries > 1 else 301)
