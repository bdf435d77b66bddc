"""Targets: what other tools keep on a machine, and the archives that they write."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from layertee.errors import DocumentError, LayerteeError
from layertee.image.basis import Basis
from layertee.image.document import DiffID, Digest
from layertee.image.media import OCI_MANIFEST
from layertee.image.platform import Platform
from layertee.image.reference_archive import DockerArchiveReference
from layertee.places.blobinfocache import BlobInfoCache
from layertee.places.decompressed import decompressed, packing_of
from layertee.places.docker_archive import DockerArchive, DockerArchivePlace
from layertee.places.oci_archive import Archive, OCIArchivePlace
from layertee.places.ostree.gvariant import commit_strings
from layertee.places.ostree.images import CONFIG_KEY, MANIFEST_KEY, gather, stored_layers
from layertee.places.ostree.names import escape, layer_digest, layer_ref, unescape
from layertee.places.ostree.record import PLACE, PreparedRef, read_record, write_record
from layertee.places.podman.records import file_name, image_rows, layer_rows
from layertee.places.podman.tarsplit import Payload, TarSplit
from layertee.places.tarindex import DamagedTar, members
from layertee.store.catalog import Catalog, PulledImage
from tests.fuzz.documents import HEX, WORDS_OF_JSON, A, B, config, manifest
from tests.fuzz.target import Target, file_of, parts_of, scratch, text_of

_BLOCK = 512

# --- containers-storage -----------------------------------------------------


def records(raw: bytes) -> object:
    """``layers.json`` or ``images.json``, as the first byte says."""
    if raw[:1] == b"l":
        layers = list(layer_rows(raw[1:], "layers.json", "podman"))
        assert all(row.size >= 0 and len(row.layer_id) == 64 for row in layers)
        return layers
    images = list(image_rows(raw[1:], "images.json"))
    for row in images:
        assert set(row.manifest_keys) <= set(row.keys)
        assert all("/" not in file_name(key) or key for key in row.keys)
    return images


def _record_seeds() -> Iterator[bytes]:
    layer = {
        "id": HEX,
        "diff-digest": A,
        "diff-size": 10,
        "compressed-diff-digest": B,
        "compressed-size": 7,
        "compression": 2,
        "flags": {"incomplete": False, "expected-layer-diffid": A},
    }
    yield (
        b"l"
        + json.dumps([layer, layer | {"toc-digest": A}, layer | {"flags": {"incomplete": True}}, 5]).encode()
    )
    image = {
        "id": HEX,
        "digest": A,
        "names": ["localhost/x:1"],
        "big-data-names": ["manifest", "manifest-" + A],
    }
    yield b"i" + json.dumps([image, image | {"names": None}]).encode()
    yield b"lnull"


def tar_split(raw: bytes) -> object:
    """The first bytes are flags and the size that the tar should have. 1: the stream is not gzip yet."""
    if len(raw) < 3:
        return None
    size = int.from_bytes(raw[1:3], "little")
    stream = raw[3:]
    if raw[0] & 1:
        stream = gzip.compress(stream, 1, mtime=0)
    made = 0
    split = TarSplit(io.BytesIO(stream), "it", size)
    while (entry := split.take()) is not None:
        made += entry.size if isinstance(entry, Payload) else len(entry)
        assert made <= size
    assert made == size
    return made


def _tar_split_seeds() -> Iterator[bytes]:
    lines = (
        b'{"type":2,"payload":"aGVsbG8="}\n{"type":1,"name":"a/b","size":10,"payload":"x"}\n'
        b'{"type":1,"name_raw":"/+8=","size":1}\n{"type":1,"name":"dir/","size":0}\n{"type":2,"payload":""}\n'
    )
    yield b"\x01\x10\x00" + lines
    yield b"\x00\x10\x00" + gzip.compress(lines, mtime=0)
    yield b"\x01\x0f\x00" + lines


# --- ostree -----------------------------------------------------------------


def commit(metadata: Mapping[str, str]) -> bytes:
    """A commit of which only the metadata make sense."""
    raw, ends = b"", []
    for key, value in metadata.items():
        name = key.encode() + b"\0"
        body = _aligned(name) + value.encode() + b"\0\0s"
        raw = _aligned(raw) + _framed(body, [len(name)])
        ends.append(len(raw))
    table = _framed(raw, ends) if ends else b""
    return _framed(table + bytes(8), [len(table)] * 6)


def _aligned(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 8)


def _framed(raw: bytes, ends: list[int]) -> bytes:
    width = next(w for w in (1, 2, 4, 8) if len(raw) + w * len(ends) < 1 << 8 * w)
    return raw + b"".join(end.to_bytes(width, "little") for end in ends)


def gvariant(raw: bytes) -> object:
    found = commit_strings(raw)
    assert commit_strings(commit(found)) == found
    gather([stored_layers(found, "an image")])
    return found


def _gvariant_seeds() -> Iterator[bytes]:
    yield commit({})
    yield commit({"a": "b", "version": "42"})
    yield commit({MANIFEST_KEY: manifest().decode(), CONFIG_KEY: config().decode()})
    yield commit({f"k{n}": "x" * n for n in range(30)})


def ref_names(raw: bytes) -> object:
    text = text_of(raw)
    if text:
        assert unescape(escape(text)) == text
    name = unescape(text)
    assert escape(name) == text
    return layer_digest(text)


def prepared(raw: bytes) -> object:
    """The record of prepared refs: what is read is written so that it is read to the same."""
    repo = scratch() / "repo"
    (repo / PLACE).mkdir(parents=True, exist_ok=True)
    (repo / PLACE / "prepared.json").write_bytes(raw)
    rows = read_record(repo)
    if rows:
        write_record(repo, rows)
        assert read_record(repo) == rows
    return [row.ref for row in rows]


def _prepared_seeds() -> Iterator[bytes]:
    row = PreparedRef(Digest(A), HEX, 5, 7, DiffID(B), next(iter(Basis)), "quay.io/x/y:1", Digest(B))
    repo = scratch() / "repo"
    (repo / PLACE).mkdir(parents=True, exist_ok=True)
    write_record(repo, [row, replace(row, commit="x")])
    yield (repo / PLACE / "prepared.json").read_bytes()


# --- SQLite -----------------------------------------------------------------


def blob_info_cache(raw: bytes) -> object:
    """Never an error: what cannot be read is a warning. The file stays as it was."""
    path = file_of(raw, "cache.sqlite")
    found = BlobInfoCache(path).blob_names([DiffID(A), DiffID(B)])
    assert path.read_bytes() == raw
    return found


def _database(*statements: str) -> bytes:
    path = scratch() / "seed.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in ("PRAGMA page_size = 512", *statements):
            db.execute(statement)
    raw = path.read_bytes()
    path.unlink()
    return raw


_PAIRS = (
    "CREATE TABLE DigestUncompressedPairs"
    "(anyDigest TEXT PRIMARY KEY NOT NULL, uncompressedDigest TEXT NOT NULL)"
)
_COMPRESSORS = "CREATE TABLE DigestCompressors(digest TEXT PRIMARY KEY NOT NULL, compressor TEXT NOT NULL)"


def _cache_seeds() -> Iterator[bytes]:
    rows = (
        f"INSERT INTO DigestUncompressedPairs VALUES ('{B}', '{A}'), ('{A}', '{A}'), ('x', '{B}')",
        f"INSERT INTO DigestCompressors VALUES ('{B}', 'gzip'), ('x', 'zstd:chunked')",
    )
    yield _database(_PAIRS, _COMPRESSORS, *rows)
    yield _database(_PAIRS, _COMPRESSORS)
    yield _database(_PAIRS, "CREATE VIEW DigestCompressors AS SELECT 1 AS digest, 2 AS compressor")
    yield _database("CREATE TABLE x(y)")


def catalog(raw: bytes) -> object:
    """A catalog, or a file that is moved aside; an image can then be put in it."""
    room = scratch() / "catalog"
    room.mkdir(exist_ok=True)
    (room / "catalog.db").write_bytes(raw)
    try:
        with Catalog(room / "catalog.db") as found:
            found.pairs()
            found.holdings()
            found.lookup(Digest(A))
            new = PulledImage("x", Digest(A), Digest(A), Digest(B), "linux/amd64", 1)
            found.put_image(new)
            assert found.image("x") == new
            return found.rebuilt is None or None
    finally:
        shutil.rmtree(room)


def _catalog_seeds() -> Iterator[bytes]:
    path = scratch() / "seed.db"
    path.unlink(missing_ok=True)
    with Catalog(path) as found:
        found.put_image(PulledImage("y", Digest(A), Digest(A), Digest(B), "linux/amd64", 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA page_size = 512")
        db.execute("VACUUM")
    yield path.read_bytes()
    path.unlink()
    yield _database("CREATE TABLE pair(x)")


# --- archives -----------------------------------------------------------------


def summed(raw: bytes) -> bytes:
    """``raw`` with the right checksum in each block that is a header by its magic."""
    made = bytearray(raw)
    for at in range(0, len(made) - _BLOCK + 1, _BLOCK):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + _BLOCK])
    return bytes(made)


def tar_of(files: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Without the zeros that fill up a record."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    raw = out.getvalue()
    return raw.rstrip(b"\0").ljust(-(-len(raw.rstrip(b"\0")) // _BLOCK) * _BLOCK, b"\0") + bytes(2 * _BLOCK)


def tar_index(raw: bytes) -> object:
    """With headers that have the right checksum. What members say of where they are must be in the file."""
    raw = summed(raw)
    path = file_of(raw, "x.tar")
    fd = os.open(path, os.O_RDONLY)
    try:
        found = list(members(fd))
    finally:
        os.close(fd)
    end = 0
    for member in found:
        assert end <= member.offset and member.size >= 0 and member.offset + member.size <= len(raw)
        end = member.offset + member.size
    return found


def _tar_seeds() -> Iterator[bytes]:
    yield tar_of({"a": b"hello", "b/c": b""})
    yield tar_of({"n" * 150: b"x"}, tarfile.GNU_FORMAT)
    yield tar_of({"é" * 100: b"x"}, tarfile.PAX_FORMAT)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 120
        link.pax_headers = {"size": "0", "comment": "x"}
        tar.addfile(link)
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    yield out.getvalue()[: 8 * _BLOCK]


def docker_archive(raw: bytes) -> object:
    """``manifest.json``, a config and a layer, or the whole tar after a ``t``."""
    if raw[:1] == b"t":
        made = summed(raw[1:])
    else:
        listed, said, layer = parts_of(raw, 3)
        made = tar_of({"manifest.json": listed, "c.json": said, "l/layer.tar": layer})
    path = file_of(made, "docker.tar")
    DockerArchivePlace(path).find([DiffID(A), DiffID(B)])
    archive = DockerArchive(path)
    archive.name_of(DockerArchiveReference(path, index=0))
    return archive.resolve(DockerArchiveReference(path, index=0))


def _docker_seeds() -> Iterator[bytes]:
    listed = b'[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]'
    yield b"\n%%\n".join((listed, config(1), b"a tar"))
    yield b"\n%%\n".join((listed, config(1), gzip.compress(b"a tar", mtime=0)))
    yield b"\n%%\n".join((listed.replace(b"l/layer.tar", b"../l/./layer.tar"), config(1), b"x"))
    yield b"t" + tar_of({"manifest.json": listed, "c.json": config(1)})


def oci_archive(raw: bytes) -> object:
    """``oci-layout``, an index, a manifest and a config, or the whole tar after a ``t``."""
    if raw[:1] == b"t":
        made = summed(raw[1:])
    else:
        marker, index, listed, said = parts_of(raw, 4)
        blobs = {f"blobs/sha256/{Digest.of(blob).hex}": blob for blob in (listed, said)}
        made = tar_of(
            {"oci-layout": marker, "index.json": index.replace(b"@M", Digest.of(listed).encode()), **blobs}
        )
    path = file_of(made, "oci.tar")
    OCIArchivePlace(path, known=lambda _: None).find([DiffID(A), DiffID(B)])
    archive = Archive.open(path)
    archive.refs()
    return archive.resolve(None, Platform("linux", "amd64"))


def _oci_seeds() -> Iterator[bytes]:
    marker = b'{"imageLayoutVersion":"1.0.0"}'
    listed = manifest(config())
    entry = {"mediaType": OCI_MANIFEST, "digest": "@M", "size": len(listed)}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    yield b"\n%%\n".join((marker, index, listed, config()))
    yield b"\n%%\n".join((marker, index.replace(b"@M", A.encode()), listed, config()))
    yield b"t" + tar_of({"oci-layout": marker, "index.json": b'{"schemaVersion":2,"manifests":[]}'})


def unpacking(raw: bytes) -> object:
    """A file that is compressed as a whole: bzip2, xz, gzip, zstd."""
    packing = packing_of(raw)
    if packing is None:
        return None
    made = 0
    for block in decompressed((raw[at : at + 100] for at in range(0, len(raw), 100)), packing):
        made += len(block)
        if made > 1 << 20:
            return None
    return made


def _unpacking_seeds() -> Iterator[bytes]:
    import bz2
    import lzma

    for pack in (bz2.compress, lzma.compress):
        yield pack(b"hello " * 50)
        yield pack(b"") + pack(b"x")
    yield gzip.compress(b"hello " * 50, mtime=0)
    yield bytes.fromhex("28b52ffd0000290000") + b"hello"


_DIGESTS = (A.encode(), B.encode())
TARGETS = (
    Target(
        "records", records, _record_seeds, (*WORDS_OF_JSON, b"diff-digest", b"diff-size", b"flags", *_DIGESTS)
    ),
    Target("tar-split", tar_split, _tar_split_seeds, (*WORDS_OF_JSON, b'"type":1', b'"type":2', b"name_raw")),
    Target(
        "gvariant",
        gvariant,
        _gvariant_seeds,
        (b"\0s", b"\0", b"ostree.manifest"),
        (DocumentError, LayerteeError),
    ),
    Target(
        "ref-names",
        ref_names,
        lambda: (layer_ref(Digest(A)).encode(), b"_2F_", b"__", b"a/b"),
        (b"ostree/container/blob/", b"_3A_", b"__"),
        (ValueError,),
        max_len=300,
        largest=64 << 10,
    ),
    Target("prepared", prepared, _prepared_seeds, (*WORDS_OF_JSON, b"inode", b"basis", *_DIGESTS)),
    Target(
        "blob-info-cache", blob_info_cache, _cache_seeds, (b"CREATE TABLE", b"CREATE VIEW"), (), max_len=8192
    ),
    Target("catalog", catalog, _catalog_seeds, (b"CREATE TABLE", b"CHECK"), max_len=8192),
    Target(
        "tar-index", tar_index, _tar_seeds, (b"path=", b"size=", b"GNU.sparse."), (DamagedTar,), max_len=8192
    ),
    Target(
        "docker-archive", docker_archive, _docker_seeds, (*WORDS_OF_JSON, b"\n%%\n", b"Layers"), max_len=8192
    ),
    Target("oci-archive", oci_archive, _oci_seeds, (*WORDS_OF_JSON, b"\n%%\n", b"@M"), max_len=8192),
    Target("unpacking", unpacking, _unpacking_seeds, (b"BZh9", b"\xfd7zXZ\0")),
)
