"""A host whose packages are rpm's, and which has dnf: what a Containerfile for Fedora is run on.

No image of Fedora need be fetched for it. Its files are Debian's, dnf among them; its database of rpm has one
package, with the C library and the shell, for which rpm itself finds out what they provide.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from release.debs import Apt
from release.project import ReleaseError
from tests.support.rig import hosts_without, kept
from tests.support.rig.registry import NotInstalled, RigError

_DATABASE = "/var/lib/rpm"
_SPEC = """\
Name: base
Version: 1
Release: 1
Summary: The C library and the shell
License: LGPL-2.1-or-later and BSD-3-Clause
AutoReq: no

%description
What a package of another distribution can count on.

%files
/bin/sh
{libc}
"""
_MACROS = (
    "debug_package %{nil}",
    "__os_install_post %{nil}",
    "_build_id_links none",
    "_build_name_fmt base.rpm",
)


def archive(debian: Path) -> Path:
    """A tar file with it, made of the one with a minimal Debian, and then kept. Raises RigError."""
    return kept.kept(
        "dnf-host.tar", [debian.read_bytes(), Path(__file__).read_bytes()], lambda: _made(debian)
    )


def _made(debian: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix="layertee-dnf-") as directory:
        root = hosts_without.unpack_debian(debian, Path(directory) / "root")
        _unpack_dnf(root)
        (root / "etc/rpm").mkdir(exist_ok=True)
        (root / "etc/rpm/macros").write_text(f"%_dbpath {_DATABASE}\n")  # Debian's is in each user's home
        package = _base(root, Path(directory))
        _run(*("rpm", "--root", root, "--dbpath", _DATABASE, "--install", "--justdb", package))
        return hosts_without.packed(root, kept.root() / "dnf-host.part")


def _unpack_dnf(root: Path) -> None:
    """dnf and what it needs. They are not configured, which would take minutes; they run all the same."""
    known = {
        path.name.partition(":")[0].removesuffix(".list") for path in root.glob("var/lib/dpkg/info/*.list")
    }
    try:
        debs = Apt(platform.machine()).with_dependencies(["dnf"])
    except ReleaseError as exc:
        raise NotInstalled(f"dnf is a package of Debian: {exc}") from exc
    place = root / "debs"
    place.mkdir()
    for deb in debs:
        if deb.name not in known:
            shutil.copy(deb.path, place)
    options = ("--force-unsafe-io", "--force-depends")
    done = hosts_without.run_in(root, "sh", "-c", f"dpkg --unpack {' '.join(options)} /debs/*.deb")
    if done.returncode:
        raise RigError(f"dpkg --unpack: {done.stderr[-2000:]}")
    shutil.rmtree(place)


def _base(root: Path, work: Path) -> Path:
    """The package that rpm knows from the beginning."""
    (libc,) = (root / "usr/lib").glob("*-linux-gnu/libc.so.6")
    files = work / "files"
    for source, name in ((libc, libc.relative_to(root)), (root / "usr/bin/dash", Path("bin/sh"))):
        (files / name).parent.mkdir(parents=True)
        shutil.copy(source, files / name)
    spec = work / "base.spec"
    spec.write_text(_SPEC.format(libc=f"/{libc.relative_to(root)}"))
    macros = [*_MACROS, f"_topdir {work / 'top'}", f"_rpmdir {work}"]
    _run("rpmbuild", "-bb", f"--buildroot={files}", *(f"--define={macro}" for macro in macros), spec)
    return work / "base.rpm"


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
