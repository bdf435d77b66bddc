"""The last part of the demo, where podman is installed: an image goes from its store to another machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.rig.serve import ServeRig

__all__ = ["development_loop"]


def development_loop(
    podman: Sequence[str],
    place: str,
    context: Path,
    scratch: Path,
    say: Callable[[str], None],
    show: Callable[..., None],
) -> bool:
    """Serve ``localhost/os:derived`` out of podman's store in ``place``, change a line, and serve it again.

    True if only the changed layer crossed then.
    """
    say("11. The development loop: hand the image on, out of podman's store, without pushing it")
    with ServeRig(scratch / "serving", place) as server:
        print(f"$ layertee serve --place {place}   (at {server.host})")
        pull = ["layertee", "pull", "--tls-verify=false", "--store", str(scratch / "vm")]
        show(*pull, f"{server.host}/os:derived")
        say("12. Change one line, build again, pull again: only the changed layer crosses")
        (context / "hosts").write_text("127.0.0.1 another-example\n")
        show(*podman, "build", "-q", "--layers", "-t", "localhost/os:derived", str(context))
        server.reset()
        show(*pull, f"{server.host}/os:derived")
        raw = _raw_manifest(f"{server.host}/os:derived")
        *others, changed = [layer["digest"] for layer in json.loads(raw)["layers"]]
        n_changed, n_others = (server.blob_bytes(digests=digests) for digests in ({changed}, {*others}))
        print(f"layer bytes that were sent: {n_changed:,} of the changed layer, {n_others:,} of the others")
        return bool(n_changed) and not n_others


def _raw_manifest(name: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, check=True, capture_output=True).stdout
