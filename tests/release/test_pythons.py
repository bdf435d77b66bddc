"""Every Python that layertee is for: what README and the page on installing say, typed; and a pull."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import layertee
from tests.support.ccore import ROOT
from tests.support.process import PLAIN
from tests.support.readme import EXAMPLE, rows, sh
from tests.support.rig import prebuild, pythons
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.wheels import unpack

pytestmark = [pytest.mark.slow, pytest.mark.builds("wheels"), pytest.mark.needs("tar")]


def for_each_python(*in_every_run: str) -> pytest.MarkDecorator:
    """Parametrises a test with the versions; those that are not in every run are for ``make dist-check``."""
    rarely = pytest.mark.skipif(
        "LAYERTEE_DIST_CHECK" not in os.environ, reason="LAYERTEE_DIST_CHECK is not set"
    )
    builds = {version: [pytest.mark.builds(f"python{version}")] for version in pythons.WANTED}
    versions = [
        pytest.param(
            version, marks=[*builds.get(version, []), *([] if version in in_every_run else [rarely])]
        )
        for version in pythons.VERSIONS
    ]
    return pytest.mark.parametrize("version", versions)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with an interpreter, and the files of a release on it."""

    python: pythons.Python
    directory: Path  # all that is written goes there; "/" where the machine is a directory to chroot into
    release: Path

    def types(self, script: str, **more: str) -> str:
        """Standard output of README's, or a page's, commands; this interpreter is the ``python3`` of them."""
        script = script.replace("python3 -m venv", f"{self.python.program} -m venv")
        script = script.replace("/opt/", f"{self.directory}/opt/").replace("//", "/")
        return sh(self.python.words, script, HOME=str(self.directory), **more)

    def installs(self, script: str) -> str:
        """As ``types``, in the release's directory, and without network: what is needed lies beside it."""
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ".", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return self.types(f"cd {self.release}\n{script}", **offline)


@pytest.fixture
def host(version: str, tmp_path: Path) -> Host:
    python = pythons.unpack(prebuild.program(f"python{version}"), version, tmp_path / "host")
    there = (python.root or tmp_path) / "release"
    unpack(prebuild.program("wheels"), there)
    words = [sys.executable, "-m", "release", "requirements", "--out", str(there)]
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    for wheel in python.wheels.iterdir():
        shutil.move(wheel, there)
    if python.root is None:
        return Host(python, tmp_path, there)
    return Host(python, Path("/"), Path("/release"))


def pulls(host: Host, registry: RegistryServer, scratch: Path) -> None:
    """README's second command, with the C core; a warning of Python's in it would be an error."""
    layers = [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})]
    image = build_image(scratch / "image", layers, compression=["gzip", "zstd"])
    name = upload(image, "pythons/os:stable", registry)
    _, command = rows()["Python 3.11 or newer"]
    assert command.endswith(f" pull {EXAMPLE}")
    program = command.split()[0]
    strict = {"PYTHONWARNINGS": "error", "LAYERTEE_STORE": str(host.directory / "store")}
    assert host.types(f"{program} doctor", **strict).startswith("core: c\n")
    said = json.loads(host.types(f"{command.replace(EXAMPLE, name)} {PLAIN} --json", **strict))
    assert [layer["diff_id"] for layer in said["layers"]] == [layer.diff_id for layer in image.layers]
    assert {layer["action"] for layer in said["layers"]} == {"fetch"}
    assert host.types(f"{program} verify", **strict).endswith("all as they should be\n")
    # What reads and changes the store's database by other statements than a pull.
    blobs = [(layer["digest"], layer["diff_id"]) for layer in said["layers"]]
    for digest, diff_id in blobs:
        assert digest in host.types(f"{program} map --no-trunc {diff_id}", **strict)
    assert name in host.types(f"{program} ls --no-trunc", **strict)
    host.types(f"{program} rm {name} && {program} gc", **strict)


@for_each_python("3.11", "3.14")
def test_two_commands_of_readme_and_an_image_is_there(
    version: str, host: Host, registry: RegistryServer, tmp_path: Path
) -> None:
    install, _ = rows()["Python 3.11 or newer"]
    host.installs(install.replace("x86_64", platform.machine()))
    assert host.types("/opt/layertee/bin/python --version").startswith(f"Python {version}.")
    pulls(host, registry, tmp_path)


@for_each_python("3.14")
def test_the_requirements_of_a_release_install_what_it_was_tried_with(
    version: str, host: Host, registry: RegistryServer, tmp_path: Path
) -> None:
    page = (ROOT / "docs/getting-started/install.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^## From the wheels\n.*?\n\n((?:    [^\n]+\n)+)", page, re.M | re.S)
    assert "--require-hashes" in commands
    host.installs(commands.replace("VERSION", layertee.__version__))
    said = host.types("/opt/layertee/bin/pip freeze --all")
    assert f"layertee @ file://{host.release}" in said or f"layertee=={layertee.__version__}" in said
    pulls(host, registry, tmp_path)
