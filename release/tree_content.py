"""What is inside the tree: Python without what layertee does not use, the packages, and the launcher."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from layertee.skopeo.shim import script
from release import lock as lock_command
from release import tree_debian, tree_elf
from release.debs import Deb
from release.project import ROOT, ReleaseError, run
from release.share import files as share_files

PYTHON = tree_debian.PYTHON
STDLIB = Path("lib") / PYTHON
# Where Debian's Python looks for packages that belong to its own prefix.
PACKAGES = STDLIB / "dist-packages"
LIBRARIES = Path("lib")
LICENCES = Path("share/doc/layertee/licences")
UNITS = Path("share/systemd")
SHIM = Path("shim")
INSTALLED = Path("/usr/lib/layertee")

# Of the standard library: what is for developers, for a desktop or for a terminal of one's own.
NOT_NEEDED = (
    *("EXTERNALLY-MANAGED", "LICENSE.txt", "__phello__", "antigravity.py", "curses", "distutils"),
    *("ensurepip", "idlelib", "lib2to3", "pydoc.py", "pydoc_data", "sitecustomize.py", "test", "this.py"),
    *("tkinter", "turtle.py", "turtledemo", "venv", "doctest.py", "unittest", "dbm"),
)
NOT_NEEDED_MODULES = (
    *("_crypt", "_ctypes_test", "_curses", "_curses_panel", "_dbm", "_lsprof", "_testbuffer", "_testcapi"),
    *("_testclinic", "_testimportmultiple", "_testinternalcapi", "_testmultiphase", "_xxsubinterpreters"),
    *("_xxtestfuzz", "audioop", "nis", "ossaudiodev", "readline", "xxlimited", "xxlimited_35"),
)
# Of the packages: sources, hints for type checkers, and what pip notes about where they came from.
NOT_TO_RUN = (
    *("*.c", "*.cpp", "*.h", "*.hpp", "*.pxd", "*.pxi", "*.pyi", "*.pyx", "py.typed"),
    *("INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json", "entry_points.txt", "top_level.txt"),
)
# What packages install beside what is used of them: cffi makes bindings, and rich shows code and Markdown.
NOT_USED = ("cffi", "markdown_it", "mdurl", "pycparser", "pygments")
_COMPILERS = {"x86_64": ("x86_64-linux-gnu-gcc", "gcc"), "aarch64": ("aarch64-linux-gnu-gcc",)}
# Newest first: pip takes the first for which there is a wheel. Debian 12 has glibc 2.36.
_GLIBC_MINORS = (*range(36, 16, -1), 12, 5)


def python(root: Path, tree: Path) -> Path:
    """Copy Debian's Python from ``root``, where it is unpacked, into ``tree``; the interpreter.

    It finds its own modules and libraries wherever the tree lies.
    """
    program = tree / "bin" / PYTHON
    program.parent.mkdir(parents=True)
    shutil.copyfile(root / "usr" / "bin" / PYTHON, program)
    program.chmod(0o755)
    tree_elf.look_beside(program, f"$ORIGIN/../{LIBRARIES}")

    def unwanted(directory: str, names: list[str]) -> Iterable[str]:
        if directory.endswith("lib-dynload"):
            return [name for name in names if name.partition(".")[0] in NOT_NEEDED_MODULES]
        return ["__pycache__", *(NOT_NEEDED if directory.endswith(f"/{PYTHON}") else ())]

    shutil.copytree(root / "usr" / "lib" / PYTHON, tree / STDLIB, ignore=unwanted)
    return program


def packages(tree: Path, wheel: Path, extras: str, arch: str) -> None:
    """Install ``wheel`` and what it needs into the tree, for the tree's Python; nothing is built.

    ``extras`` are those of layertee, with commas between them. All but ``wheel`` is as it is locked. Raises
    ReleaseError.
    """
    place = tree / PACKAGES
    install_locked(place, _locked(wheel, extras, arch), arch)
    _pip(arch, "--target", place, "--no-deps", wheel)
    for name in ("bin", *NOT_USED):
        shutil.rmtree(place / name, ignore_errors=True)
    for pattern in NOT_TO_RUN:
        for path in place.rglob(pattern):
            path.unlink()
    for directory in ("tests", "test", "testing"):
        for path in place.glob(f"*/{directory}"):
            shutil.rmtree(path)


def install_locked(place: Path, lines: str, arch: str) -> None:
    """Install what lines of a lock name, for the tree's Python and ``arch``, into the directory ``place``.

    Raises ReleaseError for a package whose file has none of the hashes that its line has, or that has none.
    """
    with tempfile.TemporaryDirectory(prefix="layertee-packages-") as name:
        wanted = Path(name, "wanted.txt")
        wanted.write_text(lines, encoding="utf-8")
        _pip(arch, "--target", place, "--no-deps", "--require-hashes", "-r", wanted)


def _locked(wheel: Path, extras: str, arch: str) -> str:
    """The lines of the lock for what ``wheel`` needs."""
    lock = lock_command.LOCKS / "extras.txt"
    with tempfile.TemporaryDirectory(prefix="layertee-packages-") as name:
        versions, report = Path(name, "versions.txt"), Path(name, "report.json")
        versions.write_text("\n".join(map(str, lock_command.locked(lock.name).values())), encoding="utf-8")
        # Without hashes: that of the wheel, which was made a moment ago, is in no lock.
        resolve = ("--dry-run", "--ignore-installed", "--report", report, "-c", versions)
        _pip(arch, "--target", Path(name, "nothing"), *resolve, f"{wheel}[{extras}]")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {canonicalize_name(item["metadata"]["name"]) for item in found}
    lines = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8"))
    return "\n".join(line for line in lines if canonicalize_name(line.partition("==")[0]) in names) + "\n"


def _pip(arch: str, *words: str | Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_{arch}" for minor in _GLIBC_MINORS]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *platforms),
        *("--only-binary=:all:", "--no-compile", "--implementation=cp"),
        *(f"--python-version={PYTHON.removeprefix('python')}", *words),
    )


def launcher(tree: Path, arch: str) -> None:
    """Compile ``bin/layertee``. Raises ReleaseError without a compiler for ``arch``."""
    compiler = next((found for name in _COMPILERS[arch] if (found := shutil.which(name))), None)
    if compiler is None:
        raise ReleaseError(f"there is no {_COMPILERS[arch][0]}; 'make dist' installs what is needed")
    run(
        *(compiler, "-std=gnu11", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"),
        *("-fstack-protector-strong", "-fPIE", "-pie", "-Wl,-z,relro,-z,now", "-Wl,--build-id=none"),
        *(f'-DLT_PYTHON="{PYTHON}"', "-o", tree / "bin" / "layertee", ROOT / "release" / "launcher.c"),
    )


def licences(tree: Path, root: Path, debian: Iterable[Deb]) -> None:
    """Ours, those of Debian's packages, and those of Python's packages, which stay where pip puts them."""
    place = tree / LICENCES
    place.mkdir(parents=True)
    shutil.copyfile(ROOT / "LICENSE", place.parent / "LICENSE")
    for package in debian:
        found = root / "usr" / "share" / "doc" / package.name / "copyright"
        if not found.exists():
            raise ReleaseError(f"Debian's {package.name} says nothing of its licence")
        shutil.copyfile(found.resolve(), place / f"{package.name}.txt")


def share(tree: Path) -> None:
    """What a host has beside the command: the shim, units, manual pages and completion.

    The shim and the units are for a tree that lies in ``/usr/lib/layertee``.
    """
    shim = tree / SHIM / "skopeo"
    shim.parent.mkdir()
    shim.write_bytes(script(INSTALLED / "bin" / PYTHON, None, ()))
    shim.chmod(0o755)
    shutil.copytree(ROOT / "release" / "systemd", tree / UNITS)
    for path in sorted((tree / UNITS).rglob("*.conf")):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace("/usr/local/lib/layertee/bin:", f"{INSTALLED / SHIM}:"), encoding="utf-8"
        )
    for name, content in share_files().items():
        path = tree / "share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


# Runs with the tree's own version of Python, in order, in one process: the same sources give the same bytes.
COMPILE = r"""
import os, py_compile, sys
root = sys.argv[1]
for directory, directories, names in os.walk(root):
    directories.sort()
    for name in sorted(names):
        if name.endswith(".py"):
            path = os.path.join(directory, name)
            py_compile.compile(
                path, cfile=path + "c", dfile=os.path.relpath(path, root), doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            os.unlink(path)
"""


def compile_all(tree: Path, interpreter: Path) -> None:
    """Only bytecode is kept: it starts faster, takes half of the room, and is the same for all machines.

    ``interpreter`` is of the tree's version, and runs on this machine.
    """
    # What the compilation itself imports is not found any more while its own modules are replaced.
    run(interpreter, "-I", "-S", "-B", "-c", COMPILE, tree / STDLIB, env={"PYTHONHASHSEED": "0"})
