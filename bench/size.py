"""Peak memory over layer size: ``python -m bench.size [--small] [--dest DIR]``.

Images of one layer, from 64 MiB to 8 GiB uncompressed, from a real docker-registry over loopback. A layer is
64 MiB of real content, compressed once and repeated: gzip members and zstd frames may follow one another
(RFC 1952 §2.2, RFC 8878 §3). It is not a tar, which a pull does not mind: it goes by the digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

from bench.measure import Usage
from bench.measure import measure as run_command
from tests.support.compress import digest_of
from tests.support.rig.blobs import BuiltLayer, blob_path
from tests.support.rig.images import OCI_CONFIG, OCI_MANIFEST, BuiltImage, upload
from tests.support.rig.layers import content_layers, write_tar
from tests.support.rig.registry import RegistryServer

LAYERTEE = str(Path(sys.executable).with_name("layertee"))
DEST = Path("build/bench")
UNIT_MIB = 64
SIZES_MIB = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
SMALL_MIB = (64, 128, 256, 512)
FORMS = ("as-is", "uncompressed")
_UNIT = UNIT_MIB << 20
_SPARE = 0.06  # of the filesystem: a pull leaves 3 % of it free, and so do we
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.compress(data, 6, 31),
    "zstd": lambda data: zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data),
}


def content_unit() -> bytes:
    """The first 64 MiB of a tar of this machine's files."""
    pieces: list[bytes] = []
    (layer,) = content_layers(_UNIT, 1)
    write_tar(layer, pieces.append)
    return b"".join(pieces)[:_UNIT].ljust(_UNIT, b"\0")


def build(root: Path, unit: bytes, packed: bytes, n_units: int, compression: str) -> BuiltImage:
    """An image of one layer, ``n_units`` times ``unit``, in ``root``. ``packed`` is the compressed unit."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    outer, inner = hashlib.sha256(), hashlib.sha256()
    with (blobs / "new").open("wb") as file:
        for _ in range(n_units):
            file.write(packed)
            outer.update(packed)
            inner.update(unit)
    digest, diff_id = f"sha256:{outer.hexdigest()}", f"sha256:{inner.hexdigest()}"
    (blobs / "new").rename(blob_path(root, digest))
    media_type = f"application/vnd.oci.image.layer.v1.tar+{compression}"
    nbytes = n_units * len(packed)
    layer = BuiltLayer(digest, nbytes, diff_id, n_units * len(unit), compression, media_type)
    config = _document(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    )
    blob_path(root, digest_of(config)).write_bytes(config)
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": media_type, "digest": digest, "size": nbytes}],
        }
    )
    return BuiltImage(root, "one", manifest, OCI_MANIFEST, config, (layer,), "linux/amd64")


def pull(reference: str, form: str, image: BuiltImage, scratch: Path) -> Usage:
    """One pull into an empty store, which is gone afterwards. Raises RuntimeError if it is not the layer."""
    store = scratch / "store"
    command = [
        LAYERTEE,
        "pull",
        "-q",
        "--tls-verify=false",
        "--layers",
        form,
        "--store",
        str(store),
        reference,
    ]
    try:
        usage = run_command(command)
        (layer,) = image.layers
        name, size = (layer.digest, layer.size)
        if form == "uncompressed":
            name, size = (layer.diff_id, layer.uncompressed_size)
        if blob_path(store, name).stat().st_size != size:
            raise RuntimeError(f"{name} has another size than {size}")
        return usage
    finally:
        shutil.rmtree(store, ignore_errors=True)


def needed_nbytes(size_mib: int, packed_nbytes: int) -> int:
    """Room for the largest moment of one size: the blob twice while it is uploaded, then blob and store."""
    blob = size_mib // UNIT_MIB * packed_nbytes
    return blob + max(blob, size_mib << 20)


def fits(nbytes: int, directory: Path) -> bool:
    """Is there room for ``nbytes`` more, and enough left for others?"""
    usage = shutil.disk_usage(directory)
    return nbytes + int(usage.total * _SPARE) <= usage.free


def measure(
    sizes_mib: Sequence[int] = SIZES_MIB, *, runs: int = 1, dest: Path = DEST
) -> list[dict[str, object]]:
    """One row for every size (a multiple of 64 MiB), compression and form: medians of ``runs`` pulls.

    ``dest`` is the directory that everything is written in, on a disk rather than in memory: the largest
    size takes 12 GB. A size that does not fit is left out, with a printed line.
    """
    dest.mkdir(parents=True, exist_ok=True)
    unit = content_unit()
    rows: list[dict[str, object]] = []
    for compression, codec in CODECS.items():
        packed = codec(unit)
        for size_mib in sizes_mib:
            if size_mib % UNIT_MIB:
                raise ValueError(f"{size_mib} MiB is not a multiple of {UNIT_MIB}")
            if not fits(needed := needed_nbytes(size_mib, len(packed)), dest):
                print(
                    f"{size_mib} MiB of {compression}: left out, {dest} has no {needed / 1e9:.1f} GB to spare"
                )
                continue
            with tempfile.TemporaryDirectory(prefix="layertee-size-", dir=dest) as made:
                rows += _measure_one(Path(made), unit, packed, size_mib, compression, runs)
    return rows


def _measure_one(
    scratch: Path, unit: bytes, packed: bytes, size_mib: int, compression: str, runs: int
) -> list[dict[str, object]]:
    image = build(scratch / "image", unit, packed, size_mib // UNIT_MIB, compression)
    rows: list[dict[str, object]] = []
    with RegistryServer(scratch / "registry") as server:
        reference = upload(image, "one:layer", server)
        shutil.rmtree(image.root)
        for form in FORMS:
            taken = [pull(reference, form, image, scratch) for _ in range(runs)]
            rss, wall = (
                statistics.median(getattr(it, field) for it in taken) for field in ("rss_mib", "wall_s")
            )
            row = {"layer_mib": size_mib, "compression": compression, "form": form}
            rows.append({**row, "rss_mib": rss, "wall_s": wall})
            print(f"{size_mib:,} MiB, {compression}, {form}: {rss:.0f} MiB of RSS, {wall:.2f} s", flush=True)
    return rows


def _document(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def main() -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help=f"up to {SMALL_MIB[-1]} MiB")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--dest", type=Path, default=DEST, help="where images, registry and store are")
    args = parser.parse_args()
    rows = measure(SMALL_MIB if args.small else SIZES_MIB, runs=args.runs, dest=args.dest)
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
