"""An index with all that it names: what it comes to, and what is refused before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from layertee import DiffID, Digest, Platform, ResolvedImage
from layertee.errors import DigestMismatch, DocumentError, LayerteeError, SizeMismatch, UnsupportedImage
from layertee.image import whole
from layertee.image.document import Index, image_layers, parse_document
from layertee.image.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from layertee.image.pairs import with_computed
from layertee.image.whole import Gathering

AMD64 = Platform("linux", "amd64", None)
ARM64 = Platform("linux", "arm64", None)
GZIP = f"{OCI_LAYER}+gzip"
Entry = dict[str, Any]


class Registry:
    """Documents by their digests; what is asked of it is counted."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []

    def put(self, document: Mapping[str, object], media_type: str, **more: object) -> Entry:
        """Keep a document; its descriptor."""
        raw = json.dumps(document).encode()
        self.documents[str(Digest.of(raw))] = raw
        return {"mediaType": media_type, "digest": str(Digest.of(raw)), "size": len(raw), **more}

    def image(self, architecture: str, *layers: Entry, diff_ids: Sequence[str] | None = None) -> Entry:
        """An image, as an index names it."""
        named = [diff_id(layer) for layer in layers] if diff_ids is None else list(diff_ids)
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": named},
        }
        manifest = {"schemaVersion": 2, "config": self.put(config, OCI_CONFIG), "layers": list(layers)}
        platform = {"architecture": architecture, "os": "linux"}
        return self.put(manifest, OCI_MANIFEST, platform=platform)

    def artifact(self, *blobs: Entry, config_type: str = OCI_CONFIG) -> Entry:
        """A manifest of something that is no image."""
        manifest = {"schemaVersion": 2, "config": self.put({}, config_type), "layers": list(blobs)}
        platform = {"architecture": "unknown", "os": "unknown"}
        return self.put(manifest, OCI_MANIFEST, platform=platform)

    def index(self, *entries: object, media_type: str = OCI_INDEX) -> Entry:
        """An index, as another one names it."""
        return self.put({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, media_type)

    def gathered(self, index: Entry, platform: Platform = AMD64) -> ResolvedImage:
        """``index`` with all that it names, or what it is refused with."""
        raw = self.documents[index["digest"]]
        parsed = parse_document(raw, index["mediaType"])
        assert isinstance(parsed, Index)
        gathering = Gathering(parsed)
        while wanted := gathering.wanted():
            for one in wanted:
                self.asked.append(str(one.descriptor.digest))
                gathering.take(one, self.documents[str(one.descriptor.digest)])
        return gathering.image(platform, image_layers)


def blob(name: str, media_type: str = GZIP, size: int = 100) -> Entry:
    return {"mediaType": media_type, "digest": str(Digest.of(name.encode())), "size": size}


def diff_id(layer: Entry) -> str:
    return str(Digest.of(b"content of " + layer["digest"].encode()))


@pytest.fixture
def registry() -> Registry:
    return Registry()


# --- what it comes to ---------------------------------------------------------------------------------


def test_every_blob_counts_once_with_what_is_in_it(registry: Registry) -> None:
    base, one, other = blob("base"), blob("one"), blob("other")
    statement = blob("statement", "application/vnd.in-toto+json")
    notes = registry.artifact(blob("notes", "text/plain"), config_type="application/vnd.oci.empty.v1+json")
    attested = registry.artifact(statement)
    amd64, arm64 = registry.image("amd64", base, one), registry.image("arm64", base, other)
    found = registry.gathered(registry.index(amd64, arm64, attested, notes))

    assert found.whole is not None and found.index is not None
    empty = str(Digest.of(b"{}"))
    names = [base, one, other, {"digest": empty}, statement, blob("notes")]
    assert [layer.digest for layer in found.layers] == [each["digest"] for each in names]
    assert [layer.index for layer in found.layers] == list(range(6))
    assert [layer.is_opaque for layer in found.layers] == [False] * 3 + [True] * 3
    assert [layer.known_diff_id for layer in found.layers[:3]] == [
        diff_id(each) for each in (base, one, other)
    ]
    members = found.whole.members
    assert [str(each.digest) for each in members] == [
        entry["digest"] for entry in (amd64, arm64, attested, notes)
    ]
    assert [each.platform for each in members] == [AMD64, ARM64, None, None]
    assert [each.is_artifact for each in members] == [False, False, True, True]
    assert found.whole.platforms == (AMD64, ARM64)
    assert found.digest == found.index.digest
    kept = {str(Digest.of(raw)) for raw in found.whole.documents}
    assert kept == registry.documents.keys() - {str(found.index.digest), empty}


def test_the_image_that_stands_for_it_is_the_platforms_or_the_first(registry: Registry) -> None:
    amd64, arm64 = registry.image("amd64", blob("a")), registry.image("arm64", blob("b"))
    index = registry.index(registry.artifact(blob("s", "text/plain")), amd64, arm64)
    assert str(registry.gathered(index, ARM64).manifest.digest) == arm64["digest"]
    assert str(registry.gathered(index, Platform("linux", "s390x", None)).manifest.digest) == amd64["digest"]


def test_what_an_index_in_it_names_belongs_to_it(registry: Registry) -> None:
    amd64, arm64 = registry.image("amd64", blob("a")), registry.image("arm64", blob("b"))
    inner = registry.index(arm64, amd64)
    found = registry.gathered(registry.index(amd64, inner), ARM64)
    assert found.whole is not None
    assert [str(each.digest) for each in found.whole.members] == [amd64["digest"], arm64["digest"]]
    assert str(found.manifest.digest) == arm64["digest"]
    assert registry.documents[inner["digest"]] in found.whole.documents
    assert len(registry.asked) == len(set(registry.asked)), "each document is read once"


def test_a_list_of_dockers_kind_may_leave_types_out(registry: Registry) -> None:
    amd64 = registry.image("amd64", blob("a"))
    del amd64["mediaType"]
    found = registry.gathered(registry.index(amd64, media_type=DOCKER_LIST))
    assert found.whole is not None and found.whole.platforms == (AMD64,)


def test_what_is_a_layer_of_an_image_is_more_than_bytes_of_an_artifact(registry: Registry) -> None:
    shared = blob("shared")
    for order in ((0, 1), (1, 0)):
        both = (registry.image("amd64", shared), registry.artifact({**shared, "mediaType": "text/plain"}))
        found = registry.gathered(registry.index(*(both[at] for at in order)))
        (layer,) = (layer for layer in found.layers if layer.digest == shared["digest"])
        assert layer.known_diff_id == diff_id(shared)


def test_the_blob_of_an_artifact_is_no_layer_even_where_it_is_known_to_hold_a_tar(registry: Registry) -> None:
    known = blob("a layer of another image")
    artifact = registry.artifact({**known, "mediaType": "text/plain"})
    found = registry.gathered(registry.index(registry.image("amd64", blob("a")), artifact))
    computed = {Digest(known["digest"]): DiffID(diff_id(known))}
    assert with_computed(found.layers, computed) == found.layers


# --- what is refused ------------------------------------------------------------------------------------


def _no_digest(registry: Registry) -> Entry:
    return registry.index(registry.image("amd64", blob("a")), {"mediaType": OCI_MANIFEST, "size": 3})


def _two_sizes_of_a_manifest(registry: Registry) -> Entry:
    image = registry.image("amd64", blob("a"))
    return registry.index(image, {**image, "size": image["size"] + 1})


def _two_sizes_of_a_blob(registry: Registry) -> Entry:
    return registry.index(registry.image("amd64", blob("a")), registry.image("arm64", blob("a", size=101)))


def _a_manifest_that_is_a_blob_of_another_size(registry: Registry) -> Entry:
    image = registry.image("amd64", blob("a"))
    claimed = {"mediaType": "text/plain", "digest": image["digest"], "size": 1}
    return registry.index(image, registry.artifact(claimed))


def _two_diff_ids(registry: Registry) -> Entry:
    other = [diff_id(blob("b"))]
    return registry.index(
        registry.image("amd64", blob("a")), registry.image("arm64", blob("a"), diff_ids=other)
    )


def _an_index_called_a_manifest(registry: Registry) -> Entry:
    inner = registry.index(registry.image("amd64", blob("a")))
    return registry.index({**inner, "mediaType": OCI_MANIFEST})


def _a_manifest_called_an_index(registry: Registry) -> Entry:
    return registry.index({**registry.image("amd64", blob("a")), "mediaType": OCI_INDEX})


def _one_thing_called_two(registry: Registry) -> Entry:
    image = registry.image("amd64", blob("a"))
    return registry.index(image, {**image, "mediaType": OCI_INDEX})


def _nested_too_deep(registry: Registry) -> Entry:
    index = registry.index(registry.image("amd64", blob("a")))
    for _ in range(whole.MAX_DEPTH):
        index = registry.index(index)
    return index


def _nested_too_deep_without_types(registry: Registry) -> Entry:
    index = registry.index(registry.image("amd64", blob("a")), media_type=DOCKER_LIST)
    for _ in range(whole.MAX_DEPTH):
        index = registry.index({**index, "mediaType": ""}, media_type=DOCKER_LIST)
    return index


def _larger_than_a_document(registry: Registry) -> Entry:
    return registry.index({**registry.image("amd64", blob("a")), "size": (4 << 20) + 1})


def _too_many_documents(registry: Registry) -> Entry:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(str(n).encode())), "size": 2}
        for n in range(whole.MAX_DOCUMENTS + 1)
    ]
    return registry.index(*entries)


def _too_many_bytes(registry: Registry) -> Entry:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(str(n).encode())), "size": 4 << 20}
        for n in range(8)
    ]
    return registry.index(*entries)


def _too_many_blobs(registry: Registry) -> Entry:
    blobs = [blob(str(n), "text/plain") for n in range(whole.MAX_BLOBS)]
    return registry.index(registry.image("amd64", blob("a")), registry.artifact(*blobs))


def _fewer_diff_ids(registry: Registry) -> Entry:
    return registry.index(registry.image("amd64", blob("a"), diff_ids=[]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_no_digest, "manifests[1] digest"),
        (_two_sizes_of_a_manifest, "is said to have"),
        (_two_sizes_of_a_blob, "is said to have 100 bytes, and 101"),
        (_a_manifest_that_is_a_blob_of_another_size, "is said to have"),
        (_two_diff_ids, "two different DiffIDs"),
        (_an_index_called_a_manifest, "the index says"),
        (_a_manifest_called_an_index, "lacks what that type must have"),
        (_one_thing_called_two, "named as a manifest, and as an index"),
        (_nested_too_deep, "nested deeper"),
        (_nested_too_deep_without_types, "nested deeper"),
        (_larger_than_a_document, "larger than"),
        (_too_many_documents, "more than is kept"),
        (_too_many_bytes, "more than is kept"),
        (_too_many_blobs, "more than 10000 blobs"),
        (_fewer_diff_ids, "0 DiffIDs"),
    ],
)
def test_what_contradicts_itself_or_is_too_much_is_refused(
    registry: Registry, make: Callable[[Registry], Entry], said: str
) -> None:
    index = make(registry)
    with pytest.raises(DocumentError) as caught:
        registry.gathered(index)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda r: r.index(r.artifact(blob("a", "text/plain"))), "names no image"),
        (lambda r: r.index(), "names no image"),
        (
            lambda r: r.index(r.image("amd64", blob("a")), blob("b", "application/x-b")),
            "cannot be kept whole",
        ),
        (
            lambda r: r.index(r.image("amd64", {**blob("a"), "urls": ["https://elsewhere.example/"]})),
            "foreign URLs",
        ),
        (
            lambda r: r.index(
                r.image("amd64", blob("a")),
                r.artifact({**blob("b", "text/plain"), "urls": ["https://elsewhere.example/"]}),
            ),
            "foreign URLs",
        ),
        (
            lambda r: r.index(
                r.image("amd64", blob("a")),
                {"mediaType": OCI_MANIFEST, "digest": "sha512:" + "0" * 128, "size": 9},
            ),
            "only sha256",
        ),
    ],
)
def test_what_cannot_be_kept_whole_is_not_supported(
    registry: Registry, make: Callable[[Registry], Entry], said: str
) -> None:
    index = make(registry)
    with pytest.raises(UnsupportedImage) as caught:
        registry.gathered(index)
    assert said in str(caught.value)


def test_bounds_hold_before_anything_is_asked_for(registry: Registry) -> None:
    for make in (_too_many_documents, _too_many_bytes, _larger_than_a_document):
        with pytest.raises(DocumentError):
            registry.gathered(make(registry))
    assert registry.asked == []


def test_bytes_that_were_not_named_are_refused(registry: Registry) -> None:
    raw = registry.documents[registry.index(registry.image("amd64", blob("a")))["digest"]]
    index = parse_document(raw, OCI_INDEX)
    assert isinstance(index, Index)
    gathering = Gathering(index)
    (wanted,) = gathering.wanted()
    good = registry.documents[str(wanted.descriptor.digest)]
    with pytest.raises(SizeMismatch):
        gathering.take(wanted, good + b" ")
    with pytest.raises(DigestMismatch):
        gathering.take(wanted, bytes(len(good)))
    gathering.take(wanted, good, OCI_MANIFEST)
    assert [one.is_config for one in gathering.wanted()] == [True]


def test_errors_name_the_manifest_that_they_are_about(registry: Registry) -> None:
    bad = registry.image("arm64", blob("b"), diff_ids=[])
    with pytest.raises(LayerteeError) as caught:
        registry.gathered(registry.index(registry.image("amd64", blob("a")), bad))
    assert any(bad["digest"] in note for note in caught.value.__notes__)


def test_what_dockers_manifests_say_of_configs_does_not_matter(registry: Registry) -> None:
    layer = blob("a", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    config = registry.put(
        {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [diff_id(layer)]}}, "text/html"
    )
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [layer]}
    entry = registry.put(manifest, DOCKER_MANIFEST)
    found = registry.gathered(registry.index(entry, media_type=DOCKER_LIST))
    assert found.whole is not None and not found.whole.members[0].is_artifact
