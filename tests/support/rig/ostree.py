"""A real ostree repository, filled as the importer of container images fills one: by the ``ostree`` command.

Each layer is a commit of its tar under a ref named by the blob's digest, each image a commit of all layers
with its manifest and config as text, written anew, in its metadata. The names of refs are spelled out by code
of this file's own.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tests.support.rig.images import BuiltImage, run_tool

LAYERS = "ostree/container/blob"
IMAGES = "ostree/container/image"


@dataclass(frozen=True, slots=True)
class OSTreeRig:
    """The repository in ``root``."""

    root: Path

    @classmethod
    def create(cls, root: Path, mode: str | None = None) -> OSTreeRig:
        """A new one; ``mode`` is ``bare`` for root and ``bare-user`` for others unless given."""
        mode = mode or ("bare" if os.geteuid() == 0 else "bare-user")
        run_tool("ostree", "init", f"--repo={root}", f"--mode={mode}")
        rig = cls(root)
        rig.run("config", "set", "core.fsync", "false")
        return rig

    def run(self, command: str, *args: str) -> str:
        """``ostree command``; what it prints."""
        return run_tool("ostree", f"--repo={self.root}", command, *args).strip()

    def start(self, command: str, *args: str) -> subprocess.Popen[str]:
        """``ostree command``, not waited for; both outputs are pipes."""
        return subprocess.Popen(
            ["ostree", f"--repo={self.root}", command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # -- what an import does ---------------------------------------------------------

    def take_layer(self, digest: str, tar: Path) -> str:
        """Commit ``tar`` under the ref of the blob ``digest``; the commit."""
        ref = layer_ref(digest)
        self.run(
            *("commit", "--no-bindings", "--parent=none", "--tar-autocreate-parents"),
            *(f"--branch={ref}", f"--tree=tar={tar}"),
        )
        return self.commit_of(ref)

    def take(
        self, image: BuiltImage, name: str | None, work: Path, *, ref: str | None = None
    ) -> dict[str, str]:
        """Import ``image`` as ``name`` (or under ``ref``), or its layers alone; blob digest → commit."""
        commits: dict[str, str] = {}
        for layer in image.layers:
            if layer.digest not in commits:
                tar = work / "layer.tar"
                tar.write_bytes(content_of(image.blob_path(layer.digest).read_bytes(), layer.compression))
                commits[layer.digest] = self.take_layer(layer.digest, tar)
                tar.unlink()
        if name is not None or ref is not None:
            self.take_documents(image, ref or f"{IMAGES}/{escaped(name or '')}", list(commits.values()))
        return commits

    def take_documents(self, image: BuiltImage, ref: str, commits: list[str]) -> str:
        """The commit of an image, with these layers' trees, under ``ref``."""
        metadata = {
            "ostree.manifest-digest": image.digest,
            "ostree.manifest": _anew(image.manifest),
            "ostree.container.image-config": _anew(image.config),
            "ostree.importer.version": "0.15.3",
        }
        self.run(
            *("commit", "--no-bindings", "--parent=none", f"--branch={ref}"),
            *(f"--tree=ref={commit}" for commit in commits),
            *(f"--add-metadata-string={key}={value}" for key, value in metadata.items()),
        )
        return self.commit_of(ref)

    # -- what is there ---------------------------------------------------------------

    def commit_of(self, ref: str) -> str:
        """What ``ref`` names, as ostree reads it."""
        return self.run("rev-parse", ref)

    def refs(self) -> dict[str, str]:
        """All refs and their commits, as ostree reads them."""
        return {ref: self.commit_of(ref) for ref in self.run("refs", "--list").splitlines()}

    def layers(self) -> dict[str, str]:
        """The refs of layers: escaped digest → commit."""
        prefix = f"{LAYERS}/"
        return {ref.removeprefix(prefix): c for ref, c in self.refs().items() if ref.startswith(prefix)}

    def ref_path(self, digest: str) -> Path:
        """The file of a layer's ref."""
        return self.root / "refs" / "heads" / layer_ref(digest)

    def commit_path(self, commit: str) -> Path:
        """The file of a commit."""
        return self.root / "objects" / commit[:2] / f"{commit[2:]}.commit"

    def check(self) -> None:
        """``ostree fsck``. Raises RigError."""
        self.run("fsck", "--quiet")


def layer_ref(digest: str) -> str:
    """``sha256:`` is all there is to escape in a digest."""
    return f"{LAYERS}/{digest.replace(':', '_3A_')}"


def escaped(name: str) -> str:
    """The ref of an image name of the simple kind: no ``_``, no two slashes but those after ``docker:``."""
    name = name.replace("docker://", "docker_3A__2F__2F_").replace(
        "containers-storage:", "containers-storage_3A_"
    )
    return name.replace(":", "_3A_").replace(".", "_2E_")


def content_of(blob: bytes, compression: str) -> bytes:
    """The tar in a blob."""
    if compression == "gzip":
        return gzip.decompress(blob)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)
    return blob


def _anew(document: bytes) -> str:
    """A document as the importer writes it: parsed, and its keys in order, so other bytes than it had."""
    return json.dumps(json.loads(document), sort_keys=True, separators=(",", ":"))
