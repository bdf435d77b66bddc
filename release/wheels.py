"""A wheel with the C core for each architecture, one without it for all others, and the source archive.

The wheels are built from the source archive. One with the core is for every CPython from 3.11 on, and needs
nothing of the machine that it is installed on but glibc: the libraries that the core calls are inside.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from release import elf, sbom
from release.project import ARCHITECTURES, BUILD, DIST, ReleaseError, version
from release.source import make_sdist, unpack_sdist
from release.sysroot import sysroot
from release.toolchain import GLIBC, compiling, python, python_headers

CORE = "layertee/core/_ctee.abi3.so"
ENTRY = "PyInit__ctee"
PURE = "pure"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument(
        "--arch",
        action="append",
        choices=[*ARCHITECTURES, PURE],
        help="only the wheel for this architecture, or the one without the core; may be repeated",
    )
    parser.add_argument("--out", type=Path, default=DIST, help="where to (default: dist)")
    parser.add_argument("--work", type=Path, default=BUILD, help="where to build (default: build/release)")


def main(args: argparse.Namespace) -> int:
    """Raises ReleaseError."""
    for path in make(args.out, args.work, args.arch or [*ARCHITECTURES, PURE]):
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path}")
    return 0


def make(out: Path, work: Path, which: list[str]) -> list[Path]:
    """The source archive and the wheels for ``which``, in ``out``. Raises ReleaseError."""
    before = os.umask(0o022)  # modes of files go into wheels as they are
    try:
        sdist = make_sdist(out, work)
        made = [sdist]
        for kind in which:
            place = unpack_sdist(sdist, work / f"source-{kind}")
            made.append(_pure(place, out) if kind == PURE else _wheel(kind, place, out, work))
        return made
    finally:
        os.umask(before)


def _pure(source: Path, out: Path) -> Path:
    return _built(source, out, {"LAYERTEE_BUILD": "pure"}, f"layertee-{version()}-py3-none-any.whl")


def _wheel(machine: str, source: Path, out: Path, work: Path) -> Path:
    libraries = sysroot(machine, work / "sysroot" / machine, headers_of=python_headers())
    environment = compiling(machine, libraries) | {"LAYERTEE_BUILD": "release"}
    plain = _built(
        source, work / "plain", environment, f"layertee-{version()}-cp311-abi3-linux_{machine}.whl"
    )
    repaired = work / f"repaired-{machine}"
    if repaired.exists():
        shutil.rmtree(repaired)
    # Archives are inside already; this adds the others, and says by the name how old a glibc may be.
    python(
        *("-m", "auditwheel", "repair", "--plat", "auto", "--disable-isa-ext-check"),
        *("-w", repaired, plain),
        env={
            "LD_LIBRARY_PATH": str(libraries.libraries),
        },
    )
    (found,) = repaired.glob("*.whl")
    check(found, machine)
    target = out / found.name
    _add(found, sbom.IN_WHEEL, sbom.of_wheel(machine, libraries.included), target)
    return target


def _add(wheel: Path, name: str, text: str, target: Path) -> None:
    """The same wheel with one file more, which its list of files names."""
    data = text.encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        record = next(member for member in old.infolist() if member.filename.endswith(".dist-info/RECORD"))
        for member in old.infolist():
            if member is not record:
                new.writestr(member, old.read(member))
        added = zipfile.ZipInfo(name, record.date_time)
        added.compress_type, added.external_attr = record.compress_type, record.external_attr
        new.writestr(added, data)
        listed = old.read(record).decode()
        new.writestr(record, f"{listed.rstrip()}\n{name},sha256={digest},{len(data)}\n".encode())


def _built(source: Path, out: Path, environment: dict[str, str], name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, env=environment)
    found = out / name
    if not found.exists():
        there = ", ".join(sorted(path.name for path in out.iterdir()))
        raise ReleaseError(f"the build made no {name}; there are: {there}")
    return found


def check(wheel: Path, machine: str) -> None:
    """That the core in a wheel is what those who install it expect. Raises ReleaseError."""
    core = inspect(wheel)
    problems = list(core.missing)
    tag = f"manylinux_{'_'.join(map(str, GLIBC))}_{machine}"
    if tag not in wheel.name:
        problems.append(f"the wheel is not {tag}")
    if core.machine != machine:
        problems.append(f"it is for {core.machine}")
    if core.exported != {ENTRY}:
        problems.append(f"it shows names of its libraries: {', '.join(sorted(core.exported - {ENTRY})[:5])}")
    if core.glibc > GLIBC:
        problems.append(f"it needs glibc {'.'.join(map(str, core.glibc))}")
    if problems:
        raise ReleaseError(f"the core in {wheel.name}: {'; '.join(problems)}")


def inspect(wheel: Path) -> elf.Library:
    """The core in a wheel, as the dynamic linker sees it. Raises ReleaseError."""
    with tempfile.TemporaryDirectory(prefix="layertee-wheel-") as directory, zipfile.ZipFile(wheel) as packed:
        return elf.read(Path(packed.extract(CORE, directory)), ENTRY)
