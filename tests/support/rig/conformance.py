"""The conformance program of OCI's distribution specification, at a registry that takes nothing.

It is given what the registry has, and asks for all of that and for some that is not there.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.rig import prebuild
from tests.support.rig.registry import RigError

__all__ = ["Offer", "Verdict", "judge"]

_RUN_S = 100
_SUITE = "OCI Conformance Test"
_LINE = re.compile(rf"^ *{_SUITE}(?:/(?P<name>[^:]+))?: (?P<status>Pass|FAIL|Skip|Disabled|Error|Unknown)$")


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is in a repository. Digests of ``subjects`` are asked for what refers to them."""

    tags: Sequence[str]
    manifests: Sequence[str]
    blobs: Sequence[str]
    subjects: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tests' names, with as many entries as there were tests of that name, and all that was printed."""

    passed: Sequence[str]
    failed: Sequence[str]
    text: str


def judge(host: str, repository: str, offer: Offer, work: Path) -> Verdict:
    """Run the program at a registry with plain HTTP; ``work`` is an existing directory.

    Raises RigError if it prints no verdict. Its exit status says nothing: version 2026-08-31 ends after the
    verdict, at its file of results, where pushing is disabled.
    """
    settings = {
        "REGISTRY": host,
        "TLS": "disabled",
        "REPO1": repository,
        "RESULTS_DIR": str(work / "results"),
        "VERSION": "1.1",
        "API_PUSH": "false",
        "API_BLOBS_DELETE": "false",
        "API_MANIFESTS_DELETE": "false",
        "API_TAGS_DELETE": "false",
        # Optional by the specification. It can't be asked for of manifests: the program does not keep the
        # heads of those whose bytes it does not know.
        "API_BLOBS_DIGEST_HEADER": "true",
        "RO_DATA_TAGS": " ".join(offer.tags),
        "RO_DATA_MANIFESTS": " ".join(offer.manifests),
        "RO_DATA_BLOBS": " ".join(offer.blobs),
        "RO_DATA_REFERRERS": " ".join(offer.subjects),
    }
    done = subprocess.run(
        [prebuild.program("conformance")],
        cwd=work,
        env={"PATH": "/usr/bin:/bin", "HOME": str(work)} | {f"OCI_{key}": v for key, v in settings.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    found = [match for line in done.stdout.splitlines() if (match := _LINE.match(line))]
    if not found or "OCI Conformance Result: " not in done.stdout:
        raise RigError(f"the conformance program has no verdict:\n{done.stdout}{done.stderr}")
    named = [(match["name"] or "", match["status"]) for match in found]
    return Verdict(
        passed=sorted(name for name, status in named if status == "Pass"),
        failed=sorted(name for name, status in named if status not in ("Pass", "Disabled")),
        text=done.stdout,
    )
