"""The C core for ARMv8: compiled on any machine, with Debian's libraries for that one, and run by qemu."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from release.project import ReleaseError
from release.sysroot import sysroot
from tests.support.ccore import (
    ARM_COMPILER,
    ARM_MACHINE,
    CSRC,
    CTESTS,
    OPTIONAL,
    ROOT,
    STRICT,
    arm_missing,
    compiled,
    sources,
)
from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled

# Where glibc for ARMv8 is on a machine that has the compiler.
_GLIBC = "/usr/aarch64-linux-gnu"
_INCLUDE, _LIBRARY = "usr/include", "usr/lib/aarch64-linux-gnu"
_LINKED = {"libisal": "isal", "zlib": "z", "libcrypto": "crypto"}
# Each test, and whether it is compiled without the libraries that the core can do without.
PROGRAMS = (
    *(("test_codec.c", False), ("test_codec.c", True), ("test_inflate.c", False)),
    *(("test_pool.c", False), ("test_sha256.c", False), ("test_split.c", False)),
)


class NotForArm(NotInstalled):
    """Programs for ARMv8 can't be compiled here, or not run."""


def libraries() -> Path:
    """A tar of the headers and libraries that a wheel for ARMv8 is built with. Raises NotForArm."""

    def build() -> Path:
        place = Path(directory)
        try:
            found = sysroot("aarch64", place / "root")
        except ReleaseError as exc:
            raise NotForArm(f"compiling the core for ARMv8 takes Debian's packages: {exc}") from exc
        with tarfile.open(place / "root.tar", "w") as archive:
            for name in (_INCLUDE, _LIBRARY):
                archive.add(found.root / name, name)
        return place / "root.tar"

    texts = [Path(__file__).read_bytes(), (ROOT / "release" / "sysroot.py").read_bytes()]
    with tempfile.TemporaryDirectory(prefix="layertee-arm-") as directory:
        return kept.kept("arm-libraries", texts, build)


@contextmanager
def _unpacked(archive: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="layertee-arm-") as directory, tarfile.open(archive) as packed:
        packed.extractall(directory, filter="tar")
        yield Path(directory)


def program(main: str, *, bare: bool) -> Path:
    """``main`` of tests/c with all of the core, optimised as the extension is; compiled once.

    Raises NotForArm, and RigError if it can't be compiled.
    """
    return next(_programs([(main, bare)]))


def build_all() -> Path:
    """All of ``PROGRAMS``; the last of them. As ``program``."""
    return list(_programs(PROGRAMS))[-1]


def _programs(which: Iterable[tuple[str, bool]]) -> Iterator[Path]:
    if why := arm_missing():
        raise NotForArm(f"compiling the core for ARMv8 takes a compiler and qemu; {why}")
    archive = libraries()
    with _unpacked(archive) as root:
        for main, bare in which:
            command = [ARM_COMPILER, *STRICT, "-O2", f"-I{CSRC}", str(CTESTS / main)]
            command += [str(ROOT / name) for name in sources()]
            command += ["-isystem", _INCLUDE, "-isystem", f"{_INCLUDE}/aarch64-linux-gnu", f"-L{_LIBRARY}"]
            for macro, package in OPTIONAL.items():
                if not bare or package == "zlib":
                    command += [f"-D{macro}", f"-l{_LINKED[package]}"]
            command += ["-lzstd", "-lz"]  # what tests make their streams with
            name = f"arm-{'bare' if bare else 'core'}-{Path(main).stem}"
            yield compiled(name, command, [archive.read_bytes()], cwd=root)


def running(archive: Path, directory: Path) -> list[str]:
    """The words before a program of these that run it; its libraries are put in ``directory``."""
    with tarfile.open(archive) as packed:
        for member in packed:
            name = Path(member.name).name
            if name.startswith("libisal.so.") and member.isfile():
                packed.extract(member, directory, filter="tar")
                shutil.copy(directory / member.name, directory / "libisal.so.2")
    return [ARM_MACHINE, "-L", _GLIBC, "-E", f"LD_LIBRARY_PATH={directory}"]
