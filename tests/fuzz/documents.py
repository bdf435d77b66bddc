"""Targets: documents of images, and the names of images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from layertee.errors import LayerteeError
from layertee.image.document import (
    Descriptor,
    Digest,
    Index,
    Manifest,
    choose_platform,
    image_layers,
    layers_as_far_as_known,
    parse_config,
    parse_document,
)
from layertee.image.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from layertee.image.placename import parse_place
from layertee.image.platform import Platform, elf_architecture
from layertee.image.reference import ShortName, parse_alias, parse_name, parse_reference, parse_short_name
from layertee.image.rewrite import layer_descriptor, oci_manifest
from layertee.image.roles import asking_order, roles_of
from layertee.image.stored_name import parse_stored
from layertee.image.strictjson import loads
from layertee.imageproxy.documents import runtime_config
from layertee.store import layout_index
from layertee.store.layout_index import REF_NAME
from tests.fuzz.target import Target, parts_of, text_of

HEX = "0123456789abcdef" * 4
A, B = f"sha256:{HEX}", f"sha256:{HEX[::-1]}"
_TYPES = (None, "", OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "application/json", "text/html")
_MAPS = (frozenset[str](), frozenset({"annotations", "Labels"}), None)
WORDS_OF_JSON = (b'"', b'{"', b'":', b"null", b"true", b"[", b"]", b"\\u", b"\\ud800", b"1e999", b"-0", b"{}")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# --- JSON ------------------------------------------------------------------


def strict_json(raw: bytes) -> object:
    """The first byte says which objects have free keys. What was read is written and read to the same."""
    if not raw:
        return None
    maps = _MAPS[raw[0] % len(_MAPS)]
    value = loads(raw[1:], "it", maps=maps)
    again = json.dumps(value, ensure_ascii=bool(raw[0] & 4)).encode()
    assert loads(again, "it", limit=1 << 26, maps=maps) == value
    return value


def _json_seeds() -> Iterator[bytes]:
    for first in b"\x00\x01\x02\x05":
        yield bytes([first]) + _json(
            {"a": [1, -2.5, None, True, "é\U0001f600"], "annotations": {"k": "v", "K": ""}}
        )
    yield b'\x01{"Labels":{"a":"1","A":"2"},"x":{"y":[[[]]]}}'
    yield b'\x00{"a":1,"a":2}'
    yield b"\x00" + b"[" * 70
    yield b'\x00"\\ud800"'


# --- manifests, indexes, configs --------------------------------------------


def descriptor(digest: str, kind: str = OCI_LAYER + "+gzip", **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": 10, **more}


def manifest(config: bytes = b"{}", layers: int = 2) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest.of(config), "size": len(config)},
            "layers": [descriptor(A if n % 2 else B) for n in range(layers)],
            "annotations": {"a": "b"},
        }
    )


def config(layers: int = 2) -> bytes:
    return _json(
        {
            "created": "2026-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"ostree.final-diffid": A, "x": "y"}, "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [B if n % 2 else A for n in range(layers)]},
            "history": [{"created_by": "x", "empty_layer": True}],
        }
    )


def document(raw: bytes) -> object:
    """The first byte is the Content-Type. A manifest can be written anew with the same layers."""
    if not raw:
        return None
    found = parse_document(raw[1:], _TYPES[raw[0] % len(_TYPES)], named_as=OCI_INDEX if raw[0] & 8 else "")
    assert found.digest == Digest.of(raw[1:])
    if isinstance(found, Index):
        chosen = choose_platform(found, Platform("linux", "arm64", "v8"), [])
        assert chosen in found.manifests
        return found
    layers = [
        {
            "mediaType": each.media_type,
            "digest": each.digest,
            "size": each.size,
            "annotations": each.annotations,
        }
        for each in found.layers
    ]
    again = parse_document(oci_manifest(found, layers, {}), OCI_MANIFEST)
    assert isinstance(again, Manifest)
    assert [(x.digest, x.size, x.annotations) for x in again.layers] == [
        (x.digest, x.size, x.annotations) for x in found.layers
    ]
    assert (again.config.digest, again.annotations) == (found.config.digest, found.annotations)
    return found


def _document_seeds() -> Iterator[bytes]:
    yield b"\x02" + manifest()
    yield b"\x00" + manifest(layers=0)
    platforms = [{"os": "linux", "architecture": m, "variant": "v8"} for m in ("amd64", "arm64")]
    entries = [descriptor(d, OCI_MANIFEST, platform=p) for d, p in zip((A, B), platforms, strict=True)]
    yield b"\x03" + _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    yield b"\x0b" + _json({"schemaVersion": 2, "manifests": [*entries, {"mediaType": "x"}, None, 5]})
    data = descriptor(Digest.of(b"0123456789"), data="MDEyMzQ1Njc4OQ==", urls=["https://x/"])
    yield b"\x02" + manifest().replace(b'"layers": [', b'"layers": [' + _json(data) + b", ")
    docker = manifest().replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode())
    yield b"\x04" + docker
    yield b"\x00" + _json({"schemaVersion": 1, "fsLayers": [], "signatures": []})


def image(raw: bytes) -> object:
    """A config and the manifest beside it: how they pair, in which order layers are asked for."""
    said, listed = parts_of(raw, 2)
    found = parse_config(said, Descriptor(OCI_CONFIG, Digest.of(said), len(said)))
    runtime = json.loads(runtime_config(found))
    assert isinstance(runtime, dict)
    of = parse_document(listed, OCI_MANIFEST)
    if not isinstance(of, Manifest):
        return None
    of = replace(of, config=Descriptor(OCI_CONFIG, found.digest, len(said)))
    layers_as_far_as_known(of, found)
    layers = image_layers(of, found)
    assert len(roles_of(layers, found)) in (0, len(layers))  # none where the label fits none
    assert sorted(x.index for x in asking_order(layers, found)) == list(range(len(layers)))
    for each in layers:
        each.mislabelled()
        layer_descriptor(each, each.digest, each.size, each.compression)
    return layers


def _image_seeds() -> Iterator[bytes]:
    for n in (0, 2):
        yield config(n) + b"\n%%\n" + manifest(config(n), n)
    yield config(2).replace(b'"created"', b'"Created"') + b"\n%%\n" + manifest()
    yield (
        b'{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["x"]}}' + b"\n%%\n" + manifest(layers=1)
    )


# --- index.json ---------------------------------------------------------------


def index_json(raw: bytes) -> object:
    """An entry is added and taken away; what is there otherwise stays."""
    before = layout_index.parse("index.json", raw)
    new = Descriptor(OCI_MANIFEST, Digest.of(b""), 0, platform=Platform("linux", "arm64", "v8"))
    added = layout_index.changed("i", raw, lambda entries: layout_index.with_entry(entries, "new:1", new))
    after = layout_index.parse("i", added)
    assert any(e.annotations.get(REF_NAME) == "new:1" and e.digest == new.digest for e in after.entries)
    gone = layout_index.changed("i", added, lambda entries: layout_index.without_entry(entries, "new:1"))
    had = [e for e in before.entries if e.annotations.get(REF_NAME) != "new:1"]
    assert [e.digest for e in layout_index.parse("i", gone).entries] == [e.digest for e in had]
    return after


def _index_seeds() -> Iterator[bytes]:
    yield layout_index.EMPTY
    entry = descriptor(A, OCI_MANIFEST, annotations={REF_NAME: "a:1"})
    yield _json({"schemaVersion": 2, "manifests": [entry, {"digest": "?"}, 7, descriptor(B, OCI_INDEX)]})
    yield b'{"schemaVersion":2,"manifests":null}'


# --- names ----------------------------------------------------------------------


def reference(raw: bytes) -> object:
    """What is read of a name is written so that it is read to the same."""
    text = text_of(raw)
    for other in (parse_place, parse_alias, parse_short_name, Platform.parse, Digest.parse):
        try:
            made = other(text)
        except LayerteeError:
            continue
        if other in (Digest.parse, Platform.parse):
            assert other(str(made)) == made
    try:
        stored = parse_stored(text, lambda short: HEX if short == "a" else None)
        assert stored.name is None or parse_stored(stored.name, lambda _: None).name == stored.name
    except LayerteeError:
        pass
    found = parse_name(text)
    if not isinstance(found, ShortName):
        assert parse_reference(str(found)) == found
    return found


def _reference_seeds() -> Iterator[bytes]:
    for text in (
        "quay.io/fedora/fedora-bootc:42",
        f"registry.example.com:5000/a/b/c:tag@{A}",
        "docker://[::1]:5000/x",
        "busybox",
        "docker://alpine",
        "oci:/var/lib/layout:name",
        "oci-archive:/tmp/x.tar:a.b/c@1",
        "docker-archive:x.tar:@7",
        "docker-archive:x.tar:name:tag",
        f"containers-storage:[overlay@/var/lib/containers+/run:a=b,c=d]localhost/x@{A}",
        "containers-storage:@abcdef",
        "ostree:/sysroot/ostree/repo",
        "composefs:/sysroot/composefs",
        "blob-info-cache:",
        "auto",
        "linux/arm64/v8",
        A,
        "sha512:" + HEX * 2,
        "HOST/x",
        "a__b--c.d/e:t",
        "10.0.0.1/x:1",
    ):
        yield text.encode()


def elf(raw: bytes) -> object:
    return elf_architecture(raw)


TARGETS = (
    Target("json", strict_json, _json_seeds, WORDS_OF_JSON),
    Target(
        "document",
        document,
        _document_seeds,
        (*WORDS_OF_JSON, b"schemaVersion", b"mediaType", b"layers", b"manifests", b"platform", A.encode()),
    ),
    Target("image", image, _image_seeds, (*WORDS_OF_JSON, b"\n%%\n", b"diff_ids", b"rootfs", B.encode())),
    Target("index-json", index_json, _index_seeds, (*WORDS_OF_JSON, REF_NAME.encode(), b"annotations")),
    Target(
        "reference",
        reference,
        _reference_seeds,
        (b"docker://", b"containers-storage:", b"oci:", b"@sha256:", HEX.encode(), b"localhost", b"library/"),
        max_len=600,
        largest=64 << 10,
    ),
    Target("elf", elf, lambda: (b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00",), max_len=40, largest=64 << 10),
)
