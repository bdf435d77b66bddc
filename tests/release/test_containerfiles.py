"""The Containerfiles of docs/guides/bootc.md, built by buildah, and layertee in the images that come out."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import layertee
from tests.support.packages import build_package
from tests.support.process import PLAIN
from tests.support.rig import prebuild
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.rig.tree import ROOT

pytestmark = [
    *(
        pytest.mark.slow,
        pytest.mark.builds("tree", "debian"),
        pytest.mark.needs("buildah", "dpkg-deb", "zstd"),
    ),
    pytest.mark.needs_root("buildah builds as root here"),
]

PAGE = ROOT / "docs" / "guides" / "bootc.md"
BASE = "localhost/debian:base"
DROP_IN = "/usr/lib/systemd/system/bootc-fetch-apply-updates.service.d/layertee.conf"


def containerfiles() -> dict[str, str]:
    """Those of the page, by the image that each begins with."""
    found = re.findall(r"^```text\n(FROM (\S+)\n.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return {base: text for text, base in found}


@pytest.fixture(scope="module")
def store() -> Iterator[StorageRig]:
    """A store that has a minimal Debian as ``BASE``. Its path is short: buildah takes no long one."""
    with tempfile.TemporaryDirectory(prefix="build-", dir="/tmp") as root:
        store = StorageRig(Path(root) / "s", "overlay")
        container = store.run("buildah", "from", "scratch")
        store.run("buildah", "add", "--quiet", container, str(prebuild.program("debian")), "/")
        store.run("buildah", "commit", "--quiet", "--rm", container, BASE)
        yield store
        store.unmount()


def built(store: StorageRig, containerfile: str, context: Path) -> str:
    """A container of the image that ``containerfile`` makes out of ``BASE``, without a network."""
    (context / "Containerfile").write_text(containerfile)
    store.run(
        *("buildah", "bud", "--quiet", "--isolation=chroot", "--pull-never", "--from", BASE),
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


def test_the_one_for_debian_installs_the_package(
    store: StorageRig, registry: RegistryServer, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    build_package("deb", context, prebuild.program("tree"), "1")
    text = containerfiles()["localhost/debian-bootc"]
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    container = built(store, text.replace("_amd64.deb", f"_{machine}.deb"), context)
    works(store, container, registry, tmp_path, "deb")
    assert "ok installed" in ran(
        store, container, "dpkg-query", "--show", "--showformat=${Status}", "layertee"
    )
    store.run("buildah", "rm", container)


def test_the_one_for_others_copies_the_tree(
    store: StorageRig, registry: RegistryServer, tree: Path, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    shutil.copytree(tree, context / "layertee", symlinks=True)
    container = built(store, containerfiles()["localhost/other-bootc"], context)
    works(store, container, registry, tmp_path, "tree")
    store.run("buildah", "rm", container)


def test_the_one_for_fedora_differs_from_that_for_debian_in_the_package_alone() -> None:
    files = containerfiles()
    debian = files["localhost/debian-bootc"].splitlines()
    (fedora,) = (text.splitlines() for base, text in files.items() if "fedora" in base)
    assert fedora[3:] == debian[3:]
    assert fedora[1:3] == [
        "COPY layertee-*.x86_64.rpm /tmp/",
        "RUN dnf --assumeyes install /tmp/layertee-*.rpm && rm /tmp/layertee-*.rpm",
    ]
