"""The rest of the demo, where podman is: built here, pushed, not downloaded again, and handed on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.demo_serve import development_loop
from tests.support.rig.registry import RegistryServer

__all__ = ["local_first"]

_CONTAINERFILE = """\
FROM {base}
COPY motd /etc/motd
COPY hosts /etc/hosts.local
"""


def local_first(
    server: RegistryServer,
    scratch: Path,
    say: Callable[[str], None],
    show: Callable[..., None],
) -> bool:
    """Build an image on the one called ``os:gzip``, push it, pull it with podman's store as a place.

    True if no layer byte was sent for that, or if podman cannot build here, which is then said.
    """
    root = scratch / "podman"
    podman = ["podman", "--root", str(root), "--runroot", f"{root}.run", "--storage-driver", "overlay"]
    store = f"containers-storage:[overlay@{root}+{root}.run]"
    name = f"{server.host}/os:derived"
    try:
        say("9. Build an image on top of the first one with podman, on this machine, and push it")
        try:
            _build(podman, scratch / "context", f"{server.host}/os:gzip", show)
        except subprocess.CalledProcessError:
            print("podman cannot build here (it needs to mount overlays), so this part is left out")
            return True
        show(*podman, "push", "-q", "--tls-verify=false", "localhost/os:derived", f"docker://{name}")
        say("10. Pull it from the registry: whatever the blobs are called there, podman has their content")
        digests = _layer_digests(name)
        server.reset()
        pull = ["layertee", "pull", "--tls-verify=false", "--store", str(scratch / "upgraded")]
        show(*pull, "--from", store, name)
        sent = server.blob_bytes(digests=digests)
        print(f"layer bytes that the registry sent: {sent:,}")
        return development_loop(podman, store, scratch / "context", scratch, say, show) and sent == 0
    finally:
        # Overlays are mounted under the root; podman knows where.
        subprocess.run([*podman, "rmi", "-af"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", root / "overlay"], stderr=subprocess.DEVNULL)


def _build(podman: list[str], context: Path, base: str, show: Callable[..., None]) -> None:
    context.mkdir()
    (context / "Containerfile").write_text(_CONTAINERFILE.format(base=base))
    (context / "motd").write_text("welcome\n")
    (context / "hosts").write_text("127.0.0.1 example\n" * 4)
    show(*podman, "build", "-q", "--tls-verify=false", "--layers", "-t", "localhost/os:derived", str(context))


def _layer_digests(name: str) -> frozenset[str]:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    manifest = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return frozenset(layer["digest"] for layer in manifest["layers"])
