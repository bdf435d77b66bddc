"""What the tests of a stock share: layouts by hand, and whether what is offered is what it is called."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from layertee.image.document import Digest, Platform
from layertee.serve.answers import Answer
from layertee.serve.app import App
from layertee.serve.offer import Document, Sendable
from layertee.serve.requests import parse
from layertee.serve.sending import Sending
from layertee.serve.stock import OpenStock
from layertee.serve.wheres import open_stock, parse_offered
from tests.support.compress import digest_of
from tests.support.rig.blobs import blob_path

AMD64 = Platform("linux", "amd64")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

Json = dict[str, Any]


def stock_of(
    *places: str, store: Path | None = None, platform: Platform = AMD64, cache: Path = Path("/nowhere")
) -> AbstractContextManager[OpenStock]:
    """The stock over ``places``, as ``--place`` names them. ``cache``: the blob info cache."""
    return closing(open_stock(parse_offered(places), store, platform=platform, blob_info_cache=cache))


def put_blob(root: Path, raw: bytes, media_type: str) -> Json:
    """A blob of the layout in ``root``; its descriptor."""
    path = blob_path(root, digest_of(raw))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}


def put_document(root: Path, document: object, media_type: str = OCI_MANIFEST) -> Json:
    """``put_blob`` for JSON."""
    return put_blob(root, json.dumps(document).encode(), media_type)


def put_artifact(root: Path, subject: Json | None = None, **more: object) -> Json:
    """A manifest of no image, with one small blob."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put_blob(root, b"{}", EMPTY_JSON),
        "layers": [put_blob(root, f"text {sorted(more.items())}".encode(), "text/plain")],
        **({"subject": subject} if subject is not None else {}),
        **more,
    }
    return put_document(root, manifest)


def put_index(root: Path, entries: Sequence[tuple[str | None, Mapping[str, Any]]]) -> None:
    """Make ``root`` a layout whose index.json has these entries, after those that it has."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    path = root / "index.json"
    there = json.loads(path.read_bytes())["manifests"] if path.exists() else []
    for ref, descriptor in entries:
        annotations = descriptor.get("annotations", {}) | ({REF_NAME: ref} if ref is not None else {})
        there.append(dict(descriptor) | ({"annotations": annotations} if annotations else {}))
    new = root / "index.json.new"
    new.write_text(json.dumps({"schemaVersion": 2, "manifests": there}))
    os.rename(new, path)


def descriptor_of(document: bytes, media_type: str = OCI_MANIFEST) -> Json:
    return {"mediaType": media_type, "digest": digest_of(document), "size": len(document)}


def content_of(blob: Sendable) -> bytes:
    """All of a blob's bytes."""
    reader = blob.content.open()
    try:
        room = bytearray(blob.size + 1)
        n = reader.readinto(memoryview(room))
    finally:
        reader.close()
    return bytes(room[:n])


def assert_blob_is_right(stock: OpenStock, digest: str, size: int) -> None:
    blob = stock.blob(Digest(digest))
    assert blob is not None, digest
    assert (blob.digest, blob.size) == (digest, size)
    assert digest_of(content_of(blob)) == digest


def assert_all_can_be_had(stock: OpenStock, repository: str, found: Sequence[Document]) -> None:
    """Each of the documents, and all that it names, however deep, under its digest."""
    for document in found:
        assert document.digest == digest_of(document.raw)
        again = stock.document(repository, document.digest)
        assert again is not None
        assert again.raw == document.raw
        assert again.media_type == document.media_type
        said = json.loads(document.raw)
        for child in said.get("manifests", []):
            inner = stock.document(repository, Digest(child["digest"]))
            assert inner is not None
            assert_all_can_be_had(stock, repository, [inner])
        for blob in [said["config"], *said["layers"]] if "layers" in said else []:
            assert_blob_is_right(stock, blob["digest"], blob["size"])


def digests(found: Sequence[Document]) -> list[str]:
    return [str(one.digest) for one in found]


def snapshot(*roots: Path) -> dict[str, tuple[int, ...]]:
    """Every name beneath ``roots``, with what changes when something is written there."""
    seen: dict[str, tuple[int, ...]] = {}
    for root in roots:
        for path in [root, *root.rglob("*")]:
            found = path.lstat()
            seen[str(path)] = (
                found.st_ino,
                found.st_mode,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
    return seen


Get = Callable[[str], Awaitable[Answer]]


def asking(stock: OpenStock, main: Callable[[Get], Awaitable[None]]) -> None:
    """Run ``main``, to which is given what a server answers a GET of a blob with. It may raise Refusal."""

    async def run() -> None:
        sending = Sending()
        app = App(stock, sending, lambda: (b"", ""))

        async def get(digest: str) -> Answer:
            return await app.answer(parse("GET", f"/v2/os/blobs/{digest}"), {})

        try:
            await main(get)
        finally:
            await sending.close()

    asyncio.run(run())
