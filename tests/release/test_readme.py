"""What README says for each kind of host: two commands, and an image is on it, verified."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.packages import build_package
from tests.support.process import PLAIN
from tests.support.readme import EXAMPLE, rows, sh
from tests.support.rig import hosts_without, prebuild
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = [
    *(pytest.mark.slow, pytest.mark.needs("tar", "zstd")),
    pytest.mark.needs_root("only root enters another root"),
]


@pytest.fixture
def name(registry: RegistryServer, tmp_path: Path) -> str:
    layers = [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})]
    image = build_image(tmp_path / "image", layers, compression=["gzip", "zstd"])
    return upload(image, "readme/os:stable", registry)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A minimal Debian, without Python. Tests say ``builds("debian")``."""
    yield hosts_without.unpack_debian(prebuild.program("debian"), tmp_path / "host")


def pulled(words: list[str], command: str, name: str) -> None:
    """Run README's second command against the test's registry, and see what the store has then."""
    assert command.endswith(f" pull {EXAMPLE}")
    program = command.split()[0]
    said = sh(words, f"{program} pull {PLAIN} {name} && {program} verify")
    assert "sha256:" in said


def test_every_kind_of_host_has_its_two_commands() -> None:
    assert list(rows()) == [
        "Debian, Ubuntu",
        "Fedora, CentOS 10",
        "any with glibc, no Python",
        "Python 3.11 or newer",
    ]


@pytest.mark.builds("tree", "debian")
@pytest.mark.needs("dpkg-deb")
def test_a_debian(host: Path, name: str, tmp_path: Path) -> None:
    install, pull = rows()["Debian, Ubuntu"]
    package = build_package("deb", host / "tmp", prebuild.program("tree"), "1")
    assert package.name == install.split("/")[-1] or not package.name.endswith("amd64.deb")
    inside = hosts_without.enter(host)
    sh(inside, f"cd /tmp && {install.split('./')[0]} ./{package.name}")
    pulled(inside, pull, name)


@pytest.mark.builds("tree", "debian")
@pytest.mark.needs("rpm", "rpmbuild")
def test_a_host_with_rpm(host: Path, name: str, tmp_path: Path) -> None:
    """rpm stands for dnf, which adds packages that this one needs: it needs none."""
    install, pull = rows()["Fedora, CentOS 10"]
    package = build_package("rpm", tmp_path, prebuild.program("tree"), "1")
    assert package.name == install.split("/")[-1] or not package.name.endswith("x86_64.rpm")
    rpm = ["rpm", "--root", str(host), "--dbpath", "/var/lib/rpm"]
    subprocess.run([*rpm, "--nodeps", "-i", package], check=True, capture_output=True)
    pulled(hosts_without.enter(host), pull, name)


@pytest.mark.builds("tree", "debian")
def test_a_host_without_python(host: Path, name: str) -> None:
    install, pull = rows()["any with glibc, no Python"]
    archive = prebuild.program("tree")
    assert install.startswith("tar -C /usr/lib -xf layertee-")
    sh([], f"tar -C {host}/usr/lib -xf {archive}")
    pulled(hosts_without.enter(host), pull, name)


@pytest.mark.builds("wheels")
def test_a_virtual_environment(name: str, tmp_path: Path) -> None:
    install, pull = (text.replace("/opt/", f"{tmp_path}/") for text in rows()["Python 3.11 or newer"])
    release = tmp_path / "release"
    with zipfile.ZipFile(prebuild.program("wheels")) as packed:
        packed.extractall(release)
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    sh([], f"cd {release} && {install}", **index | {"HOME": str(tmp_path)})
    pulled(["env", f"HOME={tmp_path}", f"LAYERTEE_STORE={tmp_path}/store"], pull, name)
