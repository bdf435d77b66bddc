"""What other tools read out of a store, and what the layers of an image must come to."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tests.support.rig.images import BuiltImage, run_tool


def skopeo_reads(source: str, target: Path) -> list[str]:
    """``skopeo copy`` the image to a directory, hashing everything on the way; the layers' digests."""
    run_tool("skopeo", "copy", "--quiet", "--preserve-digests", source, f"dir:{target}")
    manifest = json.loads((target / "manifest.json").read_bytes())
    digests = [layer["digest"] for layer in manifest["layers"]]
    for digest in digests:
        content = (target / digest.removeprefix("sha256:")).read_bytes()
        assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
    return digests


@dataclass(frozen=True, slots=True)
class Node:
    """What matters of one file; ``same_as`` is the first name of a file with several."""

    kind: int
    mode: int
    content: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    same_as: str = ""


def layer_tar(image: BuiltImage, index: int) -> bytes:
    """The tar of a layer, inflated by code not ours."""
    layer = image.layers[index]
    blob = image.blob_path(layer.digest).read_bytes()
    if layer.compression == "gzip":
        return gzip.decompress(blob)
    if layer.compression == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)
        return reader.read()
    return blob


def tree_of_tars(tars: Iterable[bytes]) -> dict[str, Node]:
    """The filesystem that layers make, one over the other, whiteouts applied (image-spec layer.md)."""
    tree: dict[str, Node] = {}
    for tar in tars:
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            listed = list(members)
            below = dict(tree)
            for member in listed:
                parent, _, base = member.name.rpartition("/")
                if base == ".wh..wh..opq":
                    _remove(tree, f"{parent}/", below)
                elif base.startswith(".wh."):
                    gone = f"{parent}/{base.removeprefix('.wh.')}".removeprefix("/")
                    _remove(tree, f"{gone}/", below)
                    tree.pop(gone, None)
                else:
                    tree[member.name] = _node(members, member, tree)
    return tree


def _remove(tree: dict[str, Node], prefix: str, below: Mapping[str, Node]) -> None:
    for name in [name for name in tree if name.startswith(prefix) and name in below]:
        del tree[name]


def _node(tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Mapping[str, Node]) -> Node:
    if member.islnk():
        first = tree[member.linkname]
        return Node(first.kind, first.mode, first.content, first.xattrs, first.same_as or member.linkname)
    if member.issym():
        return Node(stat.S_IFLNK, 0o777, member.linkname.encode())
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.REGTYPE: stat.S_IFREG}
    body = tar.extractfile(member)
    prefix = "SCHILY.xattr."
    xattrs = tuple(
        sorted(
            (key.removeprefix(prefix), value.encode("utf-8", "surrogateescape"))
            for key, value in member.pax_headers.items()
            if key.startswith(prefix)
        )
    )
    return Node(kinds[member.type], member.mode, body.read() if body else b"", xattrs)


def tree_of_directory(root: Path) -> dict[str, Node]:
    """The filesystem that is there."""
    tree: dict[str, Node] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found = path.lstat()
        kind, mode = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)
        if kind == stat.S_IFLNK:
            tree[name] = Node(kind, mode, os.readlink(path).encode())
            continue
        xattrs = tuple(sorted((key, os.getxattr(path, key)) for key in os.listxattr(path) if "user." in key))
        content = path.read_bytes() if kind == stat.S_IFREG else b""
        many = kind == stat.S_IFREG and found.st_nlink > 1
        same_as = first.setdefault(found.st_ino, name) if many else ""
        tree[name] = Node(kind, mode, content, xattrs, same_as)
    return tree


def umoci_unpacks(layout: Path, name: str, bundle: Path) -> dict[str, Node]:
    """``umoci unpack`` the image; the filesystem that comes out."""
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run_tool("umoci", "unpack", *rootless, "--image", f"{layout}:{name}", str(bundle))
    return tree_of_directory(bundle / "rootfs")


def assert_same_tree(found: Mapping[str, Node], wanted: Mapping[str, Node]) -> None:
    """Compare, but for names of hard links: which one is the first is nobody's business.

    Directories that no layer names are whatever the unpacker makes of them.
    """
    implied = {str(parent) for name in wanted for parent in Path(name).parents} - {"."}
    assert found.keys() - implied == wanted.keys() - implied
    for name, node in wanted.items():
        there = found[name]
        assert _alone(there) == _alone(node), name
    assert _families(found) == _families(wanted)


def _alone(node: Node) -> Node:
    return Node(node.kind, node.mode, node.content, node.xattrs)


def _families(tree: Mapping[str, Node]) -> set[frozenset[str]]:
    families: dict[str, set[str]] = {}
    for name, node in tree.items():
        if node.same_as:
            families.setdefault(node.same_as, {node.same_as}).add(name)
    return {frozenset(family) for family in families.values()}
