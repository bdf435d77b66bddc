"""What a section of policy.json may ask of an image, one type for each kind (containers-policy.json(5))."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path

from ..record import dataclass


class Verdict(enum.Enum):
    """What a list of requirements says, as far as it can be said without the image."""

    ACCEPT = "accept"  # anything goes
    SIGNATURES = "signatures"  # it depends on signatures
    REJECT = "reject"


class IdentityKind(enum.Enum):
    """How the name in a signature is compared with the name that was asked for."""

    MATCH_EXACT = "matchExact"
    MATCH_REPO_DIGEST_OR_EXACT = "matchRepoDigestOrExact"
    MATCH_REPOSITORY = "matchRepository"
    EXACT_REFERENCE = "exactReference"
    EXACT_REPOSITORY = "exactRepository"
    REMAP = "remapIdentity"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which name a signature has to be for.

    ``name`` is the reference of EXACT_REFERENCE, or the repository of EXACT_REPOSITORY; ``prefix`` and
    ``signed_prefix`` are those of REMAP. Empty for the others.
    """

    kind: IdentityKind = IdentityKind.MATCH_REPO_DIGEST_OR_EXACT
    name: str = ""
    prefix: str = ""
    signed_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """Keys or certificates: the files that hold them, or they themselves. One of the two is empty.

    Files are read when an image is checked. ``data`` is decoded from base64, and the keys' own format.
    """

    paths: tuple[Path, ...] = ()
    data: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptAnything:
    """insecureAcceptAnything."""


@dataclass(frozen=True, slots=True)
class RejectAll:
    """reject."""


@dataclass(frozen=True, slots=True)
class SignedBy:
    """signedBy: a simple signature by one of the OpenPGP ``keys``. ``key_type`` other than GPGKeys is known,
    and no program can check it.
    """

    key_type: str
    keys: Material
    identity: Identity


@dataclass(frozen=True, slots=True)
class SignedBaseLayer:
    """signedBaseLayer, which no program can check."""

    base_layer: Identity


@dataclass(frozen=True, slots=True)
class Fulcio:
    """Certificates of a Fulcio: issued by one of ``ca``, for the e-mail address that ``oidc_issuer`` saw."""

    ca: Material
    oidc_issuer: str
    subject_email: str


@dataclass(frozen=True, slots=True)
class PKI:
    """Certificates of any authority; of the two subjects, those that are not empty have to be there."""

    roots: Material
    intermediates: Material | None
    subject_email: str
    subject_hostname: str


@dataclass(frozen=True, slots=True)
class SigstoreSigned:
    """sigstoreSigned: one of ``keys``, ``fulcio`` and ``pki`` is there, the others are None. ``rekor`` are
    the public keys of transparency logs, one of which has to have seen the signature; None asks for none.
    """

    keys: Material | None
    fulcio: Fulcio | None
    pki: PKI | None
    rekor: Material | None
    identity: Identity


Requirement = AcceptAnything | RejectAll | SignedBy | SignedBaseLayer | SigstoreSigned


def verdict(requirements: Iterable[Requirement]) -> Verdict:
    """What ``requirements``, of which all have to hold, come to without the image."""
    kinds = {type(one) for one in requirements}
    if RejectAll in kinds:
        return Verdict.REJECT
    return Verdict.ACCEPT if kinds <= {AcceptAnything} else Verdict.SIGNATURES
