"""The wheels of a release, built once for these sources, and a Python for ARMv8 to run one with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from release.debs import Apt, unpacked
from release.project import ARCHITECTURES, ROOT, ReleaseError
from tests.support.ccore import ARM_MACHINE, CSRC
from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled, RigError

LOCK = ROOT / "release" / "locks" / "run.txt"
# Debian's Python, what its modules load, and the certificates that our TLS starts with.
_PYTHON = ("python3-minimal", "libpython3-stdlib", "ca-certificates")


class NotToBeHad(NotInstalled):
    """Debian's or PyPI's packages can't be fetched here."""


def built() -> Path:
    """A zip with the source archive and all wheels. Raises NotToBeHad, RigError."""
    for tool in ("git", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NotToBeHad(f"building the wheels of a release takes {tool}")

    def build() -> Path:
        out = directory / "dist"
        words = ("-m", "release", "wheels", "--out", str(out), "--work", str(directory / "work"))
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise RigError(f"python -m release wheels\n{done.stderr}")
        return _zipped(out, directory / "wheels.zip")

    with tempfile.TemporaryDirectory(prefix="layertee-wheels-") as temporary:
        directory = Path(temporary)
        return kept.kept("wheels", _made_of(), build)


def _made_of() -> Iterator[bytes]:
    yield from kept.files_below(CSRC)
    yield from _texts((ROOT / "engine").rglob("*.py*"))
    yield from _texts((ROOT / "release").rglob("*.py"))
    yield from _texts(ROOT / name for name in ("CHANGELOG.md", "README.md", "build_ext.py", "pyproject.toml"))


def _texts(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in sorted(paths):
        if path.suffix in (".py", ".pyi", ".md", ".toml"):
            yield os.fsencode(path.relative_to(ROOT))
            yield path.read_bytes()


def _zipped(directory: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(directory.iterdir()):
            archive.write(path, path.name)
    return target


def unpack(archive: Path, directory: Path) -> Path:
    """``directory``, with what ``built`` returned."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)
    return directory


def arm_root() -> Path:
    """A tar of a directory with Debian's Python for ARMv8, and what layertee needs besides.

    Nothing in it is installed: it is there for qemu to run programs with. Raises NotToBeHad.
    """

    def build() -> Path:
        try:
            root = unpacked(Apt("aarch64").with_dependencies(_PYTHON), directory / "root")
        except ReleaseError as exc:
            raise NotToBeHad(
                f"a Python for ARMv8 takes Debian's packages for {ARCHITECTURES['aarch64']}: {exc}"
            ) from exc
        for name in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / name, ignore_errors=True)
        _install(root / "site", _downloaded(directory / "wheels"))
        with tarfile.open(directory / "root.tar", "w") as archive:
            archive.add(root, ".")
        return directory / "root.tar"

    with tempfile.TemporaryDirectory(prefix="layertee-arm-") as temporary:
        directory = Path(temporary)
        return kept.kept("arm-root", [LOCK.read_bytes(), Path(__file__).read_bytes()], build)


def _pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotToBeHad(f"pip {words[0]}: {done.stderr[-1000:]}")


_FOR_ARM = (
    *("--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_17_aarch64"),
    *("--implementation", "cp", "--python-version", "3.11"),
    *("--abi", "cp311", "--abi", "abi3", "--abi", "none", "--only-binary", ":all:"),
)


def _downloaded(directory: Path) -> list[Path]:
    """The wheels for ARMv8 of all that layertee runs with, by their hashes."""
    _pip("download", "-q", "--require-hashes", "-r", LOCK, *_FOR_ARM, "-d", directory)
    return sorted(directory.glob("*.whl"))


def _install(site: Path, wheels: list[Path]) -> None:
    _pip("install", "-q", "--no-deps", "--no-index", "--no-compile", *_FOR_ARM, "--target", site, *wheels)


def arm_python(root: Path, wheel: Path, directory: Path) -> tuple[list[str], dict[str, str]]:
    """A command that runs Python for ARMv8 with a wheel installed, and its environment."""
    with tarfile.open(root) as archive:
        archive.extractall(directory / "root", filter="tar")
    _install(directory / "site", [wheel])
    path = f"{directory / 'site'}:{directory / 'root' / 'site'}"
    command = [ARM_MACHINE, "-L", str(directory / "root"), str(directory / "root" / "usr/bin/python3.11")]
    return command, {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(directory)}
