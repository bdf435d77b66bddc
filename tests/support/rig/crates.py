"""Programs in Rust: the clients of ``tests/peers/rust/crates``, and the tests that other crates have.

cargo builds them from what lock files name. What is built is kept, see :mod:`tests.support.rig.kept`; what
cargo needs to build it again goes beside it, or to ``CARGO_TARGET_DIR``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.rig import kept
from tests.support.rig.registry import RigError

__all__ = ["SUITES", "NoRust", "Suite", "build", "build_tests", "manifest", "run_tests"]

_SOURCES = Path(__file__).parents[2] / "peers" / "rust" / "crates"
_BUILD_S = 3600  # two hundred crates: 160 s of CPU
_RUN_S = 250
_NEEDED = "1.85"
# What tests run is libraries of the system for the most part; debug information doubles the size of all.
_PROFILE = {"CARGO_PROFILE_DEV_DEBUG": "false", "CARGO_PROFILE_DEV_INCREMENTAL": "false"}


class NoRust(RigError):
    """A program can't be built here: no cargo, one that is too old, no library, or no way to the crates."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests in a crate. ``client`` is the client of ours that depends on it, and says its version.

    ``options`` are cargo's. The lock file is ``CRATE.lock``, beside the clients: libraries bring none, or one
    with other versions than the clients', and all of them would be built twice.
    """

    crate: str
    client: str
    options: tuple[str, ...]

    @property
    def lock(self) -> Path:
        """What its dependencies are."""
        return _SOURCES / f"{self.crate}.lock"

    @property
    def version(self) -> str:
        """Of the crate."""
        return str(manifest(self.client)["dependencies"][self.crate]).lstrip("=")


SUITES = {
    suite.crate: suite
    for suite in (
        Suite("containers-image-proxy", "proxyclient", ("--lib",)),
        Suite("ostree-ext", "ostreeclient", ("--test", "it", "--features", "internal-testing-api")),
    )
}


def build(name: str, *, optimized: bool = False) -> Path:
    """The program ``name``.

    Raises NoRust, whose one line says what is missing; RigError if it can't be compiled.
    """
    profile = "release" if optimized else "debug"
    sources = [profile.encode(), *kept.files_below(_SOURCES / name)]
    return kept.kept(name, sources, lambda: _build(name, profile))


def build_tests(suite: Suite) -> Path:
    """The program that runs the tests of ``suite``, as the crate was published. Raises as ``build``."""
    made_of = [*map(str.encode, (suite.version, *suite.options)), suite.lock.read_bytes()]
    return kept.kept(f"{suite.crate}-tests", made_of, lambda: _build_tests(suite))


def manifest(name: str) -> dict[str, Any]:
    """Its ``Cargo.toml``."""
    return tomllib.loads((_SOURCES / name / "Cargo.toml").read_text())


def _build(name: str, profile: str) -> Path:
    cargo = _Cargo.find(name)
    cargo.fetch(name, _SOURCES / name)
    options = ("--release",) if profile == "release" else ()
    cargo.compile(name, _SOURCES / name, "build", *options)
    return cargo.target / profile / name


def _build_tests(suite: Suite) -> Path:
    """cargo compiles no tests of a dependency, so the crate is taken from its cache and made the main one."""
    name = f"{suite.crate} {suite.version}"
    cargo = _Cargo.find(name)
    cargo.fetch(name, _SOURCES / suite.client)
    options = ("--offline", "--format-version=1")
    told = json.loads(cargo.run(_SOURCES / suite.client, "metadata", *options).stdout)
    (published,) = (
        Path(package["manifest_path"]).parent
        for package in told["packages"]
        if (package["name"], package["version"]) == (suite.crate, suite.version)
    )
    source = kept.root() / "suites" / f"{suite.crate}-{suite.version}"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(published, source)
    with (source / "Cargo.toml").open("a") as file:
        file.write("\n[workspace]\n")  # whatever directories are above this one
    shutil.copy(suite.lock, source / "Cargo.lock")
    cargo.fetch(name, source)
    said = cargo.compile(name, source, "test", "--no-run", "--message-format=json", *suite.options)
    messages = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (program,) = (message["executable"] for message in messages if message.get("executable"))
    return Path(program)


@dataclass(frozen=True, slots=True)
class _Cargo:
    """The program and what it is run with."""

    program: str
    target: Path

    @classmethod
    def find(cls, name: str) -> _Cargo:
        """Raises NoRust."""
        path = f"{os.environ.get('PATH', '')}:{Path.home() / '.cargo' / 'bin'}"
        program = shutil.which("cargo", path=path)
        needs = f"{name} takes cargo {_NEEDED} or newer (Debian 12: cargo-web)"
        if program is None:
            raise NoRust(f"{needs}, and there is none")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"\d+\.\d+", said)
        if found is None or _numbers(found[0]) < _numbers(_NEEDED):
            raise NoRust(f"{needs}, this is {found[0] if found else 'of an unknown version'}")
        return cls(program, Path(os.environ.get("CARGO_TARGET_DIR", kept.root() / "target")).absolute())

    def fetch(self, name: str, directory: Path) -> None:
        """Download what the lock file names. Raises NoRust, and RigError for a lock that does not fit."""
        done = self.run(directory, "fetch")
        if done.returncode and "--locked" in done.stderr:
            raise RigError(f"the lock file of {name} does not fit:\n{done.stderr}")
        if done.returncode:
            raise NoRust(f"cargo can't fetch the crates of {name}: {done.stderr.strip().splitlines()[-1]}")

    def compile(self, name: str, directory: Path, command: str, *options: str) -> str:
        """What cargo prints of it. Raises RigError."""
        done = self.run(directory, command, "--offline", *options)
        if done.returncode:
            raise RigError(f"{name} can't be compiled:\n{done.stderr}")
        return done.stdout

    def run(self, directory: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """``cargo COMMAND --locked`` in that directory."""
        path = f"{os.environ.get('PATH', '')}:{Path(self.program).parent}"  # cargo looks for rustc there
        return subprocess.run(
            [self.program, command, "--locked", *options],
            cwd=directory,
            env=os.environ | _PROFILE | {"CARGO_TARGET_DIR": str(self.target), "PATH": path},
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )


def run_tests(program: Path, work: Path, **env: str) -> tuple[dict[str, str], str]:
    """Run all tests of a suite, four at once, also those that are ignored; what each came to, and all that
    was said.

    By name: ``ok`` or ``FAILED``. ``work`` is their directory and all that they know of a user, ``env`` adds
    to their environment. Raises TimeoutExpired.
    """
    done = subprocess.run(
        [str(program), "--include-ignored", "--test-threads=4"],
        cwd=work,
        env={"PATH": "/usr/bin:/bin", "HOME": str(work), "LANG": "C.UTF-8"} | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_RUN_S,
        check=False,
    )
    # What the tests start writes to the same output, and may leave a line unfinished.
    found = re.findall(r"\btest (\S+) \.\.\. (ok|FAILED|ignored)", done.stdout)
    return dict(found), done.stdout


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
