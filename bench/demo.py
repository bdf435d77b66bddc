"""The main job on real input, for a person to watch: ``make demo``.

Builds an OS image out of this machine's /usr, serves it from a real docker-registry on a free
loopback port, once as gzip and once recompressed to zstd, and pulls it with the command that a user
would type, and with skopeo beside it. Where podman is installed, an image is then built on top of it and
pushed, and pulled without a download. Whatever it made is gone afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.demo_local import local_first
from tests.support.rig.images import BuiltImage, demo_image, recompress, upload
from tests.support.rig.registry import RegistryServer

LAYERTEE = Path(sys.executable).with_name("layertee")
NBYTES, N_LAYERS = 320 << 20, 14
COLUMNS = ("pull", "layers of the image", "sent to layertee", "time", "sent to skopeo", "time")


def say(text: str) -> None:
    """A heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(*words: str | Path) -> None:
    """Run a command as a user would, output and all; a failure ends the demo."""
    typed = " ".join(str(word) for word in words)
    print(f"$ {typed}", flush=True)
    subprocess.run([LAYERTEE if words[0] == "layertee" else words[0], *words[1:]], check=True)


def mib(nbytes: int) -> str:
    """In MiB; zero is zero and nothing else is."""
    return "0" if not nbytes else f"{nbytes / (1 << 20):,.1f} MiB"


def largest(image: BuiltImage) -> str:
    """The DiffID of its largest layer."""
    return max(image.layers, key=lambda layer: layer.size).diff_id


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns, aligned; the first row is their heads."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Demo:
    """A registry with one image in two forms, a store of layertee and a directory of skopeo."""

    def __init__(self, server: RegistryServer, scratch: Path) -> None:
        self.server = server
        self.store = scratch / "store"
        self._skopeo = scratch / "skopeo"
        self.sent: list[tuple[str, BuiltImage, int, float, int, float]] = []

    def pull(self, what: str, image: BuiltImage, tag: str) -> None:
        """Pull by layertee, to be seen, and by skopeo, quietly; note what the registry sent to each."""
        name = f"{self.server.host}/os:{tag}"
        ours = self._measure(
            image, lambda: show("layertee", "pull", "--tls-verify=false", "--store", self.store, name)
        )
        skopeo = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}"]
        theirs = self._measure(
            image, lambda: subprocess.run([*skopeo, f"oci:{self._skopeo}:{tag}"], check=True)
        )
        self.sent.append((what, image, *ours, *theirs))

    def _measure(self, image: BuiltImage, run: Callable[[], object]) -> tuple[int, float]:
        self.server.reset()
        began = time.monotonic()
        run()
        took = time.monotonic() - began
        return self.server.blob_bytes(digests=image.layer_digests), took

    def table(self) -> list[Sequence[str]]:
        """What was noted, for :func:`print_table`."""
        rows: list[Sequence[str]] = [COLUMNS]
        for what, image, ours, our_time, theirs, their_time in self.sent:
            cells = (mib(ours), f"{our_time:.1f} s", mib(theirs), f"{their_time:.1f} s")
            rows.append((what, mib(image.blob_bytes), *cells))
        return rows


def main() -> int:
    """Run the demo; 1 if what it shows is not what it promises."""
    for tool in ("docker-registry", "skopeo"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed; run: make demo", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory(prefix="layertee-demo-") as made:
        scratch = Path(made)
        say("1. Build an OS image out of this machine's /usr, as gzip, and recompress it to zstd")
        gzip = demo_image(scratch / "gzip", NBYTES, N_LAYERS, compression="gzip-fast")
        zstd = recompress(gzip, "zstd", scratch / "zstd")
        print(
            f"{len(gzip.layers)} layers of real files, {mib(gzip.uncompressed_bytes)}:"
            f" {mib(gzip.blob_bytes)} as gzip, {mib(zstd.blob_bytes)} as zstd."
            "\nBoth have the same content, and no blob digest in common."
        )
        with RegistryServer(scratch / "registry") as server:
            say(f"2. Serve both from a real docker-registry: {server.host}/os:gzip and :zstd")
            upload(gzip, "os:gzip", server)
            upload(zstd, "os:zstd", server)
            demo = Demo(server, scratch)
            say("3. Pull it: every layer is hashed, inflated and hashed again in one pass")
            demo.pull("first pull, gzip", gzip, "gzip")
            say("4. What is recorded, here for the largest layer: two names, both computed by this pull")
            show("layertee", "map", "--store", demo.store, largest(gzip))
            say("5. Pull it again")
            demo.pull("the same again", gzip, "gzip")
            say("6. Pull it as zstd: every blob has another digest, every layer is here already")
            demo.pull("recompressed to zstd", zstd, "zstd")
            say("7. Hash everything in the store once more")
            show("layertee", "verify", "--store", demo.store)
            say("8. The store is a plain OCI layout: another tool reads the zstd image, from gzip blobs")
            name = f"oci:{demo.store}:{server.host}/os:zstd"
            show("skopeo", "copy", "-q", name, f"dir:{scratch / 'copy'}")
            print("copied: skopeo, too, found every blob to have the digest that names it")
            right = shutil.which("podman") is None or local_first(server, scratch, say, show)
        say("What happened (layer bytes as the registry's access log counts them)")
        print_table(demo.table())
        print(
            "\nThe zstd image shares no blob digest with the gzip image, and still no layer byte was sent:"
            "\nlayertee knows layers by the digest of their content (DiffID), not of their compressed form."
            "\nIn the first pull it also inflated every layer and checked what came out; skopeo only copied."
            "\n'make bench' compares equal work, on a larger image."
        )
        if not right or [sent for _, _, sent, *_ in demo.sent] != [gzip.blob_bytes, 0, 0]:
            print("but that is not what happened: see the table", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
