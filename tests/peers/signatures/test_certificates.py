"""Certificates that are nearly right, each signed by its issuer as it is, beside the newest containers/image:
none counts here that does not count there.

``LAYERTEE_CORPUS`` is the number of cases (default 2400).
"""

from __future__ import annotations

import ipaddress
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from layertee.image.digest import Digest
from tests.support import sigstorekit as kit
from tests.support.derforms import reissued
from tests.support.imagepolicy import Document, ImagePolicy, imagepolicy
from tests.support.judged import documented, refusal_here
from tests.support.rig.prebuild import NotBuilt, program
from tests.support.signedcases import Case
from tests.support.signedmaterial import manifest, stored

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

N_CASES = int(os.environ.get("LAYERTEE_CORPUS", "2400")) // 3
NAME = "quay.io/a/b:1"
RAW = manifest(1)
PAYLOAD = kit.payload(Digest.of(RAW), NAME)
HOST = "signer.example.com"
NAMES = (
    x509.RFC822Name(kit.EMAIL),
    x509.DNSName(HOST),
    x509.UniformResourceIdentifier("https://signer.example.com/x"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
)
NAMED: kit.Extension = (x509.SubjectAlternativeName(NAMES), False)
MORE: tuple[kit.Extension, ...] = (
    (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)]), False),
    (
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP,
                    x509.UniformResourceIdentifier("http://signer.example.com/"),
                )
            ]
        ),
        False,
    ),
)

# What is refused here and taken there: what the refusal says, and the words of sigstore-signing.md for it.
NARROWER = {
    "has a certificate that cannot be read": "that are not strictly DER",
    "has no certificate that can be used": "that are not strictly DER",
    "has a certificate with a malformed name": "URLs as names with a user",
    "non-empty Issuer": "an authority without a name",
    "with an unusual name": "names in other string types",
    "name constraints": "with name constraints",
    "policy constraints": "policy constraints",
    "policy mappings": "policy mappings",
    "inhibitAnyPolicy": "inhibitAnyPolicy",
    "its key is not for signing certificates": "a key usage in which nothing is set",
    "that is not of version 3": "of a version before 3",
    "not of the type that it should be": "in another type than UTF8String",
    "its certificate is not accepted": "critical certificate policies or places of revocation lists",
}


@pytest.fixture(scope="module")
def peer() -> Iterator[ImagePolicy]:
    try:
        there = program("imagepolicy")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    with imagepolicy(there) as found:
        yield found


@dataclass
class Forms:
    """An image whose signature holds, but that one certificate of its path may be odd."""

    chance: random.Random

    def __post_init__(self) -> None:
        self._key, self._log, self._root = kit.new_key(), kit.Log(), kit.Authority.root()
        self._between = (
            self._root.intermediate("first"),
            self._root.intermediate("second", usages=None),
            self._root.intermediate("third", path_length=0),
            self._root.intermediate(
                "fourth", extensions=[*MORE, (x509.SubjectAlternativeName(NAMES), False)]
            ),
        )

    def next(self, odd: str) -> Case:
        """One whose ``odd`` certificate, the leaf, intermediate, root or none, is odd."""
        chance = self.chance
        issuer = chance.choice(self._between)
        more = chance.random() < 0.6
        by_log = chance.random() < 0.5
        now = int(time.time())
        leaf = issuer.leaf(
            self._key.public_key(),
            names=NAMES if more else None,
            extensions=[*kit.issuers(), *(MORE if more else ())],
            name=chance.choice(("", "someone")),
            since=kit.SIGNED - 60 if by_log else now - kit.DAY_S,
            until=kit.SIGNED + 540 if by_log else now + kit.DAY_S,
        )
        path = {
            "leaf": (leaf, issuer.key),
            "intermediate": (issuer.certificate, self._root.key),
            "root": (self._root.certificate, self._root.key),
        }
        pems = [
            kit.pem(reissued(one, by, chance) if which == odd else one.public_bytes(Encoding.DER))
            for which, (one, by) in path.items()
        ]
        requirement, signature = (self._logged if by_log else self._certified)(*pems, with_host=more)
        return Case(NAME, {"default": [requirement]}, (Document(RAW, (signature,)),), (odd, pems[0].hex()))

    def _logged(
        self, leaf: bytes, between: bytes, root: bytes, *, with_host: bool
    ) -> tuple[dict[str, Any], bytes]:
        signature = kit.sign(self._key, PAYLOAD)
        bundle = self._log.saw(leaf, signature, PAYLOAD, at=kit.SIGNED)
        fulcio = {"caData": kit.b64(root), "oidcIssuer": kit.ISSUER, "subjectEmail": kit.EMAIL}
        log = kit.b64(self._log.pem)
        requirement = {"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyData": log}
        one = kit.attachment(PAYLOAD, signature, bundle=bundle, certificate=leaf, chain=between + root)
        return requirement, stored(one)

    def _certified(
        self, leaf: bytes, between: bytes, root: bytes, *, with_host: bool
    ) -> tuple[dict[str, Any], bytes]:
        pki = {"caRootsData": kit.b64(root), "subjectEmail": kit.EMAIL}
        if with_host and self.chance.random() < 0.5:
            pki["subjectHostname"] = HOST
        chain: bytes | None = between + root
        if self.chance.random() < 0.5:
            pki["caIntermediatesData"], chain = kit.b64(between), None
        signature = kit.sign(self._key, PAYLOAD)
        one = kit.attachment(PAYLOAD, signature, certificate=leaf, chain=chain)
        return {"type": "sigstoreSigned", "pki": pki}, stored(one)


@pytest.mark.parametrize("words", sorted(set(NARROWER.values())))
def test_what_is_refused_here_alone_is_in_the_manual(words: str) -> None:
    assert words in documented()


@pytest.mark.parametrize("odd", ["leaf", "intermediate", "root"])
# The library says these of odd names and numbers; certificates.py hushes the second, but pytest undoes that.
@pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_no_certificate_counts_that_does_not_count_there(peer: ImagePolicy, odd: str) -> None:
    forms = Forms(random.Random(len(odd)))
    for _ in range(20):
        case = forms.next("none")
        assert refusal_here(case) is None
        assert peer.refusals(case.policy, case.name, case.documents) == (None,)
    seen: Counter[str] = Counter()
    wrong: list[tuple[str, Case, str]] = []
    for _ in range(N_CASES):
        case = forms.next(odd)
        here = refusal_here(case)
        (there,) = peer.refusals(case.policy, case.name, case.documents)
        if here is None and there is None:
            seen["accepted"] += 1
        elif here is not None and there is not None:
            seen["refused"] += 1
        elif here is None:
            wrong.append(("wider", case, str(there)))
        elif not (known := [words for text, words in NARROWER.items() if text in here]):
            wrong.append(("narrower", case, here))
        else:
            seen[f"narrower: {known[0]}"] += 1
    sys.stdout.write(f"{dict(seen)}\n")
    assert not wrong, "\n".join(f"{which}: {case.what}: {why}" for which, case, why in wrong[:3])
    assert min(seen["accepted"], seen["refused"]) > N_CASES // 20
