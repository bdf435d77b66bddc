"""Compiling the C core for tests: under sanitizers, with the libraries that are here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CTESTS = ROOT / "tests" / "c"
STRICT = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# The core cannot be built without libzstd, nor without one of libisal and zlib.
REQUIRED = "libzstd"
OPTIONAL = {"LT_HAVE_ISAL": "libisal", "LT_HAVE_ZLIB": "zlib", "LT_HAVE_OPENSSL": "libcrypto"}


@cache
def pkg_config(package: str) -> tuple[str, ...] | None:
    """Flags for ``package``, or None where it is not installed."""
    done = subprocess.run(
        ["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True, check=False
    )
    return tuple(shlex.split(done.stdout)) if done.returncode == 0 else None


def sources() -> list[str]:
    """The C files that go into the extension, as pyproject.toml lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed: list[str] = project["tool"]["setuptools"]["ext-modules"][0]["sources"]
    return listed


def compilers() -> list[str]:
    """The C compilers that are here."""
    return [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]


def build(
    program: Path, main: Path, *, compiler: str = "cc", flags: list[str] | None = None, bare: bool = False
) -> Path:
    """Compile ``main`` with all of the core. ``bare``: with no library that it can do without."""
    command = [compiler, *STRICT, *(SANITIZE if flags is None else flags), f"-I{CSRC}", str(main)]
    command += [str(ROOT / source) for source in sources()]
    for macro, package in OPTIONAL.items():
        found = pkg_config(package)
        if found is not None and (not bare or package == "zlib"):
            command += [f"-D{macro}", *found]
    command += [*(pkg_config(REQUIRED) or ["-lzstd"]), "-lz", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    return program
