"""The name in a signature is compared as containers/image compares it, and never more kindly."""

from __future__ import annotations

import pytest

from layertee.config.requirements import Identity, IdentityKind
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.identity import accepts

A = "@sha256:" + "a" * 64
B = "@sha512:" + "b" * 128

EXACT = Identity(IdentityKind.MATCH_EXACT)
DIGEST_OR_EXACT = Identity(IdentityKind.MATCH_REPO_DIGEST_OR_EXACT)
REPOSITORY = Identity(IdentityKind.MATCH_REPOSITORY)


def name(text: str) -> Reference:
    found = parse_reference(text)
    assert isinstance(found, Reference)
    return found


def kinds(asked: str | None, signed: str) -> str:
    """The initials of those of the plain identities that accept."""
    image = None if asked is None else name(asked)
    plain = {"e": EXACT, "d": DIGEST_OR_EXACT, "r": REPOSITORY}
    return "".join(initial for initial, identity in plain.items() if accepts(identity, image, signed))


@pytest.mark.parametrize(
    ("asked", "signed", "wanted"),
    [
        ("quay.io/a/b:1", "quay.io/a/b:1", "edr"),
        ("quay.io/a/b", "quay.io/a/b:latest", "edr"),
        ("quay.io/a/b:1", "quay.io/a/b:2", "r"),
        ("quay.io/a/b:1", "quay.io/a/b", "r"),
        ("quay.io/a/b", "quay.io/a/b", "r"),
        ("quay.io/a/b:1", "quay.io/a/c:1", ""),
        ("quay.io/a/b:1", "quay.io/a/b/c:1", ""),
        ("quay.io/a/b:1", "quay.io:443/a/b:1", ""),
        ("quay.io/a/b:1", "quay.io/a/b" + A, "r"),
        ("quay.io/a/b" + A, "quay.io/a/b" + A, "edr"),
        ("quay.io/a/b" + A, "quay.io/a/b" + B, "dr"),
        ("quay.io/a/b" + A, "quay.io/a/b:1", "dr"),
        ("quay.io/a/b" + A, "quay.io/a/b:1" + A, "dr"),
        ("quay.io/a/b" + A, "quay.io/a/b", "r"),
        ("quay.io/a/b:1" + A, "quay.io/a/b" + A, "edr"),
        ("quay.io/a/b:1" + A, "quay.io/a/b:1", "dr"),
        ("quay.io/a/b:1" + A, "quay.io/a/b:2", "dr"),
        ("quay.io/a/b:1" + A, "quay.io/a/b:1" + A, "dr"),
        ("quay.io/a/b:1" + A, "quay.io/a/b" + B, "dr"),
        ("quay.io/a/b:1" + A, "quay.io/a/b", "r"),
        ("docker.io/library/x:1", "x:1", "edr"),
        ("docker.io/library/x:1", "library/x:1", "edr"),
        ("docker.io/library/x:1", "docker.io/x:1", "edr"),
        ("docker.io/library/x:1", "index.docker.io/x:1", "edr"),
        ("docker.io/a/x:1", "a/x:1", "edr"),
        ("docker.io/a/x:1", "registry-1.docker.io/a/x:1", ""),
        ("docker.io/library/x:1", "DOCKER.IO/library/x:1", ""),
        ("quay.io/a/b:1", "QUAY.IO/a/b:1", ""),
        ("QUAY.io/a/b:1", "quay.io/a/b:1", "edr"),
        ("localhost/a:1", "localhost/a:1", "edr"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "edr"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1", ""),
        (None, "quay.io/a/b:1", ""),
    ],
)
def test_plain_identities(asked: str | None, signed: str, wanted: str) -> None:
    assert kinds(asked, signed) == wanted


@pytest.mark.parametrize(
    "signed",
    [
        *("", ":1", "/", "quay.io/", "quay.io/:1", "/quay.io/a/b:1", "quay.io//a/b:1", "quay.io/a/b/:1"),
        *(" quay.io/a/b:1", "quay.io/a/b:1 ", "quay.io/a/b:1\n", "quay.io/a/b:1\0", "docker://quay.io/a/b:1"),
        *("quay.io/A/b:1", "quay.io/a/b:", "quay.io/a/b:-1", "quay.io/a/b:1@", "quay.io/a/b:1:1"),
        *("quay.io/a/b@sha256:" + "A" * 64, "quay.io/a/b@sha256:" + "a" * 63, "quay.io/a/b@md5:" + "a" * 32),
        *("quay.io/a/b@SHA256:" + "a" * 64, "quay.io/a/b@sha256:" + "a" * 64 + "a", "quay.io/a/b:1" + A + A),
        *("quay.io/a/\N{LATIN SMALL LETTER B}\N{COMBINING ACUTE ACCENT}:1", "quay.io/а/b:1"),  # noqa: RUF001
        *("quay.io/a/b:1" + "1" * 128, "quay.io/../a/b:1", "quay.io/a/./b:1", "quay.io/a__-b:1", "a" * 64),
        *("user@quay.io/a/b:1", "quay.io:/a/b:1", "quay.io:p/a/b:1", "-quay.io/a/b:1", "quay.io/a/b?:1"),
        "quay.io/" + "a" * 248 + ":1",
        "a/" * (1 << 20),
    ],
)
def test_what_is_no_name_matches_nothing(signed: str) -> None:
    identities = (
        *(EXACT, DIGEST_OR_EXACT, REPOSITORY),
        Identity(IdentityKind.EXACT_REPOSITORY, "quay.io/a/b"),
        Identity(IdentityKind.EXACT_REPOSITORY, signed),
        Identity(IdentityKind.EXACT_REFERENCE, "quay.io/a/b:1"),
        Identity(IdentityKind.EXACT_REFERENCE, signed),
        Identity(IdentityKind.REMAP, prefix="quay.io", signed_prefix="quay.io"),
    )
    asked = (name("quay.io/a/b:1"), name("quay.io/a/b" + A))
    assert not any(accepts(identity, image, signed) for identity in identities for image in asked)


def test_the_longest_name_counts_with_its_registry() -> None:
    longest, longer = "quay.io/" + "a" * 247, "quay.io/" + "a" * 248
    assert kinds(f"{longest}:1", f"{longest}:1") == "edr"
    assert kinds(f"{longer}:1", f"{longer}:1") == ""


@pytest.mark.parametrize("asked", [None, name("quay.io/other:9"), name("quay.io/other" + A)])
def test_a_name_in_the_policy_stands_for_the_one_that_was_asked_for(asked: Reference | None) -> None:
    reference = Identity(IdentityKind.EXACT_REFERENCE, "quay.io/a/b:1")
    assert accepts(reference, asked, "quay.io/a/b:1")
    assert not accepts(reference, asked, "quay.io/a/b:2")
    assert not accepts(reference, asked, "quay.io/a/b")
    assert not accepts(reference, asked, "quay.io/other:9")
    repository = Identity(IdentityKind.EXACT_REPOSITORY, "x")
    assert accepts(repository, asked, "docker.io/library/x")
    assert accepts(repository, asked, "x" + A)
    assert not accepts(repository, asked, "y")
    unpinned = Identity(IdentityKind.EXACT_REFERENCE, "quay.io/a/b")
    assert not accepts(unpinned, asked, "quay.io/a/b")


@pytest.mark.parametrize(
    ("prefix", "signed_prefix", "asked", "signed", "wanted"),
    [
        ("mirror.example/quay", "quay.io", "mirror.example/quay/a/b:1", "quay.io/a/b:1", True),
        ("mirror.example/quay", "quay.io", "mirror.example/quay/a/b:1", "quay.io/a/b:2", False),
        ("mirror.example/quay", "quay.io", "mirror.example/quay/a/b:1", "mirror.example/quay/a/b:1", False),
        ("mirror.example/quay", "quay.io", "mirror.example/quay/a/b" + A, "quay.io/a/b:7", True),
        ("mirror.example/quay", "quay.io", "mirror.example/quay/a/b" + A, "quay.io/a/b", False),
        ("mirror.example/quay", "quay.io", "mirror.example/quayside/b:1", "quay.ioside/b:1", False),
        (
            "mirror.example/quay",
            "quay.io",
            "mirror.example/quayside/b:1",
            "mirror.example/quayside/b:1",
            True,
        ),
        ("mirror.example", "quay.io", "mirror.example:5000/a:1", "quay.io:5000/a:1", False),
        ("mirror.example", "quay.io", "mirror.example:5000/a:1", "mirror.example:5000/a:1", True),
        ("mirror.example/a", "quay.io/b", "mirror.example/a:1", "quay.io/b:1", True),
        (
            "a.example/a.example",
            "quay.io",
            "a.example/a.example/a.example/b:1",
            "quay.io/a.example/b:1",
            True,
        ),
        ("mirror.example", "docker.io", "mirror.example/library/x:1", "x:1", True),
        ("mirror.example", "docker.io", "mirror.example/x:1", "x:1", False),
        ("mirror.example", "docker.io/library", "mirror.example/x:1", "x:1", True),
        ("mirror.example/quay", "quay.io", "mirror.example/quay:1", "quay.io:1", False),
    ],
)
def test_one_prefix_stands_for_another(
    prefix: str, signed_prefix: str, asked: str, signed: str, wanted: bool
) -> None:
    identity = Identity(IdentityKind.REMAP, prefix=prefix, signed_prefix=signed_prefix)
    assert accepts(identity, name(asked), signed) is wanted
    assert not accepts(identity, None, signed)
