"""Images under policies, by the thousand, beside the newest containers/image: never accepted here where it
refuses, and refused here where it accepts only for a reason that is written down.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.errors import LayerteeError
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.judge import judge
from layertee.signatures.signature import Signature, Subject
from layertee.signatures.stored import stored_signature
from layertee.sync import run
from tests.support.imagepolicy import Document, ImagePolicy, imagepolicy
from tests.support.openpgp import signer
from tests.support.rig.prebuild import NotBuilt, program
from tests.support.signedcases import Case, Cases
from tests.support.signedmaterial import Material

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

N_PARTS = 6
N_CASES = int(os.environ.get("LAYERTEE_CORPUS", "2400")) // N_PARTS

# What is refused here and taken there, each with what the refusal says (docs/reference/sigstore-signing.md).
NARROWER = {
    "JSON that has a key twice": "a key appears twice in one object",
    "JSON with a key in other letters": "differs from a known field only by case",
    "base64 with line breaks": "is not base64",
    "a log's numbers that are rounded": "an integer beyond 2^53",
    "a log's numbers that are no integers as they are written": "a number that is not a whole one",
    "a chain with one name twice": "two certificates of its chain are of the same name",
    "a long chain": "the certificate's chain has more than 16 certificates",
}

# The build of containers/image for tests reads OpenPGP by itself, and damaged messages in its own way; what
# counts as signed in one is compared in test_imagepolicy.py.
DAMAGED = "message damaged"


@dataclass(frozen=True)
class Rig:
    """What cases are made of, and the judge of them."""

    material: Material
    peer: ImagePolicy


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    try:
        there = program("imagepolicy")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    with signer() as home, imagepolicy(there) as peer:
        yield Rig(Material(home, tmp_path_factory.mktemp("corpus")), peer)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


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


@pytest.mark.parametrize("part", range(N_PARTS))
def test_nothing_is_accepted_that_containers_image_refuses(rig: Rig, part: int) -> None:
    cases = Cases(rig.material, part)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for _ in range(N_CASES):
        case = cases.next()
        here = refusal_here(case)
        refusals = rig.peer.refusals(case.policy, case.name, case.documents)
        there = None if None in refusals else "; ".join(map(str, refusals))
        if here is None and there is None:
            seen["accepted"] += 1
        elif here is not None and there is not None:
            seen["refused"] += 1
        elif any(DAMAGED in what for what in case.what):
            seen["damaged messages"] += 1
        elif here is None:
            wrong.append(f"wider: {case.name!r}, {case.what}: {there}")
        elif not (known := [name for name, text in NARROWER.items() if text in here]):
            wrong.append(f"narrower: {case.name!r}, {case.what}: {here}")
        else:
            seen[f"narrower: {known[0]}"] += 1
    sys.stdout.write(f"{dict(seen)}\n")
    assert not wrong, "\n".join(wrong)
    assert min(seen["accepted"], seen["refused"]) > N_CASES // 4
    assert seen["accepted"] + seen["refused"] > N_CASES * 9 // 10
