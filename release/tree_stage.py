"""The self-contained tree as a package puts it on a host: each file where hosts look for it.

The tree itself is complete below /usr/lib/layertee. What other programs look for is moved to where they do:
units, manual pages, completion. No service is enabled.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from pathlib import Path

from release.project import ARCHITECTURES, DIST, ROOT, ReleaseError, run, source_date, version
from release.tree_content import INSTALLED, UNITS
from release.tree_pack import LEVEL, normalise

CONFIGURATION = "etc/layertee/layertee.toml"
# A unit of its own; all else there is a drop-in, which is for the administrator to choose.
_UNITS = (".service", ".socket", ".timer")
_LOOKED_FOR = ("man", "bash-completion", "zsh", "fish")
SUMMARY = "fetch OCI and bootc images: only the layers a machine lacks"
DESCRIPTION = """\
Layers are downloaded once, and hashed compressed and uncompressed while they
arrive; what the machine has already, under whatever name, is not downloaded.
For bootc, rpm-ostree and others that start skopeo, it answers in its place.
The package has a Python of its own and needs nothing of the host but glibc."""
# Of the running system: daemons of an older version, and timers whose program goes. Both are shell.
STOP = "systemctl stop 'layertee-*.timer' 'layertee-*.socket' 'layertee-*.service'"
RESTART = "systemctl try-restart layertee-serve.service"
RELOAD = "systemctl daemon-reload"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that each kind of package has."""
    parser.add_argument("--out", type=Path, default=DIST, help="where the package goes (default: dist)")
    parser.add_argument("--arch", choices=ARCHITECTURES, default=platform.machine())
    parser.add_argument("--tree", type=Path, help="the tree's archive (default: the one that OUT has)")
    parser.add_argument("--revision", default="1", help="of the package, for the same version (default: 1)")
    parser.add_argument("--level", type=int, default=LEVEL, help="of zstd, 1 to 19 (default: %(default)s)")


def stage(args: argparse.Namespace, root: Path) -> None:
    """Lay out ``root`` as ``add_arguments`` has it: modes and times are as they are to be packed.

    Raises ReleaseError if there is no tree.
    """
    archive: Path = args.tree or args.out / f"layertee-{version()}-linux-{args.arch}.tar.zst"
    if not archive.exists():
        raise ReleaseError(f"there is no {archive}: run 'python -m release tree' first")
    shutil.rmtree(root, ignore_errors=True)
    tree = root / INSTALLED.relative_to("/")
    tree.mkdir(parents=True)
    run("tar", "-C", tree, "--strip-components=1", "-xf", archive)
    command = root / "usr" / "bin" / "layertee"
    command.parent.mkdir()
    command.symlink_to("../lib/layertee/bin/layertee")
    units = root / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    for path in sorted((tree / UNITS).iterdir()):
        if path.is_file() and path.suffix in _UNITS:
            path.rename(units / path.name)
    for name in _LOOKED_FOR:
        if (tree / "share" / name).is_dir():
            shutil.copytree(tree / "share" / name, root / "usr" / "share" / name)
            shutil.rmtree(tree / "share" / name)
    configuration = root / CONFIGURATION
    (configuration.parent / "pull").mkdir(parents=True)
    shutil.copyfile(ROOT / "release" / "layertee.toml", configuration)
    doc = root / "usr" / "share" / "doc" / "layertee"
    doc.mkdir(parents=True)
    shutil.copyfile(ROOT / "CHANGELOG.md", doc / "CHANGELOG.md")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    inside = (
        f"The licences of what is inside are in {INSTALLED}/share/doc/layertee/licences,\n"
        f"and in the *.dist-info directories below {INSTALLED}/lib. That of layertee itself:\n\n"
    )
    (doc / "copyright").write_text(inside + licence, encoding="utf-8")
    normalise(root, source_date())


def files(root: Path) -> list[Path]:
    """All files and symlinks below ``root``, relative to it, sorted."""
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or path.is_file())
