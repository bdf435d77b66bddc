"""What is signed is read as strictly as containers/image reads it: one meaning, or none."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from layertee.config.requirements import Identity, IdentityKind
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.payload import Payload, PayloadType, parse_payload
from layertee.signatures.signature import Subject

DIGEST = Digest.of(b"manifest")
NAME = "quay.io/a/b:1"
BOTH = list(PayloadType)


def document(kind: PayloadType = PayloadType.SIMPLE, **changes: Any) -> dict[str, Any]:
    """A good one, with other values for keys of ``critical``."""
    critical = {
        "type": kind.value,
        "image": {"docker-manifest-digest": str(DIGEST)},
        "identity": {"docker-reference": NAME},
    }
    optional = {"creator": "a test", "timestamp": 1700000000}
    return {"critical": critical | changes, "optional": optional}


def parsed(value: object, kind: PayloadType = PayloadType.SIMPLE) -> Payload:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_payload(raw, kind)


@pytest.mark.parametrize("kind", BOTH)
def test_a_payload_is_read(kind: PayloadType) -> None:
    assert parsed(document(kind), kind) == Payload(DIGEST, NAME, "a test", 1700000000)


@pytest.mark.parametrize("kind", BOTH)
def test_white_space_around_it_and_unknown_options_are_no_matter(kind: PayloadType) -> None:
    found = document(kind)
    found["optional"] = {"Creator": 7, "repo": {"deep": [1, 2.5, None, True]}, "timestamp": 1e9}
    raw = b" \r\n\t" + json.dumps(found, indent=2).encode() + b"\n\n"
    assert parsed(raw, kind) == Payload(DIGEST, NAME, None, 10**9)


def test_only_sigstore_writes_null_for_no_options() -> None:
    assert parsed(document(PayloadType.SIGSTORE) | {"optional": None}, PayloadType.SIGSTORE).creator is None
    with pytest.raises(PolicyRefused, match="optional is not an object"):
        parsed(document() | {"optional": None})


@pytest.mark.parametrize("kind", BOTH)
def test_each_kind_is_its_own(kind: PayloadType) -> None:
    (other,) = set(PayloadType) - {kind}
    with pytest.raises(PolicyRefused, match="is of type"):
        parsed(document(other), kind)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "timestamp", ["1700000000", "1.5", "1e-3", '"1"', "true", "[]", "1e300", "1e999", "9" * 400, "1e19"]
)
def test_a_time_is_a_whole_number(kind: PayloadType, timestamp: str) -> None:
    raw = json.dumps(document(kind)).replace("1700000000", timestamp).encode()
    if timestamp == "1700000000":
        assert parsed(raw, kind).timestamp == 1700000000
        return
    with pytest.raises(PolicyRefused):
        parsed(raw, kind)


@pytest.mark.parametrize(("number", "fits"), [(2**63 - 1025, True), (2**63 - 1, False), (-(2**63), True)])
def test_a_time_has_64_bits_as_a_double_has_them(number: int, fits: bool) -> None:
    raw = json.dumps(document()).replace("1700000000", str(number)).encode()
    if fits:
        assert parsed(raw).timestamp == number
    else:
        with pytest.raises(PolicyRefused, match="out of range"):
            parsed(raw)


def variants() -> list[bytes]:
    """Each is refused by containers/image, too, but for those that are marked."""
    good = json.dumps(document()).encode()
    found: list[object] = [
        *(b"", b"null", b"[]", b'""', b"{}", b"7", good[:-1], good + b"x", good + b"{}", good + good),
        *(b"\xef\xbb\xbf" + good, good + b"\0", good.decode().encode("utf-16")),
        good.replace(b"quay.io", b"quay\xff.io"),  # read as U+FFFD, which is in no name
        good.replace(b"a test", b"\xff"),  # accepted there: only the creator
        good.replace(b"a test", b"\\ud800"),  # accepted there
        good.replace(b"a test", b"a\ntest"),
        good.replace(b'"optional"', b'"Optional"'),
        good.replace(b'"critical"', b'"Critical"'),
        good.replace(b'"docker-reference"', b'"Docker-Reference"'),
        good.replace(b'"identity"', b'"identity": {"docker-reference": "x:1"}, "identity"'),
        good.replace(b'"optional"', b'"critical": {}, "optional"'),
        good.replace(b'"creator"', b'"creator": "other", "creator"'),
        good.replace(b'"type"', b'"\\u0074ype": "other", "type"'),
        good.replace(b"1700000000", b"NaN"),
        good.replace(b"1700000000", b"-Infinity"),
        good.replace(b"1700000000", b"01"),
        good.replace(b'"creator"', b'"deep": ' + b"[" * 100000 + b"]" * 100000 + b', "creator"'),
        document() | {"more": 1},
        {"critical": document()["critical"]},
        {"optional": {}},
        document() | {"optional": []},
        document() | {"critical": None},
        document() | {"optional": {"creator": 7}},
        document(more=1),
        document(type=None),
        document(type=7),
        document(type="Atomic container signature"),
        document(image=None),
        document(image={}),
        document(image={"docker-manifest-digest": None}),
        document(image={"docker-manifest-digest": str(DIGEST), "more": 1}),
        document(image={"docker-manifest-digest": str(DIGEST).upper()}),
        document(image={"docker-manifest-digest": f"{DIGEST}\n"}),
        document(image={"docker-manifest-digest": "md5:" + "a" * 32}),
        document(image={"docker-manifest-digest": "sha384:" + "a" * 96}),  # accepted there
        document(identity=None),
        document(identity={}),
        document(identity={"docker-reference": 7}),
        document(identity={"docker-reference": NAME, "more": 1}),
    ]
    without = document()
    del without["critical"]["identity"]
    found.append(without)
    return [each if isinstance(each, bytes) else json.dumps(each).encode() for each in found]


@pytest.mark.parametrize("raw", variants())
def test_anything_else_is_refused(raw: bytes) -> None:
    for kind in BOTH:
        changed = raw.replace(PayloadType.SIMPLE.value.encode(), kind.value.encode())
        with pytest.raises(PolicyRefused) as caught:
            parse_payload(changed, kind)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_no_name_at_all_is_a_payload_that_no_identity_accepts() -> None:
    found = parsed(document(identity={"docker-reference": ""}))
    assert found.docker_reference == ""


def subject(raw: bytes = b"manifest", name: str | None = NAME) -> Subject:
    found = None if name is None else parse_reference(name)
    assert found is None or isinstance(found, Reference)
    return Subject(raw, Digest.of(raw), found)


def test_a_payload_is_for_one_manifest_and_one_name() -> None:
    identity = Identity(IdentityKind.MATCH_EXACT)
    payload = parsed(document())
    payload.refuse_other(subject(), identity)
    with pytest.raises(PolicyRefused, match=f"for {DIGEST}, not for"):
        payload.refuse_other(subject(b"other"), identity)
    with pytest.raises(PolicyRefused, match=r"'quay.io/a/b:1', which matchExact refuses for quay.io/a/b:2"):
        payload.refuse_other(subject(name="quay.io/a/b:2"), identity)
    with pytest.raises(PolicyRefused, match="an image without a name"):
        payload.refuse_other(subject(name=None), identity)


def test_a_name_without_a_tag_is_said_to_be_as_cosign_signs() -> None:
    identity = Identity(IdentityKind.MATCH_REPO_DIGEST_OR_EXACT)
    bare = parsed(document(identity={"docker-reference": "quay.io/a/b"}))
    with pytest.raises(PolicyRefused, match="signedIdentity matchRepository"):
        bare.refuse_other(subject(), identity)
    for name in ("quay.io/a/other", "quay.io/a/b:2"):
        other = parsed(document(identity={"docker-reference": name}))
        with pytest.raises(PolicyRefused) as caught:
            other.refuse_other(subject(), identity)
        assert "matchRepository" not in str(caught.value)


def test_the_digest_is_by_sha256_whatever_the_manifest_is_named_by() -> None:
    by_sha512 = f"sha512:{hashlib.sha512(b'manifest').hexdigest()}"
    named = Subject(b"manifest", Digest(by_sha512), subject().name)
    parsed(document()).refuse_other(named, Identity())
    for asked in (subject(), named):
        with pytest.raises(PolicyRefused, match="it is for sha512:"):
            parsed(document(image={"docker-manifest-digest": by_sha512})).refuse_other(asked, Identity())
