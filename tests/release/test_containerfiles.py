"""The Containerfiles of docs/guides/bootc.md, built by buildah, and layertee in the images that come out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import layertee
from tests.support.containerfiles import built, containerfiles, ran, store_with, works
from tests.support.packages import build_package
from tests.support.rig import dnf_host, prebuild
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

pytestmark = [
    *(
        pytest.mark.slow,
        pytest.mark.builds("tree", "debian"),
        pytest.mark.needs("buildah", "dpkg-deb", "zstd"),
    ),
    pytest.mark.needs_root("buildah builds as root here"),
]


@pytest.fixture(scope="module")
def store() -> Iterator[StorageRig]:
    """A store that has a minimal Debian."""
    with store_with(prebuild.program("debian")) as store:
        yield store


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


@pytest.mark.skipif("LAYERTEE_DIST_CHECK" not in os.environ, reason="LAYERTEE_DIST_CHECK is not set")
@pytest.mark.needs("rpm", "rpmbuild")
@pytest.mark.timeout(900)
def test_the_one_for_fedora_installs_the_package_by_dnf(registry: RegistryServer, tmp_path: Path) -> None:
    (text,) = (text for base, text in containerfiles().items() if "fedora" in base)
    context = tmp_path / "context"
    context.mkdir()
    build_package("rpm", context, prebuild.program("tree"), "1")
    text = text.replace(".x86_64.rpm", f".{os.uname().machine}.rpm")
    with store_with(dnf_host.archive(prebuild.program("debian"))) as store:
        container = built(store, text, context)
        works(store, container, registry, tmp_path, "rpm")
        installed = ran(store, container, "dnf", "--quiet", "list", "--installed")
        version = re.escape(layertee.__version__)
        assert re.search(rf"^layertee\.\S+ +{version}-1 +@@commandline$", installed, re.MULTILINE), installed


def test_the_one_for_fedora_differs_from_that_for_debian_in_the_package_alone() -> None:
    files = containerfiles()
    debian = files["localhost/debian-bootc"].splitlines()
    (fedora,) = (text.splitlines() for base, text in files.items() if "fedora" in base)
    assert fedora[3:] == debian[3:]
    assert fedora[1:3] == [
        "COPY layertee-*.x86_64.rpm /tmp/",
        "RUN dnf --assumeyes install /tmp/layertee-*.rpm && rm /tmp/layertee-*.rpm",
    ]
