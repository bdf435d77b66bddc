"""Putting bundles beside an image in a real registry, as Cosign 3 does it over the distribution API."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from layertee.image.digest import Digest
from layertee.image.media import OCI_INDEX, OCI_MANIFEST
from tests.support.bundlekit import BUNDLE_TYPE, COSIGN_SIGN
from tests.support.rig.registry import RegistryServer, RigError

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


class Beside:
    """One repository of ``server``, which has no API for referrers: they are listed under a tag."""

    def __init__(self, server: RegistryServer, repository: str) -> None:
        self._server = server
        self._base = f"/v2/{repository}"

    def attach(self, subject: str, bundle: bytes, *, kind: str = BUNDLE_TYPE) -> str:
        """Put ``bundle`` beside the manifest ``subject``, and in its list; the digest of the artifact."""
        self.put_blob(_EMPTY)
        layer = {"mediaType": kind, "digest": self.put_blob(bundle), "size": len(bundle)}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": _EMPTY_TYPE, "digest": str(Digest.of(_EMPTY)), "size": len(_EMPTY)},
            "layers": [layer],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1},
            "annotations": {"dev.sigstore.bundle.predicateType": COSIGN_SIGN},
        }
        raw = json.dumps(document).encode()
        digest = str(Digest.of(raw))
        self.put_manifest(digest, raw)
        entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(raw), "artifactType": kind}
        tag = subject.replace(":", "-")
        status, found, _ = self._exchange("GET", f"manifests/{tag}", None, {"Accept": OCI_INDEX})
        listed: list[Any] = json.loads(found)["manifests"] if status == 200 else []
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*listed, entry]}
        self.put_manifest(tag, json.dumps(index).encode(), OCI_INDEX)
        return digest

    def put_manifest(self, name: str, raw: bytes, media_type: str = OCI_MANIFEST) -> None:
        self._put(f"manifests/{name}", raw, media_type)

    def put_blob(self, raw: bytes) -> str:
        """Its digest."""
        digest = str(Digest.of(raw))
        _, _, location = self._exchange("POST", "blobs/uploads/", None, {})
        parts = urlsplit(location)
        path = f"{parts.path}?{parts.query}{'&' if parts.query else ''}digest={digest}"
        self._put(path, raw, "application/octet-stream")
        return digest

    def _put(self, path: str, raw: bytes, media_type: str) -> None:
        status, text, _ = self._exchange("PUT", path, raw, {"Content-Type": media_type})
        if status != 201:
            raise RigError(f"PUT {path}: {status} {text!r}")

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, str]:
        """Status, body and Location."""
        connection = self._server.connection()
        try:
            target = path if path.startswith("/") else f"{self._base}/{path}"
            connection.request(method, target, body, headers | self._server.auth_headers())
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers.get("Location", "")
        finally:
            connection.close()
