"""The rpm package of the self-contained tree, for Fedora, CentOS Stream 10 and newer.

Needs rpmbuild, of any distribution. Removing it keeps what was changed in /etc/layertee, as rpm does, and the
store, /var/lib/layertee.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from release import tree_stage
from release.project import BUILD, ROOT, maintainer, run, source_date, version
from release.tree_content import INSTALLED
from release.tree_elf import glibc_needed

# What rpmbuild would otherwise take from the machine: host and time, compression, and its changes to files.
MACROS = {
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "_build_id_links": "none",
    "debug_package": "%{nil}",
    "__os_install_post": "%{nil}",
    "__brp_mangle_shebangs": "%{nil}",
    "_source_filedigest_algorithm": "8",
    "_binary_filedigest_algorithm": "8",
}
SPEC = """\
Name: layertee
Version: {version}
Release: {revision}
Summary: {summary}
License: Apache-2.0
Packager: {maintainer}
AutoReqProv: no
Requires: libc.so.6(GLIBC_{glibc})(64bit)
Requires: /bin/sh
Recommends: ca-certificates
Suggests: skopeo

%description
{description}

%preun
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
	{stop} || :
fi

%postun
if [ -d /run/systemd/system ]; then
	{reload} || :
	[ "$1" -eq 0 ] || {restart} || :
fi

%files
%defattr(-,root,root,-)
{files}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m release rpm``."""
    tree_stage.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Make the package; its name goes to standard output. Raises ReleaseError."""
    work = BUILD / f"rpm-{args.arch}"
    shutil.rmtree(work, ignore_errors=True)
    root = work / "root"
    tree_stage.stage(args, root)
    spec = work / "layertee.spec"
    spec.write_text(
        SPEC.format(
            version=version(),
            revision=args.revision,
            maintainer=maintainer(),
            summary=tree_stage.SUMMARY,
            description=tree_stage.DESCRIPTION,
            glibc=glibc_needed(root / INSTALLED.relative_to("/")),
            stop=tree_stage.STOP,
            reload=tree_stage.RELOAD,
            restart=tree_stage.RESTART,
            files="\n".join(_listed(root)),
        ),
        encoding="utf-8",
    )
    macros = MACROS | {
        "_topdir": str(work),
        "_rpmdir": str(work),
        "_build_name_fmt": "layertee.rpm",
        "_binary_payload": f"w{args.level}.zstdio",
    }
    run(
        *("rpmbuild", "-bb", f"--target={args.arch}-linux", f"--buildroot={root}"),
        *(f"--define={name} {value}" for name, value in macros.items()),
        spec,
        env={"SOURCE_DATE_EPOCH": str(source_date())},
        cwd=ROOT,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    package: Path = args.out / f"layertee-{version()}-{args.revision}.{args.arch}.rpm"
    shutil.move(work / "layertee.rpm", package)
    print(package)
    return 0


def _listed(root: Path) -> list[str]:
    """The lines of %files: directories that are the package's own, then what lies in those of others."""
    own = (INSTALLED.relative_to("/"), Path("usr/share/doc/layertee"))
    lines = [f"/{place}" for place in own]
    lines += [
        "%dir /etc/layertee",
        "%dir /etc/layertee/pull",
        f"%config(noreplace) /{tree_stage.CONFIGURATION}",
    ]
    for path in tree_stage.files(root):
        if path.parts[0] != "etc" and not any(place in path.parents for place in own):
            lines.append(f"/{path}")
    return lines
