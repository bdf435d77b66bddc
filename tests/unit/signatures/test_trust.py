"""What trust.toml asks for is asked of an image: who counts, how often, and what is passed over."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from layertee.errors import PolicyRefused, TrustFileError, UnsafePath
from layertee.image.digest import Digest
from layertee.signatures.signature import Verified
from layertee.signatures.trust.check import check_trust
from tests.support.bundlekit import (
    PROVENANCE,
    WORKFLOW,
    Rekor,
    Sigstore,
    claim,
    dsse_v2,
    flip,
    hashedrekord_v2,
    moment,
    statement,
)
from tests.support.sigstorekit import ISSUER, SIGNED, PrivateKey, new_key, public_pem, rsa_key
from tests.support.trustmachine import FOR_IMAGE, FROM_INDEX, IMAGE, OTHER, SUBJECT, Beside, Machine


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture
def machine(tmp_path: Path, sigstore: Sigstore) -> Machine:
    return Machine(tmp_path, sigstore)


KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
BY_KEY = 'transparency-log = false\nsigner = [{key = "a.pub"}]'
LOGGED_KEY = 'signer = [{key = "a.pub"}]'


# --- identities ---


def test_an_identity_is_accepted_and_told(machine: Machine) -> None:
    (verified,) = machine.check(KEYLESS, machine.sigstore.keyless(FOR_IMAGE))
    assert verified == Verified(
        kind="bundle",
        signed=SUBJECT.digest,
        place="bundle 0",
        subject=WORKFLOW,
        issuer=ISSUER,
        time=SIGNED,
        log_index=1005,
    )


def test_an_e_mail_address_is_an_identity(machine: Machine) -> None:
    raw = machine.sigstore.keyless(FOR_IMAGE, "somebody@example.com")
    for rule in ('subject = "somebody@example.com"', 'subject-pattern = "*@example.com"'):
        (verified,) = machine.check(f'signer = [{{issuer = "{ISSUER}", {rule}}}]', raw)
        assert verified.subject == "somebody@example.com"


@pytest.mark.parametrize(
    ("rule", "is_accepted"),
    [
        ('subject-prefix = "https://github.com/example/"', True),
        ('subject-prefix = "https://github.com/examp/"', False),
        ('subject-pattern = "https://github.com/example/*/.github/workflows/*@refs/heads/main"', True),
        ('subject-pattern = "https://github.com/*/.github/workflows/build.yml@refs/heads/main"', False),
        ('subject-pattern = "https://github.com/**@refs/tags/*"', False),
        (f'subject = "{WORKFLOW}x"', False),
        ('subject = "https://github.com/example/os"', False),
    ],
)
def test_a_subject_by_prefix_or_pattern(machine: Machine, rule: str, is_accepted: bool) -> None:
    raw = machine.sigstore.keyless(FOR_IMAGE)
    text = f'signer = [{{issuer = "{ISSUER}", {rule}}}]'
    if is_accepted:
        assert machine.check(text, raw)[0].subject == WORKFLOW
    else:
        assert f"subject '{WORKFLOW}'" in machine.refuses(text, raw)


def test_another_issuer_is_refused(machine: Machine) -> None:
    raw = machine.sigstore.keyless(FOR_IMAGE, issuer="https://elsewhere.example.com")
    assert "issuer 'https://elsewhere.example.com'" in machine.refuses(KEYLESS, raw)


@pytest.mark.parametrize(
    ("claims", "is_accepted"),
    [
        ([claim(12, "https://github.com/example/os"), claim(6, "refs/heads/main")], True),
        ([claim(12, "https://github.com/example/os"), claim(6, "refs/heads/stable")], True),
        ([claim(12, "https://github.com/example/os"), claim(6, "refs/heads/other")], False),
        ([claim(12, "https://github.com/fork/os"), claim(6, "refs/heads/main")], False),
        ([claim(12, "https://github.com/example/os")], False),
        ([], False),
    ],
)
def test_claims_of_the_certificate(machine: Machine, claims: list[Any], is_accepted: bool) -> None:
    text = (
        f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}",'
        ' source-repository = "https://github.com/example/os",'
        ' workflow-ref = ["refs/heads/main", "refs/heads/stable"]}]'
    )
    raw = machine.sigstore.keyless(FOR_IMAGE, claims=claims)
    if is_accepted:
        assert machine.check(text, raw)
    else:
        assert "source-repository" in (message := machine.refuses(text, raw)) or "workflow-ref" in message


def test_every_claim_is_read_from_its_extension(machine: Machine) -> None:
    numbers = {
        "workflow-trigger": 2,
        "workflow-sha": 3,
        "workflow-name": 4,
        "workflow-repository": 5,
        "workflow-ref": 6,
        "build-signer": 9,
        "build-signer-digest": 10,
        "runner-environment": 11,
        "source-repository": 12,
        "source-repository-digest": 13,
        "source-repository-ref": 14,
        "source-repository-id": 15,
        "source-repository-owner": 16,
        "source-repository-owner-id": 17,
        "build-config": 18,
        "build-config-digest": 19,
        "build-trigger": 20,
        "run-invocation": 21,
        "source-repository-visibility": 22,
    }
    claims = [claim(number, f"value {number}") for number in numbers.values()]
    rules = ", ".join(f'{key} = "value {number}"' for key, number in numbers.items())
    text = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}", {rules}}}]'
    assert machine.check(text, machine.sigstore.keyless(FOR_IMAGE, claims=claims))
    for wrong in range(len(claims)):
        some = claims[:wrong] + claims[wrong + 1 :]
        machine.refuses(text, machine.sigstore.keyless(FOR_IMAGE, claims=some))


def test_another_sigstore_is_refused(machine: Machine) -> None:
    other = Sigstore()
    assert "1 signature was found" in machine.refuses(KEYLESS, other.keyless(FOR_IMAGE))
    mixed = Sigstore(ct=machine.sigstore.ct, rekor=machine.sigstore.rekor)  # its own authority
    machine.refuses(KEYLESS, mixed.keyless(FOR_IMAGE))
    mixed = Sigstore(root=machine.sigstore.root)
    mixed.issuer = machine.sigstore.issuer
    machine.refuses(KEYLESS, mixed.keyless(FOR_IMAGE))
    mixed.rekor = machine.sigstore.rekor  # its own certificate transparency log
    machine.refuses(KEYLESS, mixed.keyless(FOR_IMAGE))
    mixed.ct = machine.sigstore.ct
    assert machine.check(KEYLESS, mixed.keyless(FOR_IMAGE))


def test_a_certificate_has_to_be_valid_when_the_log_saw_the_signature(machine: Machine) -> None:
    key = new_key()
    leaf = machine.sigstore.leaf(key)
    assert machine.check(KEYLESS, machine.sigstore.keyless(FOR_IMAGE, key=key, leaf=leaf, at=SIGNED + 500))
    machine.refuses(KEYLESS, machine.sigstore.keyless(FOR_IMAGE, key=key, leaf=leaf, at=SIGNED + 600))
    machine.refuses(KEYLESS, machine.sigstore.keyless(FOR_IMAGE, key=key, leaf=leaf, at=SIGNED - 100))


def test_a_certificate_of_another_signature_is_refused(machine: Machine) -> None:
    leaf = machine.sigstore.leaf(new_key())
    machine.refuses(KEYLESS, machine.sigstore.keyless(FOR_IMAGE, leaf=leaf))


def test_authorities_and_logs_count_only_while_they_were_in_use(machine: Machine) -> None:
    raw = machine.sigstore.keyless(FOR_IMAGE)
    path = machine.directory / "root.json"
    for part in ("certificateAuthorities", "tlogs", "ctlogs"):
        for start, end, is_accepted in (
            (SIGNED - 1000, SIGNED + 1000, True),
            (SIGNED - 1000, SIGNED - 500, False),
            (SIGNED + 500, SIGNED + 1000, False),
        ):

            def edit(document: dict[str, Any], part: str = part, start: int = start, end: int = end) -> None:
                (one,) = document[part]
                holder = one.get("publicKey", one)
                holder["validFor"] = {"start": moment(start), "end": moment(end)}

            path.write_bytes(machine.sigstore.trusted_root(edit))
            if is_accepted:
                assert machine.check(KEYLESS, raw)
            else:
                machine.refuses(KEYLESS, raw)


def test_a_certificate_for_two_names_is_refused(machine: Machine) -> None:
    from cryptography import x509

    key = new_key()
    names = [x509.UniformResourceIdentifier(WORKFLOW), x509.RFC822Name("a@example.com")]
    leaf = machine.sigstore.leaf(key, names=names)
    assert "exactly one" in machine.refuses(KEYLESS, machine.sigstore.keyless(FOR_IMAGE, key=key, leaf=leaf))


# --- keys ---


@pytest.mark.parametrize(
    "key",
    [
        new_key(),
        new_key(ec.SECP384R1()),
        new_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa_key(),
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519", "RSA"],
)
def test_keys_of_every_kind(machine: Machine, key: PrivateKey) -> None:
    machine.key("a.pub", key)
    for logged in (False, True):
        raw = machine.sigstore.by_key(key, FOR_IMAGE, logged=logged)
        (verified,) = machine.check(BY_KEY, raw, root=False)
        assert verified.key is not None and verified.key.startswith("SHA256:")
        assert (verified.subject, verified.time, verified.log_index) == (None, None, None)


def test_a_key_may_stand_in_the_file_itself(machine: Machine) -> None:
    key = new_key()
    text = f"transparency-log = false\nsigner = [{{key-data = '''{public_pem(key).decode()}'''}}]"
    assert machine.check(text, machine.sigstore.by_key(key, FOR_IMAGE), root=False)


def test_another_key_is_refused(machine: Machine) -> None:
    machine.key("a.pub")
    message = machine.refuses(BY_KEY, machine.sigstore.by_key(new_key(), FOR_IMAGE), root=False)
    assert "bundle 0: it is signed by none of the keys" in message


def test_a_log_that_is_asked_for_has_to_be_there(machine: Machine) -> None:
    key = machine.key("a.pub")
    (verified,) = machine.check(LOGGED_KEY, machine.sigstore.by_key(key, FOR_IMAGE))
    assert (verified.time, verified.log_index) == (SIGNED, 1005)
    message = machine.refuses(LOGGED_KEY, machine.sigstore.by_key(key, FOR_IMAGE, logged=False))
    assert "in no transparency log" in message
    other = Sigstore()
    assert "log" in machine.refuses(LOGGED_KEY, other.by_key(key, FOR_IMAGE))


def test_entries_of_the_second_version_of_the_log(machine: Machine) -> None:
    key = machine.key("a.pub")
    for kind in (dsse_v2, hashedrekord_v2):

        def body(payload: bytes, signature: bytes, kind: Any = kind) -> Any:
            return kind(payload, signature, key)

        (verified,) = machine.check(LOGGED_KEY, machine.sigstore.by_key(key, FOR_IMAGE, at=None, body=body))
        assert (verified.time, verified.log_index) == (None, 5)


def test_an_entry_about_another_signature_is_refused(machine: Machine) -> None:
    key, other = machine.key("a.pub"), new_key()
    elsewhere = json.loads(machine.sigstore.by_key(key, statement(Digest.of(OTHER))))
    by_other = json.loads(machine.sigstore.by_key(other, FOR_IMAGE))
    for entries in (
        elsewhere["verificationMaterial"]["tlogEntries"],
        by_other["verificationMaterial"]["tlogEntries"],
    ):

        def edit(document: dict[str, Any], entries: Any = entries) -> None:
            document["verificationMaterial"]["tlogEntries"] = entries

        raw = machine.sigstore.by_key(key, FOR_IMAGE, edit=edit)
        assert "about another signature" in machine.refuses(LOGGED_KEY, raw)


# --- counting ---

TWO_OF_THREE = (
    'transparency-log = false\nthreshold = 2\nsigner = [{key = "a.pub"}, {key = "b.pub"}, {key = "c.pub"}]'
)


def test_two_of_three_keys(machine: Machine) -> None:
    a, b, c = (machine.key(f"{name}.pub") for name in "abc")
    of = {key: machine.sigstore.by_key(key, FOR_IMAGE, logged=False) for key in (a, b, c)}
    for two in ((a, b), (c, a), (b, c)):
        verified = machine.check(TWO_OF_THREE, *(of[key] for key in two), root=False)
        assert len({one.key for one in verified}) == 2
    message = machine.refuses(TWO_OF_THREE, of[a], root=False)
    assert "2 of 3 signers must have signed it, 1 has" in message
    machine.refuses(TWO_OF_THREE, of[a], machine.sigstore.by_key(new_key(), FOR_IMAGE), root=False)
    assert "no signatures were found" in machine.refuses(TWO_OF_THREE, root=False)


def test_a_signer_who_signed_twice_counts_once(machine: Machine) -> None:
    a, _, _ = (machine.key(f"{name}.pub") for name in "abc")
    twice = [machine.sigstore.by_key(a, FOR_IMAGE, logged=logged) for logged in (False, True)]
    assert twice[0] != twice[1]
    assert "1 has" in machine.refuses(TWO_OF_THREE, *twice, root=False)


def test_an_identity_that_fits_two_signers_counts_once(machine: Machine) -> None:
    text = (
        f'threshold = 2\nsigner = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}},'
        f' {{issuer = "{ISSUER}", subject-prefix = "https://github.com/example/"}}]'
    )
    first = machine.sigstore.keyless(FOR_IMAGE)
    again = machine.sigstore.keyless(FOR_IMAGE, at=SIGNED + 1)
    assert "1 has" in machine.refuses(text, first, again)
    sibling = machine.sigstore.keyless(FOR_IMAGE, "https://github.com/example/other@refs/heads/main")
    for order in ((first, sibling), (sibling, first)):
        assert {one.subject for one in machine.check(text, *order)} == {
            WORKFLOW,
            "https://github.com/example/other@refs/heads/main",
        }
    # Two who fit the prefix alone are one signer.
    other = machine.sigstore.keyless(FOR_IMAGE, "https://github.com/example/third@refs/heads/main")
    assert "1 has" in machine.refuses(text, sibling, other)


def test_one_key_under_two_names_is_an_error(machine: Machine) -> None:
    key = machine.key("a.pub")
    machine.key("b.pub", key)
    machine.key("c.pub")
    with pytest.raises(TrustFileError, match="have the same key"):
        machine.check(TWO_OF_THREE, root=False)


def test_a_key_and_an_identity_together(machine: Machine) -> None:
    key = machine.key("a.pub")
    text = f'threshold = 2\nsigner = [{{key = "a.pub"}}, {{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
    both = machine.sigstore.by_key(key, FOR_IMAGE), machine.sigstore.keyless(FOR_IMAGE)
    assert len(machine.check(text, *both)) == 2
    for one in both:
        machine.refuses(text, one)


# --- for which image ---


def test_a_signature_of_another_image_is_refused(machine: Machine) -> None:
    key = machine.key("a.pub")
    other = statement(Digest.of(OTHER))
    message = machine.refuses(BY_KEY, machine.sigstore.by_key(key, other), root=False)
    assert f"about {Digest.of(OTHER)}, not about {SUBJECT.digest}" in message
    assert "not about" in machine.refuses(KEYLESS, machine.sigstore.keyless(other))


def test_a_statement_with_several_subjects_is_about_each(machine: Machine) -> None:
    digests = [Digest.of(OTHER), SUBJECT.digest]
    subjects = [{"name": "x", "digest": {"sha256": each.hex}} for each in digests]
    raw = machine.sigstore.keyless(statement(SUBJECT.digest, subject=subjects))
    assert machine.check(KEYLESS, raw)[0].signed == SUBJECT.digest


def test_a_digest_by_sha512_is_one_of_the_image(machine: Machine) -> None:
    import hashlib

    raw = machine.sigstore.keyless(statement(f"sha512:{hashlib.sha512(IMAGE).hexdigest()}"))
    assert machine.check(KEYLESS, raw)
    machine.refuses(KEYLESS, machine.sigstore.keyless(statement(f"sha512:{'0' * 128}")))


def test_the_index_may_be_signed_in_place_of_the_image(machine: Machine) -> None:
    raw = machine.sigstore.keyless(statement(FROM_INDEX.digest))
    source = Beside({FROM_INDEX.digest: [raw]})
    rules = [machine.rules(KEYLESS)]
    (verified,) = asyncio.run(check_trust(rules, (SUBJECT, FROM_INDEX), source))
    assert verified.signed == FROM_INDEX.digest
    assert source.asked == [SUBJECT.digest, FROM_INDEX.digest]
    # Of the index alone, and not beside it.
    with pytest.raises(PolicyRefused):
        asyncio.run(check_trust(rules, (SUBJECT,), Beside({SUBJECT.digest: [raw]})))


def test_no_more_is_looked_for_than_is_needed(machine: Machine) -> None:
    source = Beside({SUBJECT.digest: [machine.sigstore.keyless(FOR_IMAGE)]})
    asyncio.run(check_trust([machine.rules(KEYLESS)], (SUBJECT, FROM_INDEX), source))
    assert source.asked == [SUBJECT.digest]
    asyncio.run(check_trust([machine.rules('downgrade = "warn"', root=False)], (SUBJECT,), source))
    asyncio.run(check_trust([], (SUBJECT,), source))
    assert source.asked == [SUBJECT.digest]


def test_all_scopes_that_hold_have_to_be_kept(machine: Machine) -> None:
    key = machine.key("a.pub")
    rules = [machine.rules(KEYLESS), machine.rules(BY_KEY, root=False)]
    both = machine.sigstore.by_key(key, FOR_IMAGE), machine.sigstore.keyless(FOR_IMAGE)
    source = Beside({SUBJECT.digest: both})
    assert len(asyncio.run(check_trust(rules, (SUBJECT,), source))) == 2
    assert source.asked == [SUBJECT.digest]
    for one in both:
        with pytest.raises(PolicyRefused):
            asyncio.run(check_trust(rules, (SUBJECT,), Beside({SUBJECT.digest: [one]})))


# --- attestations ---

ATTESTED = f'attestation = [{{predicate-type = "{PROVENANCE}", {KEYLESS}}}]'


def test_an_attestation_of_its_type_is_accepted(machine: Machine) -> None:
    for kind in ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"):
        raw = machine.sigstore.keyless(statement(SUBJECT.digest, PROVENANCE, kind=kind))
        (verified,) = machine.check(ATTESTED, raw)
        assert verified.kind == f"attestation {PROVENANCE}"


def test_a_signature_is_no_attestation_and_an_attestation_no_signature(machine: Machine) -> None:
    signed = machine.sigstore.keyless(FOR_IMAGE)
    attested = machine.sigstore.keyless(statement(SUBJECT.digest, PROVENANCE))
    assert "not asked for" in machine.refuses(ATTESTED, signed)
    assert "not asked for" in machine.refuses(KEYLESS, attested)
    text = f"{KEYLESS}\n{ATTESTED}"
    assert len(machine.check(text, signed, attested)) == 2
    assert f"must have attested {PROVENANCE}" in machine.refuses(text, signed)
    assert "must have signed it" in machine.refuses(text, attested)


def test_a_key_says_only_what_it_may(machine: Machine) -> None:
    a, b = machine.key("a.pub"), machine.key("b.pub")
    text = (
        'transparency-log = false\nsigner = [{key = "a.pub"}]\n'
        f'attestation = [{{predicate-type = "{PROVENANCE}", signer = [{{key = "b.pub"}}]}}]'
    )
    provenance = statement(SUBJECT.digest, PROVENANCE)
    make = machine.sigstore.by_key
    assert len(machine.check(text, make(a, FOR_IMAGE), make(b, provenance), root=False)) == 2
    message = machine.refuses(text, make(b, FOR_IMAGE), make(a, provenance), root=False)
    assert message.count("none of those that may say this") == 2


def test_one_key_may_sign_and_attest(machine: Machine) -> None:
    key = machine.key("a.pub")
    text = (
        'transparency-log = false\nsigner = [{key = "a.pub"}]\n'
        f'attestation = [{{predicate-type = "{PROVENANCE}", signer = [{{key = "a.pub"}}]}}]'
    )
    make = machine.sigstore.by_key
    both = make(key, statement(SUBJECT.digest, PROVENANCE)), make(key, FOR_IMAGE)
    assert len(machine.check(text, *both, root=False)) == 2


# --- what is bad is passed over, and never accepted ---


def test_bad_ones_beside_a_good_one_do_no_harm(machine: Machine) -> None:
    good = machine.sigstore.keyless(FOR_IMAGE)
    bad = [b"", b"{}", b"[" * 10_000, b"\xff", good[:100], json.dumps({"mediaType": "x"}).encode()]
    (verified,) = machine.check(KEYLESS, *bad, good)
    assert verified.place == f"bundle {len(bad)}"


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all texts and numbers in a document."""
    if isinstance(value, dict):
        return [place for key, each in value.items() for place in _places(each, (*way, key))]
    if isinstance(value, list):
        return [place for n, each in enumerate(value) for place in _places(each, (*way, n))]
    return [way]


# What is for people, or a hint: a change there changes nothing that was signed.
_HINTS = {("verificationMaterial", "publicKey", "hint")}


@pytest.mark.parametrize("by_key", [False, True], ids=["keyless", "by key"])
def test_a_bundle_that_is_damaged_anywhere_is_refused(machine: Machine, by_key: bool) -> None:
    if by_key:
        document = json.loads(machine.sigstore.by_key(machine.key("a.pub"), FOR_IMAGE))
    else:
        document = json.loads(machine.sigstore.keyless(FOR_IMAGE))
    text = LOGGED_KEY if by_key else KEYLESS
    places = [place for place in _places(document) if place not in _HINTS]
    assert len(places) > 15
    accepted = []
    for place in places:
        for damage in (_damaged, _cut, _dropped):
            changed = json.loads(json.dumps(document))
            holder = changed
            for step in place[:-1]:
                holder = holder[step]
            if not damage(holder, place[-1]):
                continue
            try:
                machine.check(text, json.dumps(changed).encode())
            except PolicyRefused:
                continue
            accepted.append((place, damage.__name__))
    assert accepted == []


def _damaged(holder: Any, key: Any) -> bool:
    text = holder[key]
    try:
        holder[key] = flip(text, len(text) // 2 * 3 // 4)
    except (ValueError, IndexError):
        holder[key] = str(int(text) + 1) if text.isdigit() else f"{text[:-1]}?"
    return True


def _cut(holder: Any, key: Any) -> bool:
    holder[key] = holder[key][: len(holder[key]) // 8 * 4]
    return True


def _dropped(holder: Any, key: Any) -> bool:
    del holder[key]
    return True


# --- files ---


def test_keys_and_roots_that_cannot_be_used_are_named(machine: Machine) -> None:
    with pytest.raises(TrustFileError, match=r"a\.pub cannot be read"):
        machine.check(BY_KEY, root=False)
    (machine.directory / "a.pub").write_text("nonsense")
    with pytest.raises(TrustFileError, match=r"signer 1: .*a\.pub"):
        machine.check(BY_KEY, root=False)
    machine.key("a.pub", rsa_key(1024))
    with pytest.raises(TrustFileError, match="kind or size"):
        machine.check(BY_KEY, root=False)
    for content in (b"", b"{}", b'{"mediaType": "x"}', b"[1]"):
        (machine.directory / "root.json").write_bytes(content)
        with pytest.raises(TrustFileError, match=r"root\.json"):
            machine.check(KEYLESS)


def test_a_key_that_others_can_change_is_refused(machine: Machine) -> None:
    machine.key("a.pub")
    (machine.directory / "a.pub").chmod(0o666)
    with pytest.raises(UnsafePath):
        machine.check(BY_KEY, root=False)


def test_a_root_without_a_log_accepts_nothing(machine: Machine) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["tlogs"] = []

    raw = machine.sigstore.keyless(FOR_IMAGE)
    (machine.directory / "root.json").write_bytes(machine.sigstore.trusted_root(edit))
    machine.refuses(KEYLESS, raw)


def test_a_log_that_is_out_of_use_says_nothing_without_a_time(machine: Machine) -> None:
    key = machine.key("a.pub")
    raw = machine.sigstore.by_key(
        key, FOR_IMAGE, at=None, body=lambda payload, signature: hashedrekord_v2(payload, signature, key)
    )
    assert machine.check(LOGGED_KEY, raw)

    def edit(document: dict[str, Any]) -> None:
        document["tlogs"][0]["publicKey"]["validFor"]["end"] = moment(SIGNED)

    (machine.directory / "root.json").write_bytes(machine.sigstore.trusted_root(edit))
    assert "not in use" in machine.refuses(LOGGED_KEY, raw)


def test_a_log_of_the_second_version_signs_by_ed25519(tmp_path: Path) -> None:
    sigstore = Sigstore(rekor=Rekor(key=ed25519.Ed25519PrivateKey.generate()))
    machine = Machine(tmp_path, sigstore)
    key = machine.key("a.pub")
    raw = sigstore.by_key(
        key, FOR_IMAGE, at=None, body=lambda payload, signature: hashedrekord_v2(payload, signature, key)
    )
    assert machine.check(LOGGED_KEY, raw)


# --- without the library ---

WITHOUT = """
import asyncio, sys
sys.modules["sigstore"] = None
from pathlib import Path
from layertee.config.trustfile import parse_trust
from layertee.errors import PolicyRefused
from layertee.signatures.trust.check import check_trust

class Source:
    async def bundles(self, digest):
        raise AssertionError("nothing is asked for")

path = Path(sys.argv[1])
rules = list(parse_trust(path, path.read_bytes()).values())
try:
    asyncio.run(check_trust(rules, (), Source()))
except PolicyRefused as exc:
    print(exc)
"""


def test_without_the_library_a_scope_that_needs_it_is_refused_at_once(machine: Machine) -> None:
    path = machine.directory / "trust.toml"
    path.write_text(f'[scope."registry.example.com"]\ntrusted-root = "root.json"\n{KEYLESS}\n')
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, check=True
    )
    assert "pip install 'layertee[sigstore]'" in run.stdout


def test_keys_are_checked_without_the_library(machine: Machine) -> None:
    key = machine.key("a.pub")
    (machine.directory / "bundle").write_bytes(machine.sigstore.by_key(key, FOR_IMAGE))
    path = machine.directory / "trust.toml"
    path.write_text(f'[scope."registry.example.com"]\ntrusted-root = "root.json"\n{LOGGED_KEY}\n')
    program = WITHOUT.replace('raise AssertionError("nothing is asked for")', "return BUNDLES").replace(
        "path = Path(sys.argv[1])",
        "from layertee.signatures.signature import Bundle, Subject\n"
        "from layertee.image.digest import Digest\n"
        "path = Path(sys.argv[1])\n"
        'BUNDLES = [Bundle((path.parent / "bundle").read_bytes(), "x")]\n'
        f"SUBJECT = Subject({IMAGE!r}, Digest.of({IMAGE!r}), None)\n",
    )
    program = program.replace("asyncio.run(check_trust(rules, (), Source()))", "").replace(
        "try:\n    ", "try:\n    print(len(asyncio.run(check_trust(rules, (SUBJECT,), Source()))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "1\n"
