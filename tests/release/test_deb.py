"""The Debian package, with Debian's own dpkg in a Debian that has no Python."""

from __future__ import annotations

import shutil
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
    *(pytest.mark.slow, pytest.mark.builds("tree", "debian"), pytest.mark.needs("dpkg-deb", "tar", "zstd")),
    pytest.mark.needs_root("only root enters another root"),
]

CONFIGURATION = "/etc/layertee/layertee.toml"
DPKG = ("dpkg", "--force-unsafe-io")  # a power failure would cost a test and no more
STORE = "/var/lib/layertee"
OURS = 'max-rate = "5M"\n'


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """A package and its upgrade."""
    return build_packages("deb", tmp_path_factory.mktemp("debs"), prebuild.program("tree"))


@pytest.fixture
def debian(tmp_path: Path, debs: Packages) -> Path:
    """A Debian, with both packages in /tmp as first.deb and second.deb."""
    root = hosts_without.unpack_debian(prebuild.program("debian"), tmp_path / "debian")
    shutil.copy(debs.first, root / "tmp/first.deb")
    shutil.copy(debs.second, root / "tmp/second.deb")
    return root


def said(root: Path, *command: str) -> str:
    """Standard output of a command of that Debian, which must succeed."""
    done = hosts_without.run_in(root, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_store_and_what_was_configured_outlive_upgrade_and_removal(
    debian: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    said(debian, *DPKG, "--install", "/tmp/first.deb")
    assert said(debian, "layertee", "--version") == f"layertee {layertee.__version__}\n"
    image = build_image(tmp_path / "image", [text_layer({"etc/motd": "hello\n"})], compression="gzip")
    reference = upload(image, "deb/image:1", registry)
    said(debian, "layertee", "pull", PLAIN, reference)
    configuration = debian / CONFIGURATION.lstrip("/")
    configuration.write_text(OURS)

    said(debian, *DPKG, "--install", "/tmp/second.deb")
    assert said(debian, "dpkg-query", "--show", "--showformat=${Version}", "layertee").endswith("-2")
    assert configuration.read_text() == OURS
    assert reference in said(debian, "layertee", "ls", "--json")
    said(debian, "layertee", "verify")

    said(debian, *DPKG, "--remove", "layertee")
    assert not (debian / "usr/lib/layertee").exists() and not (debian / "usr/bin/layertee").is_symlink()
    assert configuration.read_text() == OURS
    assert (debian / STORE.lstrip("/") / "index.json").exists()

    assert f"{STORE}, with the images that were pulled, is left" in said(debian, *DPKG, "--purge", "layertee")
    assert not configuration.parent.exists()
    said(debian, *DPKG, "--install", "/tmp/first.deb")
    assert reference in said(debian, "layertee", "ls", "--json")
    said(debian, "layertee", "verify")


def test_each_file_is_where_hosts_look_for_it_and_is_what_the_package_says(debian: Path) -> None:
    said(debian, *DPKG, "--install", "/tmp/first.deb")
    files = set(said(debian, "dpkg-query", "--listfiles", "layertee").splitlines())
    assert files >= {
        *(CONFIGURATION, "/etc/layertee/pull", "/usr/bin/layertee", "/usr/lib/layertee/shim/skopeo"),
        *("/usr/lib/systemd/system/layertee-pull@.timer", "/usr/share/doc/layertee/copyright"),
        *("/usr/share/man/man1/layertee-pull.1", "/usr/share/man/man5/layertee.toml.5"),
        "/usr/share/bash-completion/completions/layertee",
    }
    assert said(debian, "dpkg", "--verify", "layertee") == ""
    assert said(debian, "layertee", "config")  # what is configured by the package is what layertee takes
    assert not list((debian / "etc").rglob("*.wants/layertee*"))  # no service is enabled


def test_a_running_systemd_hears_of_it(debian: Path) -> None:
    (debian / "run/systemd/system").mkdir(parents=True)
    systemctl = debian / "usr/bin/systemctl"
    systemctl.write_text(RECORDER)
    systemctl.chmod(0o755)
    heard = debian / "tmp/heard"

    def after(*words: str) -> list[str]:
        heard.write_text("")
        said(debian, *DPKG, *words)
        return heard.read_text().splitlines()

    stop = "stop layertee-*.timer layertee-*.socket layertee-*.service"
    assert after("--install", "/tmp/first.deb") == ["daemon-reload"]
    assert after("--install", "/tmp/second.deb") == ["daemon-reload", "try-restart layertee-serve.service"]
    assert after("--remove", "layertee") == [stop, "daemon-reload"]


def test_it_says_which_glibc_it_needs_and_nothing_else(debs: Packages) -> None:
    fields = subprocess.run(
        ["dpkg-deb", "--field", debs.first, "Depends", "Architecture"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert fields.startswith("Depends: libc6 (>= 2.") and "," not in fields


def test_its_maintainer_is_the_author_of_the_project(debs: Packages) -> None:
    field = subprocess.run(
        ["dpkg-deb", "--field", debs.first, "Maintainer"], capture_output=True, text=True, check=True
    ).stdout
    assert field == f"{maintainer()}\n"


def test_the_same_tree_gives_the_same_bytes(debs: Packages, tmp_path: Path) -> None:
    again = build_package("deb", tmp_path, prebuild.program("tree"), "1")
    assert again.read_bytes() == debs.first.read_bytes()
