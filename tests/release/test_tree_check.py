"""What takes too long for every run, and is part of ``make dist-check``: a second build, another machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import layertee
from release import tree_content, tree_elf
from tests.support.ccore import ARM_MACHINE
from tests.support.packages import build_package
from tests.support.process import PLAIN
from tests.support.rig import prebuild
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.tree import build

pytestmark = [
    *(pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.builds("wheels", "tree", "arm-root")),
    pytest.mark.skipif("LAYERTEE_DIST_CHECK" not in os.environ, reason="LAYERTEE_DIST_CHECK is not set"),
]
# What bin/layertee gives its Python; qemu runs one program, and not what that one starts.
START = ("-I", "-c", "import sys; from layertee.cli.main import main; sys.exit(main())")


def test_a_second_build_of_the_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    again = build(prebuild.program("wheels"), os.uname().machine, tmp_path)
    assert again.read_bytes() == prebuild.program("tree").read_bytes()


@pytest.mark.needs(ARM_MACHINE, "aarch64-linux-gnu-gcc", "tar", "zstd")
def test_the_tree_for_armv8_pulls(registry: RegistryServer, tmp_path: Path) -> None:
    archive = build(prebuild.program("wheels"), "aarch64", tmp_path / "out")
    subprocess.run(["tar", "-C", tmp_path, "-xf", archive], check=True)
    tree = tmp_path / "layertee"
    tree_elf.check_machine(tree, "aarch64")
    glibc = tmp_path / "glibc"
    glibc.mkdir()
    subprocess.run(["tar", "-C", glibc, "-xf", prebuild.program("arm-root")], check=True)
    (tmp_path / "home").mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}

    def ran(*words: str) -> str:
        python = tree / "bin" / tree_content.PYTHON
        command: list[str | Path] = [ARM_MACHINE, "-L", glibc, python, *START, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert ran("--version") == f"layertee {layertee.__version__}\n"
    image = build_image(
        tmp_path / "image",
        [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})],
        compression=["gzip", "zstd"],
    )
    reference = upload(image, "tree/armv8:1", registry)
    store = ("--store", str(tmp_path / "store"))
    pulled = json.loads(ran("pull", "--json", PLAIN, *store, reference))
    assert [layer["action"] for layer in pulled["layers"]] == ["fetch", "fetch"]
    ran("verify", *store)
    assert "kernel armv8: 2 lane(s), in use" in ran("doctor", *store)


@pytest.mark.needs("dpkg-deb", "rpmbuild", "tar", "zstd")
def test_packages_for_armv8_are_made_of_its_tree(tmp_path: Path) -> None:
    archive = build(prebuild.program("wheels"), "aarch64", tmp_path / "out")
    for kind, query in (
        ("deb", ["dpkg-deb", "--field", "{}", "Architecture"]),
        ("rpm", ["rpm", "-qp", "--queryformat", "%{ARCH}", "{}"]),
    ):
        package = build_package(kind, tmp_path, archive, "1", "aarch64")
        command = [word.format(package) if word == "{}" else word for word in query]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert shown == {"deb": "arm64", "rpm": "aarch64"}[kind]
