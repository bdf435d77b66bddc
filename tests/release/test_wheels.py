"""The wheels of a release: what is inside, that two builds are the same bytes, and that they work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import layertee
from release import elf, lock, wheels
from release.project import ARCHITECTURES, ReleaseError
from tests.support.ccore import arm_missing, compilers
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import program
from tests.support.rig.registry import RegistryServer
from tests.support.wheels import arm_python, unpack

ROOT = Path(__file__).resolve().parents[2]
NAME = f"layertee-{layertee.__version__}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.builds("wheels")]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m release wheels`` made of these sources."""
    return unpack(program("wheels"), tmp_path_factory.mktemp("dist"))


def wheel(dist: Path, kind: str) -> Path:
    """The wheel for an architecture, or "any"."""
    (found,) = dist.glob(f"*_{kind}.whl" if kind != "any" else "*-any.whl")
    return found


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_a_release_has_a_source_archive_a_wheel_for_each_architecture_and_one_for_all(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {
        f"{NAME}.tar.gz",
        f"{NAME}-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        f"{NAME}-cp311-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        f"{NAME}-py3-none-any.whl",
    }


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_core_is_hardened_shows_one_name_and_asks_for_an_old_glibc(dist: Path, machine: str) -> None:
    core = wheels.inspect(wheel(dist, machine))
    assert core.machine == machine
    assert core.missing == ()
    assert core.exported == {"PyInit__ctee"}
    assert core.glibc <= (2, 17)
    # The C library's own, which know the CPU, and no copies of a compiler's.
    assert {"memcpy", "memset"} <= core.imported


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_wheel_carries_libisal_and_needs_of_the_machine_only_the_c_library(
    dist: Path, machine: str
) -> None:
    with zipfile.ZipFile(wheel(dist, machine)) as packed:
        (carried,) = (name for name in packed.namelist() if re.match(r"layertee\.libs/.", name))
    assert re.fullmatch(r"layertee\.libs/libisal-[0-9a-f]+\.so\.2\.[0-9.]+", carried)
    of_libc = {"libc.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"}
    assert set(wheels.inspect(wheel(dist, machine)).needed) <= of_libc | {Path(carried).name}


def test_abi3audit_finds_nothing_beyond_the_stable_abi(dist: Path) -> None:
    tool = Path(sys.executable).with_name("abi3audit")
    for machine in ARCHITECTURES:
        run(tool, "--strict", wheel(dist, machine))


def test_the_wheel_without_the_core_has_the_same_python_and_is_for_any_machine(dist: Path) -> None:
    with zipfile.ZipFile(wheel(dist, "any")) as pure, zipfile.ZipFile(wheel(dist, "x86_64")) as full:
        tags = message_from_bytes(pure.read(f"{NAME}.dist-info/WHEEL"))
        assert tags["Root-Is-Purelib"] == "true" and tags["Tag"] == "py3-none-any"
        ours = {name for name in full.namelist() if name.endswith((".py", ".pyi"))}
        assert {name for name in pure.namelist() if name.startswith("layertee/")} == ours | {
            "layertee/py.typed"
        }
        assert [name for name in ours if pure.read(name) != full.read(name)] == []


def test_two_builds_in_different_directories_are_the_same_bytes(tmp_path: Path) -> None:
    made: list[dict[str, bytes]] = []
    for name in ("first", "second/below"):
        place = tmp_path / name
        place.mkdir(parents=True)
        # Another umask, another time zone: what a second person's machine has.
        shell = f'umask {"022" if made else "077"}; exec "$@"'
        words = ["-m", "release", "wheels", "--arch", "aarch64", "--arch", "pure"]
        words += ["--out", str(place / "dist"), "--work", str(place / "work")]
        environment = {**os.environ, "TZ": "UTC" if made else "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1700000000"}
        run("sh", "-c", shell, "sh", sys.executable, *words, cwd=ROOT, env=environment)
        made.append({path.name: path.read_bytes() for path in (place / "dist").iterdir()})
    first, second = made
    assert sorted(first) == sorted(second) and len(first) == 3
    assert [name for name in first if first[name] != second[name]] == []


def test_no_file_in_the_source_archive_tells_who_packed_it(dist: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        members = archive.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert len({member.mtime for member in members}) == 1


def test_a_library_without_the_flags_is_found_out(tmp_path: Path) -> None:
    source = tmp_path / "plain.c"
    source.write_text("int entry(void) { return 1; }\n")
    library = tmp_path / "plain.so"
    flags = ("-fno-stack-protector", "-U_FORTIFY_SOURCE", "-fcf-protection=none", "-Wl,-z,norelro,-z,lazy")
    if os.uname().machine != "x86_64":
        pytest.skip("the flags are those of x86")
    run(compilers()[0], "-shared", "-fPIC", *flags, "-Wl,-z,execstack", "-o", library, source)
    found = elf.read(library, "entry")
    for flag in ("-z relro", "-z now", "-z noexecstack", "-fstack-protector", "FORTIFY", "-fcf-protection"):
        assert any(flag in line for line in found.missing), flag
    with pytest.raises(ReleaseError, match=r"plain\.c is no library"):
        elf.read(source)


def pull_with(
    command: list[str], env: dict[str, str], registry: RegistryServer, scratch: Path, name: str
) -> list[str]:
    """Pull a small image and verify it; the DiffIDs that were found."""
    image = build_image(
        scratch / "image",
        [text_layer({"etc/os-release": "NAME=small\n" * 20_000}), text_layer({"etc/motd": "hello\n"})],
        compression=["gzip", "zstd"],
    )
    reference = upload(image, f"release/{name}:small", registry)
    store = str(scratch / "store")
    said = run(*command, "pull", "--json", "--tls-verify=false", "--store", store, reference, env=env)
    found = [layer["diff_id"] for layer in json.loads(said)["layers"]]
    assert found == [layer.diff_id for layer in image.layers]
    run(*command, "verify", "--store", store, env=env)
    return found


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, and all else by the hashes of the lock."""
    scripts = tmp_path_factory.mktemp("venv") / "bin"
    run(sys.executable, "-m", "venv", scripts.parent)
    pip = (scripts / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock.LOCKS / "run.txt")
    run(*pip, "--no-deps", "--no-index", wheel(dist, "x86_64"))
    return scripts


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the wheel is for another machine")
def test_the_wheel_works_with_the_locked_packages_and_nothing_else(
    installed: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    run(installed / "python", "-m", "pip", "check")
    command = [str(installed / "layertee")]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    report = run(*command, "doctor", "--store", tmp_path / "store", env=env)
    assert report.startswith("core: c\n") and "compiled by clang" in report
    pull_with(command, env, registry, tmp_path, "wheel")


@pytest.mark.builds("arm-root")
def test_the_wheel_for_armv8_pulls_with_the_core_and_the_instructions_of_that_cpu(
    dist: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    if why := arm_missing():
        pytest.skip(why)
    command, env = arm_python(program("arm-root"), wheel(dist, "aarch64"), tmp_path)
    command += ["-m", "layertee"]
    report = run(*command, "doctor", "--store", tmp_path / "store", env=env)
    assert report.startswith("core: c\n")
    assert "  inflater own: in use\n  inflater isal: available\n  inflater zlib: available\n" in report
    assert "  sha256 kernel armv8: 2 lane(s), in use\n  sha256 kernel openssl: 1 lane(s)\n" in report
    pull_with(command, env, registry, tmp_path, "arm")
