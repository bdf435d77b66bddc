"""Debian's packages for an architecture, without installing any: fetched, checked, unpacked into directories.

apt does it, by the sources and keys of this machine or those of an ``Archive``, with a state and a cache
of its own below ``build/``: this machine's packages, and the architectures that its dpkg knows, stay as
they are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from release.project import ARCHITECTURES, BUILD, ReleaseError, run

_FRESH_S = 6 * 3600  # the lists are asked for anew after that


@dataclass(frozen=True, slots=True)
class Archive:
    """Where packages of another release come from, or of a relative of Debian."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: Path  # whose signatures are believed, and no others


@dataclass(frozen=True, slots=True)
class Deb:
    """A package as Debian has it now."""

    name: str
    version: str
    architecture: str  # Debian's name of it; "all" for some
    source: str  # the name of the package of sources that it was built from
    path: Path

    def unpack(self, root: Path) -> None:
        """Put its files below ``root``."""
        run("dpkg-deb", "-x", self.path, root)


class Apt:
    """The packages of Debian for one architecture, by the name that ``uname -m`` has for it.

    They are of this machine's release, or of ``archive``.
    """

    def __init__(self, machine: str, archive: Archive | None = None) -> None:
        self.architecture = ARCHITECTURES[machine]
        self._archive = archive
        below = (archive.suite, self.architecture) if archive else (self.architecture,)
        self._state = BUILD.joinpath("apt", *below)

    def fetch(self, names: Iterable[str]) -> list[Deb]:
        """The packages of these names, in the same order. Raises ReleaseError.

        The lists are renewed if they are old, or if one of them names a file that Debian has replaced.
        """
        wanted = list(names)
        with self._alone():
            stamp = self._state / "lists" / "stamp"
            if not stamp.exists() or time.time() - stamp.stat().st_mtime > _FRESH_S:
                self._update(stamp)
            try:
                return self._download(wanted)
            except ReleaseError:
                self._update(stamp)
                return self._download(wanted)

    def with_dependencies(self, names: Iterable[str]) -> list[Deb]:
        """These packages and all that they depend on, Essential packages not included."""
        with self._alone():
            stamp = self._state / "lists" / "stamp"
            if not stamp.exists():
                self._update(stamp)
            said = self._apt("apt-get", "-s", "--no-install-recommends", "install", *names)
        found = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
        return self.fetch(sorted({name.partition(":")[0] for name in found}))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _update(self, stamp: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        if (archive := self._archive) is not None:
            words = ("deb", f"[signed-by={archive.keyring}]", archive.uri, archive.suite, *archive.components)
            (self._state / "sources.list").write_text(" ".join(words) + "\n", encoding="utf-8")
        self._apt("apt-get", "update")
        stamp.touch()

    def _download(self, names: list[str]) -> list[Deb]:
        debs = self._state / "debs"
        said = self._apt("apt-get", "--print-uris", "-qq", "download", *names)
        # 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH, in the order of the words.
        files = [line.split()[1] for line in said.splitlines() if line.startswith("'")]
        if len(files) != len(names):
            raise ReleaseError(f"Debian has not all of {', '.join(names)} for {self.architecture}")
        if not all((debs / file).exists() for file in files):
            self._apt("apt-get", "download", *names, cwd=debs)
        return [_deb(debs / file) for file in files]

    def _apt(self, command: str, *words: str, cwd: Path | None = None) -> str:
        state = str(self._state)
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root" if os.getuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Dir::State": state,
            "Dir::State::lists": f"{state}/lists",
            "Dir::State::status": f"{state}/status",
            "Dir::Cache": f"{state}/cache",
        }
        if self._archive is not None:
            options |= {"Dir::Etc::sourcelist": f"{state}/sources.list", "Dir::Etc::sourceparts": "/dev/null"}
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return run(command, *given, *words, cwd=cwd or self._state, env={"LC_ALL": "C.UTF-8"})


def _deb(path: Path) -> Deb:
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\n"
    name, version, architecture, source = (
        run("dpkg-deb", "-W", f"--showformat={form}", path).strip().split("\t")
    )
    return Deb(name, version, architecture, source, path)


def unpacked(debs: Iterable[Deb], root: Path) -> Path:
    """``root``, made anew with the files of these packages: for what is only read, not installed."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    for deb in debs:
        deb.unpack(root)
    return root
