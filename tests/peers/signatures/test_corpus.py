"""Images under policies, by the thousand, beside the newest containers/image: never accepted here where it
refuses, and refused here where it accepts only for a reason that is written down.

``LAYERTEE_CORPUS`` is the number of cases (default 2400).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.imagepolicy import ImagePolicy, imagepolicy
from tests.support.judged import documented, refusal_here
from tests.support.openpgp import signer
from tests.support.rig.prebuild import NotBuilt, program
from tests.support.signedcases import Case, Cases
from tests.support.signedmaterial import Material

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

N_PARTS = 6
N_CASES = int(os.environ.get("LAYERTEE_CORPUS", "2400")) // N_PARTS

# What is refused here and taken there: what the refusal says, and the words of sigstore-signing.md for it.
NARROWER = {
    "a key appears twice in one object": "a key twice",
    "differs from a known field only by case": "differs from a known one by case only",
    "is not base64": "base64 with line ends in it",
    "an integer beyond 2^53": "integers beyond 2^53",
    "a number that is not a whole one": "numbers with a point or an exponent",
    "two certificates of its chain are of the same name": "two of one name",
    "the certificate's chain has more than 16 certificates": "more than 16 certificates",
    "is missing or not a string": "`null` in place of a number or a text",
    "is not an integer": "`null` in place of a number or a text",
    "its JSON is not UTF-8": "JSON that is not UTF-8",
    "name constraints": "with name constraints",
    "the certificate's chain is not in PEM format": "damaged where Go does not mind",
    "the certificate's chain has a certificate": "damaged where Go does not mind",
}

# The build of containers/image for tests reads OpenPGP by itself, and damaged messages in its own way; what
# counts as signed in one is compared in test_imagepolicy.py.
DAMAGED = "message damaged"

# Of many signatures a refusal says four reasons: the choices that lead to the above without a word of it.
UNSAID = ("issued by bounded", "chain twice", "long chain", "stored: ", "written otherwise", "log: ")


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


def why_narrower(case: Case, here: str) -> str | None:
    """The words of the manual for the refusal ``here``; None if it has none."""
    for text, words in NARROWER.items():
        if text in here:
            return words
    unsaid = " more" in here and any(choice.startswith(UNSAID) for choice in case.what)
    return "one of many" if unsaid else None


@pytest.mark.parametrize("words", sorted(set(NARROWER.values())))
def test_what_is_refused_here_alone_is_in_the_manual(words: str) -> None:
    assert words in documented()


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
        elif not (known := why_narrower(case, here)):
            wrong.append(f"narrower: {case.name!r}, {case.what}: {here}")
        else:
            seen[f"narrower: {known}"] += 1
    sys.stdout.write(f"{dict(seen)}\n")
    assert not wrong, "\n".join(wrong)
    assert min(seen["accepted"], seen["refused"]) > N_CASES // 4
    assert seen["accepted"] + seen["refused"] > N_CASES * 9 // 10
