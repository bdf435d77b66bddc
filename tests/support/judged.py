"""Cases as this package judges them, with the signatures that they give."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.errors import LayerteeError
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.judge import judge
from layertee.signatures.signature import Signature, Subject
from layertee.signatures.stored import stored_signature
from layertee.sync import run

from .imagepolicy import Document
from .signedcases import Case

_MANUAL = Path(__file__).parents[2] / "docs/reference/sigstore-signing.md"


@dataclass(frozen=True)
class Given:
    """The signatures of a case, read when they are asked for."""

    documents: tuple[Document, ...]

    async def signatures(self, digest: Digest) -> list[Signature]:
        """Those of the document ``digest``."""
        (found,) = (one for one in self.documents if Digest.of(one.raw) == digest)
        return [stored_signature(blob, f"signature-{n}") for n, blob in enumerate(found.signatures, 1)]


def refusal_here(case: Case) -> str | None:
    """Why ``case`` is not taken; None if it is."""
    try:
        policy = Policy(Path("/policy.json"), *parse_policy(json.dumps(case.policy).encode(), "policy.json"))
        if case.name:
            name = parse_reference(f"docker://{case.name}")
            assert isinstance(name, Reference)
            requirements = policy.judge(name).requirements
        else:
            name, requirements = None, policy.judge_other("dir", "/").requirements
        subjects = [
            Subject(one.raw, Digest.of(one.raw), name, is_index=n + 1 < len(case.documents))
            for n, one in enumerate(case.documents)
        ]
        run(judge(requirements, subjects, Given(case.documents)))
    except LayerteeError as exc:
        return str(exc)
    return None


def documented() -> str:
    """The manual of sigstoreSigned, where it says what is refused here and accepted by containers/image."""
    _, _, table = _MANUAL.read_text().partition("## What is refused here")
    return " ".join(table.split())
