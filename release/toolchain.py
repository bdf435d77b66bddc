"""What compiles the C core for an architecture and an old glibc: zig's C compiler, whatever runs here.

It comes from PyPI, locked like the other tools, has the interfaces of each glibc in it, and makes the same
code on every machine. What it links loads wherever glibc is GLIBC or newer.
"""

from __future__ import annotations

import shlex
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from release.project import BUILD, ReleaseError, run, source_date
from release.sysroot import Sysroot

GLIBC = (2, 17)  # manylinux2014: CentOS 7, Debian 8; the wheels of our dependencies ask for no less


def zig() -> Path:
    """The compiler. Raises ReleaseError where the tools of a release are not installed."""
    try:
        files = metadata.files("ziglang") or []
    except metadata.PackageNotFoundError as exc:
        raise ReleaseError("ziglang is not installed; 'make dist' brings the tools of a release") from exc
    return next(Path(str(file.locate())) for file in files if file.name == "zig")


def compiling(machine: str, libraries: Sysroot) -> dict[str, str]:
    """The environment for setuptools that compiles for ``machine`` with these libraries."""
    compiler = f"{shlex.quote(str(zig()))} cc -target {machine}-linux-gnu.{'.'.join(map(str, GLIBC))}"
    return {
        **libraries.environment(),
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
        # In place of those that this Python was compiled with, which are for its compiler and its machine.
        "CFLAGS": f"-DNDEBUG -fwrapv -isystem {shlex.quote(str(libraries.headers))}",
        "LDFLAGS": "",
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig"),
    }


def python_headers() -> tuple[str, ...]:
    """The packages with this Python's headers for other architectures, where Debian keeps those apart.

    One header, pyconfig.h, is different on each. Elsewhere the one of this Python serves all machines with as
    many bits and the same order of bytes, as the limited API looks no further.
    """
    here = Path(sysconfig.get_path("include"), "pyconfig.h")
    if here.exists() and "aarch64-linux-gnu" in here.read_text(encoding="utf-8", errors="replace"):
        return (f"libpython3.{sys.version_info.minor}-dev",)
    return ()


def python(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What this Python says, run for a piece of the release: as reproducible as Python can make it."""
    settled = {
        "SOURCE_DATE_EPOCH": str(source_date()),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }
    return run(sys.executable, *words, cwd=cwd, env=settled | (env or {}))
