"""Cosign 3 and trust.toml: what Cosign makes is accepted, and nothing is accepted that Cosign refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from layertee.config.logins import Credentials
from layertee.config.trustfile import parse_trust
from layertee.errors import IntegrityError, PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, Transport
from layertee.signatures.signature import Attachment, Subject, Verified
from layertee.signatures.trust.check import RegistryTrustSource, check_trust
from tests.support.bundlekit import PROVENANCE, WORKFLOW, Sigstore, flip, statement
from tests.support.rig.beside import Beside
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.sigstorekit import (
    ISSUER,
    SIGNED,
    Log,
    attachment,
    certificate_pem,
    manifest,
    new_key,
    payload,
    public_pem,
    sign,
    tag_of,
)
from tests.support.sigstorekit import by_key as signed_by_key

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign3")]

BARE_KEY = 'transparency-log = false\nsigner = [{key = "cosign.pub"}]'
ATTESTED = (
    f'{BARE_KEY}\nattestation = [{{predicate-type = "{PROVENANCE}", signer = [{{key = "cosign.pub"}}]}}]'
)
LOGGED_KEY = 'trusted-root = "root.json"\nsigner = [{key = "k.pub"}]'
KEYLESS = f'trusted-root = "root.json"\nsigner = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
BY_KEY = ("--trusted-root", "root.json", "--key", "k.pub")
BY_IDENTITY = (
    *("--trusted-root", "root.json", "--certificate-identity", WORKFLOW),
    *("--certificate-oidc-issuer", ISSUER),
)


@dataclass
class Bench:
    """A registry, and a directory with keys and a trusted root."""

    server: RegistryServer
    image: BuiltImage
    directory: Path

    def put(self, repository: str) -> str:
        """The image in ``repository``; its name by digest."""
        upload(self.image, f"{repository}:1", self.server)
        return f"{self.server.host}/{repository}@{self.image.digest}"

    def verified(self, name: str, text: str) -> tuple[Verified, ...]:
        """What trust.toml accepts of the image called ``name``."""
        scope = f'[scope."{self.server.host}"]\n{text}'
        rules = list(parse_trust(self.directory / "trust.toml", scope.encode()).values())
        reference = parse_reference(name)
        assert isinstance(reference, Reference)

        async def checked() -> tuple[Verified, ...]:
            transport = Transport(user_agent="layertee-test/1")
            login = Credentials.no_credentials()
            try:
                registry = Registry(transport, reference, login, tls=TLSPolicy(verify=False), allow_http=True)
                subject = Subject(self.image.manifest, Digest(self.image.digest), reference)
                return await check_trust(rules, [subject], RegistryTrustSource(registry, reference.name))
            finally:
                await transport.close()

        return asyncio.run(checked())

    def accepts(self, name: str, text: str) -> bool:
        try:
            return bool(self.verified(name, text))
        except (PolicyRefused, IntegrityError):
            return False


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "image").mkdir()
    image = build_image(tmp_path / "image", [text_layer({"etc/motd": "hello\n"})])
    with RegistryServer() as server:
        yield Bench(server, image, tmp_path)


def test_what_cosign_signs_is_accepted(bench: Bench) -> None:
    cosign = Cosign(bench.directory)
    cosign.make_key()
    name = bench.put("signed/new")
    cosign.sign(name)
    (verified,) = bench.verified(name, BARE_KEY)
    assert verified.kind == "bundle"
    (bench.directory / "predicate").write_text('{"buildType": "test"}')
    assert not bench.accepts(name, ATTESTED)
    cosign.attest(name, PROVENANCE, bench.directory / "predicate")
    assert len(bench.verified(name, ATTESTED)) == 2
    name = bench.put("signed/old")
    cosign.sign(name, bundle=False)
    (verified,) = bench.verified(name, BARE_KEY)
    assert (verified.kind, verified.signed_name) == ("attachment", f"{bench.server.host}/signed/old")
    name = bench.put("not/signed")
    assert not bench.accepts(name, BARE_KEY)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all texts in a document."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*way, key))
    else:
        yield way


def turned(holder: Any, key: Any) -> None:
    text = holder[key]
    try:
        holder[key] = flip(text, len(text) // 2 * 3 // 4)
    except (ValueError, IndexError):
        holder[key] = str(int(text) + 1) if text.isdigit() else f"{text[:-1]}?"


def dropped(holder: Any, key: Any) -> None:
    del holder[key]


def damaged(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """A bundle with each of its parts changed, and each left out."""
    for place in places(json.loads(raw)):
        for damage in (turned, dropped):
            document = json.loads(raw)
            holder = document
            for step in place[:-1]:
                holder = holder[step]
            damage(holder, place[-1])
            yield f"{damage.__name__} {place}", json.dumps(document).encode()


def cases(sigstore: Sigstore, key: Any, digest: str) -> Iterator[tuple[str, bool, bytes]]:
    """Names, whether it is by the key, and bundles."""
    signed, elsewhere, other = statement(digest), statement(Digest.of(b"another image")), Sigstore()
    make: Callable[..., bytes]
    for by_key, make in ((True, lambda *a, **k: sigstore.by_key(key, *a, **k)), (False, sigstore.keyless)):
        good = make(signed)
        yield "good", by_key, good
        yield "of another image", by_key, make(elsewhere)
        yield "over other bytes", by_key, make(signed, signed=b"else")
        for what, raw in damaged(good):
            yield what, by_key, raw
    late = new_key()
    yield "by another key", True, sigstore.by_key(new_key(), signed)
    yield "in no log", True, sigstore.by_key(key, signed, logged=False)
    yield "in another log", True, other.by_key(key, signed)
    yield "by another authority", False, other.keyless(signed)
    yield "by another identity", False, sigstore.keyless(signed, "https://elsewhere.example.com/")
    yield "by another issuer", False, sigstore.keyless(signed, issuer="https://elsewhere.example.com")
    yield "too late", False, sigstore.keyless(signed, key=late, leaf=sigstore.leaf(late), at=SIGNED + 700)


# What Cosign does not look at, and what it takes for left out where it is empty.
NARROWER = {"'kindVersion'", "'treeSize'", "'signedEntryTimestamp'"}


def test_nothing_is_accepted_that_cosign_refuses(bench: Bench) -> None:
    sigstore, key = Sigstore(), new_key()
    (bench.directory / "root.json").write_bytes(sigstore.trusted_root())
    (bench.directory / "k.pub").write_bytes(public_pem(key))
    cosign = Cosign(bench.directory)
    wider, narrower, n_accepted = [], [], 0
    for n, (what, by_key, raw) in enumerate(cases(sigstore, key, bench.image.digest)):
        name = bench.put(f"case/{n}")
        Beside(bench.server, f"case/{n}").attach(bench.image.digest, raw)
        ours = bench.accepts(name, LOGGED_KEY if by_key else KEYLESS)
        theirs = cosign.accepts(name, *(BY_KEY if by_key else BY_IDENTITY))
        n_accepted += ours
        assert what != "good" or (ours and theirs), (by_key, ours, theirs)
        if ours and not theirs:
            wider.append(what)
        if theirs and not ours and not any(word in what for word in NARROWER):
            narrower.append(what)
    assert n > 80 and n_accepted >= 2
    assert (wider, narrower) == ([], [])


# --- the older way ---


def attached(
    sigstore: Sigstore, text: bytes, *, log: Log | None = None, at: int = SIGNED, **changes: Any
) -> Attachment:
    """A signature by an identity. ``changes`` are those of ``Sigstore.leaf``, or ``key`` and ``leaf``."""
    key = changes.pop("key", None) or new_key()
    leaf = changes.pop("leaf", None) or sigstore.leaf(key, changes.pop("subject", WORKFLOW), **changes)
    signature, pem = sign(key, text), certificate_pem(leaf)
    saw = (log or Log(sigstore.rekor.key)).saw(pem, signature, text, at=at)
    return attachment(text, signature, bundle=saw, certificate=pem)


def changed(one: Attachment) -> Iterator[tuple[str, Attachment]]:
    """``one`` with each of its annotations left out, and with other letters in it."""
    for name, text in one.annotations.items():
        others = {key: value for key, value in one.annotations.items() if key != name}
        yield f"without {name}", dataclasses.replace(one, annotations=others)
        for at in (len(text) // 3, len(text) // 2, 2 * len(text) // 3, len(text) - 20):
            # A digit: of hexadecimal letters, cosign takes the capital one for the same.
            other = text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]
            yield f"{name} at {at}", dataclasses.replace(one, annotations={**others, name: other})


def attachments(sigstore: Sigstore, key: Any, digest: str) -> Iterator[tuple[str, bool, Attachment]]:
    """Names, whether it is by the key, and attachments."""
    log, text, elsewhere = Log(sigstore.rekor.key), payload(digest, "x/y"), payload(Digest.of(b"else"), "x/y")
    by_key, by_identity = signed_by_key(key, text, log=log), attached(sigstore, text)
    yield "good", True, by_key
    yield "good", False, by_identity
    yield "in no log", True, signed_by_key(key, text)
    yield "in another log", True, signed_by_key(key, text, log=Log())
    yield "by another key", True, signed_by_key(new_key(), text, log=log)
    yield "of another image", True, signed_by_key(key, elsewhere, log=log)
    yield "of another image", False, attached(sigstore, elsewhere)
    yield "by another authority", False, attached(Sigstore(), text, log=log)
    yield "too late", False, attached(sigstore, text, at=SIGNED + 700)
    yield "too early", False, attached(sigstore, text, at=SIGNED - 70)
    yield "by another identity", False, attached(sigstore, text, subject="https://elsewhere.example.com/")
    yield "by another issuer", False, attached(sigstore, text, issuer="https://elsewhere.example.com")
    ephemeral = new_key()
    bare = sigstore.issuer.leaf(
        ephemeral.public_key(), names=[x509.UniformResourceIdentifier(WORKFLOW)], since=SIGNED - 60
    )
    yield (
        "without the word of a log of certificates",
        False,
        attached(sigstore, text, key=ephemeral, leaf=bare),
    )
    other = Sigstore(root=sigstore.root)
    other.issuer = sigstore.issuer
    yield "with the word of another one", False, attached(other, text, log=log)
    for is_by_key, one in ((True, by_key), (False, by_identity)):
        for what, each in changed(one):
            yield what, is_by_key, each


def test_nothing_in_the_older_way_is_accepted_that_cosign_refuses(bench: Bench) -> None:
    sigstore, key = Sigstore(), new_key()
    (bench.directory / "root.json").write_bytes(sigstore.trusted_root())
    (bench.directory / "k.pub").write_bytes(public_pem(key))
    cosign = Cosign(bench.directory)
    differ, n_accepted = [], 0
    for n, (what, by_key, one) in enumerate(attachments(sigstore, key, bench.image.digest)):
        name = bench.put(f"case/{n}")
        beside = Beside(bench.server, f"case/{n}")
        raw, blobs = manifest([one])
        for blob in blobs.values():
            beside.put_blob(blob)
        beside.put_manifest(tag_of(Digest(bench.image.digest)), raw)
        ours = bench.accepts(name, 'forms = ["attachment"]\n' + (LOGGED_KEY if by_key else KEYLESS))
        options = BY_KEY if by_key else BY_IDENTITY
        theirs = cosign.accepts(name, "--new-bundle-format=false", *options)
        n_accepted += ours
        assert what != "good" or (ours and theirs), (by_key, ours, theirs)
        if ours is not theirs:
            differ.append((what, by_key, ours))
    assert n >= 35 and n_accepted >= 2
    assert differ == []
