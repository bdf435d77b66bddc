"""What goes with the wheels of a release: the list of what is inside, requirements by hashes, SHA256SUMS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import layertee
from release import lock, sbom
from release.project import ARCHITECTURES
from tests.support.rig.prebuild import program
from tests.support.wheels import unpack

ROOT = Path(__file__).resolve().parents[2]
NAME = f"layertee-{layertee.__version__}"

pytestmark = [pytest.mark.slow, pytest.mark.builds("wheels")]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels, and what is made out of them."""
    out = unpack(program("wheels"), tmp_path_factory.mktemp("dist"))
    for command in ("requirements", "sbom", "sums"):
        release(command, out)
    return out


def release(command: str, out: Path) -> None:
    words = [sys.executable, "-m", "release", command, "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def valid(text: str) -> dict[str, dict[str, str]]:
    """The components of a list that CycloneDX's own schema allows, by their names."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return {found["bom-ref"]: found for found in json.loads(text)["components"]}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_wheel_lists_the_c_libraries_that_it_carries(dist: Path, machine: str) -> None:
    (wheel,) = dist.glob(f"*_{machine}.whl")
    with zipfile.ZipFile(wheel) as packed:
        found = valid(packed.read(sbom.IN_WHEEL).decode())
        names = {name for name in packed.namelist() if not name.endswith("/")}
        recorded = packed.read(f"{NAME}.dist-info/RECORD").decode().splitlines()
    assert {ref.partition("@")[0] for ref in found} == {
        *(f"pkg:deb/debian/{name}" for name in ("libisal2", "libssl-dev", "libzstd-dev", "zlib1g-dev")),
        "pkg:pypi/ziglang",
    }
    assert all(f"arch={ARCHITECTURES[machine]}" in ref for ref in found if ref.startswith("pkg:deb"))
    assert {line.rpartition(",")[0].rpartition(",")[0] for line in recorded} == names


def test_the_list_of_the_release_has_what_is_locked_and_what_the_wheels_carry(dist: Path) -> None:
    found = valid((dist / f"{NAME}.cdx.json").read_text())
    for name, line in lock.locked("run.txt").items():
        assert f"pkg:pypi/{name}@{lock.version_of(line)}" in found
    for machine in ARCHITECTURES.values():
        assert any(ref.startswith("pkg:deb/debian/libssl-dev@") and f"arch={machine}" in ref for ref in found)


def test_the_requirements_name_every_wheel_by_its_hash_and_pip_takes_the_one_that_fits(dist: Path) -> None:
    name = f"{NAME}-requirements.txt"
    found = lock.parse((dist / name).read_text(), name)
    assert set(found) == {"layertee", *lock.locked("run.txt")}
    words = (
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--require-hashes",
        "--no-index",
        "--find-links",
        ".",
    )
    (dist / "ours.txt").write_text((dist / name).read_text().partition("\naiohappyeyeballs")[0] + "\n")
    subprocess.run([sys.executable, *words, "-r", "ours.txt", "-d", "taken"], check=True, cwd=dist)
    (taken,) = (dist / "taken").iterdir()
    assert taken.name.startswith(f"{NAME}-cp311-abi3-")
    shutil.rmtree(dist / "taken")
    (dist / "ours.txt").unlink()


def test_sha256sum_finds_all_files_as_they_were_and_one_that_was_not(dist: Path, tmp_path: Path) -> None:
    names = {line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert names == {path.name for path in dist.iterdir()} - {"SHA256SUMS"}
    copy = shutil.copytree(dist, tmp_path / "copy")
    assert check(copy).returncode == 0
    with (copy / f"{NAME}.tar.gz").open("ab") as file:
        file.write(b"\0")
    assert f"{NAME}.tar.gz: FAILED" in check(copy).stdout


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "-c", "SHA256SUMS"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
