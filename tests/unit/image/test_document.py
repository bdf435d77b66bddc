"""Documents: what is accepted, what is refused, and which platform is chosen."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import (
    DigestMismatch,
    DocumentError,
    LayerteeError,
    NotFound,
    SizeMismatch,
    UnsupportedImage,
)
from layertee.image.document import (
    Descriptor,
    DiffID,
    Digest,
    Index,
    Manifest,
    Platform,
    choose_platform,
    image_layers,
    layers_as_far_as_known,
    parse_config,
    parse_document,
)
from layertee.image.media import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Compression,
    compression_of,
    media_type_of,
)

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
ENGINE = Path(__file__).resolve().parents[3] / "engine"


def name(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(content: bytes, media_type: str, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": name(content), "size": len(content), **more}


def manifest_of(**changes: object) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(b"{}", OCI_CONFIG),
        "layers": [described(b"layer", OCI_LAYER + "+gzip")],
    }
    return {key: value for key, value in {**document, **changes}.items() if value is not ...}


def index_of(*entries: dict[str, Any], media_type: str = OCI_INDEX) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}


def entry(platform: str | None, tag: str = "", **more: object) -> dict[str, Any]:
    found = described(f"{platform}{tag}".encode(), OCI_MANIFEST, **more)
    if platform is not None:
        os, architecture, *variant = platform.split("/")
        found["platform"] = {"os": os, "architecture": architecture}
        if variant:
            found["platform"]["variant"] = variant[0]
    return found


def parse(document: object, content_type: str | None = None) -> Manifest | Index:
    return parse_document(json.dumps(document).encode(), content_type)


def parse_manifest(document: object) -> Manifest:
    parsed = parse(document)
    assert isinstance(parsed, Manifest)
    return parsed


def parse_index(document: object) -> Index:
    parsed = parse(document)
    assert isinstance(parsed, Index)
    return parsed


# --- manifests and indexes -----------------------------------------------------


def test_a_manifest_keeps_its_bytes_and_its_digest() -> None:
    raw = json.dumps(manifest_of(annotations={"a": "b"}), indent=3).encode()
    parsed = parse_document(raw, OCI_MANIFEST + "; charset=utf-8")
    assert isinstance(parsed, Manifest)
    assert parsed.raw == raw
    assert parsed.digest == name(raw)
    assert parsed.config.digest == name("{}")
    assert parsed.layers[0].size == len(b"layer")
    assert parsed.annotations == {"a": "b"}
    assert hash(parsed) == hash(parse_document(raw, None))


@pytest.mark.parametrize(
    ("own", "carried", "kind"),
    [
        (OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST),
        (DOCKER_MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (OCI_MANIFEST, None, OCI_MANIFEST),
        (OCI_MANIFEST, "application/json", OCI_MANIFEST),
        (DOCKER_MANIFEST, "application/octet-stream", DOCKER_MANIFEST),
        (..., OCI_MANIFEST, OCI_MANIFEST),
        (..., DOCKER_MANIFEST, DOCKER_MANIFEST),
        (..., None, OCI_MANIFEST),
        (..., "text/plain", OCI_MANIFEST),
        (None, OCI_MANIFEST, OCI_MANIFEST),
    ],
)
def test_the_media_type_comes_from_the_body_or_the_content_type(own: Any, carried: Any, kind: str) -> None:
    assert parse(manifest_of(mediaType=own), carried).media_type == kind


@pytest.mark.parametrize(
    ("document", "carried"),
    [
        (manifest_of(), DOCKER_MANIFEST),
        (manifest_of(), OCI_INDEX),
        (manifest_of(), "text/html"),
        (manifest_of(mediaType=...), OCI_INDEX),
        (index_of(), OCI_MANIFEST),
        (manifest_of(mediaType=OCI_INDEX), None),
        (manifest_of(manifests=[]), None),
        ({**index_of(), "config": None}, None),
        ({**index_of(), "layers": []}, OCI_INDEX),
        (manifest_of(Manifests=[]), None),
        (manifest_of(layers=..., Layers=[]), None),
        (manifest_of(schemaVersion=2.0), None),
        (manifest_of(schemaVersion=True), None),
        (manifest_of(schemaVersion="2"), None),
        (manifest_of(schemaVersion=...), None),
        (manifest_of(config=...), None),
        (manifest_of(config=[]), None),
        (manifest_of(config={"MediaType": OCI_CONFIG}), None),
        (manifest_of(layers=...), None),
        (manifest_of(layers={}), None),
        (manifest_of(layers=[7]), None),
        (manifest_of(mediaType=7), None),
        (manifest_of(annotations={"a": 1}), None),
        ([], None),
        ("manifest", OCI_MANIFEST),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_an_ambiguous_or_malformed_document_is_refused(document: object, carried: str | None) -> None:
    with pytest.raises(DocumentError):
        parse(document, carried)


@pytest.mark.parametrize(
    ("document", "carried", "says"),
    [
        ({"schemaVersion": 1, "name": "x", "fsLayers": []}, None, "schema 1"),
        (
            {"schemaVersion": 1, "fsLayers": [], "signatures": [{}]},
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "push the image again",
        ),
        (
            manifest_of(
                artifactType="application/vnd.example",
                config=described(b"{}", "application/vnd.oci.empty.v1+json"),
            ),
            None,
            "artifact of type application/vnd.example",
        ),
        (manifest_of(config=described(b"{}", "application/vnd.cncf.helm.config.v1+json")), None, "artifact"),
        (manifest_of(mediaType="application/vnd.oci.artifact.manifest.v1+json"), None, "not the type"),
    ],
    ids=["schema 1", "signed schema 1", "artifact", "helm", "other"],
)
def test_what_is_not_an_image_is_named(document: object, carried: str | None, says: str) -> None:
    with pytest.raises(UnsupportedImage, match=says):
        parse(document, carried)


def test_an_image_with_an_artifact_type_is_an_image() -> None:
    assert parse_manifest(manifest_of(artifactType="application/vnd.example")).layers


def test_a_manifest_without_layers_is_legal() -> None:
    assert parse_manifest(manifest_of(layers=[])).layers == ()
    assert parse_manifest(manifest_of(layers=None)).layers == ()


@pytest.mark.parametrize("size", [True, 1.0, "1", -1, 2**53, None, ...])
def test_a_size_is_an_integer_that_javascript_can_count_to(size: object) -> None:
    config = {
        key: value for key, value in {**described(b"", OCI_CONFIG), "size": size}.items() if value is not ...
    }
    with pytest.raises(DocumentError, match="size"):
        parse(manifest_of(config=config))


def test_the_largest_size_is_accepted() -> None:
    config = {**described(b"", OCI_CONFIG), "size": 2**53 - 1}
    assert parse_manifest(manifest_of(config=config)).config.size == 2**53 - 1


def test_embedded_data_is_checked_and_only_small_data_is_used() -> None:
    small, large = b"x" * (64 << 10), b"x" * ((64 << 10) + 1)
    for content, used in ((small, small), (large, None), (b"", b"")):
        config = described(content, OCI_CONFIG, data=base64.b64encode(content).decode())
        assert parse_manifest(manifest_of(config=config)).config.data == used


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("eHh4", SizeMismatch),
        ("eHk=", DigestMismatch),
        ("eHg", DocumentError),
        ("eH g=", DocumentError),
        ("eHg=\n", DocumentError),
        ("éé", DocumentError),
        (7, DocumentError),
    ],
)
def test_embedded_data_that_does_not_fit_is_an_error(data: object, error: type[LayerteeError]) -> None:
    with pytest.raises(error):
        parse(manifest_of(config=described(b"xx", OCI_CONFIG, data=data)))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(raw: bytes) -> None:
    with pytest.raises(LayerteeError):
        parse_document(raw, OCI_MANIFEST)


@given(st.data())
def test_a_damaged_manifest_is_parsed_or_refused_with_a_typed_error(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(manifest_of()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_document(bytes(raw), None)
    except LayerteeError:
        return
    assert parsed.digest == name(bytes(raw))


# --- config and layers ----------------------------------------------------------


def config_of(*diff_ids: str, **changes: object) -> bytes:
    document: dict[str, Any] = {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Labels": {"containers.bootc": "1", "Containers.bootc": "2"}},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    return json.dumps({**document, **changes}).encode()


def descriptor(raw: bytes, media_type: str = OCI_CONFIG) -> Descriptor:
    return Descriptor(media_type, Digest.of(raw), len(raw))


def test_a_config_gives_its_diff_ids_platform_and_labels() -> None:
    raw = config_of(name("a"), name("b"))
    config = parse_config(raw, descriptor(raw))
    assert config.diff_ids == (name("a"), name("b"))
    assert config.platform == Platform("linux", "arm64", "v8")
    assert config.created == "2026-01-01T00:00:00Z"
    assert config.labels["containers.bootc"] == "1"
    assert config.raw == raw


def test_a_config_is_hashed_before_it_is_read() -> None:
    raw = config_of(name("a"))
    with pytest.raises(DigestMismatch):
        parse_config(raw.replace(b"arm64", b"amd64"), descriptor(raw))
    with pytest.raises(SizeMismatch):
        parse_config(raw + b" ", descriptor(raw))


@pytest.mark.parametrize(
    "raw",
    [
        config_of(rootfs=[]),
        config_of(rootfs={"type": "tree", "diff_ids": []}),
        config_of(rootfs={"type": "layers", "diff_ids": [7]}),
        config_of(rootfs={"type": "layers", "Diff_IDs": []}),
        config_of(rootfs={"type": "layers", "diff_ids": "x"}),
        config_of(RootFS={}),
        config_of(os=7),
        config_of(created=7),
        config_of(config=[]),
        config_of(config={"Labels": {"a": 1}}),
        b"[]",
    ],
)
def test_a_malformed_config_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_config(raw, descriptor(raw))


def test_nulls_that_go_writes_are_nothing() -> None:
    raw = config_of(config=None, created=None, variant=None, rootfs={"type": "layers", "diff_ids": None})
    config = parse_config(raw, descriptor(raw))
    assert (config.labels, config.created, config.diff_ids) == ({}, None, ())
    assert config.platform == Platform("linux", "arm64")
    raw = config_of(config={"Labels": {"a": None, "b": "c"}})
    assert parse_config(raw, descriptor(raw)).labels == {"a": "", "b": "c"}
    assert parse_config(config_of(config={"Labels": None}), descriptor(config_of(config={"Labels": None})))
    assert parse_manifest(manifest_of(annotations=None)).annotations == {}
    assert parse_manifest(manifest_of(annotations={"a": None})).annotations == {"a": ""}
    assert parse_manifest(manifest_of(layers=None)).layers == ()


def layers_of(*pairs: tuple[str, str], media_type: str = OCI_LAYER + "+gzip") -> Callable[[], Any]:
    raw = config_of(*(name(diff_id) for _, diff_id in pairs))
    manifest = parse_manifest(
        manifest_of(
            config=described(raw, OCI_CONFIG),
            layers=[described(blob.encode(), media_type) for blob, _ in pairs],
        )
    )
    return lambda: image_layers(manifest, parse_config(raw, manifest.config))


def test_layers_are_paired_in_order() -> None:
    layers = layers_of(("b0", "d0"), ("b1", "d1"), ("b0", "d0"))()
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert [layer.digest for layer in layers] == [name("b0"), name("b1"), name("b0")]
    assert [layer.diff_id for layer in layers] == [name("d0"), name("d1"), name("d0")]
    assert all(type(layer.diff_id) is DiffID and not layer.is_opaque for layer in layers)
    assert {layer.compression for layer in layers} == {Compression.GZIP}
    assert layers[0].size == 2
    assert layers[0].media_type == OCI_LAYER + "+gzip"


def test_one_blob_cannot_have_two_diff_ids() -> None:
    with pytest.raises(DocumentError, match="two different"):
        layers_of(("b0", "d0"), ("b0", "d1"))()


@pytest.mark.parametrize(
    ("suffix", "names", "is_", "warning"),
    [
        ("", ("same", "same"), Compression.NONE, None),
        ("+gzip", ("one", "other"), Compression.GZIP, None),
        ("+zstd", ("one", "other"), Compression.ZSTD, None),
        ("+gzip", ("same", "same"), Compression.NONE, "is called .*tar.gzip, but it is a plain tar"),
        ("+zstd", ("same", "same"), Compression.NONE, "is called .*tar.zstd, but it is a plain tar"),
        ("", ("one", "other"), Compression.GZIP, "is called .*layer.v1.tar, but its DiffID says that it is"),
    ],
)
def test_a_blob_is_the_plain_tar_if_it_has_its_diff_id_as_digest_whatever_it_is_called(
    suffix: str, names: tuple[str, str], is_: Compression, warning: str | None
) -> None:
    (layer,) = layers_of(names, media_type=OCI_LAYER + suffix)()
    assert layer.compression is is_
    told = layer.mislabelled()
    assert told is None if warning is None else told is not None and re.search(warning, told)


def test_what_a_blob_turned_out_to_be_is_held_against_its_type() -> None:
    (layer,) = layers_of(("one", "other"), media_type=OCI_LAYER + "+gzip")()
    assert layer.mislabelled(Compression.GZIP) is None
    told = layer.mislabelled(Compression.ZSTD)
    assert told is not None and told.startswith(f"layer 0 ({name('one')}) is called") and "it is zstd" in told


@pytest.mark.parametrize("n", [0, 2])
def test_as_many_layers_as_diff_ids(n: int) -> None:
    raw = config_of(*[name("d")] * n)
    manifest = parse_manifest(manifest_of(config=described(raw, OCI_CONFIG)))
    with pytest.raises(DocumentError, match=f"1 layers, the image config {n}"):
        image_layers(manifest, parse_config(raw, manifest.config))


@pytest.mark.parametrize("text", ["", "sha256:x", "a" * 64, "sha256:" + "A" * 64, "md5:" + "a" * 32])
def test_a_diff_id_that_is_none_is_refused_by_name(text: str) -> None:
    raw = config_of(name("a"), text)
    layers = [described(b"0", OCI_LAYER + "+gzip"), described(b"1", OCI_LAYER + "+gzip")]
    manifest = parse_manifest(manifest_of(config=described(raw, OCI_CONFIG), layers=layers))
    with pytest.raises(DocumentError, match=r"^diff_ids\[1\] is not sha256:"):
        image_layers(manifest, parse_config(raw, manifest.config))


def as_far_as_known(
    *texts: str, blobs: Sequence[str] = ("b0", "b1", "b2"), kinds: Sequence[str] = ("+gzip",) * 3
) -> list[tuple[str, bool]]:
    """Of an image with these DiffIDs and blobs: what each layer's content is called, and whether opaque."""
    raw = config_of(*texts)
    layers = [described(blob.encode(), OCI_LAYER + kind) for blob, kind in zip(blobs, kinds, strict=True)]
    manifest = parse_manifest(manifest_of(config=described(raw, OCI_CONFIG), layers=layers))
    found = layers_as_far_as_known(manifest, parse_config(raw, manifest.config))
    assert [layer.digest for layer in found] == [name(blob) for blob in blobs]
    assert {type(layer.diff_id) for layer in found} == {DiffID}
    return [(str(layer.diff_id), layer.is_opaque) for layer in found]


def test_where_every_diff_id_is_good_no_layer_is_opaque() -> None:
    good = [name("d0"), name("d1"), name("d2")]
    assert as_far_as_known(*good) == [(diff_id, False) for diff_id in good]


@pytest.mark.parametrize("text", ["", "a" * 64, "sha256:x", "sha512:" + "a" * 128])
def test_a_layer_without_a_diff_id_that_can_be_checked_is_opaque_and_the_others_are_not(text: str) -> None:
    found = as_far_as_known(name("d0"), text, name("d2"))
    assert found == [(name("d0"), False), (name("b1"), True), (name("d2"), False)]


@pytest.mark.parametrize("n_ids", [0, 1, 2, 4, 6])
def test_with_more_or_fewer_diff_ids_than_layers_nothing_tells_whose_they_are(n_ids: int) -> None:
    found = as_far_as_known(*(name(f"d{n}") for n in range(n_ids)))
    assert found == [(name("b0"), True), (name("b1"), True), (name("b2"), True)]


def test_a_plain_tar_needs_no_diff_id() -> None:
    found = as_far_as_known("x", "x", "x", kinds=("+gzip", "", "+zstd"))
    assert found == [(name("b0"), True), (name("b1"), False), (name("b2"), True)]


def test_a_blob_that_repeats_is_known_by_any_of_its_diff_ids() -> None:
    found = as_far_as_known("x", name("d1"), name("d0"), blobs=("b0", "b1", "b0"))
    assert found == [(name("d0"), False), (name("d1"), False), (name("d0"), False)]


def test_what_contradicts_itself_is_refused_however_little_is_known() -> None:
    with pytest.raises(DocumentError, match="two different"):
        as_far_as_known(name("d0"), "x", name("d2"), blobs=("b0", "b1", "b0"))


@pytest.mark.parametrize(
    ("media_type", "says"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        (OCI_LAYER + "+gzip+encrypted", "encrypted"),
        (OCI_LAYER + "+xz", "gzip or zstd"),
        ("application/octet-stream", "gzip or zstd"),
    ],
)
def test_layers_this_program_cannot_pull_are_named(media_type: str, says: str) -> None:
    with pytest.raises(UnsupportedImage, match=says):
        layers_of(("b", "d"), media_type=media_type)()


def test_layers_with_foreign_urls_are_refused() -> None:
    raw = config_of(name("d"))
    layer = described(b"b", OCI_LAYER + "+gzip", urls=["https://elsewhere.example/b"])
    manifest = parse_manifest(manifest_of(config=described(raw, OCI_CONFIG), layers=[layer]))
    with pytest.raises(UnsupportedImage, match="foreign URLs"):
        image_layers(manifest, parse_config(raw, manifest.config))


def test_blobs_named_by_sha512_are_refused_with_the_reason() -> None:
    long = "sha512:" + "a" * 128
    raw = config_of(long)
    layer = described(b"b", OCI_LAYER + "+gzip")
    for document in (
        manifest_of(config=described(raw, OCI_CONFIG), layers=[layer]),
        manifest_of(config=described(raw, OCI_CONFIG), layers=[{**layer, "digest": long}]),
    ):
        manifest = parse_manifest(document)
        with pytest.raises(UnsupportedImage, match="only sha256"):
            image_layers(manifest, parse_config(raw, manifest.config))
    with pytest.raises(UnsupportedImage, match="only sha256"):
        parse_config(raw, Descriptor(OCI_CONFIG, Digest(long), len(raw)))


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("compression", list(Compression))
def test_media_types_and_compressions_are_inverse(compression: Compression, docker: bool) -> None:
    assert compression_of(media_type_of(compression, docker)) is compression


# --- what Go's programs take ---------------------------------------------------


def spoilt(of: str | None = "linux/arm64", /, **changes: object) -> dict[str, Any]:
    return {key: value for key, value in {**entry(of), **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    "other",
    [
        spoilt(size=-1),
        spoilt(size="7"),
        spoilt(digest="blake3:" + "1" * 64),
        spoilt(digest=None),
        spoilt(annotations={"a": 7}),
        spoilt(platform=7),
        spoilt(Digest="x"),
        spoilt(data="!"),
        spoilt(data="eHh4"),
        7,
        None,
        [],
    ],
    ids=lambda value: json.dumps(value)[:70],
)
@pytest.mark.parametrize("first", [True, False])
def test_one_bad_entry_of_an_index_spoils_only_itself(other: Any, first: bool) -> None:
    good = entry("linux/amd64")
    index = parse_index(index_of(*((other, good) if first else (good, other))))
    assert [one.digest for one in index.manifests] == [good["digest"]]
    assert len(index.unreadable) == 1 and index.unreadable[0].reason.startswith(
        f"manifests[{int(not first)}]"
    )
    warnings: list[str] = []
    assert choose_platform(index, Platform("linux", "amd64"), warnings).digest == good["digest"]
    assert warnings == []
    with pytest.raises(NotFound, match=r"there is: linux/amd64; not readable: manifests\["):
        choose_platform(index, Platform("linux", "s390x"))


def test_a_bad_entry_that_may_have_been_meant_is_told() -> None:
    variants = [
        (spoilt("linux/amd64", size=-1), 1),
        (spoilt("linux/arm64", size=-1), 0),
        (spoilt("linux/amd64/v3", size=-1), 0),
        (spoilt(None, size=-1), 0),
    ]
    for bad, n_warnings in variants:
        warnings: list[str] = []
        index = parse_index(index_of(entry("linux/amd64"), bad))
        assert choose_platform(index, Platform("linux", "amd64"), warnings).platform is not None
        assert len(warnings) == n_warnings, bad
        if warnings:
            assert "manifests[1] size is not" in warnings[0] and "was passed over" in warnings[0]
    only = parse_index(index_of(entry(None), spoilt(None, size=-1)))
    warnings = []
    choose_platform(only, Platform("linux", "amd64"), warnings)
    assert len(warnings) == 1


@pytest.mark.parametrize("said", [..., None, ""])
def test_an_entry_need_not_say_its_type(said: object) -> None:
    index = parse_index(index_of(spoilt("linux/amd64", mediaType=said)))
    assert choose_platform(index, Platform("linux", "amd64")).media_type == ""


def test_an_index_is_as_long_as_a_document_may_be() -> None:
    entries = [entry("linux/riscv64", str(n)) for n in range(3000)]
    index = parse_index(index_of(*entries, entry("linux/amd64")))
    assert len(index.manifests) == 3001
    assert choose_platform(index, Platform("linux", "amd64")) is index.manifests[-1]


def test_null_is_nothing_wherever_go_reads_it_so() -> None:
    layer = {**described(b"layer", OCI_LAYER + "+gzip"), "urls": None, "annotations": None, "platform": None}
    manifest = parse_manifest(manifest_of(layers=[{**layer, "data": None}], annotations=None, mediaType=None))
    assert (manifest.layers[0].urls, manifest.layers[0].annotations) == ((), {})
    assert parse({**index_of(), "manifests": None}, OCI_INDEX) == parse({**index_of(), "manifests": None})
    index = parse_index(index_of(spoilt(None, platform={"os": None, "architecture": "amd64"})))
    assert str(index.manifests[0].platform) == "unknown/amd64"
    raw = config_of(created=None, config=None, os=None, variant=None, history=None)
    config = parse_config(raw, descriptor(raw))
    assert (config.created, config.labels, config.platform.os) == (None, {}, "unknown")


@pytest.mark.parametrize("rootfs", [{}, None, {"type": None}, {"type": ""}, {"diff_ids": None}])
def test_an_image_without_layers_needs_no_rootfs(rootfs: object) -> None:
    raw = config_of(rootfs=rootfs)
    assert parse_config(raw, descriptor(raw)).diff_ids == ()


def test_a_rootfs_of_another_kind_is_refused() -> None:
    raw = config_of(rootfs={"type": "layers+base", "diff_ids": []})
    with pytest.raises(DocumentError, match=r"rootfs.type is not 'layers'"):
        parse_config(raw, descriptor(raw))


def test_names_that_differ_by_case_matter_only_where_they_are_read() -> None:
    raw = config_of(config={"Env": ["A=b"], "env": [], "Labels": {"a": "1", "A": "2"}})
    assert parse_config(raw, descriptor(raw)).labels == {"a": "1", "A": "2"}
    assert parse_manifest(manifest_of(Other=1, other=2)).layers
    ambiguous: dict[str, Any]
    for ambiguous in (
        {"config": {"Labels": {}, "labels": {}}},
        {"Rootfs": {}},
        {"rootfs": {"type": "layers", "diff_ids": [], "Diff_IDs": []}},
        {"OS": "linux"},
    ):
        raw = config_of(**ambiguous)
        with pytest.raises(DocumentError, match="ambiguous"):
            parse_config(raw, descriptor(raw))


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "text/html", "", "application/json", OCI_CONFIG, None, ...]
)
def test_the_config_of_dockers_manifest_is_one_whatever_it_is_called(kind: object) -> None:
    raw = config_of(name("d0"))
    config = {k: v for k, v in {**described(raw, DOCKER_CONFIG), "mediaType": kind}.items() if v is not ...}
    manifest = parse_manifest(manifest_of(mediaType=DOCKER_MANIFEST, config=config))
    assert len(image_layers(manifest, parse_config(raw, manifest.config))) == 1


def test_what_is_no_config_is_an_artifact_in_dockers_manifest_too() -> None:
    raw = b'{"name": "chart"}'
    config = described(raw, "application/vnd.cncf.helm.config.v1+json")
    manifest = parse_manifest(manifest_of(mediaType=DOCKER_MANIFEST, config=config))
    with pytest.raises(UnsupportedImage, match=r"artifact of type application/vnd\.cncf\.helm"):
        parse_config(raw, manifest.config)


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/html", "", "application/json"])
def test_of_an_oci_manifest_the_config_has_to_be_called_one(kind: str) -> None:
    with pytest.raises(UnsupportedImage, match="artifact"):
        parse(manifest_of(config=described(b"{}", kind)))


@pytest.mark.parametrize("kind", [DOCKER_MANIFEST, OCI_MANIFEST])
def test_the_type_that_an_index_names_counts_where_nothing_else_says_one(kind: str) -> None:
    raw = json.dumps(manifest_of(mediaType=...)).encode()
    for carried in (None, "application/octet-stream", "application/json"):
        assert parse_document(raw, carried, named_as=kind).media_type == kind
    assert parse_document(raw, OCI_MANIFEST, named_as=DOCKER_MANIFEST).media_type == OCI_MANIFEST
