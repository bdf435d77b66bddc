"""A machine with trust.toml, and an image with signatures beside it, in memory: no registry, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from layertee.config.trustfile import parse_trust
from layertee.config.trustrules import ScopeRules
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.signature import Attachment, Bundle, Subject, Verified
from layertee.signatures.trust.check import check_trust
from tests.support.bundlekit import Sigstore, found, statement
from tests.support.sigstorekit import PrivateKey, new_key, public_pem

IMAGE, INDEX, OTHER = b"the image's manifest", b"the index", b"another image's manifest"
NAME = parse_reference("registry.example.com/a/b:1")
assert isinstance(NAME, Reference)
SUBJECT = Subject(IMAGE, Digest.of(IMAGE), NAME)
FROM_INDEX = Subject(INDEX, Digest.of(INDEX), NAME, is_index=True)
FOR_IMAGE = statement(SUBJECT.digest)


class Beside:
    """What is beside images, and what was looked for: a TrustSource."""

    def __init__(self, signatures: Mapping[Digest, Sequence[bytes | Attachment]]) -> None:
        self._signatures = signatures
        self.asked: list[Digest] = []
        self.asked_for_attachments: list[Digest] = []

    async def bundles(self, digest: Digest) -> list[Bundle]:
        self.asked.append(digest)
        raws = (one for one in self._signatures.get(digest, ()) if isinstance(one, bytes))
        return [found(raw, f"bundle {n}") for n, raw in enumerate(raws)]

    async def attachments(self, digest: Digest) -> list[Attachment]:
        self.asked_for_attachments.append(digest)
        return [one for one in self._signatures.get(digest, ()) if isinstance(one, Attachment)]


class Machine:
    """A directory with trust.toml, a trusted root and keys."""

    def __init__(self, directory: Path, sigstore: Sigstore) -> None:
        self.directory = directory
        self.sigstore = sigstore
        (directory / "root.json").write_bytes(sigstore.trusted_root())

    def key(self, name: str, key: PrivateKey | None = None) -> PrivateKey:
        key = key or new_key()
        (self.directory / name).write_bytes(public_pem(key))
        return key

    def rules(self, text: str, *, root: bool = True) -> ScopeRules:
        head = '[scope."registry.example.com"]\n' + ('trusted-root = "root.json"\n' if root else "")
        scopes = parse_trust(self.directory / "trust.toml", (head + text).encode())
        (rules,) = scopes.values()
        return rules

    def check(
        self,
        text: str,
        *signatures: bytes | Attachment,
        root: bool = True,
        subjects: Sequence[Subject] = (SUBJECT,),
    ) -> tuple[Verified, ...]:
        source = Beside({SUBJECT.digest: signatures})
        return asyncio.run(check_trust([self.rules(text, root=root)], subjects, source))

    def refuses(self, text: str, *signatures: bytes | Attachment, root: bool = True) -> str:
        with pytest.raises(PolicyRefused) as caught:
            self.check(text, *signatures, root=root)
        return str(caught.value)
