"""The Containerfiles of docs/guides/bootc.md, built by buildah, and what comes out of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import layertee
from tests.support.process import PLAIN
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.rig.tree import ROOT

PAGE = ROOT / "docs" / "guides" / "bootc.md"
DROP_IN = "/usr/lib/systemd/system/bootc-fetch-apply-updates.service.d/layertee.conf"
_BASE = "localhost/host:base"


def containerfiles() -> dict[str, str]:
    """Those of the page, by the image that each begins with."""
    found = re.findall(r"^```text\n(FROM (\S+)\n.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return {base: text for text, base in found}


@contextmanager
def store_with(root: Path) -> Iterator[StorageRig]:
    """A store that has the host of a tar file as an image. Its path is short: buildah takes no long one."""
    with tempfile.TemporaryDirectory(prefix="build-", dir="/tmp") as directory:
        store = StorageRig(Path(directory) / "s", "overlay")
        container = store.run("buildah", "from", "scratch")
        store.run("buildah", "add", "--quiet", container, str(root), "/")
        store.run("buildah", "commit", "--quiet", "--rm", container, _BASE)
        yield store
        store.unmount()


def built(store: StorageRig, containerfile: str, context: Path) -> str:
    """A container of the image that ``containerfile`` makes, with the store's host for what it is FROM."""
    (context / "Containerfile").write_text(containerfile)
    store.run(
        *("buildah", "bud", "--quiet", "--isolation=chroot", "--pull-never", "--from", _BASE),
        *("--tag", "localhost/built", str(context)),
    )
    return store.run("buildah", "from", "--pull-never", "localhost/built")


def ran(store: StorageRig, container: str, *command: str) -> str:
    """Standard output of a command in that container, which must succeed."""
    return store.run("buildah", "run", "--isolation=chroot", container, "--", *command)


def works(store: StorageRig, container: str, registry: RegistryServer, scratch: Path, name: str) -> None:
    """The command pulls, and bootc's upgrades would start the shim."""
    assert ran(store, container, "layertee", "--version") == f"layertee {layertee.__version__}"
    image = build_image(scratch / name, [text_layer({"etc/motd": "hello\n"})], compression="gzip")
    ran(store, container, "layertee", "pull", PLAIN, upload(image, f"built/{name}:1", registry))
    ran(store, container, "layertee", "verify")
    drop_in = ran(store, container, "cat", DROP_IN)
    path = re.search(r"^Environment=PATH=(.*)$", drop_in, re.MULTILINE)
    assert path is not None
    shown = ran(store, container, "env", f"PATH={path[1]}", "layertee", "doctor")
    assert "skopeo on PATH is /usr/lib/layertee/shim/skopeo, the shim" in shown
