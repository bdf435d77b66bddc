"""Attachments are found beside an image; a registry cannot make that cost much, or mean something else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from layertee.config.logins import Credentials
from layertee.errors import (
    ConnectFailed,
    DigestMismatch,
    LayerteeError,
    NotInRegistry,
    PolicyRefused,
    RedirectRefused,
    ServerError,
    SizeMismatch,
    Timeout,
    Unauthorized,
)
from layertee.image.digest import Digest
from layertee.image.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, WholeResponse
from layertee.signatures.keys.attachments import MAX_TOTAL, RegistryAttachments
from layertee.signatures.signature import MAX_SIGNATURE, MAX_SIGNATURES, Attachment
from tests.support import sigstorekit as kit
from tests.support.fakes.image import CDN, Rig, redirect
from tests.support.fakes.transport import Answer, FakeTransport

DIGEST = Digest.of(b"image")
KEY = kit.new_key()
ONE = kit.by_key(KEY, kit.payload(DIGEST, "quay.io/ns/repo:tag"))


class Beside(Rig):
    """A registry with signatures beside its image: as ``kit.manifest`` makes them, with ``changes``."""

    def __init__(self, *attachments: Attachment, limit_s: float = 60.0, **changes: Any) -> None:
        super().__init__()
        self.raw, self.blobs = kit.manifest(attachments, **changes)
        self.tag = f"{self.base}/manifests/{kit.tag_of(DIGEST)}"
        self.transport.on(self.tag, Answer(200, self.raw, {"Content-Type": OCI_MANIFEST}))
        for digest, blob in self.blobs.items():
            self.transport.on(f"{self.base}/blobs/{digest}", Answer(200, blob))
        self.source = RegistryAttachments(self.registry, self.reference.name, limit_s=limit_s)

    def found(self) -> list[Attachment]:
        found = asyncio.run(self.source.signatures(DIGEST))
        assert all(isinstance(one, Attachment) for one in found)
        return [one for one in found if isinstance(one, Attachment)]

    def refused(self, error: type[LayerteeError], match: str | None = None) -> None:
        with pytest.raises(error, match=match):
            self.found()


def test_attachments_are_found_with_their_annotations_and_place() -> None:
    other = dataclasses.replace(ONE, payload=b"{}", media_type="application/vnd.dsse.envelope.v1+json")
    rig = Beside(ONE, other)
    place = f"quay.io/ns/repo:sha256-{DIGEST.hex}.sig, layer"
    assert rig.found() == [
        dataclasses.replace(ONE, place=f"{place} 0"),
        dataclasses.replace(other, place=f"{place} 1"),
    ]
    assert rig.found()[0].annotations == ONE.annotations
    accept = rig.transport.requests[0].headers["Accept"]
    assert accept.startswith(OCI_MANIFEST) and DOCKER_MANIFEST in accept


def test_signatures_of_one_payload_are_fetched_once() -> None:
    again = kit.by_key(kit.new_key(), ONE.payload)
    rig = Beside(ONE, again, ONE)
    assert [one.annotations for one in rig.found()] == [ONE.annotations, again.annotations, ONE.annotations]
    assert len(rig.transport.requests) == 2


def test_an_image_without_the_tag_has_no_signatures() -> None:
    rig = Beside()
    rig.transport.on(rig.tag, Answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'))
    assert rig.found() == []
    assert Beside().found() == []  # the tag is there, with nothing in it


def test_a_404_for_another_reason_is_not_an_answer() -> None:
    rig = Beside()
    rig.transport.on(rig.tag, Answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"not found"}]}'))
    rig.refused(PolicyRefused)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401), Unauthorized),
        (Answer(403), Unauthorized),
        (Answer(500), ServerError),
        (ConnectFailed("no"), ConnectFailed),
    ],
)
def test_a_registry_that_does_not_answer_is_not_one_without_signatures(
    answer: Answer | LayerteeError, error: type[LayerteeError]
) -> None:
    rig = Beside(ONE)
    rig.transport.on(rig.tag, answer)
    rig.refused(error)
    rig = Beside(ONE)
    rig.transport.on(f"{rig.base}/blobs/{Digest.of(ONE.payload)}", answer)
    rig.refused(error)


def test_a_layer_that_is_not_there_is_an_error() -> None:
    rig = Beside(ONE)
    rig.transport.on(f"{rig.base}/blobs/{Digest.of(ONE.payload)}", Answer(404))
    rig.refused(NotInRegistry)


@pytest.mark.parametrize(
    "content_type", [DOCKER_MANIFEST, OCI_INDEX, "application/json", "", "text/plain", OCI_MANIFEST + "x"]
)
def test_only_an_oci_manifest_holds_signatures(content_type: str) -> None:
    rig = Beside(ONE)
    rig.transport.on(rig.tag, Answer(200, rig.raw, {"Content-Type": content_type}))
    rig.refused(PolicyRefused, "not in an OCI manifest")
    rig.transport.on(rig.tag, Answer(200, rig.raw, {"Content-Type": f"{OCI_MANIFEST}; charset=utf-8"}))
    assert len(rig.found()) == 1


def reordered(change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(kit.manifest([ONE])[0])
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 1000,
        reordered(lambda found: found.update(mediaType=OCI_INDEX)),
        reordered(lambda found: found.update(manifests=[])),
        reordered(lambda found: found.update(Layers=[])),
        reordered(lambda found: found.pop("config")),
        reordered(lambda found: found["layers"][0].update(digest="sha256:../../x")),
        reordered(lambda found: found["layers"][0].update(size=-1)),
        reordered(lambda found: found["layers"][0].update(annotations={"a": 1})),
        reordered(lambda found: found["layers"].append(None)),
        kit.manifest([ONE])[0].replace(b'"layers"', b'"layers": [], "layers"'),
        kit.manifest([ONE])[0] + b" " * (4 << 20),
    ],
)
def test_a_manifest_that_makes_no_sense_refuses_the_image(raw: bytes) -> None:
    rig = Beside(ONE)
    rig.transport.on(rig.tag, Answer(200, raw, {"Content-Type": OCI_MANIFEST}))
    rig.refused(PolicyRefused, "cannot be read")


def test_bytes_that_are_not_those_that_were_named_are_an_error() -> None:
    blob = f"{Beside().base}/blobs/{Digest.of(ONE.payload)}"
    rig = Beside(ONE)
    rig.transport.on(blob, Answer(200, kit.flipped(ONE.payload)))
    rig.refused(DigestMismatch)
    rig.transport.on(blob, Answer(200, ONE.payload[:-1]))
    rig.refused(SizeMismatch)
    rig.transport.on(blob, Answer(200, ONE.payload + b" "))
    rig.refused(LayerteeError)
    rig = Beside(ONE)
    swapped = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(DIGEST)}
    rig.transport.on(rig.tag, Answer(200, rig.raw, swapped))
    rig.refused(DigestMismatch)
    swapped["Docker-Content-Digest"] = str(Digest.of(rig.raw))
    rig.transport.on(rig.tag, Answer(200, rig.raw, swapped))
    assert len(rig.found()) == 1


def test_a_tag_that_moves_between_two_images_is_read_once_for_each() -> None:
    other = kit.by_key(kit.new_key(), ONE.payload)
    rig = Beside(ONE)
    moved, blobs = kit.manifest([other])
    assert set(blobs) == set(rig.blobs)
    answers = [Answer(200, raw, {"Content-Type": OCI_MANIFEST}) for raw in (rig.raw, moved)]
    rig.transport.on(rig.tag, *answers)
    assert rig.found()[0].annotations == ONE.annotations
    assert rig.found()[0].annotations == other.annotations


def layers(*sizes: int) -> list[dict[str, Any]]:
    """Descriptors of as many blobs, which nobody has."""
    return [
        {"mediaType": kit.SIMPLE_SIGNING, "size": size, "digest": str(Digest.of(b"%d" % number))}
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (layers(*[10] * (MAX_SIGNATURES + 1)), f"at most {MAX_SIGNATURES} are looked at"),
        (layers(*[10] * 10000), "are 10000"),
        (layers(MAX_SIGNATURE + 1), f"larger than {MAX_SIGNATURE} bytes"),
        (layers(*[MAX_SIGNATURE] * 5), f"larger than {MAX_TOTAL} bytes together"),
        ([*layers(10), *layers(11)], "with two sizes"),
    ],
)
def test_what_would_cost_much_is_refused_before_a_layer_is_asked_for(
    found: list[dict[str, Any]], match: str
) -> None:
    rig = Beside(layers=found)
    rig.refused(PolicyRefused, match)
    assert rig.urls() == [rig.tag]


def test_a_layer_with_urls_is_refused_and_they_are_not_followed() -> None:
    rig = Beside(ONE)
    document = json.loads(rig.raw)
    document["layers"][0]["urls"] = ["http://127.0.0.1/secret"]
    rig.transport.on(rig.tag, Answer(200, json.dumps(document).encode(), {"Content-Type": OCI_MANIFEST}))
    with pytest.raises(PolicyRefused, match="elsewhere"):
        rig.found()
    assert rig.urls() == [rig.tag]


def test_a_layer_may_be_elsewhere_but_not_in_the_clear() -> None:
    rig = Beside(ONE)
    blob = f"{rig.base}/blobs/{Digest.of(ONE.payload)}"
    rig.transport.on(blob, redirect())
    rig.transport.on(CDN, Answer(200, ONE.payload))
    assert rig.found()[0].payload == ONE.payload
    rig.transport.on(blob, redirect("http://cdn.example/blob"))
    rig.refused(RedirectRefused)


class Stalling(FakeTransport):
    """Gives no layer, ever."""

    async def fetch(self, method: str, url: str, **options: Any) -> WholeResponse:
        if "/blobs/" in url:
            await asyncio.Event().wait()
        return await super().fetch(method, url, **options)


def test_a_registry_that_stalls_has_one_time_limit_for_all() -> None:
    rig = Beside(ONE)
    transport = Stalling()
    transport.routes = rig.transport.routes
    registry = Registry(transport, rig.reference, Credentials.no_credentials(), tls=TLSPolicy(verify=True))
    rig.source = RegistryAttachments(registry, rig.reference.name, limit_s=0.05)
    rig.refused(Timeout, "did not arrive within 0.05 s")
    assert [request.url for request in transport.requests] == [rig.tag]
