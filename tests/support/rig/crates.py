"""The clients in Rust of ``tests/peers/rust/crates``, built by cargo from what their lock files name.

What is built stays in ``build/rust`` (or ``CARGO_TARGET_DIR``), where later runs find it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from tests.support.rig.registry import RigError

_SOURCES = Path(__file__).parents[2] / "peers" / "rust" / "crates"
_TARGET = Path(__file__).parents[3] / "build" / "rust"
_BUILD_S = 800  # two hundred crates: 120 s of CPU


class NoRust(RigError):
    """A client can't be built here: no cargo, one that is too old, no library, or no way to the crates."""


@functools.cache
def build(name: str, *, optimized: bool = False) -> Path:
    """The program ``name``.

    Raises NoRust, whose one line says what is missing; RigError if it can't be compiled.
    """
    cargo = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home() / '.cargo' / 'bin'}")
    wanted = manifest(name)["package"]["rust-version"]
    needs = f"{name} takes cargo {wanted} or newer (Debian 12: cargo-web)"
    if cargo is None:
        raise NoRust(f"{needs}, and there is none")
    found = re.search(
        r"\d+\.\d+", subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout
    )
    if found is None or _numbers(found[0]) < _numbers(wanted):
        raise NoRust(f"{needs}, this is {found[0] if found else 'of an unknown version'}")
    target = Path(os.environ.get("CARGO_TARGET_DIR", _TARGET)).absolute()
    path = f"{os.environ.get('PATH', '')}:{Path(cargo).parent}"  # cargo looks for rustc there
    environment = os.environ | {"CARGO_TARGET_DIR": str(target), "PATH": path}
    fetched = _cargo(cargo, "fetch", name, environment)
    if fetched.returncode and "--locked" not in fetched.stderr:
        raise NoRust(f"cargo can't fetch the crates of {name}: {fetched.stderr.strip().splitlines()[-1]}")
    options = ["--offline", *(["--release"] if optimized else [])]
    built = _cargo(cargo, "build", name, environment, *options)
    if built.returncode:
        raise RigError(f"{name} can't be compiled:\n{fetched.stderr}{built.stderr}")
    profile = "release" if optimized else "debug"
    return target / profile / name


def manifest(name: str) -> dict[str, Any]:
    """Its ``Cargo.toml``."""
    return tomllib.loads((_SOURCES / name / "Cargo.toml").read_text())


def _cargo(
    cargo: str, command: str, name: str, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [cargo, command, "--locked", *options],
        cwd=_SOURCES / name,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
