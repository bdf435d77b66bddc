"""Filesystems that are mounted for one test. Where that is not allowed, the test is skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(path: Path, size: str, *options: str) -> Iterator[None]:
    """A tmpfs of ``size`` (as mount(8) has it; "0" for no limit) on the directory ``path``."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    options_text = ",".join((f"size={size}", *options))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options_text, "none", path],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted on this machine: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)
