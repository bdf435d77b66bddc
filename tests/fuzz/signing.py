"""Targets: signatures, and what programs say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from layertee.config.requirements import Identity, IdentityKind
from layertee.errors import InvalidReference, PolicyRefused
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.identity import accepts
from layertee.signatures.openpgp.gpgstatus import imported_keys, signer
from layertee.signatures.payload import PayloadType, parse_payload
from layertee.signatures.signature import Attachment
from layertee.signatures.stored import stored_signature
from tests.fuzz.documents import HEX, WORDS_OF_JSON
from tests.fuzz.target import Target, parts_of, text_of

_KEY = "A" * 24 + "1" * 16
_EXACT, _DIGEST_OR_EXACT, _REPOSITORY = (
    Identity(kind)
    for kind in (
        IdentityKind.MATCH_EXACT,
        IdentityKind.MATCH_REPO_DIGEST_OR_EXACT,
        IdentityKind.MATCH_REPOSITORY,
    )
)
_SAID = f"""[GNUPG:] PLAINTEXT 62 1795871819 p.json
[GNUPG:] PLAINTEXT_LENGTH 8
[GNUPG:] NEWSIG
[GNUPG:] SIG_ID mJPhyt1dOf4bA74W4ryO4Oxc0q0 2026-11-28 1795871819
[GNUPG:] GOODSIG {_KEY[-16:]} Somebody <a@example.invalid>
[GNUPG:] VALIDSIG {_KEY} 2026-11-28 1795871819 0 4 0 1 10 00 {_KEY}
"""


def payload(raw: bytes) -> object:
    """It has one type at most, and says what any parser of JSON finds in it."""
    found = []
    for kind in PayloadType:
        try:
            found.append((kind, parse_payload(raw, kind)))
        except PolicyRefused as exc:
            assert str(exc).isprintable() and len(str(exc)) < 500
    if not found:
        raise PolicyRefused("no payload")
    ((kind, one),) = found
    critical = json.loads(raw)["critical"]
    assert critical["type"] == kind.value
    assert critical["image"] == {"docker-manifest-digest": one.digest}
    assert critical["identity"] == {"docker-reference": one.docker_reference}
    return one


def _payload_seeds() -> Iterator[bytes]:
    for kind in PayloadType:
        critical = {
            "type": kind.value,
            "image": {"docker-manifest-digest": f"sha256:{HEX}"},
            "identity": {"docker-reference": "quay.io/a/b:1"},
        }
        yield json.dumps({"critical": critical, "optional": {"creator": "x", "timestamp": 1.7e9}}).encode()
        yield json.dumps({"critical": critical, "optional": None}).encode()


def signed_name(raw: bytes) -> object:
    """Who takes a name exactly takes it otherwise as well; and one that is a name is its own."""
    asked, signed, prefix, other = (text_of(part) for part in parts_of(raw, 4))
    try:
        name = parse_reference(asked)
    except InvalidReference:
        name = parse_reference("quay.io/a/b:1")
    image = name if isinstance(name, Reference) else None
    exact, digest_or_exact, repository = (
        accepts(identity, image, signed) for identity in (_EXACT, _DIGEST_OR_EXACT, _REPOSITORY)
    )
    assert exact <= digest_or_exact <= repository
    own = accepts(Identity(IdentityKind.EXACT_REFERENCE, signed), None, signed)
    known = accepts(Identity(IdentityKind.EXACT_REPOSITORY, signed), None, signed)
    assert exact <= own <= known
    assert not known or (signed.isascii() and signed.isprintable() and " " not in signed)
    accepts(Identity(IdentityKind.REMAP, prefix=prefix, signed_prefix=other), image, signed)
    if not known:
        raise PolicyRefused("no name")
    return exact


def _name_seeds() -> Iterator[bytes]:
    for asked in (
        "quay.io/a/b:1",
        f"quay.io/a/b@sha256:{HEX}",
        "docker.io/library/x:1",
        "localhost:5000/a:1",
    ):
        yield f"{asked}\n%%\n{asked}\n%%\nquay.io\n%%\ndocker.io/library".encode()
    yield f"docker.io/library/x:1\n%%\nx:1@sha256:{HEX}\n%%\n\n%%\n".encode()


def gpg_status(raw: bytes) -> object:
    """Only a key that is known is ever told."""
    keys = frozenset({_KEY})
    try:
        taken = imported_keys(raw)
        assert all(len(key) in (40, 64) for key in taken)
        return taken
    except PolicyRefused:
        assert signer(raw, keys) == _KEY
        return _KEY


def _status_seeds() -> Iterator[bytes]:
    yield _SAID.encode()
    yield f"[GNUPG:] IMPORT_OK 1 {_KEY}\n[GNUPG:] IMPORT_RES 1 0 1 0 0 0 0 0 0 0 0 0 0 0 0\n".encode()
    yield _SAID.replace("GOODSIG", "EXPKEYSIG").encode()


def stored(raw: bytes) -> object:
    """As a lookaside server keeps it."""
    found = stored_signature(raw, "here")
    if isinstance(found, Attachment):
        assert all(isinstance(value, str) for value in found.annotations.values())
    return found


def _stored_seeds() -> Iterator[bytes]:
    yield b"\x90\x0drest"
    yield b"\0simple-signing\n\x90\x0drest"
    yield b'\0sigstore-json\n{"mimeType":"x/y","payload":"e30=","annotations":{"a":"b","A":null}}'


TARGETS = (
    Target(
        "signed-payload",
        payload,
        _payload_seeds,
        (*WORDS_OF_JSON, b"critical", b"optional", b"timestamp"),
        (PolicyRefused,),
    ),
    Target(
        "signed-name",
        signed_name,
        _name_seeds,
        (b"\n%%\n", b"docker.io/", b"index.", b"@sha256:", b":", b"library/", b"__"),
        (PolicyRefused,),
        max_len=800,
    ),
    Target(
        "gpg-status",
        gpg_status,
        _status_seeds,
        (b"[GNUPG:] ", b"GOODSIG ", b"VALIDSIG ", b"NEWSIG\n", b"KEY_CONSIDERED", b"\n"),
        (PolicyRefused,),
    ),
    Target(
        "stored-signature",
        stored,
        _stored_seeds,
        (*WORDS_OF_JSON, b"\0sigstore-json\n", b"annotations", b"payload"),
        (PolicyRefused,),
    ),
)
