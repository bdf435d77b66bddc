"""The README is true: its examples run as they are written, and what it links to is there.

Blocks tagged ``python`` and ``console`` are run, against a real registry. All that is changed is where
they lead: the example registry's name, and paths outside the test's directory.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ccore import ROOT
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

EXAMPLE = "registry.example.com"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks with this tag."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with TLS that has every image the README names."""
    root = tmp_path_factory.mktemp("image")
    layers = [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})]
    image = build_image(root, layers, compression=["gzip", "zstd"])
    names = set(re.findall(rf"{re.escape(EXAMPLE)}/([\w/.-]+:[\w.-]+)", README))
    assert names
    with RegistryServer(tls=True) as server:
        for name in sorted(names):
            upload(image, name, server)
        yield server


@pytest.fixture
def environment(server: RegistryServer, tmp_path: Path) -> dict[str, str]:
    """A user who trusts the registry's authority, as containers-certs.d(5) says."""
    assert server.ca_file
    trusted = tmp_path / "config/containers/certs.d" / server.host
    trusted.mkdir(parents=True)
    shutil.copy(server.ca_file, trusted / "ca.crt")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def localized(text: str, server: RegistryServer, directory: Path) -> str:
    """``text`` with the example registry at ``server`` and absolute paths inside ``directory``."""
    text = text.replace(EXAMPLE, server.host)
    return re.sub(r"(?<![\w.])/(?=(srv|var|tmp|usr/local)/)", f"{directory}/", text)


def run(command: list[str], environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=directory, timeout=60
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_has_examples_of_both_kinds() -> None:
    assert blocks("console") and blocks("python")


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n")[0])
def test_a_python_example_runs(
    block: str, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "example.py"
    program.write_text(localized(block, server, tmp_path), encoding="utf-8")
    assert run([sys.executable, "-W", "error", str(program)], environment, tmp_path)


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.split("\n")[0])
def test_the_lines_of_a_console_block_run_one_after_the_other(
    block: str, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    for line in localized(block, server, tmp_path).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        has_store = words[:1] == ["layertee"] and words[1] != "install-shim"
        if has_store and "--to" not in words and "--store" not in words:
            words[2:2] = ["--store", str(tmp_path / "store")]  # the default one is the machine's
        if words:
            run(words, environment, tmp_path)


def test_every_link_of_the_readme_to_a_file_leads_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_file_and_make_target_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:bench|csrc|engine|tests)/[\w/.-]+)`", README))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert targets
    assert [
        target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)
    ] == []
