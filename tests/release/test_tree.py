"""The self-contained tree: on hosts that have no Python, and on one that has nothing but glibc."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import layertee
from layertee.cli.dispatch import COMMANDS
from layertee.skopeo.find import is_shim
from release import tree as tree_command
from release import tree_content, tree_elf
from release.project import ROOT, ReleaseError
from tests.support.imageproxy import ImageProxy
from tests.support.process import COMMAND, PLAIN
from tests.support.rig import hosts_without, prebuild
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("tree", "debian"), pytest.mark.needs("tar", "zstd")]

INSTALLED = "/usr/lib/layertee"
PROGRAM = f"{INSTALLED}/bin/layertee"
MOST_BYTES = 60_000_000
# Of the CPU time that the same command takes in a virtual environment: 0.8 when this was written.
MOST_TO_START = 1.3
AS_ROOT = pytest.mark.needs_root("only root enters another root")
# Each module of the package but those for libraries that the tree leaves out, and each library that it uses.
IMPORT_ALL = """
import importlib, pkgutil, layertee
names = [module.name for module in pkgutil.walk_packages(layertee.__path__, "layertee.")]
for name in names:
    if not name.endswith(".__main__"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name.partition(".")[0] not in ("opentelemetry", "sigstore"):
                raise
import aiohttp_socks, bcrypt, cryptography.x509, isal.igzip, prometheus_client, uvloop, yaml, zstandard
print(len(names))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """The root of a host that has glibc and the tree."""
    scratch = tmp_path_factory.mktemp("bare")
    debian = hosts_without.unpack_debian(prebuild.program("debian"), scratch / "debian")
    root = hosts_without.glibc_only(debian, scratch / "root")
    shutil.rmtree(debian)
    return with_tree(root, tree)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Two layers, each compressed in another way."""
    layers = [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression=["gzip", "zstd"])


def with_tree(root: Path, tree: Path) -> Path:
    """``root``, with the tree where it is usually unpacked."""
    place = root / INSTALLED.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tree, place, symlinks=True, copy_function=os.link)
    return root


def said_in(root: Path, *command: str, **env: str) -> str:
    """Standard output of a command of that host, which must succeed."""
    done = hosts_without.run_in(root, *command, **env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pull(root: Path, reference: str, *options: str) -> list[str]:
    """Pull, verify what is then in the store; what was done for each layer."""
    words = (PROGRAM, "pull", "--json", *options, reference)
    actions = [layer["action"] for layer in json.loads(said_in(root, *words))["layers"]]
    said_in(root, PROGRAM, "verify")
    return actions


# -- what is in it ---------------------------------------------------------------------------------


def test_it_is_small_and_its_files_need_nothing_that_is_not_inside_but_glibc(tree: Path) -> None:
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(sizes) <= MOST_BYTES
    inside = {path.name for path in tree.rglob("*.so*")}
    for path, elf in tree_elf.files(tree).items():
        outside = {name for name in elf.needed if name not in inside}
        assert all(tree_elf.GLIBC.fullmatch(name) for name in outside), (path, outside)
    contents = (tree / "share/doc/layertee/CONTENTS").read_text()
    assert contents.startswith(f"layertee {layertee.__version__} for ")
    assert f"glibc {tree_elf.glibc_needed(tree)} or newer" in contents


def test_all_that_is_inside_comes_with_its_licence(tree: Path) -> None:
    doc = tree / "share/doc/layertee"
    assert (doc / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    listed = (doc / "CONTENTS").read_text().split("From PyPI:")
    debian = [line.split()[0] for line in listed[0].splitlines() if line.startswith("  ")]
    assert debian and all((doc / "licences" / f"{name}.txt").stat().st_size for name in debian)
    packages = tree / tree_content.PACKAGES
    for line in listed[1].splitlines()[1:]:
        name, version = line.split()
        metadata = packages / f"{name}-{version}.dist-info"
        text = (metadata / "METADATA").read_text()
        assert "\nLicense" in text or list(metadata.rglob("LICEN[CS]E*")), name


def test_every_module_of_it_can_be_imported(tree: Path) -> None:
    python = tree / "bin" / tree_content.PYTHON
    done = subprocess.run([python, "-I", "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sources = list((ROOT / "engine" / "layertee").rglob("*.py"))
    assert int(done.stdout) == len(sources)  # the package is not one of its own modules, but the core is


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_it_starts(tree: Path, name: str) -> None:
    done = subprocess.run(
        [tree / "bin" / "layertee", name, "--help"], capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: layertee {name}")


def test_the_archive_is_of_root_and_sorted_and_of_one_time(tree: Path) -> None:
    words = ["tar", "--numeric-owner", "--utc", "--full-time", "-tvf", str(prebuild.program("tree"))]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    assert {field[1] for field in fields} == {"0/0"}
    assert {(field[3], field[4]) for field in fields} == {("2026-01-01", "00:00:00")}
    assert {field[0] for field in fields} <= {"drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx"}
    assert fields[0][5] == "layertee/"
    names = [field[5].partition(" -> ")[0].rstrip("/").split("/") for field in fields]
    assert names == sorted(names)


def test_the_shim_and_the_units_in_it_are_for_the_place_where_it_is_usually_unpacked(tree: Path) -> None:
    shim = tree / "shim" / "skopeo"
    assert is_shim(shim) and os.access(shim, os.X_OK)
    assert f"layertee_python={INSTALLED}/bin/{tree_content.PYTHON}\n" in shim.read_text()
    units = tree / "share" / "systemd"
    drop_in = (units / "bootc-fetch-apply-updates.service.d" / "layertee.conf").read_text()
    assert f"Environment=PATH={INSTALLED}/shim:" in drop_in
    assert {path.suffix for path in units.iterdir()} >= {".service", ".timer", ".socket"}


# -- on other hosts --------------------------------------------------------------------------------


@AS_ROOT
def test_a_debian_without_python_pulls_with_it_and_knows_what_it_has(
    debian: Path, tree: Path, image: BuiltImage, registry: RegistryServer
) -> None:
    assert hosts_without.run_in(debian, "sh", "-c", "command -v python3 python").returncode != 0
    with_tree(debian, tree)
    assert said_in(debian, PROGRAM, "--version") == f"layertee {layertee.__version__}\n"
    assert "core: c\n" in said_in(debian, PROGRAM, "doctor")
    reference = upload(image, "tree/debian:1", registry)
    assert pull(debian, reference, PLAIN) == ["fetch", "fetch"]
    assert pull(debian, reference, PLAIN) == ["have", "have"]


@AS_ROOT
def test_nothing_but_glibc_is_enough_to_pull_and_to_be_asked_by_bootc(
    bare: Path, image: BuiltImage, registry: RegistryServer
) -> None:
    reference = upload(image, "tree/bare:1", registry)
    assert pull(bare, reference, PLAIN) == ["fetch", "fetch"]
    command = [*hosts_without.enter(bare), PROGRAM, "image-proxy", PLAIN, "--insecure-policy"]
    with ImageProxy(command, hosts_without.ENVIRONMENT) as proxy:
        assert proxy.value("Initialize").startswith("0.2.")
        number = proxy.open(f"docker://{reference}")
        assert proxy.blob(number, image.layers[0]) == image.blob_path(image.layers[0].digest).read_bytes()
        proxy.hang_up()
        assert proxy.exit_status() == 0


@AS_ROOT
def test_authorities_are_found_where_fedora_has_them(
    bare: Path, image: BuiltImage, request: pytest.FixtureRequest
) -> None:
    with RegistryServer(tls=True) as server:
        reference = upload(image, "tree/tls:1", server)
        refused = hosts_without.run_in(bare, PROGRAM, "pull", reference)
        assert refused.returncode != 0 and "certificate" in refused.stderr
        bundle = bare / "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
        bundle.parent.mkdir(parents=True)
        request.addfinalizer(bundle.unlink)
        assert server.ca_file is not None
        shutil.copy(server.ca_file, bundle)
        said_in(bare, PROGRAM, "pull", reference)


@AS_ROOT
def test_the_shim_in_it_and_one_that_it_installs_answer_bootc(debian: Path, tree: Path) -> None:
    with_tree(debian, tree)
    # A file of the tree is shared with other tests here, and a shim is only for root to write.
    said_in(debian, PROGRAM, "install-shim", "/usr/lib/own-shim")
    for shim in (f"{INSTALLED}/shim/skopeo", "/usr/lib/own-shim/skopeo"):
        command = [*hosts_without.enter(debian), shim, "experimental-image-proxy"]
        with ImageProxy(command, hosts_without.ENVIRONMENT) as proxy:
            assert proxy.value("Initialize").startswith("0.2.")
            proxy.hang_up()
            assert proxy.exit_status() == 0


def test_it_works_wherever_it_is_and_through_a_symlink_and_lets_nobodys_python_in(
    tree: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "a place" / "of its own"
    shutil.copytree(tree, elsewhere, symlinks=True, copy_function=os.link)
    link = tmp_path / "command"
    link.symlink_to(elsewhere / "bin" / "layertee")
    hostile = tmp_path / "argparse.py"
    hostile.write_text("raise SystemExit('not this one')\n")
    env = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent", "HOME": str(tmp_path)}
    done = subprocess.run(
        [link, "--version"], capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, f"layertee {layertee.__version__}\n"), done.stderr


# -- how fast it starts ----------------------------------------------------------------------------


def cpu_s(command: Sequence[str | Path], env: dict[str, str]) -> float:
    """The CPU time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.alone
def test_it_starts_as_fast_as_a_virtual_environment(
    tree: Path, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    reference = upload(image, "tree/start:1", registry)
    store = ("--store", str(tmp_path / "store"))
    for words in (["--version"], ["pull", "--quiet", PLAIN, *store, reference]):
        mine: list[float] = []
        theirs: list[float] = []
        for count in itertools.count(1):
            mine.append(cpu_s([tree / "bin" / "layertee", *words], env))
            theirs.append(cpu_s([COMMAND, *words], env))
            if count >= 5 and (min(mine) <= MOST_TO_START * min(theirs) or count == 20):
                break
        assert min(mine) <= MOST_TO_START * min(theirs), words


# -- how it is made --------------------------------------------------------------------------------


def test_a_wheel_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    tree_command.add_arguments(parser)
    args = parser.parse_args(["--out", str(tmp_path), "--arch", "aarch64"])
    with pytest.raises(ReleaseError, match="no wheel for aarch64: run 'python -m release wheels'"):
        tree_command.main(args)
