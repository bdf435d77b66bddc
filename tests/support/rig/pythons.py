"""Interpreters that tests install layertee for, with the wheels of all that it runs with, as they are locked.

They are this machine's, else of an archive whose signature is checked. One of an archive is a directory to
chroot into: that release's Python and C library, a shell, and certificates. None of its packages was
configured; Python and pip do without.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from release.debs import Apt, Archive, unpacked
from release.project import ARCHITECTURES, ROOT, ReleaseError
from tests.support.rig import hosts_without, kept
from tests.support.rig.registry import NotInstalled

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# The oldest and the newest in every run, the others where a release is checked.
WANTED = VERSIONS if "LAYERTEE_DIST_CHECK" in os.environ else (VERSIONS[0], VERSIONS[-1])
# Releases that have a version, the one that changes least first.
_RELEASES = {
    "3.11": ("bookworm",),
    "3.12": ("noble",),
    "3.13": ("trixie",),
    "3.14": ("resolute", "forky"),
}
_OF_UBUNTU = ("noble", "resolute")
_DEBIANS_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CHAFF = ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo", "usr/share/i18n")


class NoPython(NotInstalled):
    """A version of Python, or what layertee runs with on it, is not on this machine and cannot be fetched."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter, and the machine that it is on."""

    program: Path  # as that machine has it
    root: Path | None  # the directory that is that machine; None: this machine
    wheels: Path  # of all that layertee runs with, as this machine has them

    @property
    def words(self) -> list[str]:
        """What comes before a command for that machine."""
        return [] if self.root is None else hosts_without.enter(self.root)


def find(version: str) -> Path:
    """A tar for ``unpack``, made once and then kept. Raises NoPython."""
    tools = ("apt-get", "dpkg-deb", "tar")
    there = on_this_machine(version)
    if there is None and (None in map(shutil.which, tools) or os.geteuid() != 0):
        raise NoPython(
            f"a Python {version} is not on this machine, and fetching it takes root, {', '.join(tools)}"
        )
    if platform.machine() not in ARCHITECTURES:
        raise NoPython(f"a wheel with the C core takes {' or '.join(ARCHITECTURES)}")
    lock = (ROOT / "release/locks/run.txt").read_bytes()

    def make() -> Path:
        everything = scratch / "everything"
        _download(lock.decode(), version, everything / "wheels")
        if there is None:
            _make_root(_packages(version, scratch), everything / "root")
        subprocess.run(["tar", "-C", everything, "--numeric-owner", "-cf", scratch / "tar", "."], check=True)
        return scratch / "tar"

    with tempfile.TemporaryDirectory(prefix="layertee-python-") as temporary:
        scratch = Path(temporary)
        made_of = [lock, Path(__file__).read_bytes(), b"root" if there is None else b"none"]
        return kept.kept(f"python{version}.tar", made_of, make)


def unpack(found: Path, version: str, directory: Path) -> Python:
    """What ``find`` returned for ``version``, in ``directory``, which is made."""
    hosts_without.unpack_debian(found, directory)
    root = directory / "root"
    if root.exists():
        return Python(Path(f"/usr/bin/python{version}"), root, directory / "wheels")
    program = on_this_machine(version)
    assert program is not None, f"{found} was made on a machine that had Python {version}"
    return Python(program, None, directory / "wheels")


def on_this_machine(version: str) -> Path | None:
    """An interpreter that can make environments: of ``PATH``, else of pyenv."""
    named = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    candidates = [*([Path(named)] if named else []), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    # A shim of pyenv fails for a version that is not chosen, and Debian's own may lack ensurepip.
    asks = "import ensurepip, ssl, sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", asks], capture_output=True, text=True, check=False)
        is_version, _, program = done.stdout.strip().partition(" ")
        if (done.returncode, is_version) == (0, version):
            return Path(program)
    return None


def _packages(version: str, scratch: Path) -> Path:
    """A directory with the files of an interpreter's packages, and of what they need. Raises NoPython."""
    packages = (f"python{version}-minimal", f"python{version}-venv", "ca-certificates", "dash")
    said: list[str] = []
    for release in _RELEASES[version]:
        try:
            debs = Apt(platform.machine(), _archive(release, scratch)).with_dependencies(packages)
            return unpacked(debs, scratch / release)
        except ReleaseError as exc:
            said.append(f"{release}: {exc}")
    raise NoPython(f"a Python {version} is not on this machine, and cannot be fetched: {'; '.join(said)}")


def _archive(release: str, scratch: Path) -> Archive:
    """Raises ReleaseError."""
    if release not in _OF_UBUNTU:
        return Archive(hosts_without.MIRROR, release, ("main",), _DEBIANS_KEYS)
    # Debian vouches for Ubuntu's keys: it has a package of them, since its release 13.
    debian = Apt(platform.machine(), _archive("trixie", scratch))
    unpacked(debian.fetch(["ubuntu-keyring"]), scratch / "keys")
    keys = scratch / "keys/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    ports = "http://ports.ubuntu.com/ubuntu-ports"
    uri = "http://archive.ubuntu.com/ubuntu" if platform.machine() == "x86_64" else ports
    return Archive(uri, release, ("main", "universe"), keys)


def _make_root(packages: Path, root: Path) -> None:
    """Move the files of these packages to ``root``, and do what their scripts would have done for Python."""
    packages.rename(root)
    for name in _CHAFF:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):  # debootstrap makes them, too: they are in no package
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")
    for name in ("dev", "etc/ssl/certs", "opt", "proc", "root", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = b"".join(path.read_bytes() for path in certificates)
    (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)


def _download(lock: str, version: str, directory: Path) -> None:
    """Fetch the wheels that ``lock`` names, by their hashes. Raises NoPython."""
    directory.mkdir(parents=True)
    everything = directory.parent / "run.txt"
    # pip reads markers for itself, and not for the version that it is asked about.
    everything.write_text(re.sub(r" ; [^\\\n]+", " ", lock), encoding="utf-8")
    words = ["-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", str(everything)]
    command = [sys.executable, "-m", "pip", "download", *words, *_as_for(version), "-d", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPython(f"what layertee runs with cannot be had for Python {version}: {done.stderr[-1000:]}")


def _as_for(version: str) -> Iterator[str]:
    for glibc in ("2014", "_2_17", "_2_28", "_2_34"):
        yield from ("--platform", f"manylinux{glibc}_{platform.machine()}")
    for abi in (f"cp{version.replace('.', '')}", "abi3", "none"):
        yield from ("--abi", abi)
    yield from ("--implementation", "cp", "--python-version", version, "--only-binary", ":all:")
