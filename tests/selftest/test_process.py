"""The command as tests run it: one that does not end is ended, and says where it stood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import Cli

STUCK = "import sys, threading\ndef stuck(): threading.Event().wait()\nstuck()"


@pytest.mark.slow
def test_a_command_that_does_not_end_says_where_it_stood(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cli.environment(),
    )
    with pytest.raises(AssertionError, match=r"(?s)it does not end.*in stuck"):
        cli.finish(process, late_s=2.0)
    assert process.returncode < 0
