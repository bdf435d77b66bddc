"""signedBy, from the policy's keys to what was verified, with signatures that the real gpg has made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.config.requirements import Identity, IdentityKind, Material, SignedBy
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.openpgp.simple import verify_signed_by
from layertee.signatures.signature import (
    MAX_SIGNATURES,
    Attachment,
    Signature,
    SimpleSignature,
    Subject,
    Verified,
)
from layertee.sync import run
from tests.support.openpgp import Signer, payload, signer

pytestmark = pytest.mark.slow

RAW = b'{"a": "manifest"}'
DIGEST = Digest.of(RAW)
NAME = "quay.io/a/b:1"
EXACT = Identity(IdentityKind.MATCH_EXACT)


@dataclass(frozen=True)
class Rig:
    """A home with two keys, and the public ones in files."""

    signer: Signer
    good: Path
    other: Path

    def signed(self, content: bytes, user: str = "good", place: str = "here") -> SimpleSignature:
        return SimpleSignature(self.signer.sign(content, user), place)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    where = tmp_path_factory.mktemp("keys")
    with signer() as home:
        for user in ("good", "other"):
            home.key(user)
            (where / user).write_bytes(home.public(user, armor=user == "good"))
        yield Rig(home, where / "good", where / "other")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where keyrings are; nothing may be left there."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


def subject(name: str | None = NAME) -> Subject:
    found = None if name is None else parse_reference(name)
    assert found is None or isinstance(found, Reference)
    return Subject(RAW, DIGEST, found)


def requirement(*paths: Path, data: tuple[bytes, ...] = (), identity: Identity = EXACT) -> SignedBy:
    return SignedBy("GPGKeys", Material(paths, data), identity)


def check(wanted: SignedBy, *signatures: Signature, name: str | None = NAME) -> Verified:
    return run(verify_signed_by(wanted, subject(name), signatures))


def test_a_signature_of_the_image_under_its_name_holds(rig: Rig) -> None:
    found = check(requirement(rig.good), rig.signed(payload(DIGEST, NAME), place="file:///x/signature-1"))
    assert found == Verified(
        kind="signedBy",
        signed=DIGEST,
        place="file:///x/signature-1",
        signed_name=NAME,
        key=rig.signer.fingerprints("good")[0],
    )


def test_keys_come_from_files_or_from_the_policy_itself(rig: Rig) -> None:
    data = tuple(path.read_bytes() for path in (rig.good, rig.other))
    for wanted in (requirement(rig.good, rig.other), requirement(data=data), requirement(data=data[:1])):
        assert check(wanted, rig.signed(payload(DIGEST, NAME))).signed_name == NAME


def test_one_that_holds_is_enough_and_the_first_is_told(rig: Rig) -> None:
    good = payload(DIGEST, NAME)
    signatures = [
        SimpleSignature(b"nothing", "1"),
        rig.signed(good, "other", "2"),
        rig.signed(payload(Digest.of(b"other"), NAME), place="3"),
        rig.signed(good, place="4"),
        rig.signed(good, place="5"),
    ]
    assert check(requirement(rig.good), *signatures).place == "4"
    with pytest.raises(PolicyRefused) as caught:
        check(requirement(rig.good), *signatures[:3])
    said = str(caught.value)
    assert said.startswith(
        "none of its 3 signatures counts: 1: it is no signed OpenPGP message; 2: it was made"
    )
    assert f"3: it is for {Digest.of(b'other')}, not for {DIGEST}" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (payload(Digest.of(b"other"), NAME), "not for"),
        (payload(DIGEST, "quay.io/a/b:2"), "which matchExact refuses"),
        (payload(DIGEST, NAME).replace(b"atomic", b"cosign"), "is of type"),
        (payload(DIGEST, NAME) + b"{}", "is not JSON"),
        (payload(DIGEST, NAME, timestamp=1.5), "timestamp"),
        (b"", "is not JSON"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_signed_has_to_be_for_the_image(rig: Rig, content: bytes, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why) as caught:
        check(requirement(rig.good), rig.signed(content))
    assert "its signature does not count: here: " in str(caught.value)


def test_an_image_without_a_name_needs_an_identity_that_names_one(rig: Rig) -> None:
    signature = rig.signed(payload(DIGEST, NAME))
    with pytest.raises(PolicyRefused, match="an image without a name"):
        check(requirement(rig.good), signature, name=None)
    named = Identity(IdentityKind.EXACT_REFERENCE, NAME)
    assert check(requirement(rig.good, identity=named), signature, name=None).signed_name == NAME


def test_without_a_signature_of_its_kind_it_is_refused(rig: Rig) -> None:
    other = Attachment("x", b"{}", {}, "there")
    for signatures in ((), (other,)):
        with pytest.raises(PolicyRefused, match="is required, and there is none"):
            check(requirement(rig.good), *signatures)
    assert check(requirement(rig.good), other, rig.signed(payload(DIGEST, NAME))).key


def test_there_may_not_be_too_many(rig: Rig) -> None:
    good = rig.signed(payload(DIGEST, NAME))
    with pytest.raises(PolicyRefused, match="more than 128 signatures"):
        check(requirement(rig.good), *[good] * (MAX_SIGNATURES + 1))


def test_many_reasons_are_told_in_short(rig: Rig) -> None:
    bad = [SimpleSignature(b"nothing", f"\x1b{i}" + "x" * 500) for i in range(20)]
    with pytest.raises(PolicyRefused, match="none of its 20 signatures counts") as caught:
        check(requirement(rig.good), *bad)
    assert str(caught.value).endswith("; and 15 more")
    assert len(str(caught.value)) < 3000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["signedByGPGKeys", "X509Certificates", "signedByX509CAs"])
def test_keys_of_other_types_are_refused(rig: Rig, kind: str) -> None:
    wanted = SignedBy(kind, Material((rig.good,)), EXACT)
    with pytest.raises(PolicyRefused, match=f"signatures by {kind} cannot be checked by any program"):
        check(wanted, rig.signed(payload(DIGEST, NAME)))


def test_all_keys_of_the_policy_have_to_be_readable(rig: Rig, tmp_path: Path) -> None:
    signature = rig.signed(payload(DIGEST, NAME))
    missing, large, pipe, nothing = (tmp_path / name for name in ("missing", "large", "pipe", "nothing"))
    large.write_bytes(bytes((4 << 20) + 1))
    os.mkfifo(pipe)
    nothing.write_bytes(b"nothing")
    cases = {
        missing: "no such file",
        large: "more than 4194304 bytes",
        pipe: "not a regular file|Invalid argument",
        tmp_path: "not a regular file|Invalid argument|Is a directory",
        nothing: "no OpenPGP key in it",
    }
    for path, why in cases.items():
        with pytest.raises(PolicyRefused, match=why) as caught:
            check(requirement(rig.good, path), signature)
        assert str(path) in str(caught.value)
    with pytest.raises(PolicyRefused, match="names no keys"):
        check(requirement(), signature)


def test_there_is_one_time_limit_for_all(rig: Rig) -> None:
    bomb = SimpleSignature(
        rig.signer.sign(bytes(256 << 20), "good", options=("--compress-algo", "bzip2")), "here"
    )
    with pytest.raises(PolicyRefused, match=r"could not be checked within 0\.5 s"):
        run(verify_signed_by(requirement(rig.good), subject(), [bomb] * 100, limit_s=0.5))
