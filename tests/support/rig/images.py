"""Real OCI images without a network: layouts written by own code, pushed by the real skopeo.

Layers are made in parallel threads and streamed, so size costs time and disk but no memory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tests.support.compress import digest_of
from tests.support.rig.blobs import CODECS, BuiltLayer, blob_path, from_blob, from_spec, in_parallel
from tests.support.rig.layers import LayerSpec, content_layers, text_layer
from tests.support.rig.registry import NotInstalled, RegistryServer, RigError

__all__ = [
    "CODECS",
    "BuiltImage",
    "BuiltIndex",
    "BuiltLayer",
    "build_image",
    "build_index",
    "demo_image",
    "push",
    "push_index",
    "recompress",
    "run_tool",
    "some_layers",
    "upload",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in the OCI layout ``root``, there under the name ``ref``."""

    root: Path
    ref: str
    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[BuiltLayer, ...]
    platform: str

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest_of(self.manifest)

    @property
    def config_digest(self) -> str:
        """Also the image id."""
        return digest_of(self.config)

    @property
    def layer_digests(self) -> frozenset[str]:
        """Of the blobs; repeated layers count once."""
        return frozenset(layer.digest for layer in self.layers)

    @property
    def blob_bytes(self) -> int:
        """Compressed size of all layers, each blob once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())

    @property
    def uncompressed_bytes(self) -> int:
        """Size of all tars, each once."""
        return sum({layer.diff_id: layer.uncompressed_size for layer in self.layers}.values())

    def blob_path(self, digest: str) -> Path:
        """The file of a blob of this layout."""
        return blob_path(self.root, digest)

    @property
    def skopeo_name(self) -> str:
        """``oci:path:ref``."""
        return f"oci:{self.root}:{self.ref}"


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """Several images of one layout behind one index, which has the name ``ref`` there."""

    root: Path
    ref: str
    raw: bytes
    images: tuple[BuiltImage, ...]

    @property
    def digest(self) -> str:
        """Of the index."""
        return digest_of(self.raw)

    @property
    def skopeo_name(self) -> str:
        """``oci:path:ref``."""
        return f"oci:{self.root}:{self.ref}"


def build_image(
    root: Path,
    layers: Sequence[LayerSpec],
    *,
    compression: str | Sequence[str] = "gzip",
    platform: str = "linux/amd64",
    media: str = "oci",
    labels: dict[str, str] | None = None,
    ref: str = "latest",
    annotations: dict[str, str] | None = None,
    edit_config: Callable[[dict[str, Any]], None] | None = None,
    edit_manifest: Callable[[dict[str, Any]], None] | None = None,
) -> BuiltImage:
    """Write an OCI layout with one image into ``root`` (created; an image of the same ``ref`` is replaced).

    ``compression`` is one of ``CODECS`` for all layers or one each: ``gzip`` is zlib level 6, ``gzip-fast``
    is ISA-L, ``gzip-members`` and ``zstd-frames`` start anew every MiB (the latter with a skippable frame
    between), ``zstd-long`` asks for a window of 256 MiB, ``zstd-8m``,
    ``zstd-128m`` and ``zstd-512m`` for theirs, ``gzip-wrong-sum`` and ``zstd-wrong-sum`` have another
    checksum in them than that of their content. ``media`` is ``"oci"`` or ``"docker"``.
    ``edit_config`` and ``edit_manifest`` may spoil the document before it is written, for images that lie.
    """
    codecs = [compression] * len(layers) if isinstance(compression, str) else list(compression)
    if len(codecs) != len(layers):
        raise ValueError(f"{len(codecs)} compressions for {len(layers)} layers")
    jobs = list(zip(layers, codecs, strict=True))
    made = in_parallel(
        {job: from_spec(root, job[0], job[1], media) for job in dict.fromkeys(jobs)},
        weight=lambda job: job[0].nbytes,
    )
    config = _config(layers, [made[job] for job in jobs], platform, labels or {})
    if edit_config:
        edit_config(config)
    return _assemble(
        root, [made[job] for job in jobs], _encode(config), platform, media, ref, annotations, edit_manifest
    )


def recompress(image: BuiltImage, compression: str, root: Path, *, ref: str | None = None) -> BuiltImage:
    """The same image with other blobs, in the layout ``root``: same config, so the same DiffIDs and image id.

    It is what a registry or a build system does between two pulls. ``compression`` as in :func:`build_image`.
    """
    media = "docker" if image.media_type == DOCKER_MANIFEST else "oci"
    made = in_parallel(
        {
            layer: from_blob(root, image.blob_path(layer.digest), layer, compression, media)
            for layer in dict.fromkeys(image.layers)
        },
        weight=lambda layer: layer.uncompressed_size,
    )
    layers = [made[layer] for layer in image.layers]
    for old, new in zip(image.layers, layers, strict=True):
        if (old.diff_id, old.uncompressed_size) != (new.diff_id, new.uncompressed_size):
            raise RigError(f"recompression changed {old.diff_id} into {new.diff_id}")
    return _assemble(root, layers, image.config, image.platform, media, ref or image.ref, None, None)


def some_layers(image: BuiltImage, indices: Sequence[int], root: Path, *, ref: str = "some") -> BuiltImage:
    """An image of only these layers of ``image``, their blobs as they are, in the layout ``root``."""
    layers = [image.layers[index] for index in indices]
    for layer in layers:
        target = blob_path(root, layer.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _link_or_copy(image.blob_path(layer.digest), target)
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"] = [layer.diff_id for layer in layers]
    config["history"] = [config["history"][index] for index in indices]
    media = "docker" if image.media_type == DOCKER_MANIFEST else "oci"
    return _assemble(root, layers, _encode(config), image.platform, media, ref, None, None)


def demo_image(
    root: Path,
    total_bytes: int,
    n_layers: int,
    *,
    compression: str | Sequence[str] = "gzip",
    seed: int = 0,
    ref: str = "latest",
    labels: dict[str, str] | None = None,
) -> BuiltImage:
    """An image of real OS content: ``n_layers`` uneven layers of this machine's ``/usr``."""
    layers = content_layers(total_bytes, n_layers, seed)
    return build_image(
        root, layers, compression=compression, ref=ref, labels={"containers.bootc": "1"} | (labels or {})
    )


def build_two_platforms(root: Path) -> BuiltIndex:
    """An index of two small images, for linux/amd64 and linux/arm64."""
    images = [
        build_image(root / name, [text_layer({"of": name})], platform=f"linux/{name}")
        for name in ("amd64", "arm64")
    ]
    return build_index(root / "index", images)


def build_index(
    root: Path,
    images: Sequence[BuiltImage],
    *,
    ref: str = "latest",
    edit_index: Callable[[dict[str, Any]], None] | None = None,
) -> BuiltIndex:
    """Gather ``images`` (of any layouts) in the layout ``root`` behind one index with their platforms.

    ``edit_index`` may change the index before it is written.
    """
    entries = []
    for image in images:
        for digest in {image.digest, image.config_digest, *image.layer_digests}:
            target = blob_path(root, digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                _link_or_copy(image.blob_path(digest), target)
        system, _, rest = image.platform.partition("/")
        architecture, _, variant = rest.partition("/")
        platform = {"architecture": architecture, "os": system} | ({"variant": variant} if variant else {})
        entries.append(_descriptor(image.media_type, image.manifest) | {"platform": platform})
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    if edit_index:
        edit_index(document)
    raw = _encode(document)
    _store(root, raw)
    _name(root, ref, _descriptor(OCI_INDEX, raw))
    moved = tuple(
        BuiltImage(root, "", image.manifest, image.media_type, image.config, image.layers, image.platform)
        for image in images
    )
    return BuiltIndex(root, ref, raw, moved)


# -- into a registry -----------------------------------------------------------------


def run_tool(*command: str, timeout_s: float = 250.0) -> str:
    """Run a program to its end; return its standard output. Raises RigError with its output if it fails."""
    if shutil.which(command[0]) is None:
        raise NotInstalled(f"{command[0]} is not installed")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise RigError(f"{' '.join(command[:3])} … failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def push(
    image: BuiltImage,
    name: str,
    server: RegistryServer,
    *,
    dest_compress_format: str | None = None,
    format: str | None = None,
) -> str:
    """``skopeo copy`` the image to ``server`` as ``name`` (``repository:tag``); return ``host/name``.

    As it is, digest for digest, unless skopeo's options ``dest_compress_format`` or ``format`` ask otherwise.
    Docker's media type for zstd layers is unknown to skopeo 1.9: such an image goes by :func:`upload`.
    """
    options = [*server.skopeo_options("dest"), "--quiet"]
    if dest_compress_format:
        options += ["--dest-compress-format", dest_compress_format, "--dest-compress"]
    if format:
        options += ["--format", format]
    if not dest_compress_format and not format:
        options.append("--preserve-digests")
    source = image.skopeo_name
    if image.media_type == DOCKER_MANIFEST:
        if any(layer.compression == "zstd" for layer in image.layers):
            return upload(image, name, server)
        source = f"dir:{_as_directory(image)}"  # skopeo's oci: finds no Docker manifest by name
    run_tool("skopeo", "copy", *options, source, f"docker://{server.host}/{name}", timeout_s=600)
    return f"{server.host}/{name}"


def push_index(index: BuiltIndex, name: str, server: RegistryServer) -> str:
    """``skopeo copy --all`` the index with all its images; return ``host/name``."""
    options = ["--all", "--preserve-digests", "--quiet", *server.skopeo_options("dest")]
    run_tool("skopeo", "copy", *options, index.skopeo_name, f"docker://{server.host}/{name}", timeout_s=600)
    return f"{server.host}/{name}"


def upload(image: BuiltImage | BuiltIndex, name: str, server: RegistryServer) -> str:
    """Push over the distribution API as it is, for images that skopeo would refuse or repair."""
    repository, _, tag = name.partition(":")
    connection = server.connection()

    def exchange(method: str, path: str, body: bytes | BinaryIO | None, headers: dict[str, str]) -> str:
        connection.request(method, path, body, headers | server.auth_headers())
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RigError(f"{method} {path}: {answer.status} {text!r}")
        return answer.headers.get("Location", "")

    def blob(root: Path, digest: str) -> None:
        location = exchange("POST", f"/v2/{repository}/blobs/uploads/", None, {})
        location = location.removeprefix(server.url)
        path = blob_path(root, digest)
        with path.open("rb") as body:
            headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
            exchange("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", body, headers)

    def manifest(reference: str, raw: bytes, media_type: str) -> None:
        exchange("PUT", f"/v2/{repository}/manifests/{reference}", raw, {"Content-Type": media_type})

    try:
        for one in image.images if isinstance(image, BuiltIndex) else (image,):
            for digest in sorted({one.config_digest, *one.layer_digests}):
                blob(one.root, digest)
            manifest(one.digest, one.manifest, one.media_type)
            if isinstance(image, BuiltImage):
                manifest(tag or "latest", one.manifest, one.media_type)
        if isinstance(image, BuiltIndex):
            manifest(tag or "latest", image.raw, OCI_INDEX)
    finally:
        connection.close()
    return f"{server.host}/{name}"


# -- documents -----------------------------------------------------------------------


def _config(
    specs: Sequence[LayerSpec], layers: Sequence[BuiltLayer], platform: str, labels: dict[str, str]
) -> dict[str, Any]:
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    created = "2023-11-14T22:13:20Z"
    config: dict[str, Any] = {
        "created": created,
        "architecture": architecture,
        "os": system,
        "config": {"Labels": labels} if labels else {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": spec.created_by} for spec in specs],
    }
    if variant:
        config["variant"] = variant
    return config


def _assemble(
    root: Path,
    layers: Sequence[BuiltLayer],
    config: bytes,
    platform: str,
    media: str,
    ref: str,
    annotations: dict[str, str] | None,
    edit_manifest: Callable[[dict[str, Any]], None] | None,
) -> BuiltImage:
    config_type, media_type = (
        (OCI_CONFIG, OCI_MANIFEST) if media == "oci" else (DOCKER_CONFIG, DOCKER_MANIFEST)
    )
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(config_type, config),
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers
        ],
    }
    if annotations:
        document["annotations"] = annotations
    if edit_manifest:
        edit_manifest(document)
    manifest = _encode(document)
    _store(root, config)
    _store(root, manifest)
    _name(root, ref, _descriptor(media_type, manifest))
    return BuiltImage(root, ref, manifest, media_type, config, tuple(layers), platform)


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _store(root: Path, data: bytes) -> None:
    path = blob_path(root, digest_of(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _name(root: Path, ref: str, descriptor: dict[str, Any]) -> None:
    """Point ``ref`` of the layout's index at ``descriptor``."""
    (root / "oci-layout").write_bytes(_encode({"imageLayoutVersion": "1.0.0"}))
    path = root / "index.json"
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if path.exists():
        index = json.loads(path.read_bytes())
    kept = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(REF_NAME) != ref]
    index["manifests"] = [*kept, descriptor | {"annotations": {REF_NAME: ref}}]
    path.write_bytes(_encode(index))


def _as_directory(image: BuiltImage) -> Path:
    """The image in skopeo's ``dir:`` form, beside its layout."""
    directory = image.root / "dir" / image.digest.partition(":")[2]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(image.manifest)
    for digest in {image.config_digest, *image.layer_digests}:
        target = directory / digest.partition(":")[2]
        if not target.exists():
            _link_or_copy(image.blob_path(digest), target)
    return directory


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
