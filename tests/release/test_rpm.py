"""The rpm package, with rpm's own tools, in a root whose database of packages is empty."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import layertee
from release.project import maintainer
from tests.support.packages import RECORDER, Packages, build_package, build_packages
from tests.support.process import PLAIN
from tests.support.rig import hosts_without, prebuild
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = [
    *(pytest.mark.slow, pytest.mark.builds("tree", "debian"), pytest.mark.needs("rpm", "rpmbuild", "zstd")),
    pytest.mark.needs_root("only root enters another root"),
]

OURS = 'max-rate = "5M"\n'


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """A package and its upgrade."""
    return build_packages("rpm", tmp_path_factory.mktemp("rpms"), prebuild.program("tree"))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A root with glibc and a shell, of which rpm knows nothing."""
    return hosts_without.unpack_debian(prebuild.program("debian"), tmp_path / "host")


def query(package: Path, *words: str) -> list[str]:
    """What rpm reads in a package."""
    done = subprocess.run(["rpm", "-qp", *words, package], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def rpm(root: Path, *words: str | Path) -> str:
    """What rpm says while it works on ``root``."""
    done = subprocess.run(
        ["rpm", "--root", root, "--dbpath", "/var/lib/rpm", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def said(root: Path, *command: str) -> str:
    """Standard output of a command of that host, which must succeed."""
    done = hosts_without.run_in(root, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_store_and_what_was_configured_outlive_upgrade_and_removal(
    host: Path, rpms: Packages, registry: RegistryServer, tmp_path: Path
) -> None:
    rpm(host, "--install", "--nodeps", rpms.first)  # the Debian below has all, but not as packages of rpm's
    assert rpm(host, "--verify", "--nodeps", "layertee") == ""
    assert said(host, "layertee", "--version") == f"layertee {layertee.__version__}\n"
    image = build_image(tmp_path / "image", [text_layer({"etc/motd": "hello\n"})], compression="gzip")
    reference = upload(image, "rpm/image:1", registry)
    said(host, "layertee", "pull", PLAIN, reference)
    configuration = host / "etc/layertee/layertee.toml"
    configuration.write_text(OURS)

    rpm(host, "--upgrade", "--nodeps", rpms.second)
    assert rpm(host, "--query", "layertee").startswith(f"layertee-{layertee.__version__}-2.")
    assert configuration.read_text() == OURS
    said(host, "layertee", "verify")

    rpm(host, "--erase", "layertee")
    assert not (host / "usr/lib/layertee").exists() and not (host / "usr/bin/layertee").is_symlink()
    assert (configuration.parent / "layertee.toml.rpmsave").read_text() == OURS
    assert (host / "var/lib/layertee/index.json").exists()
    rpm(host, "--install", "--nodeps", rpms.first)
    assert reference in said(host, "layertee", "ls", "--json")
    said(host, "layertee", "verify")


def test_a_running_systemd_hears_of_it(host: Path, rpms: Packages) -> None:
    (host / "run/systemd/system").mkdir(parents=True)
    systemctl = host / "usr/bin/systemctl"
    systemctl.write_text(RECORDER)
    systemctl.chmod(0o755)
    heard = host / "tmp/heard"

    def after(*words: str | Path) -> list[str]:
        heard.write_text("")
        rpm(host, *words)
        return heard.read_text().splitlines()

    stop = "stop layertee-*.timer layertee-*.socket layertee-*.service"
    assert after("--install", "--nodeps", rpms.first) == []  # systemd's own package looks after new units
    assert after("--upgrade", "--nodeps", rpms.second) == [
        "daemon-reload",
        "try-restart layertee-serve.service",
    ]
    assert after("--erase", "layertee") == [stop, "daemon-reload"]


def test_it_needs_glibc_and_a_shell_and_provides_only_itself(rpms: Packages) -> None:
    needed = {line for line in query(rpms.first, "--requires") if not line.startswith("rpmlib(")}
    glibc = {line for line in needed if line.startswith("libc.so.6(GLIBC_2.")}
    assert len(glibc) == 1 and needed - glibc <= {"/bin/sh", "config(layertee) = 0.1.0-1"}
    assert all(line.startswith(("layertee", "config(layertee)")) for line in query(rpms.first, "--provides"))


def test_its_packager_is_the_author_of_the_project(rpms: Packages) -> None:
    assert query(rpms.first, "--queryformat", "%{PACKAGER}") == [maintainer()]


def test_each_file_is_where_hosts_look_for_it_and_what_is_configured_is_kept(rpms: Packages) -> None:
    assert set(query(rpms.first, "--list")) >= {
        *("/etc/layertee/layertee.toml", "/etc/layertee/pull", "/usr/bin/layertee"),
        *("/usr/lib/layertee/bin/layertee", "/usr/lib/layertee/shim/skopeo"),
        *("/usr/lib/systemd/system/layertee-pull@.timer", "/usr/share/doc/layertee/copyright"),
        *("/usr/share/man/man1/layertee-pull.1", "/usr/share/zsh/site-functions/_layertee"),
    }
    assert query(rpms.first, "--configfiles") == ["/etc/layertee/layertee.toml"]
    shown = query(rpms.first, "--queryformat", "[%{FILEUSERNAME} %{FILEGROUPNAME}\n]")
    assert set(shown) == {"root root"}
    # Directories that other packages have are not ours to own.
    assert not {"/usr", "/usr/bin", "/usr/lib", "/usr/lib/systemd/system", "/etc"} & set(
        query(rpms.first, "--list")
    )


def test_the_same_tree_gives_the_same_bytes(rpms: Packages, tmp_path: Path) -> None:
    again = build_package("rpm", tmp_path, prebuild.program("tree"), "1")
    assert again.read_bytes() == rpms.first.read_bytes()
