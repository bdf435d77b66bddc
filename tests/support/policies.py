"""policy.json in short: who is accepted, who is rejected, and what takes signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.config.requirements import (
    AcceptAnything,
    Identity,
    Material,
    RejectAll,
    Requirement,
    SignedBy,
    Verdict,
)
from layertee.image.reference import parse_reference

ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
SIGNED = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key.gpg"}
A, R, S = Verdict.ACCEPT, Verdict.REJECT, Verdict.SIGNATURES
ASKED: dict[Verdict, tuple[Requirement, ...]] = {
    A: (AcceptAnything(),),
    R: (RejectAll(),),
    S: (SignedBy("GPGKeys", Material((Path("/key.gpg"),)), Identity()),),
}
LISTS = {A: [ACCEPT], R: [REJECT], S: [SIGNED]}
SIGSTORE = {"type": "sigstoreSigned"}
HEX = "0123456789abcdef" * 4


def document(default: Verdict, **transports: dict[str, Verdict]) -> dict[str, Any]:
    """A policy as skopeo takes it. ``_`` in a transport stands for ``-``."""
    sections = {
        name.replace("_", "-"): {scope: LISTS[one] for scope, one in scopes.items()}
        for name, scopes in transports.items()
    }
    return {"default": LISTS[default], "transports": sections}


def policy(default: Verdict, **transports: dict[str, Verdict]) -> Policy:
    """The same, read."""
    raw = json.dumps(document(default, **transports)).encode()
    return Policy(Path("/policy.json"), *parse_policy(raw, "policy.json"))


def verdict(found: Policy, name: str) -> Verdict:
    """What holds for the image ``name``."""
    return found.judge(parse_reference(name)).verdict
