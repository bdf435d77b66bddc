"""Time-stamps of authorities in the trusted root: what they prove, and bundles that have no other time."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from layertee.errors import PolicyRefused
from layertee.signatures.trust.root import RootDocument, parse_root
from layertee.signatures.trust.timestamps import stamped_at
from tests.support.bundlekit import WORKFLOW, Sigstore, moment, pae
from tests.support.sigstorekit import ISSUER, NOW, SIGNED, b64, new_key
from tests.support.stampkit import StampAuthority
from tests.support.trustmachine import FOR_IMAGE, Machine

MESSAGE = b"a signature"
KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
STAMPED_KEY = 'transparency-log = false\ntimestamp = true\nsigner = [{key = "a.pub"}]'


@pytest.fixture(scope="module")
def stamps() -> StampAuthority:
    return StampAuthority()


def root_of(*stamps: StampAuthority, sigstore: Sigstore | None = None, **valid: str) -> bytes:
    def edit(document: dict[str, Any]) -> None:
        document["timestampAuthorities"] = [
            each.instance(**(valid or {"start": "2020-01-01T00:00:00Z"})) for each in stamps
        ]

    return (sigstore or Sigstore()).trusted_root(edit)


def parsed(*stamps: StampAuthority, **valid: str) -> RootDocument:
    return parse_root(root_of(*stamps, sigstore=None, **valid), "root")


def test_a_stamp_proves_its_time(stamps: StampAuthority) -> None:
    root = parsed(StampAuthority(), stamps)
    assert stamped_at([stamps.stamp(MESSAGE, SIGNED)], MESSAGE, root) == SIGNED
    some = [
        b"nonsense",
        stamps.stamp(MESSAGE, SIGNED + 5),
        stamps.stamp(b"else", SIGNED),
        stamps.stamp(MESSAGE, SIGNED + 3),
    ]
    assert stamped_at(some, MESSAGE, root) == SIGNED + 3


def test_what_proves_nothing_is_refused(stamps: StampAuthority) -> None:
    good = stamps.stamp(MESSAGE, SIGNED)
    damaged = [
        good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(len(good) - 40, len(good) - 4, 5)
    ]
    for bad in (
        b"",
        good[:-9],
        stamps.stamp(b"else", SIGNED),
        stamps.stamp(MESSAGE, SIGNED, status=2),
        *damaged,
    ):
        with pytest.raises(PolicyRefused, match="no time-stamp"):
            stamped_at([bad], MESSAGE, parsed(stamps))
    for root in (parsed(), parsed(StampAuthority()), parsed(stamps, start=moment(SIGNED + 9))):
        with pytest.raises(PolicyRefused, match="no time-stamp"):
            stamped_at([good], MESSAGE, root)


def stamped(authority: StampAuthority, at: float, of: str | None = None) -> Any:
    """An edit that adds a stamp of the envelope's signature to a bundle."""

    def edit(document: dict[str, Any]) -> None:
        signature = base64.b64decode(of or document["dsseEnvelope"]["signatures"][0]["sig"])
        stamp = {"signedTimestamp": b64(authority.stamp(signature, at))}
        document["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}

    return edit


@pytest.fixture
def machine(tmp_path: Path, stamps: StampAuthority) -> Machine:
    made = Machine(tmp_path, Sigstore())
    (tmp_path / "root.json").write_bytes(root_of(stamps, sigstore=made.sigstore))
    return made


def test_a_key_with_a_stamp(machine: Machine, stamps: StampAuthority) -> None:
    key = machine.key("a.pub")
    make = machine.sigstore.by_key
    (verified,) = machine.check(STAMPED_KEY, make(key, FOR_IMAGE, logged=False, edit=stamped(stamps, SIGNED)))
    assert verified.time == SIGNED
    for bad in (
        make(key, FOR_IMAGE, logged=False),
        make(key, FOR_IMAGE, logged=False, edit=stamped(StampAuthority(), SIGNED)),
        make(key, FOR_IMAGE, logged=False, edit=stamped(stamps, SIGNED, of=b64(b"another"))),
    ):
        assert "no time-stamp" in machine.refuses(STAMPED_KEY, bad)


def test_an_identity_with_a_stamp_as_well_as_the_log(machine: Machine, stamps: StampAuthority) -> None:
    make = machine.sigstore.keyless
    text = f"timestamp = true\n{KEYLESS}"
    assert machine.check(text, make(FOR_IMAGE, edit=stamped(stamps, SIGNED + 5)))[0].time == SIGNED
    assert "no time-stamp" in machine.refuses(text, make(FOR_IMAGE))
    machine.refuses(text, make(FOR_IMAGE, edit=stamped(StampAuthority(), SIGNED)))


def logged_without_time(machine: Machine, edit: Any, at: int = SIGNED) -> bytes:
    """What Cosign 3 makes with Rekor 2: an entry without a time, and a stamp."""
    from tests.support.sigstorekit import sign

    key = new_key()
    leaf = machine.sigstore.leaf(key, at=at)
    signature = sign(key, pae(FOR_IMAGE))
    verifier = {
        "x509Certificate": {"rawBytes": b64(leaf.public_bytes(Encoding.DER))},
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
    }
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(pae(FOR_IMAGE)).digest())}
    spec = {"data": digest, "signature": {"content": b64(signature), "verifier": verifier}}
    body = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": spec}}
    raw = json.loads(machine.sigstore.keyless(FOR_IMAGE, key=key, leaf=leaf, body=body))
    raw["verificationMaterial"]["tlogEntries"] = [machine.sigstore.rekor.entry(body, at=None)]
    raw["dsseEnvelope"]["signatures"] = [{"sig": b64(signature)}]
    edit(raw)
    return json.dumps(raw).encode()


def test_an_entry_of_the_second_version_with_a_stamp(machine: Machine, stamps: StampAuthority) -> None:
    (verified,) = machine.check(KEYLESS, logged_without_time(machine, stamped(stamps, SIGNED)))
    assert (verified.subject, verified.time, verified.log_index) == (WORKFLOW, SIGNED, 5)
    for bad in (
        stamped(stamps, NOW),  # the certificate is not valid any more
        stamped(StampAuthority(), SIGNED),
        lambda document: None,
    ):
        machine.refuses(KEYLESS, logged_without_time(machine, bad))


def test_of_several_stamps_none_is_chosen(machine: Machine, stamps: StampAuthority) -> None:
    def edit(document: dict[str, Any]) -> None:
        stamped(stamps, SIGNED)(document)
        data = document["verificationMaterial"]["timestampVerificationData"]
        signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
        data["rfc3161Timestamps"].append({"signedTimestamp": b64(stamps.stamp(signature, SIGNED + 1))})

    assert "2 time-stamps" in machine.refuses(KEYLESS, logged_without_time(machine, edit))
