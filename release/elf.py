"""What the dynamic linker is told about a library, and whether the flags against mistakes took effect in it.

A flag that a compiler does not know, or that a later one takes back, leaves no trace but a missing one in the
binary: so the binary is looked at, not the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

from release.project import ReleaseError

_WRITE, _EXECUTE = 2, 1
# How a function begins that indirect calls may reach: endbr64; paciasp or bti c.
_LANDING = {
    "x86_64": (bytes.fromhex("f30f1efa"),),
    "aarch64": (bytes.fromhex("3f2303d5"), bytes.fromhex("5f2403d5")),
}
_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library, as far as it matters to those who load it."""

    machine: str  # as `uname -m` has it, or ELF's name of another
    needed: tuple[str, ...]
    imported: frozenset[str]
    exported: frozenset[str]
    glibc: tuple[int, ...]  # the newest version of a symbol that it asks glibc for: (2, 17); () for none
    missing: tuple[str, ...]  # of what is expected against mistakes, in words


def read(path: Path, entry: str | None = None) -> Library:
    """What a library says of itself. ``entry``: a function of it that is called by address.

    Raises ReleaseError for a file that is no ELF library.
    """
    try:
        with path.open("rb") as file:
            return _read(ELFFile(file), entry)
    except ELFError as exc:
        raise ReleaseError(f"{path} is no library: {exc}") from exc


def _read(elf: ELFFile, entry: str | None) -> Library:
    dynamic = elf.get_section_by_name(".dynamic")
    symbols = elf.get_section_by_name(".dynsym")
    if not isinstance(dynamic, DynamicSection) or not isinstance(symbols, SymbolTableSection):
        raise ELFError("nothing in it is for the dynamic linker")
    machine = _MACHINES.get(elf["e_machine"], elf["e_machine"])
    tags = list(dynamic.iter_tags())
    imported = {symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"}
    exported = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols()}
    exported = {name: value for name, value in exported.items() if name and name not in imported}
    missing = _missing_in_segments(elf)
    if not any(tag.entry.d_tag == "DT_FLAGS" and tag.entry.d_val & 8 for tag in tags):
        missing.append("addresses of functions are not looked up at the start (-z now)")
    if any(tag.entry.d_tag == "DT_TEXTREL" for tag in tags):
        missing.append("code is written to when it is loaded (no -fPIC)")
    if "__stack_chk_fail" not in imported:
        missing.append("no function guards its stack (-fstack-protector-strong)")
    if not any(name.endswith("_chk") for name in imported):
        missing.append("no call of the C library is checked for its buffer's size (_FORTIFY_SOURCE)")
    if entry is not None and machine in _LANDING:
        code = _bytes_at(elf, exported.get(entry, 0), 4)
        if code not in _LANDING[machine]:
            missing.append(f"{entry} may be jumped into anywhere (-fcf-protection, -mbranch-protection)")
    return Library(
        machine,
        tuple(str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
        frozenset(imported - {""}),
        frozenset(exported),
        _newest_glibc(elf),
        tuple(missing),
    )


def _missing_in_segments(elf: ELFFile) -> list[str]:
    kinds = {segment["p_type"]: segment for segment in elf.iter_segments()}
    missing = []
    if "PT_GNU_RELRO" not in kinds:
        missing.append("tables of addresses stay writable (-z relro)")
    stack = kinds.get("PT_GNU_STACK")
    if stack is None or stack["p_flags"] & _EXECUTE:
        missing.append("stacks are executable (-z noexecstack)")
    both = _WRITE | _EXECUTE
    if any(s["p_type"] == "PT_LOAD" and s["p_flags"] & both == both for s in elf.iter_segments()):
        missing.append("some memory is writable and executable")
    return missing


def _bytes_at(elf: ELFFile, address: int, nbytes: int) -> bytes:
    for segment in elf.iter_segments():
        start = segment["p_vaddr"]
        if segment["p_type"] == "PT_LOAD" and start <= address < start + segment["p_filesz"]:
            data: bytes = segment.data()
            return data[address - start :][:nbytes]
    return b""


def _newest_glibc(elf: ELFFile) -> tuple[int, ...]:
    section = elf.get_section_by_name(".gnu.version_r")
    found: list[tuple[int, ...]] = []
    for _, wanted in section.iter_versions() if isinstance(section, GNUVerNeedSection) else ():
        for version in wanted:
            family, _, number = version.name.partition("_")
            if family == "GLIBC" and number != "PRIVATE":
                found.append(tuple(map(int, number.split("."))))
    return max(found, default=())
