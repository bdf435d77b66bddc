"""Programs in Go, built with the machine's Go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.rig import kept
from tests.support.rig.registry import RigError

GO_NEEDED = "1.24"
_BUILD_S = 3600  # containers/image and what it depends on: 150 s of CPU
_SOURCES = Path(__file__).parent
# Without what needs libraries of C that are not for copying: signatures by gpgme, and storage drivers.
_TAGS = (
    "containers_image_openpgp,containers_image_docker_daemon_stub,containers_image_storage_stub,"
    "exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"
)


class NoGo(RigError):
    """A program can't be built here: no Go, one that is too old, or no way to the modules."""


def imagecopy() -> Path:
    """``skopeo copy`` over the newest containers/image. Raises as ``_ours``."""
    return _ours("imagecopy")


def imagepolicy() -> Path:
    """Which images containers/image takes by policy.json, asked over JSON lines. Raises as ``_ours``."""
    return _ours("imagepolicy")


def registriesconf() -> Path:
    """What containers/image reads in registries.conf, asked over JSON lines. Raises as ``_ours``."""
    return _ours("registriesconf")


def storageconf() -> Path:
    """What containers/storage reads in storage.conf, asked over JSON lines. Raises as ``_ours``."""
    return _ours("storageconf")


def proxyrules() -> Path:
    """Answers which proxy Go's programs ask a URL through, by golang.org/x/net/http/httpproxy.

    Raises as ``_ours``.
    """
    return _ours("proxyrules")


def cosign3() -> Path:
    """Cosign 3, of a version whose options the tests know. Raises as ``_ours``."""
    return _theirs("cosign3", "github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3")


def cosign2() -> Path:
    """Cosign 2, likewise, which takes minutes more: only where ``LAYERTEE_ALL_PEERS`` is set."""
    if not os.environ.get("LAYERTEE_ALL_PEERS"):
        raise NoGo("building cosign2 takes minutes, and LAYERTEE_ALL_PEERS=1 to ask for it")
    return _theirs("cosign2", "github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5")


def conformance() -> Path:
    """What OCI holds a registry's answers against: 25 s of CPU with nothing cached. Raises as ``_ours``."""
    version = "v0.0.0-20260831232431-97274622c111"  # of its repository at a commit: it has no releases
    return _theirs("conformance", f"github.com/opencontainers/distribution-spec/conformance@{version}")


def crane() -> Path:
    """Crane, 9 s of CPU after another program. Raises as ``_ours``."""
    return _theirs("crane", "github.com/google/go-containerregistry/cmd/crane@v0.22.1")


def oras() -> Path:
    """Oras, 11 s likewise. Raises as ``_ours``."""
    return _theirs("oras", "oras.land/oras/cmd/oras@v1.3.6")


def regctl() -> Path:
    """Regctl, 8 s likewise. Raises as ``_ours``."""
    return _theirs("regctl", "github.com/regclient/regclient/cmd/regctl@v0.11.7")


def _theirs(name: str, package: str) -> Path:
    """The program of a package with its version."""
    into = kept.root() / "go" / name
    into.mkdir(parents=True, exist_ok=True)
    program = package.partition("@")[0].rpartition("/")[2]
    return kept.kept(name, [package.encode()], lambda: install(program, package, into, into))


def _ours(name: str) -> Path:
    """The program in the directory ``name`` beside this file.

    Raises NoGo, whose one line says what is missing; RigError if it can't be compiled.
    """
    sources = _SOURCES / name

    def build() -> Path:
        return install(name, ".", sources, kept.root() / "go")

    return kept.kept(name, [_TAGS.encode(), *kept.files_below(sources)], build)


def install(name: str, package: str, directory: Path, into: Path) -> Path:
    """``go install`` of ``package``, run in ``directory``; the program ``name`` in ``into``.

    Raises as ``_ours``. NoGo also for a package that the module proxy does not have.
    """
    go = shutil.which("go")
    if go is None or _version(go) < tuple(map(int, GO_NEEDED.split("."))):
        raise NoGo(f"building {name} takes Go {GO_NEEDED} or newer")
    into.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"GOBIN": str(into.absolute()), "GOFLAGS": "-buildvcs=false"}
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [go, "install", "-tags", _TAGS, package],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            timeout=_BUILD_S,
            check=False,
        )
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    if done.returncode:
        # The compiler's messages begin with the package that they are of.
        if any(line.startswith("# ") for line in lines):
            raise RigError("\n".join([f"{name} can't be compiled:", *lines]))
        raise NoGo(f"Go can't have {name}: {lines[-1] if lines else done.returncode}")
    return into / name


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)
