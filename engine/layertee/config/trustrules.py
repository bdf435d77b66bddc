"""What trust.toml may ask of an image, one type for each table in it (docs/reference/trust.md)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..record import dataclass
from .policyscopes import docker_scopes
from .trustpattern import Pattern

if TYPE_CHECKING:
    from ..image.reference import Reference

SIGNED: Final = "https://sigstore.dev/cosign/sign/v1"
"""The predicate type of a plain signature of an image, which is asked for by ``signer`` alone."""


class Form(enum.Enum):
    """How a signature is kept beside its image: in a sigstore bundle, or in the older way of Cosign."""

    BUNDLE = "bundle"
    ATTACHMENT = "attachment"


class Action(enum.Enum):
    """What is done about an image that is older than one that was seen before, or than it may be."""

    REFUSE = "refuse"
    WARN = "warn"


class Claim(enum.Enum):
    """What Fulcio writes into a certificate beside the subject; the value is the key in trust.toml."""

    ISSUER = "issuer"
    SIGNER = "build-signer"
    SIGNER_DIGEST = "build-signer-digest"
    RUNNER = "runner-environment"
    REPOSITORY = "source-repository"
    REPOSITORY_DIGEST = "source-repository-digest"
    REPOSITORY_REF = "source-repository-ref"
    REPOSITORY_ID = "source-repository-id"
    OWNER = "source-repository-owner"
    OWNER_ID = "source-repository-owner-id"
    CONFIG = "build-config"
    CONFIG_DIGEST = "build-config-digest"
    TRIGGER = "build-trigger"
    RUN = "run-invocation"
    VISIBILITY = "source-repository-visibility"
    WORKFLOW_TRIGGER = "workflow-trigger"
    WORKFLOW_SHA = "workflow-sha"
    WORKFLOW_NAME = "workflow-name"
    WORKFLOW_REPOSITORY = "workflow-repository"
    WORKFLOW_REF = "workflow-ref"


@dataclass(frozen=True, slots=True)
class ExactSubject:
    text: str

    def matches(self, subject: str) -> bool:
        return subject == self.text


@dataclass(frozen=True, slots=True)
class SubjectPrefix:
    text: str

    def matches(self, subject: str) -> bool:
        return subject.startswith(self.text)


SubjectRule = ExactSubject | SubjectPrefix | Pattern


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Whoever has a certificate of Fulcio for a subject, by an issuer, and with claims.

    ``claims``: of each, one of the values has to be in the certificate.
    """

    name: str
    issuer: str
    subject: SubjectRule
    claims: Mapping[Claim, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class KeySigner:
    """Whoever has the private half of a key, which is in the file ``path``, or is ``data`` (PEM)."""

    name: str
    path: Path | None
    data: bytes = b""


Signer = KeylessSigner | KeySigner


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The authorities and logs that count: sigstore's trusted root (protobuf-specs, TrustedRoot).

    ``path`` is a file of the administrator's. Without one, the root is what the sigstore library has for the
    TUF repository ``url`` ("": sigstore's public one), after it has asked for a newer one if ``refresh``.
    """

    path: Path | None = None
    url: str = ""
    refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """A statement about the image of a type that has to be there, by ``threshold`` of ``signers``."""

    predicate_type: str
    signers: tuple[Signer, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRules:
    """What holds for the images in ``scope``; ``whence`` is FILE or FILE:LINE.

    ``threshold`` of ``signers`` have to have signed; with no signers, no signature is asked for here.
    ``needs_log``: each signature has to be in a transparency log; ``needs_timestamp``: each has to have a
    time-stamp of an authority. ``root`` is None where nothing needs it. Of ``downgrade`` and ``freeze``, None
    means that the scope says nothing. ``max_age_s``: how old the newest image may be.
    """

    scope: str
    whence: str
    signers: tuple[Signer, ...] = ()
    threshold: int = 0
    forms: frozenset[Form] = frozenset(Form)
    needs_log: bool = True
    needs_timestamp: bool = False
    root: TrustedRoot | None = None
    attestations: tuple[Attestation, ...] = ()
    downgrade: Action | None = None
    freeze: Action | None = None
    max_age_s: int | None = None

    @property
    def refuses_older(self) -> bool:
        """Whether an image older than one that was seen is refused."""
        return self.downgrade is Action.REFUSE

    @property
    def refuses_stale(self) -> bool:
        """Whether an image older than ``max_age_s`` is refused."""
        return self.freeze is Action.REFUSE

    @property
    def asks_for_signatures(self) -> bool:
        return bool(self.signers or self.attestations)


@dataclass(frozen=True, slots=True)
class TrustRules:
    """All scopes of this machine, by their names, and the files that they are from."""

    scopes: Mapping[str, ScopeRules] = field(default_factory=dict, hash=False)
    files: tuple[Path, ...] = ()

    def of(self, image: Reference) -> tuple[ScopeRules, ...]:
        """What holds for ``image``: the rules of the most specific scope; all of them have to be kept.

        They are two only for a name with a tag and a digest where both have a scope of their own, and none
        where no scope has the image.
        """
        pins = [image.name + f"@{image.digest}"] if image.digest else []
        pins += [image.name + f":{image.tag}"] if image.tag else []
        pinned = tuple(self.scopes[pin] for pin in pins if pin in self.scopes)
        if pinned:
            return pinned
        for scope in (*docker_scopes(image), ""):
            if scope in self.scopes:
                return (self.scopes[scope],)
        return ()
