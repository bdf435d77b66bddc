"""Compiling the C core for tests: under sanitizers, with the libraries that are here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled, RigError

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CTESTS = ROOT / "tests" / "c"
STRICT = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# The core cannot be built without libzstd, nor without one of libisal and zlib.
REQUIRED = "libzstd"
OPTIONAL = {"LT_HAVE_ISAL": "libisal", "LT_HAVE_ZLIB": "zlib", "LT_HAVE_OPENSSL": "libcrypto"}


class NoCompiler(NotInstalled):
    """The core can't be compiled here: no compiler, or no libzstd."""


@cache
def pkg_config(package: str) -> tuple[str, ...] | None:
    """Flags for ``package``, or None where it is not installed."""
    try:
        done = subprocess.run(
            ["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return tuple(shlex.split(done.stdout)) if done.returncode == 0 else None


def sources() -> list[str]:
    """The C files that go into the extension, as pyproject.toml lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed: list[str] = project["tool"]["setuptools"]["ext-modules"][0]["sources"]
    return listed


def compilers() -> list[str]:
    """The C compilers that are here."""
    return [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]


@dataclass(frozen=True, slots=True)
class Program:
    """A test of the core: ``main`` of tests/c, compiled with all of the core.

    ``bare``: with no library that it can do without.
    """

    main: str
    compiler: str
    flags: tuple[str, ...] = SANITIZE
    bare: bool = False

    def command(self) -> list[str]:
        """All but the output."""
        command = [self.compiler, *STRICT, *self.flags, f"-I{CSRC}", str(CTESTS / self.main)]
        command += [str(ROOT / source) for source in sources()]
        for macro, package in OPTIONAL.items():
            found = pkg_config(package)
            if found is not None and (not self.bare or package == "zlib"):
                command += [f"-D{macro}", *found]
        return [*command, *(pkg_config(REQUIRED) or ()), "-lz"]

    def build(self) -> Path:
        """The program; compiled once for these sources, this compiler and these libraries.

        Raises NoCompiler, and RigError if it can't be compiled.
        """
        if shutil.which(self.compiler) is None or pkg_config(REQUIRED) is None:
            raise NoCompiler(f"compiling the core takes {self.compiler}, pkg-config and {REQUIRED}")
        return compiled(f"core-{Path(self.main).stem}", self.command())


def compiled(name: str, command: list[str], also: Iterable[bytes] = (), cwd: Path | None = None) -> Path:
    """What a command makes out of csrc and tests/c, but for its output. Raises RigError.

    ``also``: what else it is made of, which the command finds in ``cwd``.
    """
    made_of = [_version(command[0]), shlex.join(command).replace(str(ROOT), "").encode(), *also]
    made_of += [*kept.files_below(CSRC), *kept.files_below(CTESTS)]

    def compile() -> Path:
        output = Path(directory) / "program"
        said = subprocess.run(
            [*command, "-o", str(output)], capture_output=True, text=True, check=False, cwd=cwd
        )
        if said.returncode:
            raise RigError(f"{shlex.join(command)}\n{said.stderr}")
        return output

    with tempfile.TemporaryDirectory(prefix="layertee-core-") as directory:
        return kept.kept(name, made_of, compile)


VARIANTS = [(compiler, bare) for compiler in compilers() for bare in (False, True)]
SANITIZERS = [(compiler, kind) for compiler in compilers() for kind in ("address,undefined", "thread")]


def variant(main: str, compiler: str, bare: bool) -> Program:
    """``main`` under address and undefined sanitizers."""
    return Program(main, compiler, bare=bare)


def pool_tests(compiler: str, sanitizer: str) -> Program:
    """The pool's, which take libcrypto as their oracle."""
    return Program("test_pool.c", compiler, (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"))


def cost_of_inflating() -> Program:
    """Optimised as the extension is, without sanitizers: it measures."""
    return Program("test_inflate_cost.c", compilers()[0], ("-O2",))


def fuzzer(form: str) -> Program:
    """That of a format: libFuzzer is clang's."""
    ignored = CTESTS / "fuzz_ignored.txt"
    flags = (
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=all",
        f"-fsanitize-coverage-ignorelist={ignored}",
    )
    return Program(f"fuzz_{form}.c", "clang", flags)


def fuzzing_missing() -> str | None:
    """Why the fuzzers cannot be built here, or None."""
    if not shutil.which("clang"):
        return "libFuzzer needs clang"
    missing = [package for package in (REQUIRED, *OPTIONAL.values()) if pkg_config(package) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


# What compiles for ARMv8 on any machine, and what runs such programs there.
ARM_COMPILER, ARM_MACHINE = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def arm_missing() -> str | None:
    """Why programs for ARMv8 cannot be built and run here, or None."""
    missing = [tool for tool in (ARM_COMPILER, ARM_MACHINE) if not shutil.which(tool)]
    return f"not installed: {', '.join(missing)}" if missing else None


def of_hashes(main: str, compiler: str, *flags: str) -> Path:
    """``main`` with the hashes, which need no library, and with nothing else. Raises RigError."""
    rooms = [str(ROOT / name) for name in sources() if name.startswith(("csrc/hash/", "csrc/cpu/"))]
    return compiled(
        f"hashes-{Path(main).stem}", [compiler, *STRICT, *flags, f"-I{CSRC}", str(CTESTS / main), *rooms]
    )


def fault_library() -> Path:
    """tests/torture/preload.c, for LD_PRELOAD. Raises as ``Program.build``, but needs a compiler alone."""
    compiler = compilers()[0]
    if shutil.which(compiler) is None:
        raise NoCompiler(f"the library that fails calls takes a C compiler, {compiler}")
    flags = ["-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    source = ROOT / "tests" / "torture" / "preload.c"

    def compile() -> Path:
        output = Path(directory) / "library"
        command = [compiler, *flags, "-o", str(output), str(source), "-ldl", "-pthread"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            raise RigError(f"{shlex.join(command)}\n{said.stderr}")
        return output

    with tempfile.TemporaryDirectory(prefix="layertee-faults-") as directory:
        made_of = [_version(compiler), shlex.join(flags).encode(), source.read_bytes()]
        return kept.kept("fault-library", made_of, compile)


def build_all() -> Path:
    """Every program that the tests of the core run, so that they find it; the last of them. As ``build``."""
    mains = ("test_codec.c", "test_inflate.c", "test_sha256.c", "test_split.c", "replay.c")
    programs = [variant(main, compiler, bare) for main in mains for compiler, bare in VARIANTS]
    programs.append(cost_of_inflating())
    if pkg_config("libcrypto") is not None:
        programs += [pool_tests(*which) for which in SANITIZERS]
    if fuzzing_missing() is None:
        programs += [fuzzer(form) for form in ("gzip", "zstd", "ahead")]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(Program.build, programs))[-1]


@cache
def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
