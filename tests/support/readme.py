"""README's two commands for each kind of host, after which an image is on it; and a shell to type them."""

from __future__ import annotations

import re
import subprocess

from tests.support.ccore import ROOT
from tests.support.rig.hosts_without import ENVIRONMENT

EXAMPLE = "registry.example.com/os/image:stable"


def rows() -> dict[str, tuple[str, str]]:
    """The two commands of README's table, by the kind of host."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        kind: (first, second)
        for kind, first, second in re.findall(r"^\| (.+) \| `(.+)` \| `(.+)` \|$", text, re.M)
    }


def sh(words: list[str], script: str, **more: str) -> str:
    """Standard output of a script that a shell runs to its end, on the host that ``words`` enter.

    ``more`` is of its environment. AssertionError, with all that was said, if it fails.
    """
    done = subprocess.run(
        [*words, "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | more,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout
