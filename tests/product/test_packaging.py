"""What is published: the source archive, a wheel built from it, and both installed where nothing else is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import layertee
from tests.support.ccore import OPTIONAL, REQUIRED, ROOT, pkg_config
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOT_SOURCE = (
    *(".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__"),
    *(".*_cache", ".hypothesis", ".benchmarks"),
)
BESIDE_CODE = {"CHANGELOG.md", "LICENSE", "README.md", "build_ext.py", "pyproject.toml"}
GENERATED = {"PKG-INFO", "setup.cfg"}
SCRIPTS = Path(sys.executable).parent


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def building(**extra: str) -> dict[str, str]:
    """The environment for a build: ours without what asks for some core, and ``extra``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAYERTEE_")}
    return kept | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | extra


def clean_venv(directory: Path) -> Path:
    """A virtual environment that sees no package but its own pip."""
    venv.create(directory, with_pip=True, symlinks=True)
    return directory / "bin"


def package_files() -> set[str]:
    """The files of the package, relative to engine/."""
    found = [path for path in (ROOT / "engine" / "layertee").rglob("*") if path.is_file()]
    return {
        str(path.relative_to(ROOT / "engine"))
        for path in found
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }


def pull_and_verify(command: Path, server: RegistryServer, scratch: Path, name: str) -> None:
    """Pull a small image with an installed command, in an environment that leads nowhere else."""
    image = build_image(
        scratch / "image",
        [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})],
        compression=["gzip", "zstd"],
    )
    reference = upload(image, f"{name}:small", server)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(scratch)}
    store = str(scratch / "store")
    text = run(command, "pull", "--json", "--tls-verify=false", "--store", store, reference, env=environment)
    pulled = json.loads(text)
    assert [layer["diff_id"] for layer in pulled["layers"]] == [layer.diff_id for layer in image.layers]
    assert {layer["action"] for layer in pulled["layers"]} == {"fetch"}
    run(command, "verify", "--store", store, env=environment)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree as someone left it who had worked in it."""
    root = tmp_path_factory.mktemp("tree") / "layertee"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for junk in (
        *("build/lib/layertee/old.py", "dist/layertee-0.0.1.tar.gz", ".venv/bin/python", "notes.txt"),
        *(
            "engine/layertee/core/_ctee.abi3.so",
            "engine/layertee/core/__pycache__/tee.cpython-311.pyc",
            "csrc/hash/a.o",
        ),
    ):
        path = root / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    return root


@pytest.fixture(scope="module")
def archives(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source archive, and the wheel that was built from the archive."""
    out = tmp_path_factory.mktemp("archives")
    run(sys.executable, "-m", "build", "-o", out, tree, env=building(LAYERTEE_BUILD="require"))
    return out


@pytest.fixture(scope="module")
def repaired(archives: Path) -> Path:
    """The wheel with the libraries that it needs inside."""
    (wheel,) = archives.glob("*.whl")
    run(SCRIPTS / "auditwheel", "repair", "-w", archives / "repaired", wheel, env=building())
    (found,) = (archives / "repaired").glob("*.whl")
    return found


def test_the_version_is_the_packages_own() -> None:
    assert metadata.version("layertee") == layertee.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", layertee.__version__)


def test_the_source_archive_has_what_a_build_needs_and_nothing_else(archives: Path) -> None:
    top = f"layertee-{layertee.__version__}"
    with tarfile.open(archives / f"{top}.tar.gz") as archive:
        names = [member.name for member in archive if not member.isdir()]
    found = {name.removeprefix(f"{top}/") for name in names}
    found = {name for name in found if not name.startswith("engine/layertee.egg-info/")}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.[ch]")}
    package = {f"engine/{name}" for name in package_files()}
    assert found == BESIDE_CODE | GENERATED | sources | package


def test_the_wheel_from_the_archive_has_the_package_and_the_core(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    assert wheel.name.startswith(f"layertee-{layertee.__version__}-cp311-abi3-")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == package_files() | {"layertee/core/_ctee.abi3.so"}


def test_the_core_keeps_to_the_stable_abi_that_the_wheel_promises(repaired: Path) -> None:
    run(SCRIPTS / "abi3audit", "--strict", repaired, env=building())


def test_the_repaired_wheel_carries_every_library_it_was_linked_with(repaired: Path) -> None:
    with zipfile.ZipFile(repaired) as packed:
        carried = [Path(name).name for name in packed.namelist() if re.match(r"layertee\.libs/.", name)]
    wanted = {REQUIRED, *(package for package in OPTIONAL.values() if pkg_config(package) is not None)}
    wanted -= {"zlib"}  # libz.so.1 is one of the libraries that manylinux takes for granted
    assert {name.partition("-")[0] for name in carried} == wanted
    assert "manylinux" in repaired.name


def test_the_wheel_works_in_an_environment_of_its_own(
    repaired: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    scripts = clean_venv(tmp_path / "venv")
    run(scripts / "python", "-m", "pip", "install", "-q", repaired, env=building())
    command = scripts / "layertee"
    assert run(command, "--version", env={}) == f"layertee {layertee.__version__}\n"
    report = run(command, "doctor", "--store", tmp_path / "store", env={})
    assert "core: c\n" in report
    pull_and_verify(command, registry, tmp_path, "packaging/wheel")


def test_without_a_compiler_it_installs_says_so_and_pulls(
    tree: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    found = shutil.which("pkg-config")
    assert found
    (tools / "pkg-config").symlink_to(found)
    scripts = clean_venv(tmp_path / "venv")
    environment = building(PATH=str(tools), CC="/nonexistent/cc")
    log = tmp_path / "pip.log"
    run(scripts / "python", "-m", "pip", "install", "-q", "--log", log, tree, env=environment)
    assert re.search("WARNING: the C core was not built: .*'/nonexistent/cc'", log.read_text())
    command = scripts / "layertee"
    report = run(command, "doctor", "--store", tmp_path / "store", env={})
    assert "core: python\n" in report and "the C core cannot be used: it was not built" in report
    pull_and_verify(command, registry, tmp_path, "packaging/pure")


PKG_CONFIG_WITHOUT_ISAL = """#!/bin/sh
for word; do
	[ "$word" = libisal ] && exit 1
done
exec pkg-config "$@"
"""


def test_a_core_without_libisal_inflates_by_its_own_code_and_refuses_to_be_asked_for_that_one(
    tree: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "pkg-config"
    tool.write_text(PKG_CONFIG_WITHOUT_ISAL)
    tool.chmod(0o755)
    environment = building(LAYERTEE_BUILD="require", PKG_CONFIG=str(tool))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tree, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "package")
    environment = building(PYTHONPATH=str(tmp_path / "package"))
    command = (sys.executable, "-m", "layertee", "doctor", "--store", tmp_path / "store")
    report = run(*command, env=environment)
    assert "core: c\n" in report
    assert "  inflater own: in use\n  inflater isal: not built\n  inflater zlib: available\n" in report
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment | {"LAYERTEE_INFLATE": "isal"}
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "LAYERTEE_INFLATE=isal: the C core was built without it" in done.stderr


def test_a_demanded_core_that_cannot_be_built_fails_the_build_and_says_what_is_missing(
    tree: Path, tmp_path: Path
) -> None:
    environment = building(LAYERTEE_BUILD="require", PKG_CONFIG="/nonexistent/pkg-config")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert "libzstd was not found by pkg-config (Debian: libzstd-dev pkg-config)" in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())
