"""The source archive, and copies of the sources to build in: the same from each checkout of a commit."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

from release.project import ROOT, ReleaseError, run, source_date, version
from release.toolchain import python

# All that the package is built from; tests, documentation and this directory are not among it.
_PARTS = ("CHANGELOG.md", "LICENSE", "README.md", "build_ext.py", "csrc", "engine", "pyproject.toml")


def copy_of_sources(place: Path) -> Path:
    """``place``, made anew with the package's sources: what git knows of them, as they stand here now.

    Nothing that lies beside it gets in, and all times and modes are alike. Raises ReleaseError.
    """
    if place.exists():
        shutil.rmtree(place)
    date = source_date()
    names = run("git", "ls-files", "-z", "--", *_PARTS, cwd=ROOT).split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, place / name
        if not source.exists() and not source.is_symlink():
            continue  # removed, and not committed yet
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target, follow_symlinks=False)
        if not target.is_symlink():
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
            os.utime(target, (date, date))
    return place


def make_sdist(out: Path, work: Path) -> Path:
    """``layertee-VERSION.tar.gz`` in ``out``. Raises ReleaseError."""
    source = copy_of_sources(work / "checkout")
    made = work / "sdist"
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", made, source)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"layertee-{version()}.tar.gz"
    _repack(made / target.name, target)
    return target


def _repack(archive: Path, target: Path) -> None:
    """The same files with the commit's time, no owner, in order: gzip and tar tell when they were made."""
    date = source_date()
    written = io.BytesIO()
    with (
        tarfile.open(archive) as old,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=written, mtime=date) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = date
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    target.write_bytes(written.getvalue())


def unpack_sdist(sdist: Path, place: Path) -> Path:
    """``place``, made anew with the files of a source archive, without its top directory."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (top,) = place.iterdir()
    if not (top / "pyproject.toml").exists():
        raise ReleaseError(f"{sdist} holds no project")
    return top
