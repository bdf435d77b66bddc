"""The self-contained tree: layertee with a Python of its own, for hosts that have nothing but glibc.

Unpacked anywhere, usually as /usr/lib/layertee, it is complete: bin/layertee runs. What is inside is Debian's
Python with the libraries that it needs, the packages that layertee needs as wheels, and layertee's own wheel.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from pathlib import Path

from release import tree_content, tree_debian, tree_elf, tree_pack
from release.debs import Deb
from release.project import ARCHITECTURES, BUILD, DIST, ReleaseError, source_date, version

TOP = "layertee"
EXTRAS = "socks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m release tree``."""
    parser.add_argument("--out", type=Path, default=DIST, help="where the archive goes (default: dist)")
    parser.add_argument("--arch", choices=ARCHITECTURES, default=platform.machine())
    parser.add_argument("--wheel", type=Path, help="the wheel of layertee (default: the one that OUT has)")
    parser.add_argument(
        "--level", type=int, default=tree_pack.LEVEL, help="of zstd, 1 to 19 (default: %(default)s)"
    )
    parser.add_argument(
        "--extras",
        default=EXTRAS,
        metavar="NAME,…",
        help=f"of layertee's extras, those that are inside; sigstore needs 25 MB (default: {EXTRAS})",
    )


def main(args: argparse.Namespace) -> int:
    """Make the archive; its name goes to standard output."""
    out: Path = args.out
    tree = build(args.arch, args.wheel or wheel_in(out, args.arch), args.extras)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"layertee-{version()}-linux-{args.arch}.tar.zst"
    tree_pack.pack(tree, path, TOP, source_date(), args.level)
    print(path)
    return 0


def wheel_in(out: Path, arch: str) -> Path:
    """The wheel with the C core that ``python -m release wheels`` has put there. Raises ReleaseError."""
    found = sorted(out.glob(f"layertee-{version()}-cp311-abi3-*{arch}.whl"))
    if not found:
        raise ReleaseError(f"{out} has no wheel for {arch}: run 'python -m release wheels' first")
    return found[-1]


def build(arch: str, wheel: Path, extras: str = EXTRAS) -> Path:
    """The tree as a directory, below ``BUILD``. Raises ReleaseError."""
    work = BUILD / f"tree-{arch}"
    shutil.rmtree(work, ignore_errors=True)
    root, tree = work / "debian", work / TOP
    debian = tree_debian.unpack(arch, root)
    program = tree_content.python(root, tree)
    tree_content.packages(tree, wheel, extras, arch)
    tree_content.launcher(tree, arch)
    tree_elf.strip(tree, arch)
    tree_elf.bring_libraries(tree, tree / tree_content.LIBRARIES, root)
    tree_elf.check_machine(tree, arch)
    if arch == platform.machine():
        interpreter = program
    else:  # bytecode is the same everywhere
        tree_debian.unpack(platform.machine(), work / "native")
        native = work / "native-tree"
        interpreter = tree_content.python(work / "native", native)
        tree_elf.bring_libraries(native, native / tree_content.LIBRARIES, work / "native")
    tree_content.compile_all(tree, interpreter)
    tree_content.licences(tree, root, debian)
    tree_content.share(tree)
    _describe(tree, arch, debian)
    tree_pack.normalise(tree, source_date())
    return tree


def _describe(tree: Path, arch: str, debian: list[Deb]) -> None:
    """``share/doc/layertee/CONTENTS``: what is inside, of which version, and what the host has to have."""
    distributions = sorted(
        (path.name.removesuffix(".dist-info").rpartition("-")[::2])
        for path in (tree / tree_content.PACKAGES).glob("*.dist-info")
    )
    lines = [
        f"layertee {version()} for {arch}: glibc {tree_elf.glibc_needed(tree)} or newer, nothing else.",
        "",
        f"From Debian {tree_debian.SUITE}:",
        *(f"  {package.name} {package.version}" for package in debian),
        "",
        "From PyPI:",
        *(f"  {name} {number}" for name, number in distributions),
    ]
    (tree / "share" / "doc" / "layertee" / "CONTENTS").write_text("\n".join(lines) + "\n")
