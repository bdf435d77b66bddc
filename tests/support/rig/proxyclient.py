"""A real client of the image-proxy protocol, in Rust: ``proxyclient``, over the crate that bootc uses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.rig import crates
from tests.support.rig.crates import NoRust
from tests.support.rig.registry import RigError

__all__ = ["NoRust", "build", "build_tests", "command", "crate_version", "ours", "run", "theirs"]

_NAME = "proxyclient"
_RUN_S = 240


def build(*, optimized: bool = False) -> Path:
    """The program; ``optimized`` where its CPU time is measured.

    Raises NoRust, whose one line says what is missing; RigError if it can't be compiled.
    """
    return crates.build(_NAME, optimized=optimized)


def build_tests() -> Path:
    """The tests of the crate that speaks the protocol, likewise."""
    return crates.build_tests(crates.SUITES["containers-image-proxy"])


def crate_version() -> str:
    """Of the crate that speaks the protocol."""
    return str(crates.manifest(_NAME)["dependencies"]["containers-image-proxy"]).lstrip("=")


def ours(store: Path, *options: str) -> list[str]:
    """The command of our server on ``store``; the client adds its own arguments."""
    return [str(Path(sys.executable).with_name("layertee")), "image-proxy", "--store", str(store), *options]


def theirs() -> list[str]:
    """The command of the machine's skopeo, likewise. Raises RigError without one."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        raise RigError("skopeo is not installed")
    return [skopeo]


def command(client: Path, server: Sequence[str], *words: str) -> list[str]:
    """What runs the client with ``server`` as its child; without one it takes the ``skopeo`` on its PATH."""
    if not server:
        return [str(client), *words]
    options = [word for option in server[1:] for word in ("--proxy-arg", option)]
    return [str(client), "--proxy", server[0], *options, *words]


def run(client: Path, server: Sequence[str], *words: str, home: Path, **env: str) -> dict[str, Any]:
    """The client's report of a scenario; ``words`` are its options and arguments.

    ``home`` is all that client and server know of a user, ``env`` adds to their environment. Raises RigError
    with what they said if the scenario failed, and TimeoutExpired.
    """
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"} | env
    done = subprocess.run(
        command(client, server, *words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RigError(f"proxyclient failed ({done.returncode}): {done.stderr}")
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report
