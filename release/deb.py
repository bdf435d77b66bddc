"""The Debian package of the self-contained tree, for Debian 12 and newer and what is made of them.

Needs dpkg-deb. Removing it keeps /etc/layertee, purging it does not; the store, /var/lib/layertee, is the
administrator's and stays in any case.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

from release import tree_stage
from release.project import ARCHITECTURES, BUILD, maintainer, run, source_date, version
from release.tree_content import INSTALLED
from release.tree_elf import glibc_needed
from release.tree_pack import normalise

# Debian policy 6.5: the words with which these are called.
SCRIPTS = {
    "postinst": """\
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
	{reload}
	[ -z "$2" ] || {restart}
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	{stop}
fi
""",
    "postrm": """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	{reload}
fi
if [ "$1" = purge ]; then
	rm -rf /etc/layertee
	[ ! -d /var/lib/layertee ] || echo "/var/lib/layertee, with the images that were pulled, is left"
fi
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m release deb``."""
    tree_stage.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Make the package; its name goes to standard output. Raises ReleaseError."""
    root = BUILD / f"deb-{args.arch}"
    tree_stage.stage(args, root)
    control = root / "DEBIAN"
    control.mkdir()
    debian_arch = ARCHITECTURES[args.arch]
    fields = {
        "Package": "layertee",
        "Version": f"{version()}-{args.revision}",
        "Architecture": debian_arch,
        "Maintainer": maintainer(),
        "Installed-Size": str(_kibibytes(root)),
        "Depends": f"libc6 (>= {glibc_needed(root / INSTALLED.relative_to('/'))})",
        "Recommends": "ca-certificates",
        "Suggests": "skopeo",
        "Section": "admin",
        "Priority": "optional",
        "Description": f"{tree_stage.SUMMARY}\n{_indented(tree_stage.DESCRIPTION)}",
    }
    _write(control / "control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
    _write(control / "conffiles", f"/{tree_stage.CONFIGURATION}\n")
    _write(control / "md5sums", "".join(_sums(root)))
    for name, text in SCRIPTS.items():
        script = text.format(
            reload=tree_stage.RELOAD,
            restart=f"{tree_stage.RESTART} || true",
            stop=f"{tree_stage.STOP} || true",
        )
        _write(control / name, script, executable=True)
    normalise(root, source_date())
    args.out.mkdir(parents=True, exist_ok=True)
    package = args.out / f"layertee_{fields['Version']}_{debian_arch}.deb"
    run(
        *("dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zzstd", f"-z{args.level}"),
        *("--build", root, package),
        env={"SOURCE_DATE_EPOCH": str(source_date())},
    )
    print(package)
    return 0


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if executable else 0o644)


def _indented(text: str) -> str:
    return "\n".join(f" {line}" for line in text.splitlines())


def _kibibytes(root: Path) -> int:
    """As Debian policy 5.6.20 counts: each file in whole kibibytes, 1 for anything else."""
    paths = [path for path in root.rglob("*") if "DEBIAN" not in path.parts]
    sizes = [os.lstat(path).st_size if path.is_file() and not path.is_symlink() else 1 for path in paths]
    return sum((size + 1023) // 1024 for size in sizes)


def _sums(root: Path) -> list[str]:
    """What debsums compares; dpkg has no other digest for this."""
    found = []
    for path in tree_stage.files(root):
        if path.parts[0] not in ("DEBIAN", "etc") and not (root / path).is_symlink():
            digest = hashlib.md5((root / path).read_bytes(), usedforsecurity=False).hexdigest()
            found.append(f"{digest}  {path}\n")
    return found
