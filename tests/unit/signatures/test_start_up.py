"""What commands that look at no signature need not pay for: the libraries behind it are not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"cryptography", "sigstore", "pydantic", "rfc3161_client", "tuf", "requests"}


def imported(program: str) -> set[str]:
    """The packages that are there after ``program``."""
    text = f"{program}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import layertee",
        "import layertee.cli.main, layertee.cli.pull, layertee.cli.doctor, layertee.cli.image_proxy",
        "import layertee.pulling.judging, layertee.pulling.pull, layertee.imageproxy.server",
        "from layertee.signatures.trust.files import load_trust; load_trust()",
    ],
)
def test_they_are_not_imported_before_a_signature_is_looked_at(program: str) -> None:
    assert imported(program) & HEAVY == set()


def test_keys_take_one_library_and_identities_the_other() -> None:
    assert imported("import layertee.signatures.trust.check") & HEAVY == {"cryptography"}
    both = imported("from layertee.signatures.trust.keyless import require_library; require_library()")
    assert {"cryptography", "sigstore"} <= both
