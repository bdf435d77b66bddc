"""Targets: trust.toml, its patterns, trusted roots, and the bundles that are judged by them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from layertee.config.trustfile import parse_trust
from layertee.config.trustpattern import parse_pattern
from layertee.errors import DocumentError, PolicyRefused, TrustFileError
from layertee.signatures.signature import Bundle
from layertee.signatures.trust.bundlekeys import load_pem
from layertee.signatures.trust.bundles import parse_bundle
from layertee.signatures.trust.root import parse_root
from layertee.signatures.trust.statements import parse_statement
from tests.fuzz.documents import WORDS_OF_JSON
from tests.fuzz.target import Target, parts_of, text_of
from tests.support.bundlekit import IN_TOTO, Sigstore, statement
from tests.support.sigstorekit import new_key, public_pem

_KEY = new_key()
_PUBLIC = load_pem(public_pem(_KEY))
_SIGSTORE = Sigstore()
_SIGNED = statement(f"sha256:{'a' * 64}")
_GOOD = _SIGSTORE.by_key(_KEY, _SIGNED)
_ROOT = parse_root(_SIGSTORE.trusted_root(), "root")
_FILE = b"""[scope."quay.io/a"]
threshold = 1
trusted-root = "root.json"
max-age = "30d"
freeze = "warn"
signer = [
  {issuer = "https://i.example.com", subject-prefix = "https://s.example.com/", workflow-ref = ["a", "b"]},
  {key = "k.pub"},
]
[[scope."quay.io/a".attestation]]
predicate-type = "https://slsa.dev/provenance/v1"
signer = [{issuer = "https://i.example.com", subject-pattern = "*@example.com"}]
"""


def trust_toml(raw: bytes) -> object:
    """What is taken asks for something, and names no more signers than it has."""
    found = parse_trust(Path("/etc/layertee/trust.toml"), raw)
    for rules in found.values():
        assert rules.asks_for_signatures or rules.downgrade or rules.max_age_s
        assert rules.threshold <= len(rules.signers)
        assert all(1 <= each.threshold <= len(each.signers) for each in rules.attestations)
    return found


def pattern(raw: bytes) -> object:
    """A pattern takes what the expression takes that it stands for."""
    text, subject = (text_of(part) for part in parts_of(raw, 2))
    found = parse_pattern(text)
    words = re.findall(r"\*+|[^*]", text)
    if len(subject) < 40 and len(words) < 20:  # the expression backtracks
        meant = "".join({"*": "[^/]*", "**": ".*"}.get(word) or re.escape(word) for word in words)
        assert found.matches(subject) is bool(re.fullmatch(meant, subject, re.DOTALL))
    return found.matches(subject)


def bundle(raw: bytes) -> object:
    """What is signed by the key is what the key has signed, and nothing else."""
    found = parse_bundle(Bundle(raw, "fuzzed"))
    if found.is_signed_by(_PUBLIC):
        assert (found.payload_type, found.payload) == (IN_TOTO, _SIGNED)
    for entry in found.entries:
        entry.check_envelope(_PUBLIC, found.payload, found.signature, found.signed)
        entry.verify(_ROOT, 0)
        assert found.is_signed_by(_PUBLIC)
    return found


def trusted_root(raw: bytes) -> object:
    """A root at any time is one again, with no more in it."""
    found = parse_root(raw, "root")
    for at in (0.0, 1.7e9, float("inf")):
        left = parse_root(json.dumps(found.as_of(at)).encode(), "root")
        assert len(left.logs) <= len(found.logs)
    return found


def said(raw: bytes) -> object:
    return parse_statement(IN_TOTO, raw)


def _trust_seeds() -> Iterator[bytes]:
    yield _FILE
    yield b'[scope.""]\ndowngrade = "refuse"\n'
    yield b'[scope."*.io"]\ntransparency-log = false\nsigner = [{key = "a"}]\n'


def _pattern_seeds() -> Iterator[bytes]:
    for text, subject in (
        ("https://h/*/x@refs/**", "https://h/a/x@refs/heads/b"),
        ("*@example.com", "a@example.com"),
        ("a*a*a**b", "aaaa/aab"),
    ):
        yield f"{text}\n%%\n{subject}".encode()


def _bundle_seeds() -> Iterator[bytes]:
    yield _GOOD
    yield _SIGSTORE.by_key(_KEY, _SIGNED, logged=False)
    yield _SIGSTORE.keyless(_SIGNED)


_FIELDS = (b"verificationMaterial", b"tlogEntries", b"inclusionProof", b"canonicalizedBody", b"dsseEnvelope")

TARGETS = (
    Target(
        "trust-toml",
        trust_toml,
        _trust_seeds,
        (
            b"[[scope.",
            b"signer",
            b"subject-pattern = ",
            b"transparency-log = ",
            b"threshold",
            b'"""',
            b"{",
            b"]",
        ),
        (TrustFileError,),
    ),
    Target(
        "trust-pattern", pattern, _pattern_seeds, (b"\n%%\n", b"**", b"*", b"/"), (ValueError,), max_len=120
    ),
    Target("bundle", bundle, _bundle_seeds, (*WORDS_OF_JSON, *_FIELDS), (PolicyRefused,)),
    Target(
        "trusted-root",
        trusted_root,
        lambda: iter([_SIGSTORE.trusted_root()]),
        (*WORDS_OF_JSON, b"validFor", b"publicKey", b"rawBytes", b"tlogs"),
        (DocumentError,),
    ),
    Target(
        "statement",
        said,
        lambda: iter([_SIGNED]),
        (*WORDS_OF_JSON, b"predicateType", b"subject", b"sha256"),
        (PolicyRefused,),
    ),
)
