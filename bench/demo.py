"""The main job on real input, for a person to watch: ``make demo``.

Builds an OS image out of this machine's /usr, serves it from a real docker-registry on a free
loopback port, once as gzip and once recompressed to zstd, and pulls it with the command that a user
would type. Whatever it made is gone afterwards, but for the built image, which is kept in
build/demo so that a second run is quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.rig.images import BuiltImage, demo_image, recompress, upload
from tests.rig.registry import RegistryServer

LAYERTEE = Path(sys.executable).with_name("layertee")
BUILT = Path("build/demo")
NBYTES, N_LAYERS = 400 << 20, 14


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def layertee(*words: str) -> None:
    """Run the command as a user would, progress and all; a failure ends the demo."""
    print("$ layertee " + " ".join(words), flush=True)
    subprocess.run([LAYERTEE, *words], check=True)


def mib(nbytes: float) -> str:
    return f"{nbytes / (1 << 20):,.0f} MiB"


def images() -> tuple[BuiltImage, BuiltImage]:
    began = time.monotonic()
    gzip = demo_image(BUILT / "gzip", NBYTES, N_LAYERS, compression="gzip-fast")
    zstd = recompress(gzip, "zstd", BUILT / "zstd")
    print(
        f"{len(gzip.layers)} layers of real files, {mib(gzip.uncompressed_bytes)}:"
        f" {mib(gzip.blob_bytes)} as gzip, {mib(zstd.blob_bytes)} as zstd"
        f" ({time.monotonic() - began:.0f} s)"
    )
    return gzip, zstd


def main() -> int:
    if shutil.which("docker-registry") is None:
        print("docker-registry is not installed; run: make setup", file=sys.stderr)
        return 1
    say("1. An OS image out of this machine's /usr")
    gzip, zstd = images()
    BUILT.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="layertee-demo-", dir=os.environ.get("TMPDIR")) as scratch,
        RegistryServer(Path(scratch) / "registry") as server,
    ):
        store = Path(scratch) / "store"
        gzip_name, zstd_name = f"{server.host}/os:gzip", f"{server.host}/os:zstd"
        say(f"2. Served by a real docker-registry on {server.host}, as gzip and as zstd")
        upload(gzip, "os:gzip", server)
        upload(zstd, "os:zstd", server)
        rows: list[tuple[str, str, str, str]] = []

        def step(title: str, name: str, image: BuiltImage, what: str) -> None:
            say(title)
            server.reset()
            began = time.monotonic()
            layertee("pull", "--tls-verify=false", "--store", str(store), name)
            took = time.monotonic() - began
            sent = server.blob_bytes(digests=image.layer_digests)
            rows.append((what, mib(image.blob_bytes), mib(sent), f"{took:.1f} s"))

        step(
            "3. Pull it: every layer hashed, inflated and hashed again in one pass",
            gzip_name,
            gzip,
            "first pull",
        )
        say("4. What was recorded: blob digest <-> DiffID, both computed here")
        layertee("map", "--store", str(store))
        step("5. Pull it again", gzip_name, gzip, "the same again")
        step(
            "6. The image was recompressed at the registry: every blob has another digest now",
            zstd_name,
            zstd,
            "recompressed to zstd",
        )
        say("7. Hash the whole store once more")
        layertee("verify", "--store", str(store))
        say("What happened (bytes as the registry's access log counts them)")
        head = ("pull", "layers of the image", "sent by the registry", "time")
        table = [head, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        for row in table:
            print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        print(
            "\nThe zstd image shares no blob digest with the gzip image, and still no layer byte was sent:"
            "\nlayertee knows layers by the digest of their content (DiffID), not of their compressed form."
        )
        if rows[1][2] != mib(0) or rows[2][2] != mib(0):
            print("but that is not what happened: layers were sent again", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
