"""What takes too long for every run, and is part of ``make dist-check``: a second build, another machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import layertee
from release import tree_content, tree_elf
from tests.support.ccore import ARM_MACHINE
from tests.support.packages import build_package
from tests.support.process import PLAIN
from tests.support.rig import arm_hosts, hosts_without, prebuild
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.tree import build

pytestmark = [
    *(pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.builds("wheels", "tree", "arm-root")),
    pytest.mark.skipif("LAYERTEE_DIST_CHECK" not in os.environ, reason="LAYERTEE_DIST_CHECK is not set"),
]
# What bin/layertee gives its Python.
START = ("-I", "-c", "import sys; from layertee.cli.main import main; sys.exit(main())")


def test_a_second_build_of_the_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    again = build(prebuild.program("wheels"), os.uname().machine, tmp_path)
    assert again.read_bytes() == prebuild.program("tree").read_bytes()


@pytest.fixture(scope="module")
def arm_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree for ARMv8, packed."""
    return build(prebuild.program("wheels"), "aarch64", tmp_path_factory.mktemp("armv8"))


@pytest.fixture(scope="module")
def arm_deb(arm_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Debian package."""
    return build_package("deb", tmp_path_factory.mktemp("deb"), arm_archive, "1", "aarch64")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Two layers, each compressed in another way."""
    layers = [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression=["gzip", "zstd"])


def works(ran: Callable[..., str], reference: str, *store: str) -> None:
    """The command, as ``ran`` runs it, pulls with what that machine has, and verifies."""
    assert ran("--version") == f"layertee {layertee.__version__}\n"
    pulled = json.loads(ran("pull", "--json", PLAIN, *store, reference))
    assert [layer["action"] for layer in pulled["layers"]] == ["fetch", "fetch"]
    ran("verify", *store)
    report = ran("doctor", *store)
    assert "kernel armv8: 2 lane(s), in use" in report and "inflater own: in use" in report


@pytest.mark.needs(ARM_MACHINE, "aarch64-linux-gnu-gcc", "tar", "zstd")
@pytest.mark.parametrize("start", ["by its launcher", "by its Python"])
def test_the_tree_for_armv8_pulls(
    start: str, arm_archive: Path, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    subprocess.run(["tar", "-C", tmp_path, "-xf", arm_archive], check=True)
    tree = tmp_path / "layertee"
    tree_elf.check_machine(tree, "aarch64")
    glibc = tmp_path / "glibc"
    glibc.mkdir()
    subprocess.run(["tar", "-C", glibc, "-xf", prebuild.program("arm-root")], check=True)
    (tmp_path / "home").mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "QEMU_LD_PREFIX": str(glibc)}

    def ran(*words: str) -> str:
        if start == "by its launcher":
            done = arm_hosts.run(tree / "bin" / "layertee", *words, env=env)
        else:  # wherever qemu runs: one program, and not what that one starts
            command: list[str | Path] = [ARM_MACHINE, tree / "bin" / tree_content.PYTHON, *START, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    reference = upload(image, "tree/armv8:1", registry)
    works(ran, reference, "--store", str(tmp_path / "store"))


@pytest.mark.needs("debootstrap", "dpkg-deb", "tar", "zstd")
@pytest.mark.needs_root("only root makes a Debian")
def test_a_debian_for_armv8_installs_the_package_and_pulls(
    arm_deb: Path, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    root = hosts_without.unpack_debian(arm_hosts.debian(), tmp_path / "debian")
    shutil.copy(arm_deb, root / "tmp" / "layertee.deb")

    def said(*command: str) -> str:
        done = arm_hosts.run(*command, root=root)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert said("uname", "--machine") == "aarch64\n"
    said("apt-get", "--quiet", "--yes", "--no-install-recommends", "install", "/tmp/layertee.deb")
    shown = said("dpkg-query", "--show", "--showformat=${Status} ${Architecture}", "layertee")
    assert shown == "install ok installed arm64"
    works(lambda *words: said("layertee", *words), upload(image, "deb/armv8:1", registry))
    said("apt-get", "--quiet", "--yes", "purge", "layertee")
    assert not (root / "usr/lib/layertee").exists() and (root / "var/lib/layertee/index.json").exists()


@pytest.mark.needs("dpkg-deb", "rpmbuild", "tar", "zstd")
def test_packages_for_armv8_are_made_of_its_tree(arm_archive: Path, arm_deb: Path, tmp_path: Path) -> None:
    arm_rpm = build_package("rpm", tmp_path, arm_archive, "1", "aarch64")
    queries: list[tuple[list[str | Path], str]] = [
        (["dpkg-deb", "--field", arm_deb, "Architecture"], "arm64"),
        (["rpm", "-qp", "--queryformat", "%{ARCH}", arm_rpm], "aarch64"),
    ]
    for command, machine in queries:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert shown == machine
