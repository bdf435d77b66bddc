"""A real client of the image-proxy protocol, in Rust: ``tests/rust/proxyclient``, over the crate of bootc.

Built once, by cargo, into ``build/rust`` (or ``CARGO_TARGET_DIR``); later runs find it there. The crates come
from crates.io as ``Cargo.lock`` names them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.rig.registry import RigError

__all__ = ["NoRust", "build", "command", "crate_version", "ours", "run", "theirs"]

SOURCE = Path(__file__).parents[1] / "rust" / "proxyclient"
_TARGET = Path(__file__).parents[2] / "build" / "rust"
_BUILD_S = 800  # a hundred crates: 100 s of CPU
_RUN_S = 100


class NoRust(RigError):
    """The client can't be built here: no cargo, one that is too old, or no way to the crates."""


@functools.cache
def build() -> Path:
    """The program. Raises NoRust, whose one line says what is missing; RigError if it does not compile."""
    cargo = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home() / '.cargo' / 'bin'}")
    wanted = tomllib.loads((SOURCE / "Cargo.toml").read_text())["package"]["rust-version"]
    needs = f"the Rust client takes cargo {wanted} or newer (Debian 12: cargo-web)"
    if cargo is None:
        raise NoRust(f"{needs}, and there is none")
    found = re.search(
        r"\d+\.\d+", subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout
    )
    if found is None or _numbers(found[0]) < _numbers(wanted):
        raise NoRust(f"{needs}, this is {found[0] if found else 'of an unknown version'}")
    environment = {"CARGO_TARGET_DIR": str(_TARGET)} | os.environ
    environment["PATH"] += f":{Path(cargo).parent}"
    fetched = _cargo(cargo, "fetch", environment)
    if fetched.returncode and "--locked" not in fetched.stderr:
        raise NoRust(f"cargo can't fetch the Rust client's crates: {fetched.stderr.strip().splitlines()[-1]}")
    built = _cargo(cargo, "build", environment, "--release", "--offline")
    if built.returncode:
        raise RigError(f"the Rust client does not build:\n{fetched.stderr}{built.stderr}")
    return Path(environment["CARGO_TARGET_DIR"], "release", "proxyclient").absolute()


def crate_version() -> str:
    """Of the crate that speaks the protocol."""
    manifest = tomllib.loads((SOURCE / "Cargo.toml").read_text())
    return str(manifest["dependencies"]["containers-image-proxy"]).lstrip("=")


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


def _cargo(
    cargo: str, command: str, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [cargo, command, "--locked", *options],
        cwd=SOURCE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
