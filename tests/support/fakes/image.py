"""A registry that has one image, on a scripted transport."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from layertee.config.logins import Credentials, Login
from layertee.image.document import Digest, Platform
from layertee.image.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from layertee.image.reference import Reference, parse_reference
from layertee.image.resolved import ResolvedImage
from layertee.registry.client import Registry
from layertee.registry.http import Body, TLSPolicy
from tests.support.fakes.transport import Answer, FakeTransport, json_answer

AMD64 = Platform("linux", "amd64")
PASSWORD = "hunter2-PLANTED"
USER = Login("me", PASSWORD)


def described(content: bytes, media_type: str, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content), **more}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


CONFIG = encode(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(b"tar")]},
    }
)
MANIFEST = encode(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(CONFIG, OCI_CONFIG),
        "layers": [described(b"tar.gz", OCI_LAYER + "+gzip")],
    }
)


def index_of(*entries: dict[str, Any]) -> bytes:
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)})


def on_amd64(content: bytes = MANIFEST, media_type: str = OCI_MANIFEST, **more: object) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": "amd64"}
    return {**described(content, media_type), "platform": platform, **more}


INDEX = index_of(on_amd64())


def document(body: bytes, media_type: str = OCI_MANIFEST, **headers: str) -> Answer:
    return Answer(200, body, {"Content-Type": media_type, **headers})


class Rig:
    """The registry of ``name``; what else it answers, a test adds."""

    def __init__(
        self,
        name: str = "quay.io/ns/repo:tag",
        login: Login | None = None,
        *,
        scheme: str = "https",
        allow_http: bool = False,
    ) -> None:
        reference = parse_reference(name)
        assert isinstance(reference, Reference)
        self.reference = reference
        self.transport = FakeTransport()
        self.slept: list[float] = []
        self.base = f"{scheme}://{reference.api_host}/v2/{reference.repository}"
        self.tag = f"{self.base}/manifests/{reference.digest or reference.tag}"
        self.config = f"{self.base}/blobs/{Digest.of(CONFIG)}"
        self.transport.on(self.tag, document(MANIFEST))
        self.transport.on(f"{self.base}/manifests/{Digest.of(MANIFEST)}", document(MANIFEST))
        self.transport.on(self.config, Answer(200, CONFIG))
        self.registry = Registry(
            self.transport,
            reference,
            Credentials(login=login) if login else Credentials.no_credentials(),
            tls=TLSPolicy(verify=not allow_http),
            allow_http=allow_http,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def resolve(self, platform: Platform = AMD64) -> ResolvedImage:
        return asyncio.run(self.registry.resolve(platform))

    def urls(self) -> list[str]:
        return [request.url for request in self.transport.requests]


REALM = "https://quay.io/v2/auth"
NEEDS_TOKEN = Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{REALM}",service="quay.io"'})
BLOB = "tar.gz"
CDN = "https://cdn.example/blob?X-Signature=PLANTED-signature"


class BlobRig(Rig):
    """A rig that has a token already, and whose blob lives elsewhere."""

    def __init__(self, *answers: Answer, **options: Any) -> None:
        super().__init__(login=USER, **options)
        self.transport.on(self.tag, NEEDS_TOKEN, document(MANIFEST))
        self.transport.on(REALM, json_answer({"token": "T"}))
        self.image = self.resolve()
        self.url = f"{self.base}/blobs/{Digest.of(BLOB.encode())}"
        self.transport.on(self.url, *answers)
        self.transport.requests.clear()

    def open(self, start: int = 0, stop: int | None = None) -> Body:
        return asyncio.run(self.registry.open_blob(self.image.layers[0].descriptor, start, stop))


def redirect(url: str = CDN, status: int = 307) -> Answer:
    return Answer(status, b"see other", {"Location": url, "Content-Length": "9"})
