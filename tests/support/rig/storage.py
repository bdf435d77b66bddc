"""A real containers-storage, filled by skopeo and worked on by buildah and podman.

Each store has a root of its own; the machine's is never touched. Needs root, as those tools do here.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.compress import digest_of
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import run_tool

_TREES = {"overlay": "overlay/{}/diff", "vfs": "vfs/dir/{}"}


@dataclass(frozen=True, slots=True)
class StorageRig:
    """The store in ``root``, of the storage driver ``driver``."""

    root: Path
    driver: str

    @property
    def name(self) -> str:
        """As containers-transports(5) has it, without an image."""
        return f"containers-storage:[{self.driver}@{self.root}+{self.root}.run]"

    def take(self, source: str, name: str) -> None:
        """``skopeo copy`` the image ``source`` into the store as ``name``."""
        run_tool("skopeo", "copy", "--quiet", source, f"{self.name}{name}")
        self.unmount()

    def run(self, tool: str, *command: str) -> str:
        """``buildah`` or ``podman`` on this store; what it prints."""
        places = ("--root", str(self.root), "--runroot", f"{self.root}.run")
        return run_tool(tool, *places, "--storage-driver", self.driver, *command).strip()

    def unmount(self) -> None:
        """Undo the mount that the overlay driver leaves behind, of its directory on itself."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounted if place.startswith(f"{self.root}/")]):
            run_tool("umount", place)

    def copy(self, root: Path) -> StorageRig:
        """The same store in ``root``, device nodes and all."""
        run_tool("cp", "-a", str(self.root), str(root))
        return StorageRig(root, self.driver)

    @property
    def layers_json(self) -> Path:
        return self.root / f"{self.driver}-layers" / "layers.json"

    @property
    def images_json(self) -> Path:
        return self.root / f"{self.driver}-images" / "images.json"

    def rows(self) -> list[dict[str, Any]]:
        """What ``layers.json`` says."""
        rows: list[dict[str, Any]] = json.loads(self.layers_json.read_bytes())
        return rows

    def row(self, diff_id: str) -> dict[str, Any]:
        """The first layer of that content."""
        return next(row for row in self.rows() if row.get("diff-digest") == diff_id)

    def edit(self, **fields: object) -> None:
        """Set ``fields`` of every layer (``_`` for ``-``); None removes one."""
        rows = self.rows()
        for row in rows:
            row |= {key.replace("_", "-"): value for key, value in fields.items()}
        kept = [{key: value for key, value in row.items() if value is not None} for row in rows]
        replace(self.layers_json, json.dumps(kept).encode())

    def tree(self, diff_id: str) -> Path:
        """The files of that layer."""
        return self.root / _TREES[self.driver].format(self.row(diff_id)["id"])

    def tarsplit(self, diff_id: str) -> Path:
        """The tar-split of that layer."""
        return self.layers_json.parent / f"{self.row(diff_id)['id']}.tar-split.gz"


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in ``path`` as these tools do: by rename."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.rename(new, path)


def tar_image(root: Path, tars: Sequence[bytes], ref: str = "latest") -> str:
    """An OCI layout with one image of these very tars, gzipped; its name for skopeo."""
    layers = [(gzip.compress(tar, 1, mtime=0), digest_of(tar)) for tar in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    kind = "application/vnd.oci.image"
    described = _put(root, json.dumps(config).encode(), f"{kind}.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": described,
        "layers": [_put(root, blob, f"{kind}.layer.v1.tar+gzip") for blob, _ in layers],
    }
    entry = _put(root, json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": ref}
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{root}:{ref}"


def _put(root: Path, blob: bytes, media_type: str) -> dict[str, Any]:
    path = blob_path(root, digest_of(blob))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}
