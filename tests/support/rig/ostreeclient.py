"""The importer of container images that bootc and rpm-ostree have: ostree-ext, by its own command line.

It has its layers from whatever ``skopeo`` comes first on its PATH, and keeps them in an ostree repository.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.compress import digest_of
from tests.support.rig import crates
from tests.support.rig.blobs import BuiltLayer, blob_path
from tests.support.rig.crates import NoRust
from tests.support.rig.images import OCI_MANIFEST, BuiltImage, run_tool
from tests.support.rig.ostree import OSTreeRig, content_of

__all__ = [
    "NoRust",
    "OSTreeClient",
    "Pulled",
    "build",
    "build_tests",
    "encapsulate",
    "pull_words",
    "read_image",
    "small_os",
    "version",
]

_NAME = "ostreeclient"
_RUN_S = 240
_STATUS = re.compile(r"^layers already present: (\d+); layers needed: (\d+) \((.+)\)$", re.MULTILINE)


def build() -> Path:
    """The program. Raises NoRust, whose one line says what is missing; RigError if it can't be compiled."""
    _require_libostree()
    return crates.build(_NAME)


def build_tests() -> Path:
    """The tests of ostree-ext itself, likewise."""
    _require_libostree()
    return crates.build_tests(crates.SUITES["ostree-ext"])


def _require_libostree() -> None:
    asked = ["pkg-config", "--exists", "ostree-1 >= 2022.6"]
    if shutil.which(asked[0]) is None or subprocess.run(asked, check=False).returncode:
        raise NoRust("ostree-ext takes libostree 2022.6 or newer (Debian 12: libostree-dev)")


def version() -> str:
    """Of ostree-ext."""
    return str(crates.manifest(_NAME)["dependencies"]["ostree-ext"]).lstrip("=")


@dataclass(frozen=True, slots=True)
class Pulled:
    """What an import said. ``err`` is of the importer and of its skopeo."""

    code: int
    out: str
    err: str

    @property
    def layers(self) -> tuple[int, int, str]:
        """How many it had, how many it needed, and the size of those, as printed (``2.5 MB``).

        It prints that only where it needs any; zeros and no size otherwise, also where nothing had changed.
        """
        assert self.code == 0, self.err
        status = _STATUS.search(self.out)
        return (int(status[1]), int(status[2]), status[3].replace("\xa0", " ")) if status else (0, 0, "")

    @property
    def n_needed(self) -> int:
        """How many layers it asked for."""
        return self.layers[1]


@dataclass(frozen=True, slots=True)
class OSTreeClient:
    """The importer as one user has it: ``path`` is its PATH, ``home`` all that it knows of a user."""

    program: Path
    path: str
    home: Path

    @contextmanager
    def started(self, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Run it with these arguments, in a session of its own; both outputs are pipes. Killed at the end."""
        process = subprocess.Popen(
            [str(self.program), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": self.path, "HOME": str(self.home), "LANG": "C.UTF-8"} | env,
            start_new_session=True,
        )
        try:
            yield process
        except Exception as exc:
            os.killpg(process.pid, signal.SIGKILL)  # its server, too
            exc.add_note("".join(process.communicate()))
            raise
        finally:
            process.kill()
            process.communicate()

    def run(self, *words: str, **env: str) -> Pulled:
        """The same, to its end. Raises TimeoutExpired."""
        with self.started(*words, **env) as process:
            out, err = process.communicate(timeout=_RUN_S)
            return Pulled(process.returncode, out, err)

    def pull(self, repo: OSTreeRig, image: str, *options: str, **env: str) -> Pulled:
        """Import ``image`` (``docker://…`` or of another transport) into ``repo``, over plain HTTP."""
        return self.run(*pull_words(repo, image), *options, **env)


def pull_words(repo: OSTreeRig, image: str, *, signed: bool = False) -> list[str]:
    """The arguments of an import; ``signed`` has the importer demand a policy that rejects by default."""
    words = ["container", "image", "pull", "--quiet", "--insecure-skip-tls-verification"]
    return [*words, str(repo.root), f"ostree-{'image-signed' if signed else 'unverified-image'}:{image}"]


def encapsulate(
    program: Path, repo: OSTreeRig, branch: str, layer_of: Mapping[str, str], target: str, work: Path
) -> None:
    """Make ``branch`` an image at ``target``. Raises RigError.

    ``layer_of``: for parts of a file's path the name of a layer of its own; other files share one.
    """
    layers = {name: name for name in [*layer_of.values(), "other"]}
    mapping = {}
    for line in repo.run("ls", "-RC", branch).splitlines():
        if line.startswith("-"):
            fields = line.split()
            checksum, path = fields[4], fields[5]
            mapping[checksum] = next((name for part, name in layer_of.items() if part in path), "other")
    content = work / "content.json"
    content.write_text(json.dumps({"version": 1, "layers": layers, "mapping": mapping}))
    words = ["--repo", str(repo.root), "--contentmeta", str(content), "--label", "containers.bootc=1"]
    run_tool(str(program), "container", "encapsulate", *words, branch, target)


def small_os(program: Path, root: Path, ref: str, work: Path) -> BuiltImage:
    """An operating system of 1 MB, an ostree commit in layers, as ``ref`` of the OCI layout ``root``."""
    tree = work / "tree"
    packages = ("package-0", "package-1")
    for n, package in enumerate(packages):
        (tree / "usr/lib" / package).mkdir(parents=True)
        (tree / "usr/lib" / package / "file").write_bytes(random.Random(n).randbytes(500_000))
    (tree / "usr/etc").mkdir()
    (tree / "usr/lib/os-release").write_text("ID=example\n")
    repo = OSTreeRig.create(work / "compose")
    owner = ("--owner-uid=0", "--owner-gid=0")
    repo.run("commit", "--no-bindings", "--branch=os", f"--tree=dir={tree}", *owner)
    encapsulate(program, repo, "os", {f"/{name}/": name for name in packages}, f"oci:{root}:{ref}", work)
    return read_image(root, ref)


def read_image(root: Path, ref: str) -> BuiltImage:
    """An image of gzipped layers that another tool has put into the layout ``root``."""
    raw = run_tool("skopeo", "inspect", "--raw", f"oci:{root}:{ref}").encode()
    manifest = json.loads(raw)
    config = blob_path(root, manifest["config"]["digest"]).read_bytes()
    layers = []
    for layer, diff_id in zip(manifest["layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
        blob = blob_path(root, layer["digest"]).read_bytes()
        tar = content_of(blob, "gzip")
        assert digest_of(tar) == diff_id
        layers.append(
            BuiltLayer(layer["digest"], len(blob), diff_id, len(tar), "gzip", str(layer["mediaType"]))
        )
    return BuiltImage(root, ref, raw, OCI_MANIFEST, config, tuple(layers), "linux/amd64")
