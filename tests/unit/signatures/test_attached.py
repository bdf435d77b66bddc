"""Signatures under ``sha256-….sig`` count for trust.toml like bundles, by keys and by identities."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.signatures.signature import Attachment, Verified
from layertee.signatures.trust.check import RegistryTrustSource, check_trust
from tests.support.bundlekit import WORKFLOW, Sigstore, claim, flip, moment
from tests.support.fakes.image import Rig
from tests.support.fakes.transport import Answer
from tests.support.sigstorekit import (
    BUNDLE,
    CERTIFICATE,
    ISSUER,
    SIGNATURE,
    SIGNED,
    Log,
    attachment,
    by_key,
    certificate_pem,
    manifest,
    new_key,
    payload,
    sign,
    tag_of,
)
from tests.support.trustmachine import FOR_IMAGE, FROM_INDEX, OTHER, SUBJECT, Beside, Machine

SIGNED_AS = "registry.example.com/a/b"
PAYLOAD = payload(SUBJECT.digest, SIGNED_AS)
KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
KEY = 'transparency-log = false\nsigner = [{key = "a.pub"}]'
LOGGED_KEY = 'signer = [{key = "a.pub"}]'


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture
def machine(tmp_path: Path, sigstore: Sigstore) -> Machine:
    return Machine(tmp_path, sigstore)


def log_of(sigstore: Sigstore) -> Log:
    """The same log, as sigstorekit.py has it."""
    return Log(sigstore.rekor.key)


def keyless(sigstore: Sigstore, text: bytes = PAYLOAD, *, at: int = SIGNED, **changes: Any) -> Attachment:
    """``cosign sign`` of version 2 by an identity. ``changes`` are those of ``Sigstore.leaf``."""
    key = changes.pop("key", None) or new_key()
    leaf = changes.pop("leaf", None) or sigstore.leaf(key, changes.pop("subject", WORKFLOW), **changes)
    signature, pem = sign(key, text), certificate_pem(leaf)
    saw = log_of(sigstore).saw(pem, signature, text, at=at)
    return attachment(text, signature, bundle=saw, certificate=pem)


def test_an_identity_is_accepted_and_told(machine: Machine) -> None:
    one = keyless(machine.sigstore)
    (verified,) = machine.check(KEYLESS, one)
    assert verified == Verified(
        kind="attachment",
        signed=SUBJECT.digest,
        place=one.place,
        signed_name=SIGNED_AS,
        subject=WORKFLOW,
        issuer=ISSUER,
        time=SIGNED,
        log_index=4711,
    )


def test_a_key_is_accepted_and_its_log_looked_at_if_asked_for(machine: Machine) -> None:
    key = machine.key("a.pub")
    bare, logged = by_key(key, PAYLOAD), by_key(key, PAYLOAD, log=log_of(machine.sigstore))
    assert machine.check(KEY, bare, root=False)[0].time is None
    assert machine.check(LOGGED_KEY, logged)[0].time == SIGNED
    assert "in no transparency log" in machine.refuses(LOGGED_KEY, bare)
    assert "log" in machine.refuses(LOGGED_KEY, by_key(key, PAYLOAD, log=Log()))
    assert "none of the keys" in machine.refuses(KEY, by_key(new_key(), PAYLOAD), root=False)


def test_another_identity_is_refused(machine: Machine) -> None:
    assert "subject 'https://x.example.com/'" in machine.refuses(
        KEYLESS, keyless(machine.sigstore, subject="https://x.example.com/")
    )
    other = keyless(machine.sigstore, issuer="https://other.example.com")
    assert "issuer 'https://other.example.com'" in machine.refuses(KEYLESS, other)


def test_claims_count(machine: Machine) -> None:
    text = KEYLESS.replace("}]", ', build-trigger = "push"}]')
    assert machine.check(text, keyless(machine.sigstore, claims=[claim(20, "push")]))
    assert "no build-trigger" in machine.refuses(text, keyless(machine.sigstore))
    other = keyless(machine.sigstore, claims=[claim(20, "pull_request")])
    assert "build-trigger 'pull_request'" in machine.refuses(text, other)


def test_a_signature_of_another_image_is_refused(machine: Machine) -> None:
    key = machine.key("a.pub")
    text = payload(Digest.of(OTHER), SIGNED_AS)
    assert f"for {Digest.of(OTHER)}" in machine.refuses(KEY, by_key(key, text), root=False)
    assert f"for {Digest.of(OTHER)}" in machine.refuses(KEYLESS, keyless(machine.sigstore, text))


def test_the_certificate_has_to_be_valid_when_the_log_saw_it(machine: Machine) -> None:
    assert machine.check(KEYLESS, keyless(machine.sigstore, at=SIGNED + 500))
    for at in (SIGNED + 600, SIGNED - 100, 1 << 62):
        machine.refuses(KEYLESS, keyless(machine.sigstore, at=at))


def test_every_part_of_a_sigstore_has_to_be_the_trusted_one(machine: Machine) -> None:
    mine = machine.sigstore
    machine.refuses(KEYLESS, keyless(Sigstore()))
    mixed = Sigstore(ct=mine.ct, rekor=mine.rekor)
    assert "certificate is not accepted" in machine.refuses(KEYLESS, keyless(mixed))
    mixed = Sigstore(root=mine.root, rekor=mine.rekor)
    mixed.issuer = mine.issuer
    assert "certificate transparency log" in machine.refuses(KEYLESS, keyless(mixed))
    mixed.ct, mixed.rekor = mine.ct, Sigstore().rekor
    assert "log" in machine.refuses(KEYLESS, keyless(mixed))
    mixed.rekor = mine.rekor
    assert machine.check(KEYLESS, keyless(mixed))


def test_a_certificate_without_the_word_of_a_log_is_refused(machine: Machine) -> None:
    from cryptography import x509

    key = new_key()
    bare = machine.sigstore.issuer.leaf(key.public_key(), names=[x509.UniformResourceIdentifier(WORKFLOW)])
    message = machine.refuses(KEYLESS, keyless(machine.sigstore, key=key, leaf=bare))
    assert "no word of a certificate transparency log" in message
    other = machine.sigstore.leaf(key, "https://x.example.com/")
    swapped = machine.sigstore.ct.witnessed(bare, machine.sigstore.issuer, of=other)
    message = machine.refuses(KEYLESS, keyless(machine.sigstore, key=key, leaf=swapped))
    assert "in no certificate transparency log" in message


def test_parts_of_the_root_count_only_while_they_were_in_use(machine: Machine) -> None:
    one = keyless(machine.sigstore)
    for part in ("certificateAuthorities", "tlogs", "ctlogs"):

        def edit(document: dict[str, Any], part: str = part) -> None:
            (each,) = document[part]
            each.get("publicKey", each)["validFor"] = {"start": moment(0), "end": moment(SIGNED - 500)}

        (machine.directory / "root.json").write_bytes(machine.sigstore.trusted_root(edit))
        machine.refuses(KEYLESS, one)


def test_a_log_entry_of_another_signature_is_refused(machine: Machine) -> None:
    one, other = keyless(machine.sigstore), keyless(machine.sigstore)
    swapped = {**one.annotations, BUNDLE: other.annotations[BUNDLE]}
    machine.refuses(KEYLESS, dataclasses.replace(one, annotations=swapped))
    key = machine.key("a.pub")
    mine, again = (by_key(key, PAYLOAD, log=log_of(machine.sigstore)) for _ in range(2))
    swapped = {**mine.annotations, BUNDLE: again.annotations[BUNDLE]}
    machine.refuses(LOGGED_KEY, dataclasses.replace(mine, annotations=swapped))


@pytest.mark.parametrize("name", [SIGNATURE, BUNDLE, CERTIFICATE])
def test_annotations_that_are_damaged_are_refused(machine: Machine, name: str) -> None:
    one = keyless(machine.sigstore)
    text = one.annotations[name]
    bad = ["", "x", text[:-40], text * 2, "é", "x" * 100_000]
    if name == SIGNATURE:
        bad.append(flip(text, 20))
    if name == BUNDLE:
        document = json.loads(text)
        document["SignedEntryTimestamp"] = flip(document["SignedEntryTimestamp"], 20)
        bad.append(json.dumps(document))
    for each in bad:
        machine.refuses(KEYLESS, dataclasses.replace(one, annotations={**one.annotations, name: each}))
    missing = {key: value for key, value in one.annotations.items() if key != name}
    machine.refuses(KEYLESS, dataclasses.replace(one, annotations=missing))


def test_what_is_no_signature_is_passed_over(machine: Machine) -> None:
    one = keyless(machine.sigstore)
    other = dataclasses.replace(one, media_type="application/vnd.dsse.envelope.v1+json")
    assert "no signature of an image" in machine.refuses(KEYLESS, other)
    assert machine.check(KEYLESS, other, one)


def test_the_form_has_to_be_one_that_counts(machine: Machine) -> None:
    key = machine.key("a.pub")
    bundle, attached = machine.sigstore.by_key(key, FOR_IMAGE), by_key(key, PAYLOAD)
    for form, good, bad in (("bundle", bundle, attached), ("attachment", attached, bundle)):
        text = f'{KEY}\nforms = ["{form}"]'
        assert machine.check(text, good, root=False)[0].kind == form
        machine.refuses(text, bad, root=False)


def test_a_bundle_and_an_attachment_of_one_signer_count_once(machine: Machine) -> None:
    key = machine.key("a.pub")
    machine.key("b.pub")
    text = 'transparency-log = false\nthreshold = 2\nsigner = [{key = "a.pub"}, {key = "b.pub"}]'
    both = machine.sigstore.by_key(key, FOR_IMAGE), by_key(key, PAYLOAD)
    assert "1 has" in machine.refuses(text, *both, root=False)


def test_attachments_are_looked_for_only_if_bundles_are_too_few(machine: Machine) -> None:
    source = Beside({SUBJECT.digest: [machine.sigstore.keyless(FOR_IMAGE)]})
    asyncio.run(check_trust([machine.rules(KEYLESS)], (SUBJECT, FROM_INDEX), source))
    assert source.asked_for_attachments == []


def test_identities_by_attachments_alone_need_no_library(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sigstore.verify", None)
    text = f'{KEYLESS}\nforms = ["attachment"]'
    assert machine.check(text, keyless(machine.sigstore))
    assert "pip install" in machine.refuses(KEYLESS, keyless(machine.sigstore))


def test_both_are_found_in_a_registry(machine: Machine) -> None:
    key = machine.key("a.pub")
    rig = Rig()
    raw, blobs = manifest([by_key(key, PAYLOAD)])
    oci = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    rig.transport.on(f"{rig.base}/manifests/{tag_of(SUBJECT.digest)}", Answer(200, raw, oci))
    for digest, blob in blobs.items():
        rig.transport.on(f"{rig.base}/blobs/{digest}", Answer(200, blob))
    rig.transport.on(f"{rig.base}/referrers/{SUBJECT.digest}", Answer(404, b""))
    rig.transport.on(f"{rig.base}/manifests/sha256-{SUBJECT.digest.hex}", Answer(404, b""))
    source = RegistryTrustSource(rig.registry, rig.reference.name)
    (verified,) = asyncio.run(check_trust([machine.rules(KEY, root=False)], (SUBJECT,), source))
    assert verified.place == f"quay.io/ns/repo:{tag_of(SUBJECT.digest)}, layer 0"
    rig.transport.on(f"{rig.base}/manifests/{tag_of(SUBJECT.digest)}", Answer(404, b""))
    with pytest.raises(PolicyRefused, match="no signatures were found"):
        asyncio.run(check_trust([machine.rules(KEY, root=False)], (SUBJECT,), source))
