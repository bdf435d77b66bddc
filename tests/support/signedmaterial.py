"""Keys, authorities, logs, manifests: what signatures of images are made with, and made for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from layertee.image.digest import Digest
from layertee.signatures.signature import Attachment

from . import sigstorekit as kit
from .openpgp import Signer


def manifest(number: int) -> bytes:
    """One of an image that has never been."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kit.OCI_MANIFEST,
            "config": {"mediaType": kit.OCI_CONFIG, "digest": f"sha256:{number:064x}", "size": 1},
            "layers": [],
        }
    ).encode()


def index(*manifests: bytes) -> bytes:
    """One of ``manifests``."""
    entries = [
        {"mediaType": kit.OCI_MANIFEST, "digest": str(Digest.of(raw)), "size": len(raw)} for raw in manifests
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


def stored(one: Attachment) -> bytes:
    """``one`` as lookaside servers and directories keep it."""
    document = {"mimeType": one.media_type, "payload": kit.b64(one.payload), "annotations": one.annotations}
    return b"\0sigstore-json\n" + json.dumps(document).encode()


@dataclass
class Material:
    """Keys, authorities and logs. The second of each kind is never what is asked for alone."""

    gpg: Signer
    directory: Path
    keys: tuple[kit.PrivateKey, ...] = field(
        default_factory=lambda: (kit.new_key(), kit.new_key(), kit.rsa_key())
    )
    logs: tuple[kit.Log, ...] = field(default_factory=lambda: (kit.Log(), kit.Log()))
    roots: tuple[kit.Authority, ...] = field(
        default_factory=lambda: (kit.Authority.root(), kit.Authority.root("other"))
    )
    _simple: dict[tuple[bytes, str], bytes] = field(default_factory=dict)
    _files: dict[bytes, Path] = field(default_factory=dict)

    USERS = ("first", "second", "revoked", "expired")
    THEN, SOON = "20200101T000000", "20200101T120000"

    def __post_init__(self) -> None:
        for user in self.USERS[:2]:
            self.gpg.key(user)
        self.gpg.key("revoked")
        self.gpg.key("expired", life="1d", at=self.THEN)
        self.public = {user: self.gpg.public(user) for user in self.USERS}
        self.public["revoked"] = self.gpg.revoked("revoked")
        self.between = tuple(root.intermediate() for root in self.roots)
        self.short = self.roots[0].intermediate("short", path_length=0)
        self.old = self.roots[0].intermediate("old", since=kit.FROM, until=kit.SIGNED - kit.DAY_S)
        self.idle = self.roots[0].intermediate("idle", key_usage=kit.usage(sign_certificates=False))
        bounds = x509.NameConstraints([x509.RFC822Name("example.com")], None)
        self.bounded = self.roots[0].intermediate("bounded", extensions=[(bounds, True)])
        self.narrow = self.roots[0].intermediate("narrow", usages=[kit.SERVER_AUTH])

    def simple(self, content: bytes, user: str) -> bytes:
        """A message by ``user``; the same one for the same content."""
        if (content, user) not in self._simple:
            at = self.SOON if user == "expired" else None
            self._simple[content, user] = self.gpg.sign(content, user, at=at)
        return self._simple[content, user]

    def file(self, content: bytes) -> str:
        """A file with it."""
        if content not in self._files:
            self._files[content] = self.directory / f"{len(self._files)}.pem"
            self._files[content].write_bytes(content)
        return str(self._files[content])
